"""Which variants a policy may choose: by name (`layer-4`) or by kind (`layer`: all that split by layers)."""

from collections.abc import Collection
from dataclasses import replace

from splitplace.messages.task import TaskFinished
from splitplace.policies.splitting.interface import Arm, Decision, SplitContext, SplitPolicy
from splitplace.policies.state import State

PAPER_ARMS = frozenset({"layer", "semantic"})
"""The two decisions of the paper."""

_PRESETS: dict[str, frozenset[str] | None] = {"all": None, "paper": PAPER_ARMS}


def parse_arms(text: str) -> frozenset[str] | None:
    """The arms that a setting names: `all` (None), `paper`, or names and kinds with commas between.

    Raises:
        ValueError: nothing is named.
    """
    if text in _PRESETS:
        return _PRESETS[text]
    arms = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not arms:
        raise ValueError(f"no arms in {text!r}: give {', '.join(_PRESETS)}, or variants with commas between")
    return arms


def allowed(arm: Arm, arms: Collection[str]) -> bool:
    """Whether an arm is named by its variant or its kind."""
    return arm.variant in arms or arm.kind in arms


class Restricted:
    """A policy that sees only some of the arms."""

    def __init__(self, policy: SplitPolicy, arms: Collection[str]) -> None:
        """A restriction.

        Args:
            policy: decides among what is left.
            arms: names of variants, or kinds.
        """
        self._policy = policy
        self._arms = frozenset(arms)

    @property
    def name(self) -> str:
        """See `SplitPolicy`."""
        return self._policy.name

    def decide(self, context: SplitContext) -> Decision:
        """See `SplitPolicy`. Refuses where the application has none of the arms."""
        visible = self._visible(context)
        if not visible.arms:
            wanted, known = ", ".join(sorted(self._arms)), ", ".join(arm.variant for arm in context.arms)
            return Decision(None, f"{context.application} has no variant among {wanted}, only {known}")
        return self._policy.decide(visible)

    def learn(self, context: SplitContext, outcome: TaskFinished) -> None:
        """See `SplitPolicy`."""
        self._policy.learn(self._visible(context), outcome)

    def state(self) -> State:
        """See `SplitPolicy`."""
        return self._policy.state()

    def restore(self, state: State) -> None:
        """See `SplitPolicy`."""
        self._policy.restore(state)

    def _visible(self, context: SplitContext) -> SplitContext:
        return replace(context, arms=tuple(arm for arm in context.arms if allowed(arm, self._arms)))
