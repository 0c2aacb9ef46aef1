"""`mc`: the paper's baseline of model compression, after BottleNet++."""

from typing_extensions import override

from splitplace.messages.application import VariantKind
from splitplace.policies.splitting.interface import Decision, SplitContext, StatelessSplit, nothing_can_run


class Compression(StatelessSplit):
    """No split: the whole network where its prediction fits the deadline, else the compressed one.

    The paper says only that MC is a compression approach motivated by BottleNet++, which picks a compression
    by what a workload is bound by. Where one of the two cannot run, the other does; of several compressed
    variants the most accurate that fits is taken, else the fastest.
    """

    name = "mc"
    kinds: frozenset[VariantKind] = frozenset({"whole", "compressed"})

    @override
    def decide(self, context: SplitContext) -> Decision:
        own = [arm for arm in context.arms if arm.kind in self.kinds]
        if not own:
            known = ", ".join(arm.variant for arm in context.arms)
            return Decision(
                None, f"{context.application} has neither a whole nor a compressed variant, only {known}"
            )
        able = [(arm, ms) for arm, ms in context.feasible if arm.kind in self.kinds]
        if not able:
            return nothing_can_run(context)
        fitting = [arm for arm, ms in able if ms <= context.slack_ms]
        left = f"{context.slack_ms:.0f} ms are left"
        if fitting:
            best = min(fitting, key=lambda arm: (arm.kind != "whole", -arm.accuracy))
            return Decision(best.variant, f"{best.variant} is predicted to be in time: {left}")
        fastest, fastest_ms = min(able, key=lambda entry: entry[1])
        return Decision(fastest.variant, f"none is in time, fastest with {fastest_ms:.0f} ms: {left}")
