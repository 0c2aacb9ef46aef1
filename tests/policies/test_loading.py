"""Loading by demand: budgets are kept, small programmes solved, and shifts of demand move what is loaded."""

import sys
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitplace.messages.application import Application
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import Placement, place
from splitplace.policies.placement.demand import Demand
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.placement.loading import DemandLoading
from splitplace.policies.placement.loading_programme import MAX_COLUMNS, Programme, Way
from splitplace.policies.stage_work import StageWork
from tests.support.examples import application, chain, cluster, fragment, job, node, request, three_ways
from tests.support.free_stages import free_application
from tests.support.messages import decided

APP = three_ways()  # whole 3 MB, three layers of 1 MB, two branches of .6 MB
PERIOD_MS = 1000.0


def single(name: str, *, megabytes: float, image_ms: float = 1.0, accuracy: float = 0.9) -> Application:
    """An application whose only variant is one fragment."""
    only = fragment(name, megabytes=megabytes, image_ms=image_ms)
    return application([only], [chain("whole", [only], accuracy=accuracy)], name=name)


def demand(name: str, per_second: float = 1.0, *, slack_ms: float = 1000.0, batch: int = 4) -> Demand:
    return Demand(name, per_second, batch, slack_ms, {})


def programme(
    applications: list[Application], demands: list[Demand], view: ClusterView, *, horizon_s: float = 1e6
) -> Programme:
    known = {each.name: each for each in applications}
    ways = [
        Way(number, job(known[each.application], variant.name, round(each.batch)))
        for number, each in enumerate(demands)
        for variant in known[each.application].variants
    ]
    made = Programme.of(demands, ways, view, 0.0, horizon_s)
    assert made is not None
    return made


def solved(made: Programme) -> dict[str, tuple[str, ...]]:
    held = made.solve()
    assert held is not None
    return held


def names_of(applications: list[Application]) -> dict[str, str]:
    return {piece.sha256: each.name for each in applications for piece in each.fragments}


def test_the_network_that_most_tasks_ask_for_is_loaded_where_only_one_fits() -> None:
    applications = [single("rare", megabytes=3), single("common", megabytes=3)]
    demands = [demand("rare", 1), demand("common", 5)]
    held = solved(programme(applications, demands, cluster(node("a", megabytes=4))))
    assert [names_of(applications)[sha256] for sha256 in held["a"]] == ["common"]


def test_tight_deadlines_get_the_fast_node() -> None:
    applications = [single("tight", megabytes=3, image_ms=10), single("loose", megabytes=3, image_ms=10)]
    demands = [demand("loose", slack_ms=900), demand("tight", slack_ms=60)]
    view = cluster(node("slow", megabytes=4), node("fast", speed=4, megabytes=4))
    held = solved(programme(applications, demands, view))
    names = names_of(applications)
    assert {name: [names[sha256] for sha256 in held[name]] for name in held} == {
        "slow": ["loose"],
        "fast": ["tight"],
    }


def test_a_network_that_no_node_holds_is_loaded_in_layers() -> None:
    view = cluster(*(node(name, megabytes=1.1) for name in "abc"))
    only_layers = APP.model_copy(update={"variants": (APP.variant("whole"), APP.variant("layer"))})
    held = solved(programme([only_layers], [demand("toy")], view))
    layers = {stage.fragment for stage in APP.variant("layer").stages}
    assert {sha256 for mine in held.values() for sha256 in mine} == layers


def test_more_tasks_than_one_node_computes_are_shared_by_two() -> None:
    app = single("busy", megabytes=3, image_ms=10)  # 40 ms for a task
    view = cluster(node("a", megabytes=4), node("b", megabytes=4))
    for per_second, nodes in ((1.0, 1), (30.0, 2)):
        held = solved(programme([app], [demand("busy", per_second)], view))
        assert sum(bool(mine) for mine in held.values()) == nodes


def test_what_is_loaded_stays_where_moving_it_gains_nothing() -> None:
    app = single("only", megabytes=3)
    (piece,) = app.fragments
    view = cluster(node("a", megabytes=4), node("b", megabytes=4, loaded=[piece.sha256]))
    assert solved(programme([app], [demand("only")], view, horizon_s=30.0)) == {"a": (), "b": (piece.sha256,)}


def test_what_takes_longer_to_load_than_it_pays_is_not_loaded() -> None:
    app = single("slow-to-load", megabytes=3)
    view = cluster(node("a", megabytes=4, load_ms=60_000.0))
    for horizon_s, count in ((10.0, 0), (600.0, 1)):
        assert len(solved(programme([app], [demand(app.name)], view, horizon_s=horizon_s))["a"]) == count


@settings(deadline=None, max_examples=30)
@given(
    megabytes=st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=2, max_size=3),
    rates=st.lists(st.sampled_from([0.1, 0.5, 1.0, 2.0]), min_size=3, max_size=3),
    speeds=st.lists(st.sampled_from([0.5, 1.0, 4.0]), min_size=2, max_size=2),
    budgets=st.lists(st.sampled_from([1.5, 3.5, 5.0]), min_size=2, max_size=2),
)
def test_small_programmes_earn_as_much_as_the_best_of_all_loadings(
    megabytes: list[float], rates: list[float], speeds: list[float], budgets: list[float]
) -> None:
    """Tasks are too few to keep a node busy, so each is answered where that earns most."""
    applications = [
        single(f"net{number}", megabytes=size, image_ms=10.0, accuracy=0.6 + number / 10)
        for number, size in enumerate(megabytes)
    ]
    demands = [
        demand(each.name, rate / 10, slack_ms=60.0 * (1 + number))
        for number, (each, rate) in enumerate(zip(applications, rates, strict=False))
    ]
    view = cluster(
        *(
            node(f"n{number}", speed=speed, megabytes=budget)
            for number, (speed, budget) in enumerate(zip(speeds, budgets, strict=True))
        )
    )
    made = programme(applications, demands, view)

    def value(holds: list[list[bool]]) -> float:
        earned = 0.0
        for use in made.uses:
            there = [use.earns[place] for place, mine in enumerate(holds) if mine[use.fragment]]
            earned += made.per_second[made.groups[use.way]] * max(there, default=0.0)
        spent = sum(
            made.price[place][at] for place, mine in enumerate(holds) for at, held in enumerate(mine) if held
        )
        return float(earned - spent)

    def fits(mine: list[bool], budget: float) -> bool:
        return sum(size for size, held in zip(megabytes, mine, strict=True) if held) <= budget

    count = len(applications)
    best = max(
        value([list(flags[:count]), list(flags[count:])])
        for flags in product([False, True], repeat=2 * count)
        if all(
            fits(list(mine), budget)
            for mine, budget in zip((flags[:count], flags[count:]), budgets, strict=True)
        )
    )
    held = solved(made)
    found = [[piece.sha256 in held[name] for piece in made.fragments] for name in made.nodes]
    assert value(found) >= best * (1 - 0.006) - 1e-9


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.floats(0.1, 50), min_size=1, max_size=6),
    budgets=st.lists(st.floats(0, 100), min_size=1, max_size=4),
    rates=st.lists(st.floats(0.01, 100), min_size=6, max_size=6),
    loaded=st.integers(0, 6),
)
def test_budgets_are_always_kept(
    sizes: list[float], budgets: list[float], rates: list[float], loaded: int
) -> None:
    applications = [single(f"net{number}", megabytes=size) for number, size in enumerate(sizes)]
    pieces = {piece.sha256: piece for each in applications for piece in each.fragments}
    has: dict[str, list[str]] = {}
    for number, budget in enumerate(budgets):
        room = budget * 1e6
        has[f"n{number}"] = []
        for piece in list(pieces.values())[:loaded]:
            if piece.peak_memory_bytes <= room:
                room -= piece.peak_memory_bytes
                has[f"n{number}"].append(piece.sha256)
    view = cluster(
        *(
            node(f"n{number}", megabytes=budget, loaded=has[f"n{number}"])
            for number, budget in enumerate(budgets)
        )
    )
    made = DemandLoading(PERIOD_MS)
    for number, each in enumerate(applications):
        for _ in range(1 + round(rates[number])):
            made.decided(decided(application=each.name), 0.0)
    plan = made.plan(applications, view, 100.0)
    assert plan is not None
    held = solved(plan)
    for change in made.changes(held, applications, view):
        after = (set(has[change.node]) - set(change.gives_way)) | set(change.load)
        assert sum(pieces[sha256].peak_memory_bytes for sha256 in after) <= (
            view.nodes[change.node].memory_budget_bytes
        )
        assert not set(change.load) & set(has[change.node])
        assert set(change.gives_way) <= set(has[change.node])
    for name, mine in held.items():
        total = sum(pieces[sha256].peak_memory_bytes for sha256 in mine)
        assert total <= view.nodes[name].memory_budget_bytes


def test_demand_that_shifts_moves_what_is_loaded() -> None:
    applications = [single("day", megabytes=3), single("night", megabytes=3)]
    day, night = (each.fragments[0].sha256 for each in applications)
    made = DemandLoading(PERIOD_MS)

    def changes_at(now_ms: float, *loaded: str) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        view = cluster(node("a", megabytes=4, loaded=loaded), now_ms=now_ms)
        plan = made.plan(applications, view, now_ms)
        assert plan is not None
        found = made.changes(solved(plan), applications, view)
        return {each.node: (each.load, each.gives_way) for each in found}

    for number in range(100):
        made.decided(decided(application="day"), 100.0 * number)
    assert changes_at(10_000.0) == {"a": ((day,), ())}
    assert changes_at(10_000.0, day) == {}
    for number in range(300):
        made.decided(decided(application="night"), 10_000.0 + 100.0 * number)
    assert changes_at(40_000.0, day) == {"a": ((night,), (day,))}


def test_what_is_free_is_filled_by_what_the_fewest_hold() -> None:
    made = DemandLoading(PERIOD_MS)
    made.decided(decided(application="asked"), 0.0)
    applications = [single("asked", megabytes=3), single("never", megabytes=3)]
    asked, never = (each.fragments[0].sha256 for each in applications)
    view = cluster(node("a", megabytes=7))
    plan = made.plan(applications, view, 1.0)
    assert plan is not None
    (change,) = made.changes(solved(plan), applications, view)
    assert change.load == (asked, never)


def test_what_a_task_uses_stays_if_it_fits() -> None:
    applications = [single("asked", megabytes=3), single("used", megabytes=3)]
    used = applications[1].fragments[0]
    made = DemandLoading(PERIOD_MS)
    made.decided(decided(application="asked"), 0.0)
    view = cluster(node("a", megabytes=7, loaded=[used.sha256]))
    view.placed("c.1", 1, [StageWork("a", used, 10.0)], 0.0)
    plan = made.plan(applications, view, 1.0)
    assert plan is not None
    (change,) = made.changes(solved(plan), applications, view)
    assert change.gives_way == ()


def test_a_chain_is_loaded_in_the_stages_that_it_was_placed_in_last() -> None:
    app = free_application(8, weight_megabytes=10.0)
    view = cluster(*(node(f"n{number}", megabytes=35.0) for number in range(4)))
    found = place(EarliestFinish(), request(app, "layer", 4), view, 0.0)
    assert isinstance(found, Placement)
    made = DemandLoading(PERIOD_MS)
    made.decided(decided(application=app.name, variant="layer", slack_ms=60_000.0), 0.0)
    made.placed(found.job)
    plan = made.plan([app], view, 1.0)
    assert plan is not None
    changes = made.changes(solved(plan), [], view)
    runs = {sha256: run for change in changes for sha256, run in change.runs.items()}
    assert runs == {
        found.job.fragments[stage].sha256: (app.name, run) for stage, run in found.job.runs.items()
    }


def test_there_is_no_plan_before_anything_was_asked_or_where_it_would_be_too_large() -> None:
    made = DemandLoading(PERIOD_MS)
    assert made.plan([APP], cluster(node("a")), 0.0) is None
    made.decided(decided(), 0.0)
    assert made.plan([], cluster(node("a")), 0.0) is None
    assert made.plan([APP], cluster(), 0.0) is None
    many = cluster(*(node(f"n{number}") for number in range(MAX_COLUMNS // 12)))
    assert made.plan([APP], many, 0.0) is None


def test_further_attempts_are_no_further_demand() -> None:
    made, once = DemandLoading(PERIOD_MS), DemandLoading(PERIOD_MS)
    for attempt in (1, 2, 3):
        made.decided(decided(attempt=attempt), 0.0)
    once.decided(decided(), 0.0)
    assert made._forecast.demands(0.0) == once._forecast.demands(0.0)


def test_without_scipy_there_is_no_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    made = programme([APP], [demand("toy")], cluster(node("a")))
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    assert made.solve() is None
