"""Small worlds and applications with round numbers."""

import hashlib
from collections.abc import Sequence

from splitplace.messages.application import INPUT, Application, Fragment, Stage, Variant
from splitplace.messages.tensors import TensorSpec
from splitplace.policies.prediction import Job
from splitplace.simulator.hosts import Host
from splitplace.simulator.world import Surroundings, World

SCORE = 100.0


def host(**changes: object) -> Host:
    """Score 100, 1 GB of memory, 1 MB/s, no latency; 10 W idle and 20 W busy."""
    plain: dict[str, object] = {
        "kind": "toy",
        "score": SCORE,
        "memory_megabytes": 1000.0,
        "swap_slowness": 11.0,
        "megabytes_per_second": 1.0,
        "watts": (10.0, 20.0),
    }
    return Host.model_validate({**plain, **changes})


def world(*names: str, broker: float = 1000.0, **changes: object) -> World:
    """Equal hosts of these names around a broker of that many MB/s; `changes` concern the hosts."""
    return World([(name, host(**changes)) for name in names], Surroundings(broker))


def fragment(name: str, *, image_ms: float = 1.0, kilobytes: tuple[int, int] = (1, 1)) -> Fragment:
    """A fragment that takes `image_ms` on a host of score 100, and 100 MB of memory, half of it weights."""
    return Fragment(
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        file_bytes=1,
        weight_bytes=50_000_000,
        peak_memory_bytes=100_000_000,
        flops_per_image=0.0,
        milliseconds_per_image=image_ms,
        milliseconds_per_call=0.0,
        input=TensorSpec(dtype="uint8", shape=(1000 * kilobytes[0],)),
        output=TensorSpec(dtype="uint8", shape=(1000 * kilobytes[1],)),
    )


def job(
    fragments: Sequence[Fragment], *, chain: bool = True, batch: int = 10, micro_batch: int = 1024
) -> Job:
    """A chain or a star of fragments."""
    stages = tuple(
        Stage(name=f"s{n}", fragment=one.sha256, source=f"s{n - 1}" if chain and n else INPUT)
        for n, one in enumerate(fragments)
    )
    variant = Variant(
        name="layer" if chain else "semantic",
        kind="layer" if chain else "semantic",
        stages=stages,
        micro_batch=micro_batch,
        accuracy=0.9,
        accuracy_images=1,
    )
    application = Application.model_construct(
        name="toy",
        title="",
        input=fragments[0].input,
        labels=(),
        default_deadline_ms=1000.0,
        reference_score=SCORE,
        variants=(variant,),
        fragments=tuple(dict.fromkeys(fragments)),
        chains=(),
    )
    return Job(application, variant, batch)
