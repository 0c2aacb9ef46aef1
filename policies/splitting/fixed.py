"""Always the same variant: what the paper calls always layer and always semantic, and no split at all."""

from policies.splitting.interface import Decision, SplitContext, Unlearned


class Fixed(Unlearned):
    """Chooses one variant whatever the deadline, and refuses where that one cannot run."""

    def __init__(self, variant: str) -> None:
        self.name = variant

    def decide(self, context: SplitContext) -> Decision:
        """See `SplitPolicy`."""
        for arm in context.arms:
            if arm.variant == self.name:
                if arm.predicted_ms is None:
                    reason = f"{self.name} is the only choice allowed and cannot run now: {arm.note}"
                    return Decision(None, reason, can_wait=arm.temporary)
                return Decision(self.name, f"always {self.name}")
        known = ", ".join(arm.variant for arm in context.arms)
        return Decision(None, f"{context.application} has no variant {self.name}, only {known}")
