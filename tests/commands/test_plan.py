"""The demo's nodes have three speeds, fit the machine, and hold large networks in pieces only."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.commands.demo.plan import PlanError, largest_network, plan_nodes, whole_bytes
from splitplace.messages.application import Application
from splitplace.messages.limits import PREPARED_FROM_BYTES
from splitplace.policies.memory import preparing_bytes
from tests.support.tiny_application import build_tiny_application


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Application:
    return build_tiny_application(tmp_path_factory.mktemp("store"))


def largest(application: Application, variant: str) -> int:
    stages = application.variant(variant).stages
    return max(application.fragment(stage.fragment).peak_memory_bytes for stage in stages)


def test_six_nodes_are_two_of_each_speed(application: Application) -> None:
    nodes = plan_nodes(6, 2, [application])
    assert [node.name for node in nodes] == ["fast-1", "fast-2", "medium-1", "medium-2", "slow-1", "slow-2"]
    assert [node.cpu_share for node in nodes] == [0.28, 0.28, 0.16, 0.16, 0.1, 0.1]


@given(count=st.integers(6, 200), cores=st.integers(1, 64))
def test_all_shares_together_stay_well_below_the_cores(
    application: Application, count: int, cores: int
) -> None:
    nodes = plan_nodes(count, cores, [application])
    assert len({node.name for node in nodes}) == count
    assert sum(node.cpu_share for node in nodes) <= 0.56 * cores
    assert len({node.cpu_share for node in nodes}) == 3
    assert all(node.cpu_share > 0 for node in nodes)


def test_no_node_can_hold_the_largest_network_and_fast_ones_hold_the_others(
    application: Application, tmp_path: Path
) -> None:
    small = build_tiny_application(tmp_path, name="small", peak_memory_bytes=80_000)
    budgets = {node.name: node.memory_budget_bytes for node in plan_nodes(6, 2, [small, application])}
    assert largest_network([small, application]) is application
    assert budgets["slow-1"] < budgets["medium-1"] < budgets["fast-1"] < largest(application, "whole")
    assert budgets["fast-1"] > largest(small, "whole")


def test_a_network_with_large_weights_needs_the_memory_of_its_preparation(tmp_path: Path) -> None:
    heavy = build_tiny_application(tmp_path, weight_bytes=PREPARED_FROM_BYTES)
    assert whole_bytes(heavy) == preparing_bytes(heavy.fragment(heavy.variant("whole").stages[0].fragment))


def test_every_piece_of_a_split_network_fits_the_slowest_node(application: Application) -> None:
    slowest = plan_nodes(6, 2, [application])[-1]
    assert max(largest(application, "layer"), largest(application, "semantic")) <= slowest.memory_budget_bytes


def test_fewer_than_six_nodes_are_refused(application: Application) -> None:
    with pytest.raises(PlanError, match="at least 6"):
        plan_nodes(5, 2, [application])


@pytest.mark.parametrize("kept", [("whole",), ("layer",)])
def test_an_application_that_is_not_really_split_is_refused(
    application: Application, kept: tuple[str, ...]
) -> None:
    variants = tuple(application.variant(name) for name in kept)
    with pytest.raises(PlanError, match="not larger than the largest piece"):
        plan_nodes(6, 2, [application.model_copy(update={"variants": variants})])


def test_without_applications_there_is_no_plan() -> None:
    with pytest.raises(PlanError, match="no application"):
        plan_nodes(6, 2, [])
