"""An application whose stages may be grouped anew: made-up pieces with given costs, and no files."""

from collections.abc import Sequence

from splitplace.messages.application import Application, Fragment
from splitplace.messages.pieces import Chain, NamedChain, NamedTensor, OperatorSet, Piece, PieceCost
from splitplace.messages.tensors import TensorSpec
from tests.support import examples
from tests.support.chains import run_of

MEGABYTE = 1_000_000


def free_application(
    pieces: int = 4,
    *,
    image_ms: Sequence[float] = (),
    weight_megabytes: float = 1.0,
    crossing: Sequence[int] = (),
    wide: Sequence[int] = (),
    most_stages: int = 16,
    micro_batch: int = 4,
) -> Application:
    """Return `whole` and `layer` over one chain; the manifest cuts `layer` in the middle.

    Args:
        pieces: number of pieces, at least 2.
        image_ms: time of an image in each; 1 ms by default.
        weight_megabytes: weights of each.
        crossing: floats that cross between neighbouring pieces; 10 by default.
        wide: places at which two tensors cross.
        most_stages: of `layer`.
        micro_batch: of both variants.
    """
    between = [TensorSpec(dtype="float32", shape=(size,)) for size in crossing or (10,) * (pieces - 1)]
    specs = [examples.PIXELS, *between, examples.LOGITS]
    chain = Chain(
        ir_version=9,
        opsets=(OperatorSet(domain="", version=20),),
        pieces=tuple(
            Piece(
                graph=f"{2 * place:064x}",
                graph_bytes=1000,
                weights=f"{2 * place + 1:064x}",
                weights_bytes=int(weight_megabytes * MEGABYTE),
            )
            for place in range(pieces)
        ),
        bundles=tuple(
            tuple(NamedTensor(name=f"t{place}.{index}", spec=spec) for index in range(1 + (place in wide)))
            for place, spec in enumerate(specs)
        ),
    )
    costs = tuple(
        PieceCost(
            milliseconds_per_image=each_ms,
            weight_bytes=int(weight_megabytes * MEGABYTE),
            activation_bytes_per_image=1000,
            flops_per_image=1.0,
        )
        for each_ms in image_ms or (1.0,) * pieces
    )
    named = NamedChain(name="net", chain=chain, costs=costs)
    whole = _run(named, 0, pieces)
    halves = [_run(named, 0, pieces // 2), _run(named, pieces // 2, pieces)]
    layer = examples.chain("layer", halves, micro_batch=micro_batch)
    return Application.model_validate(
        {
            "name": "free",
            "title": "Made up",
            "input": examples.PIXELS,
            "labels": ("no", "yes"),
            "default_deadline_ms": 100.0,
            "reference_score": examples.REFERENCE_SCORE,
            "variants": (
                examples.chain("whole", [whole], micro_batch=micro_batch),
                layer.model_copy(update={"most_stages": most_stages}),
            ),
            "fragments": (whole, *halves),
            "chains": (named,),
        }
    )


def _run(named: NamedChain, first: int, end: int) -> Fragment:
    costs = named.costs[first:end]
    return run_of(
        named,
        first,
        end,
        weight_bytes=sum(cost.weight_bytes for cost in costs),
        peak_memory_bytes=sum(cost.weight_bytes for cost in costs) + 4000,
        milliseconds_per_image=sum(cost.milliseconds_per_image for cost in costs),
        milliseconds_per_call=0.0,
    )
