"""Questions with round numbers: a network of 80 ms an image."""

from splitplace.planning.kinds import Cluster, NodeGroup, NodeKind
from splitplace.planning.question import Question
from splitplace.simulator.calibration import Calibration, Check, Range, Reach
from tests.support.free_stages import free_application

APPLICATION = free_application(4, image_ms=(20.0, 20.0, 20.0, 20.0))
SPEED = APPLICATION.reference_score
"""Speed at which it takes so long."""
REACH = Reach(
    node_scores=Range(least=SPEED / 2, greatest=2 * SPEED),
    batch=Range(least=1.0, greatest=16.0),
    links=Range(least=10.0, greatest=100.0),
    nodes=3,
    applications=("tiny",),
)
CALIBRATION = Calibration(measured_on="a made-up run", tasks=100, reach=REACH)
CHECK = Check(
    tasks=50,
    live_hit_rate=0.90,
    simulated_hit_rate=0.94,
    live_p50_ms=120.0,
    simulated_p50_ms=100.0,
    live_p95_ms=200.0,
    simulated_p95_ms=200.0,
)


def kind(**changes: object) -> NodeKind:
    plain: dict[str, object] = {"speed": SPEED, "memory": 1000.0, "link": 100.0, "latency_ms": 0.0}
    return NodeKind.model_validate({**plain, **changes})


def cluster(count: int = 1, **changes: object) -> Cluster:
    return Cluster(groups=(NodeGroup(name="shed", count=count, kind=kind(**changes)),))


def question(**changes: object) -> Question:
    plain: dict[str, object] = {
        "cluster": cluster(),
        "application": APPLICATION,
        "calibration": CALIBRATION,
        "rate": 1.0,
        "deadline_ms": 1000.0,
        "policy": "rule+earliest-finish",
        "arms": frozenset({"whole"}),
        "tasks": 30,
        "seeds": 3,
    }
    return Question(**{**plain, **changes})  # type: ignore[arg-type]
