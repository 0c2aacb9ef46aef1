"""The checker finds every broken promise, and nothing in a history that keeps them all."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from nemesis.checker import FindingKind, Promises, Verdict, check
from nemesis.history import (
    Lagged,
    LastBeat,
    Measured,
    PartEnded,
    PoisonAnswered,
    PoisonSent,
    Probed,
    Record,
    RetainedTopics,
)
from nemesis.samples import Opinion
from tests.nemesis.stories import acknowledged, fault, heard, row, sent

GOOD = (sent(), acknowledged(), heard(), row())


def reference(application: str, variant: str, *, partial: bool) -> Sequence[Opinion]:
    """Sample 3 is a 7; a partial answer may also say 1."""
    if variant != "whole":
        raise KeyError(f"{application} has no variant {variant}")
    right = Opinion(frozenset({7, 1} if partial else {7}), 0.9)
    return [right] * 5


def found(*events: Record) -> list[FindingKind]:
    return [finding.kind for finding in judged(*events).findings]


def judged(*events: Record) -> Verdict:
    return check(sorted(events, key=lambda event: event.at_s), reference)


def test_a_run_that_keeps_every_promise_passes() -> None:
    verdict = judged(
        *GOOD,
        LastBeat(at_s=60, part="gateway", silent_s=0.5),
        Probed(at_s=60, task="s.t9", status="answered", took_s=0.1),
        RetainedTopics(at_s=60, topics=30, total_bytes=1000),
    )
    assert verdict.passed
    assert (verdict.tasks, verdict.accepted, verdict.predictions) == (1, 1, 1)
    assert verdict.statuses == {"answered": 1}


def test_an_accepted_task_without_an_answer_is_lost() -> None:
    assert found(sent(), acknowledged(), row("answered")) == ["lost"]
    assert found(sent(), row("answered")) == ["lost"]


def test_an_acknowledged_task_that_nobody_ever_answers_is_lost_without_a_row_too() -> None:
    assert found(sent(), acknowledged()) == ["lost"]


def test_a_task_that_the_broker_never_acknowledged_was_not_accepted() -> None:
    assert found(sent()) == []


def test_what_a_killed_broker_forgot_within_seconds_is_excused() -> None:
    verdict = judged(sent(), acknowledged(), *fault(11.0, 12.0, "broker"))
    assert verdict.passed
    assert verdict.excused == 1
    assert found(sent(), acknowledged(), *fault(30.0, 31.0, "broker")) == ["lost"]


def test_a_valid_task_must_never_hear_that_it_is_invalid() -> None:
    assert "false-invalid" in found(sent(), acknowledged(), heard(status="invalid", classes=()))


def test_two_different_terminal_answers_contradict_each_other() -> None:
    both = (heard(10.2, status="expired", classes=(), confidences=()), heard(10.4))
    assert found(sent(), acknowledged(), *both, row()) == ["contradicting"]


def test_other_classes_in_a_second_answer_contradict_the_first() -> None:
    partial = heard(10.2, partial=True, classes=(1,))
    assert found(*GOOD, partial) == ["contradicting"]


def test_copies_must_be_equal() -> None:
    assert judged(*GOOD, heard(10.8, repeated=True)).repeated == 1
    assert found(*GOOD, heard(10.8, repeated=True)) == []
    assert found(*GOOD, heard(10.8, digest="two")) == ["unequal-copies"]


@pytest.mark.parametrize("part", ["gateway", "services"])
def test_a_refusal_that_died_with_the_gateway_is_judged_anew(part: str) -> None:
    both = (sent(), acknowledged(), heard(10.2, status="refused"), heard(11.0), row())
    assert found(*both) == ["contradicting"]
    assert found(*both, *fault(10.5, 10.6, part, name="pause:pause")) == ["contradicting"]
    assert found(*both, *fault(9.0, 10.1, part)) == ["contradicting"]
    assert found(*both, *fault(10.5, 10.6, part)) == []
    answers = (heard(10.2), heard(11.0, status="expired", classes=()))
    assert found(sent(), acknowledged(), *answers, row(), *fault(10.5, 10.6, part)) == ["contradicting"]


@pytest.mark.parametrize(
    "answer",
    [
        heard(classes=(1,)),
        heard(confidences=(0.5,)),
        heard(classes=(), confidences=()),
        heard(classes=(7, 7), confidences=(0.9, 0.9)),
        heard(decision="no-such-variant"),
        heard(decision=None),
        heard(partial=True, classes=(2,)),
    ],
)
def test_an_answer_that_its_network_does_not_give_is_wrong(answer: Record) -> None:
    assert found(sent(), acknowledged(), answer, row()) == ["wrong"]


def test_a_partial_answer_may_be_what_any_of_the_branches_says() -> None:
    assert found(sent(), acknowledged(), heard(partial=True, classes=(1,), confidences=(0.4,)), row()) == []


def test_an_answer_after_deadline_grace_and_allowance_is_late() -> None:
    assert found(sent(), acknowledged(), heard(11.7), row()) == []
    verdict = judged(sent(), acknowledged(), heard(12.5), row())
    assert [finding.kind for finding in verdict.findings] == ["late"]
    assert verdict.worst_lateness_s == pytest.approx(1.0)


@pytest.mark.parametrize("part", ["gateway", "services"])
def test_downtime_of_the_gateway_and_its_recovery_prolong_the_deadline(part: str) -> None:
    down = fault(11.0, 16.0, part)
    assert found(sent(), acknowledged(), heard(19.4), row(), *down) == []
    assert found(sent(), acknowledged(), heard(20.0), row(), *down) == ["late"]


def test_a_gateway_that_dies_within_the_allowance_excuses_the_delay() -> None:
    assert found(sent(), acknowledged(), heard(15.0), row(), *fault(11.6, 13.0, "gateway")) == []


def test_a_dead_node_poison_or_burners_excuse_no_delay() -> None:
    for event in (
        fault(10.2, 16.0, "n1"),
        fault(10.2, 16.0, "gateway", name="poison:png-bomb"),
        fault(10.2, 16.0, "cpu", name="starve:burn"),
    ):
        assert found(sent(), acknowledged(), heard(14.0), row(), *event) == ["late"]


def test_a_lag_of_the_nemesis_itself_excuses_a_delay() -> None:
    verdict = judged(sent(), acknowledged(), heard(12.5), row(), Lagged(at_s=12.4, lag_s=1.2))
    assert verdict.passed
    assert verdict.worst_lag_s == 1.2


def test_an_answer_that_only_asking_again_gives_is_late() -> None:
    again = (sent(50.0, again=True), heard(50.1, repeated=True))
    assert found(sent(), acknowledged(), *again, row()) == ["late"]
    excused = judged(sent(), acknowledged(), *fault(10.8, 11.0, "broker"), *again, row())
    assert excused.passed
    assert excused.excused == 1


def test_what_a_broker_that_is_back_drops_until_the_gateway_has_subscribed_again_is_excused() -> None:
    verdict = judged(sent(), acknowledged(), *fault(8.0, 9.0, "broker"))
    assert (verdict.passed, verdict.excused) == (True, 1)
    assert found(sent(), acknowledged(), *fault(3.0, 4.0, "broker")) == ["lost"]


def test_a_task_that_a_killed_broker_forgot_before_it_was_accepted_is_excused() -> None:
    again = (sent(50.0, again=True), heard(50.1))
    verdict = judged(sent(), acknowledged(), *fault(10.0, 12.0, "broker"), *again, row())
    assert verdict.passed
    assert verdict.excused == 1
    assert found(sent(), acknowledged(), *fault(30.0, 31.0, "broker"), *again, row()) == ["late"]
    repeated = (sent(50.0, again=True), heard(50.1, repeated=True))
    assert found(sent(), acknowledged(), *fault(30.0, 31.0, "broker"), *repeated, row()) == ["late"]


def test_an_unacknowledged_message_counts_from_its_repetition() -> None:
    assert found(sent(), sent(20.0), acknowledged(20.1), heard(20.5), row()) == []


def test_open_rows_of_the_journal_are_found() -> None:
    assert found(sent(), acknowledged(), heard(), row(None)) == ["unfinished"]
    assert found(sent(), acknowledged(), heard(), row(delivered=False)) == ["undelivered"]


def test_a_part_that_does_not_come_back_is_found() -> None:
    assert found(LastBeat(at_s=60, part="n1", silent_s=30)) == ["silent-part"]
    assert found(Probed(at_s=60, task="s.t9", status="expired", took_s=10)) == ["dead-at-end"]
    assert found(Probed(at_s=60, task="s.t9", status=None, took_s=20)) == ["dead-at-end"]


def test_ending_again_and_again_is_a_crash_loop() -> None:
    ends = [PartEnded(at_s=at_s, part="splitter", pid=1, code=1) for at_s in (1.0, 2.0, 3.0)]
    assert judged(*ends[:2]).ended == {"splitter": 2}
    assert found(*ends[:2]) == []
    assert found(*ends) == ["crash-loop"]


def test_a_newcomer_that_ends_while_its_clone_lives_is_no_crash_loop() -> None:
    ends = [PartEnded(at_s=at_s, part="n3", pid=1, code=2) for at_s in (1.0, 2.0, 3.0)]
    assert found(*fault(0.5, 4.0, "n3", name="clone:clone"), *ends) == []
    assert found(*fault(0.5, 4.0, "n2", name="clone:clone"), *ends) == ["crash-loop"]


def test_what_a_killed_broker_held_because_the_gateway_was_away_is_excused() -> None:
    story = (sent(), acknowledged(10.1), heard(200.0, status="refused"), sent(199.0, again=True))
    dead = fault(40.0, 41.0, "broker")
    assert found(*story, *dead) == ["late"]
    assert found(*story, *fault(10.0, 38.0, "gateway", name="pause:pause"), *dead) == []
    assert found(*story, *fault(10.0, 20.0, "gateway", name="pause:pause"), *dead) == ["late"]
    assert found(sent(), acknowledged(10.1), *fault(5.0, 12.0, "broker"), *fault(8.0, 20.0, "gateway")) == []


def test_the_sender_of_nonsense_must_hear_so() -> None:
    poison = PoisonSent(at_s=1, poison="png-bomb", must_be_answered=True)
    assert found(poison) == ["poison-unanswered"]
    assert found(poison, PoisonAnswered(at_s=2, poison="png-bomb", status="invalid")) == []
    assert found(PoisonSent(at_s=1, poison="retained-task", must_be_answered=False)) == []
    assert found(poison, *fault(0.5, 0.9, "broker")) == []


def test_retained_tasks_at_the_end_are_found() -> None:
    stray = RetainedTopics(at_s=5, topics=1, total_bytes=1, stray=("splitplace/v1/task/mnist",))
    assert found(stray) == ["stray-retained"]
    assert found(stray, RetainedTopics(at_s=6, topics=0, total_bytes=0)) == []


def measured(minutes: float, mib_per_minute: float, *, descriptors: int = 10) -> list[Measured]:
    return [
        Measured(
            at_s=2.0 * tick,
            part="gateway",
            pid=1,
            memory_mib=60 + mib_per_minute * tick / 30,
            descriptors=descriptors if tick > 30 * minutes * 0.9 else 10,
            threads=5,
        )
        for tick in range(int(30 * minutes))
    ]


def test_memory_that_grows_is_found_where_it_was_watched_long_enough() -> None:
    assert found(*measured(2, 0.5)) == []
    assert found(*measured(20, 0.05)) == []
    assert found(*measured(20, 0.5)) == ["grows"]
    assert judged(*measured(20, 0.5)).slopes[0].mib_per_minute == pytest.approx(0.5)


def test_sudden_growth_and_open_descriptors_are_found_in_a_short_run() -> None:
    assert found(*measured(2, 500)) == ["grows"]
    assert found(*measured(2, 0, descriptors=50)) == ["grows"]


def test_clients_that_come_back_to_the_broker_are_no_growth() -> None:
    usual = [replace(each, descriptors=50) for each in measured(2, 0)]
    paused = [replace(each, descriptors=10 if 30 < each.at_s < 60 else 50) for each in measured(2, 0)]
    assert found(*usual) == found(*paused) == []


def test_a_run_can_be_judged_without_the_right_answers_and_by_other_promises() -> None:
    events = (sent(), acknowledged(), heard(12.5, classes=(0,)), row())
    assert check(events, promises=Promises(allowance_s=2.0)).passed


@pytest.mark.parametrize("name", ["starve:burn", "starve:always"])
def test_where_burners_ran_a_second_more_is_allowed(name: str) -> None:
    burning = fault(5.0, 30.0, "cpu", name=name)
    assert found(sent(), acknowledged(), heard(12.4), row(), *burning) == []
    assert found(sent(), acknowledged(), heard(12.6), row(), *burning) == ["late"]


def test_where_processors_were_short_the_gateway_may_take_six_seconds_to_be_back() -> None:
    killed, burning = fault(10.5, 11.0, "gateway"), fault(5.0, 30.0, "cpu", name="starve:burn")
    assert found(sent(), acknowledged(), heard(17.9), row(), *killed, *burning) == []
    assert found(sent(), acknowledged(), heard(17.9), row(), *killed) == ["late"]


def test_burners_that_begin_later_allow_nothing_before() -> None:
    burning = fault(30.0, 60.0, "cpu", name="starve:always")
    assert found(sent(), acknowledged(), heard(12.4), row(), *burning) == ["late"]


@pytest.mark.parametrize(("starved_s", "kinds"), [(0.6, []), (0.4, ["late"])])
def test_a_part_that_got_no_processor_for_a_quarter_of_the_time_allows_a_second_more(
    starved_s: float, kinds: list[FindingKind]
) -> None:
    measured = Measured(
        at_s=11.0,
        part="gateway",
        pid=1,
        memory_mib=60.0,
        descriptors=10,
        threads=4,
        starved_s=starved_s,
        period_s=2.0,
    )
    assert found(sent(), acknowledged(), heard(12.4), row(), measured) == kinds


def test_the_time_for_which_processors_were_short_counts_overlaps_once() -> None:
    burning = (*fault(5.0, 8.0, "cpu", name="starve:burn"), *fault(6.0, 10.0, "cpu", name="starve:burn"))
    assert judged(*GOOD, *burning).starved_s == pytest.approx(5.0)
