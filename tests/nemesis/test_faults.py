"""Schedules are reproducible, bounded and cover what they are asked for."""

import pytest

from nemesis.faults import (
    BROKER,
    FAMILIES,
    LONGEST_PAUSE_S,
    NET_FAULTS,
    SERVICES,
    TOGETHER,
    Family,
    Fault,
    schedule,
)

NODES = ("n1", "n2", "n3")
POISONS = ("bomb", "lie", "maps")


def faults_of(
    *families: Family, seed: int = 1, length_s: float = 600.0, services: tuple[str, ...] = SERVICES
) -> list[Fault]:
    return schedule(
        seed, families, services=services, nodes=NODES, poisons=POISONS, length_s=length_s, gap_s=1.0
    )


def test_equal_seeds_give_equal_schedules_and_others_do_not() -> None:
    assert faults_of(*FAMILIES) == faults_of(*FAMILIES)
    assert faults_of(*FAMILIES) != faults_of(*FAMILIES, seed=2)


@pytest.mark.parametrize("seed", range(20))
def test_all_faults_are_healed_before_the_end(seed: int) -> None:
    faults = faults_of(*FAMILIES, seed=seed, length_s=30.0)
    assert faults
    assert all(fault.begins_s >= 0 and fault.begins_s + fault.lasts_s <= 30.0 + 1e-9 for fault in faults)
    assert all(fault.lasts_s <= LONGEST_PAUSE_S for fault in faults)
    assert [fault.number for fault in faults] == list(range(1, len(faults) + 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_can_be_asked_for_alone(family: Family) -> None:
    assert {fault.family for fault in faults_of(family)} == {family}


def test_every_action_on_a_link_occurs() -> None:
    assert {fault.action for fault in faults_of("net")} == set(NET_FAULTS)


def test_every_poison_is_sent_once_before_any_comes_again() -> None:
    actions = [fault.action for fault in faults_of("poison")]
    assert set(actions[:3]) == set(POISONS)
    assert set(actions[3:6]) == set(POISONS)


def test_two_at_once_are_two_and_all_are_all_with_the_broker() -> None:
    assert {len(set(fault.targets)) for fault in faults_of("double")} == {2}
    assert {len(fault.targets) for fault in faults_of("all")} == {5 + len(NODES) + 1}
    assert all(BROKER in fault.targets for fault in faults_of("all"))
    assert {fault.targets for fault in faults_of("broker")} == {(BROKER,)}


def test_services_that_share_a_process_are_hit_as_one() -> None:
    faults = faults_of("kill", "net", "double", services=(TOGETHER,))
    assert {target for fault in faults for target in fault.targets} == {TOGETHER, *NODES}
    assert faults_of("all", services=(TOGETHER,))[0].targets == (TOGETHER, *NODES, BROKER)


def test_no_families_give_no_faults() -> None:
    assert faults_of() == []
