"""The table of experiments is consistent in itself and says what the paper prints."""

import pytest

from splitplace.experiments.catalogue import EXPERIMENTS, experiment
from splitplace.experiments.metrics import METRICS
from splitplace.experiments.plan import Cell, Courses, Experiment, Printed, TimeLines
from splitplace.policies.memory import preparing_bytes
from splitplace.policies.pairs import parse_policy
from splitplace.simulator import Scenario
from splitplace.simulator.hosts import machines

every_experiment = pytest.mark.parametrize("each", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())


@every_experiment
def test_every_metric_is_known(each: Experiment) -> None:
    drawn = [key for plot in each.plots if not isinstance(plot, TimeLines | Courses) for key in plot.metrics]
    claimed = [cell.metric for claim in each.claims for pair in claim.pairs for cell in pair]
    for key in (*each.metrics, *drawn, *claimed, *each.tested, *(cell.metric for cell in each.printed)):
        assert METRICS.of(key).label


@every_experiment
def test_claims_and_printed_numbers_speak_of_policies_and_cases_that_are_run(each: Experiment) -> None:
    cases = {case.name for case in each.cases}
    cells = [cell for claim in each.claims for pair in claim.pairs for cell in pair]
    for cell in (*cells, *each.printed):
        assert cell.policy in {row.name for row in each.rows}
        assert cell.case in cases
    assert set(each.references) <= {row.name for row in each.rows}


@every_experiment
def test_cases_pictures_and_policies_have_names_of_their_own(each: Experiment) -> None:
    for names in (
        [case.name for case in each.cases],
        [plot.file for plot in each.plots],
        [row.name for row in each.rows],
    ):
        assert len(set(names)) == len(names)


@every_experiment
def test_every_case_is_a_scenario_and_every_policy_is_one_that_can_be_simulated(each: Experiment) -> None:
    for case in each.cases:
        Scenario.model_validate(case.changes)
    for row in each.rows:
        assert "+".join(parse_policy(row.policy, more_splits=["oracle", "upper-bound"])) == row.policy


@every_experiment
def test_at_least_five_seeds_are_run(each: Experiment) -> None:
    assert each.seeds >= 5


@pytest.mark.parametrize(
    ("figure", "name"),
    [("fig7", "table4"), ("fig8", "table4"), ("fig11", "fig9"), ("fig15", "fig13"), ("fig17", "fig16")],
)
def test_every_figure_of_the_paper_leads_to_the_experiment_that_repeats_it(figure: str, name: str) -> None:
    assert experiment(figure).name == name


def test_figures_two_to_nineteen_that_show_measurements_are_all_repeated() -> None:
    names = {experiment(f"fig{number}").name for number in (2, *range(6, 20))}
    assert names == {"table4", "fig2", "fig6", "fig9", "fig10", "fig13", "fig16", "fig18", "fig19"}


def test_the_network_of_real_size_fits_the_large_nodes_only_and_its_stages_fit_the_small_ones() -> None:
    for case, whole_fits in zip(EXPERIMENTS["fig2-real"].cases, (False, True), strict=True):
        scenario = Scenario.model_validate({**EXPERIMENTS["fig2-real"].scenario, **case.changes})
        (network,) = (each for each in scenario.workload().applications if each.name in (scenario.mix or {}))
        (host,) = machines(scenario.machines_name).host
        room = 1e6 * host.memory_megabytes * scenario.memory_factor
        needs = {
            variant.name: max(preparing_bytes(network.fragment(stage.fragment)) for stage in variant.stages)
            for variant in network.variants
        }
        assert (needs.pop("whole") <= room) == whole_fits
        assert all(need <= room for need in needs.values())


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        experiment("fig99")


def test_table_4_is_copied_as_printed() -> None:
    printed = EXPERIMENTS["table4"].printed
    assert printed[Cell("mab+daso", "reward")] == Printed(94.18)
    assert printed[Cell("mab+daso", "response_intervals.mean")] == Printed(4.50, 1.00)
    assert printed[Cell("gillis+gobi", "wait_intervals")] == Printed(1.40, 0.18)
    assert printed[Cell("layer+gobi", "sla_violation_rate")] == Printed(62, 7)
    assert len(printed) == 7 * 7
