"""Always the same kind of variant: the paper's always layer and always semantic, and no split at all."""

from typing_extensions import override

from splitplace.messages.application import VariantKind
from splitplace.policies.splitting.interface import Decision, SplitContext, StatelessSplit


class Fixed(StatelessSplit):
    """Chooses one kind of variant whatever the deadline, and refuses where that one cannot run.

    Where an application has several of the kind (`layer-2`, `layer-4`), the one that bears the kind's very
    name is meant, else the one that is fastest now.
    """

    def __init__(self, kind: VariantKind) -> None:
        self.name = kind
        self.kinds = frozenset({kind})

    @override
    def decide(self, context: SplitContext) -> Decision:
        arms = [arm for arm in context.arms if arm.variant == self.name]
        arms = arms or [arm for arm in context.arms if arm.kind == self.name]
        if not arms:
            known = ", ".join(arm.variant for arm in context.arms)
            return Decision(None, f"{context.application} has no variant {self.name}, only {known}")
        able = [(arm.predicted_ms, arm.variant) for arm in arms if arm.predicted_ms is not None]
        if not able:
            notes = "; ".join(dict.fromkeys(arm.note for arm in arms))
            reason = f"{self.name} is the only choice allowed and cannot run now: {notes}"
            return Decision(None, reason, can_wait=any(arm.temporary for arm in arms))
        _, variant = min(able)
        return Decision(variant, f"always {self.name}")
