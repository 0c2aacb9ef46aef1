"""DASO without its gradient, and with the start that equation 12 prints."""

import numpy as np
import pytest

from splitplace.policies.placement import Placement, PlacementRequest
from splitplace.policies.placement import daso as module
from splitplace.policies.placement.daso import Search, SurrogatePlacement
from splitplace.policies.placement.search import softmax
from splitplace.policies.placement.surrogate import Array
from splitplace.policies.placement.weights import pretrained_weights
from tests.support.examples import all_of, cluster, job, node, three_ways

APP = three_ways(image_ms=10)
VIEW = cluster(*(node(name, loaded=all_of(APP)) for name in "abc"))


def policy(search: Search) -> SurrogatePlacement:
    weights = pretrained_weights("daso")
    return SurrogatePlacement(weights, np.random.default_rng(0), decision_aware=True, search=search)


def place(one: SurrogatePlacement, task: str = "c.t") -> Placement:
    found = one.place(PlacementRequest(task, job(APP, "whole", 4), 5.0, 800.0), VIEW, 0.0)
    assert isinstance(found, Placement)
    return found


def test_without_its_gradient_it_never_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("the gradient was asked for")

    monkeypatch.setattr(module, "mirror_ascent", forbidden)
    assert place(policy("no-gradient")).nodes


def test_a_warm_start_begins_where_the_latest_task_of_the_same_kind_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts: list[Array] = []

    def seen(_surrogate: object, start: Array, _allowed: object) -> Array:
        starts.append(start)
        return softmax(start)

    monkeypatch.setattr(module, "mirror_ascent", seen)
    warm = policy("warm-start")
    first = place(warm, "c.1").nodes["whole-0"]
    place(warm, "c.2")
    assert abs(starts[0]).max() < module.STAY / 2
    assert VIEW.columns.names[int(starts[1][0].argmax())] == first
    assert starts[1].max() > module.STAY / 2
