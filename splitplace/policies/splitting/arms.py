"""Which variants a policy may choose: by name (`layer-4`) or by kind (`layer`: all that split by layers)."""

from collections.abc import Collection
from dataclasses import replace

from typing_extensions import override

from splitplace.messages.application import VariantKind
from splitplace.messages.task import TaskFinished
from splitplace.policies.splitting.interface import Decision, SplitContext, SplitPolicy
from splitplace.policies.state import State

PAPER_ARMS: frozenset[VariantKind] = frozenset({"layer", "semantic"})
"""The two decisions of the paper."""

_PRESETS: dict[str, frozenset[str] | None] = {"all": None, "paper": PAPER_ARMS}


def parse_arms(text: str) -> frozenset[str] | None:
    """Return the arms that a setting names: `all` (None), `paper`, or names and kinds with commas between.

    Raises:
        ValueError: nothing is named.
    """
    if text in _PRESETS:
        return _PRESETS[text]
    arms = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not arms:
        raise ValueError(f"no arms in {text!r}: give {', '.join(_PRESETS)}, or variants with commas between")
    return arms


def allows(arms: Collection[str], variant: str, kind: VariantKind) -> bool:
    """Whether a setting allows a variant, by its name or by its kind."""
    return variant in arms or kind in arms


class Restricted(SplitPolicy):
    """A policy that sees only some of the arms."""

    def __init__(self, policy: SplitPolicy, arms: Collection[str]) -> None:
        """Restrict a policy.

        Args:
            policy: decides among the arms that are left.
            arms: names of variants, or kinds.
        """
        self.name = policy.name
        self.kinds = policy.kinds
        self.reads_waits = policy.reads_waits
        self._policy = policy
        self._arms = frozenset(arms)

    @override
    def decide(self, context: SplitContext) -> Decision:
        """Choose among the allowed arms; refuse if the application has none."""
        visible = self._visible(context)
        if not visible.arms:
            wanted, known = ", ".join(sorted(self._arms)), ", ".join(arm.variant for arm in context.arms)
            return Decision(None, f"{context.application} has no variant among {wanted}, only {known}")
        return self._policy.decide(visible)

    @override
    def learn(self, context: SplitContext, outcome: TaskFinished) -> None:
        self._policy.learn(self._visible(context), outcome)

    @override
    def state(self) -> State:
        return self._policy.state()

    @override
    def restore(self, state: State) -> None:
        self._policy.restore(state)

    def _visible(self, context: SplitContext) -> SplitContext:
        return replace(
            context, arms=tuple(arm for arm in context.arms if allows(self._arms, arm.variant, arm.kind))
        )
