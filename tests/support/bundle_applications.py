"""Applications of a chain of pieces without files, between bundles of several tensors."""

from typing import Any

from splitplace.messages.application import INPUT, Application, Stage
from splitplace.messages.pieces import Chain, NamedChain, NamedTensor
from tests.support.chains import COST, nominal_chain, run_of
from tests.support.message_examples import LOGITS, application, variant


def chain_of(*bundles: tuple[NamedTensor, ...]) -> NamedChain:
    """A chain of pieces without files, between these bundles."""
    pieces = [
        piece
        for number in range(len(bundles) - 1)
        for piece in nominal_chain(f"piece-{number}", LOGITS, LOGITS, 10).chain.pieces
    ]
    chain = nominal_chain("net", LOGITS, LOGITS).chain
    fields = dict(chain) | {"pieces": tuple(pieces), "bundles": bundles}
    return NamedChain(name="net", chain=Chain(**fields), costs=(COST,) * len(pieces))


def app_of(*bundles: tuple[NamedTensor, ...], **changes: Any) -> Application:
    """An application of one chain, a stage for each piece."""
    chain = chain_of(*bundles)
    fragments = tuple(run_of(chain, number, number + 1) for number in range(len(bundles) - 1))
    names = [INPUT, *(f"s{number}" for number in range(len(fragments)))]
    classes = changes.pop("classes", () if "outputs" in changes else (0, 1, 2, 3))
    stages = [
        Stage(name=name, fragment=fragment.sha256, source=source)
        for name, source, fragment in zip(names[1:], names, fragments, strict=False)
    ]
    stages[-1] = stages[-1].model_copy(update={"classes": classes})
    fields: dict[str, Any] = {
        "input": bundles[0][0].spec,
        "inputs": bundles[0] if len(bundles[0]) > 1 else (),
        "variants": (variant("layer", *stages),),
        "fragments": fragments,
        "chains": (chain,),
    }
    return application(**(fields | changes))
