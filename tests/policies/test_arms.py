"""Which variants a policy may choose."""

import pytest

from splitplace.policies.pairs import PolicyPair, parse_policy
from splitplace.policies.splitting import (
    PAPER_ARMS,
    SPLIT_POLICIES,
    Arm,
    SplitContext,
    SplitName,
    parse_arms,
    split_policy,
)

WHOLE = Arm("whole", "whole", 0.95, 100.0, "")
LAYER_2 = Arm("layer-2", "layer", 0.93, 80.0, "")
LAYER_4 = Arm("layer-4", "layer", 0.93, 60.0, "")
SEMANTIC = Arm("semantic", "semantic", 0.8, 40.0, "")


def context(*arms: Arm) -> SplitContext:
    return SplitContext("c.t", 1, "toy", 4, 1000.0, 1000.0, arms)


def test_presets_and_lists_of_arms_are_read() -> None:
    assert parse_arms("all") is None
    assert parse_arms("paper") == PAPER_ARMS == frozenset({"layer", "semantic"})
    assert parse_arms("layer-2, semantic") == frozenset({"layer-2", "semantic"})
    with pytest.raises(ValueError, match="give all, paper, or variants"):
        parse_arms(" , ")


def test_a_kind_allows_all_its_variants_and_a_name_only_itself() -> None:
    policy = split_policy("random", arms={"layer-2", "semantic"})
    seen = {policy.decide(context(WHOLE, LAYER_2, LAYER_4, SEMANTIC)).variant for _ in range(50)}
    assert seen == {"layer-2", "semantic"}
    policy = split_policy("random", arms=PAPER_ARMS)
    seen = {policy.decide(context(WHOLE, LAYER_2, LAYER_4, SEMANTIC)).variant for _ in range(50)}
    assert seen == {"layer-2", "layer-4", "semantic"}


def test_a_restricted_policy_keeps_its_name_and_does_not_see_better_arms() -> None:
    policy = split_policy("rule", arms=PAPER_ARMS)
    assert policy.name == "rule"
    assert policy.decide(context(WHOLE, LAYER_2, SEMANTIC)).variant == "layer-2"


def test_an_application_without_any_of_the_arms_is_refused_by_name() -> None:
    decision = split_policy("rule", arms=PAPER_ARMS).decide(context(WHOLE))
    assert decision.variant is None
    assert decision.reason == "toy has no variant among layer, semantic, only whole"


def test_a_policy_says_among_which_kinds_it_always_chooses() -> None:
    kinds = {name: split_policy(name).kinds for name in SPLIT_POLICIES}
    assert {name: policy_kinds for name, policy_kinds in kinds.items() if policy_kinds is not None} == {
        "whole": {"whole"},
        "layer": {"layer"},
        "semantic": {"semantic"},
        "compressed": {"compressed"},
        "mc": {"whole", "compressed"},
        "gillis": {"layer", "compressed"},
    }
    assert split_policy("rule", arms=PAPER_ARMS).kinds is None


@pytest.mark.parametrize("name", ["whole", "layer"])
def test_policies_that_are_defined_by_their_arms_keep_them(name: SplitName) -> None:
    chosen = split_policy(name, arms={"semantic"}).decide(context(WHOLE, LAYER_2, SEMANTIC)).variant
    assert chosen is not None
    assert chosen.startswith(name)


def test_always_layer_takes_the_fastest_of_its_kind_unless_one_bears_the_very_name() -> None:
    policy = split_policy("layer")
    assert policy.decide(context(LAYER_2, LAYER_4, SEMANTIC)).variant == "layer-4"
    plain = Arm("layer", "layer", 0.9, 500.0, "")
    assert policy.decide(context(LAYER_2, LAYER_4, plain)).variant == "layer"


def test_a_pair_of_policies_is_read_and_what_is_wrong_with_one_is_said() -> None:
    assert parse_policy(" rule+earliest-finish ") == PolicyPair("rule", "earliest-finish")
    assert parse_policy("oracle+random", more_splits=["oracle"]).split == "oracle"
    with pytest.raises(ValueError, match=r"not of the form split\+placement"):
        parse_policy("rule")
    with pytest.raises(ValueError, match="no split policy 'oracle', only whole, layer"):
        parse_policy("oracle+random")
    with pytest.raises(ValueError, match="no placement policy 'best', only"):
        parse_policy("rule+best")
