"""Clusters at random, and placements that must be there."""

from random import Random

from splitplace.messages.application import Application
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import Infeasible, Placement
from splitplace.policies.stage_work import StageWork
from tests.support.examples import all_of, cluster, fragment, node


def placed(found: Placement | Infeasible) -> Placement:
    assert isinstance(found, Placement), found
    return found


def random_view(seed: int, app: Application) -> ClusterView:
    random = Random(seed)
    fragments = all_of(app)
    view = cluster(
        *(
            node(
                f"n{index}",
                speed=random.choice([0, 0.25, 1, 2]),
                megabytes=random.choice([5, 15, 40]),
                link=random.choice([0, 1, 10, 100]),
                up=random.choice([None, 0, 0.1, 50]),
                round_trip_ms=random.choice([0, 3, 200]),
                queue_ms=random.choice([0, 0, 20]),
                loaded=random.sample(fragments, random.randint(0, len(fragments))),
                online=random.random() < 0.9,
            )
            for index in range(random.randint(0, 6))
        ),
        broker=random.choice([None, None, 0.2, 20.0]),
    )
    for index in range(random.randint(0, 3)):
        input_bytes = random.choice([0, 1000, 100_000])
        work = StageWork(f"n{index}", fragment("x", megabytes=10), 30.0, input_bytes=input_bytes)
        view.placed(f"c.{index}", 1, [work], 0.0)
    return view
