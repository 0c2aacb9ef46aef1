from hypothesis import given
from hypothesis import strategies as st

from splitplace.policies.placement.warm_up import warm_up
from splitplace.policies.stage_work import StageWork
from tests.support.examples import all_of, application, chain, cluster, fragment, node, three_ways

APP = three_ways()  # whole 3 MB, three layers of 1 MB, two branches of .6 MB


def test_a_node_with_room_loads_all_that_it_has_not_loaded() -> None:
    pieces = all_of(APP)
    view = cluster(node("a"), node("b", loaded=pieces[:2]), node("c", loaded=pieces))
    wanted = warm_up([APP], view, {"a", "b", "c", "dead"})
    assert set(wanted["a"]) == set(pieces)
    assert set(wanted["b"]) == set(pieces[2:])
    assert "c" not in wanted
    assert warm_up([APP], view, {"a"}).keys() == {"a"}


def test_where_memory_is_short_neighbours_hold_different_fragments() -> None:
    view = cluster(*(node(f"n{index}", megabytes=1) for index in range(6)))
    wanted = warm_up([APP], view, view.nodes.keys())
    loaded = {sha256 for pieces in wanted.values() for sha256 in pieces}
    assert loaded == set(all_of(APP)) - {APP.variant("whole").stages[0].fragment}


def test_the_fastest_node_gets_the_lightest_variant_and_nothing_stands_twice_too_soon() -> None:
    view = cluster(node("a-slow", megabytes=7), node("b-fast", speed=2, megabytes=1.2))
    wanted = warm_up([APP], view, view.nodes.keys())
    branches = {stage.fragment for stage in APP.variant("semantic").stages}
    assert set(wanted["b-fast"]) == branches
    assert set(wanted["a-slow"][:-1]) == set(all_of(APP)) - branches
    assert wanted["a-slow"][-1] in branches


def test_applications_take_turns_where_memory_is_short() -> None:
    other = fragment("other", megabytes=3)
    applications = [APP, application([other], [chain("whole", [other])], name="other")]
    wanted = warm_up(applications, cluster(node("a", megabytes=3.6)), {"a"})
    assert wanted["a"] == (APP.variant("semantic").stages[0].fragment, other.sha256)


def test_what_others_hold_is_loaded_last() -> None:
    pieces = all_of(APP)
    view = cluster(node("a", loaded=pieces[:3]), node("b", speed=2, megabytes=1))
    (chosen,) = warm_up([APP], view, {"b"}).values()
    assert not set(chosen) & set(pieces[:3])


def test_memory_of_outstanding_tasks_is_not_given_away() -> None:
    whole = APP.fragment(APP.variant("whole").stages[0].fragment)
    view = cluster(node("a", megabytes=4))
    view.placed("c.1", 1, [StageWork("a", whole, 10.0)], 0.0)
    (chosen,) = warm_up([APP], view, {"a"}).values()
    assert whole.sha256 not in chosen
    assert len(chosen) == 1


def test_without_a_catalogue_or_nodes_there_is_nothing_to_load() -> None:
    assert warm_up([], cluster(node("a")), {"a"}) == {}
    assert warm_up([APP], cluster(), {"a"}) == {}


@given(
    sizes=st.lists(st.floats(0.1, 50), min_size=1, max_size=8),
    budgets=st.lists(st.floats(0, 100), min_size=1, max_size=5),
    loaded=st.integers(0, 8),
)
def test_what_is_loaded_and_chosen_fits_together(
    sizes: list[float], budgets: list[float], loaded: int
) -> None:
    pieces = [fragment(f"f{index}", megabytes=size) for index, size in enumerate(sizes)]
    app = application(pieces, [chain("whole", pieces[:1])])
    has: dict[str, list[str]] = {}
    for index, budget in enumerate(budgets):
        room = budget * 1e6
        has[f"n{index}"] = []
        for piece in pieces[:loaded]:
            if piece.peak_memory_bytes <= room:
                room -= piece.peak_memory_bytes
                has[f"n{index}"].append(piece.sha256)
    view = cluster(
        *(
            node(f"n{index}", megabytes=budget, loaded=has[f"n{index}"])
            for index, budget in enumerate(budgets)
        )
    )
    for name, chosen in warm_up([app], view, view.nodes.keys()).items():
        assert not set(chosen) & set(has[name])
        held = sum(app.fragment(sha256).peak_memory_bytes for sha256 in (*chosen, *has[name]))
        assert held <= view.nodes[name].memory_budget_bytes
