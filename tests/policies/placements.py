"""Clusters at random, and placements that must be there."""

from random import Random

from splitplace.messages.application import Application
from splitplace.policies.cluster import ClusterView, StageWork
from splitplace.policies.placement import Infeasible, Placement
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
        )
    )
    for index in range(random.randint(0, 3)):
        view.placed(f"c.{index}", 1, [StageWork(f"n{index}", fragment("x", megabytes=10), 30.0)], 0.0)
    return view
