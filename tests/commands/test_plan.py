"""The demo's nodes have three speeds, fit the machine, and do not all fit the whole network."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.commands.demo.plan import PlanError, plan_nodes
from splitplace.messages.application import Application
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


def test_the_whole_network_fits_fast_nodes_and_not_slow_ones(application: Application) -> None:
    budgets = {node.name: node.memory_budget_bytes for node in plan_nodes(6, 2, [application])}
    whole = largest(application, "whole")
    assert budgets["slow-1"] < whole < budgets["medium-1"] < budgets["fast-1"]


def test_every_piece_of_a_split_network_fits_the_slowest_node(application: Application) -> None:
    slowest = plan_nodes(6, 2, [application])[-1]
    assert max(largest(application, "layer"), largest(application, "semantic")) <= slowest.memory_budget_bytes


def test_fewer_than_six_nodes_are_refused(application: Application) -> None:
    with pytest.raises(PlanError, match="at least 6"):
        plan_nodes(5, 2, [application])


def test_an_application_that_is_not_really_split_is_refused(application: Application) -> None:
    whole_only = application.model_copy(update={"variants": (application.variant("whole"),)})
    assert plan_nodes(6, 2, [whole_only])  # it has no pieces: nothing of it needs to fit the slow nodes
    chain_only = application.model_copy(update={"variants": (application.variant("layer"),)})
    with pytest.raises(PlanError, match="no whole network"):
        plan_nodes(6, 2, [chain_only])
