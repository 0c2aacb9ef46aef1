"""Applications of every kind of answer, without networks."""

from splitplace.messages.answer_kinds import AnswerKind
from splitplace.messages.application import Application, Stage, Variant
from splitplace.messages.pieces import NamedTensor
from splitplace.messages.tensors import TensorSpec
from tests.support.chains import nominal_chains, nominal_run

PICTURE = TensorSpec(dtype="uint8", shape=(3, 64, 96))


def kind_application(
    answer: AnswerKind,
    output: TensorSpec,
    labels: tuple[str, ...] = ("cat", "dog"),
    *,
    name: str = "kinds",
    source: TensorSpec = PICTURE,
) -> Application:
    """An application with the one variant `whole`, whose one stage `s` gives this output."""
    fragment = nominal_run("whole", source, output)
    return Application(
        name=name,
        title="Of a kind",
        input=source,
        outputs=(NamedTensor(name="target", spec=output),),
        answer=answer,
        labels=labels,
        default_deadline_ms=1000.0,
        reference_score=50.0,
        variants=(
            Variant(
                name="whole",
                kind="whole",
                stages=(Stage(name="s", fragment=fragment.sha256, source="input"),),
                micro_batch=2,
                accuracy=0.5,
                accuracy_images=0,
            ),
        ),
        fragments=(fragment,),
        chains=nominal_chains([fragment]),
    )
