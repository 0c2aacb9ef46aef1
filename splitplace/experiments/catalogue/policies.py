"""Which policies are compared."""

from splitplace.experiments.plan import PolicyRow

PAPER = ("mc+gobi", "gillis+gobi", "semantic+gobi", "layer+gobi", "random+daso", "mab+gobi", "mab+daso")
"""The seven models of Table 4. The paper does not say what places the fragments of its two baselines; here
GOBI does, as for its ablations."""

SPLITPLACE = "mab+daso"
"""The paper's proposal."""

OURS = "expected-reward+earliest-finish"
"""The product's own."""

OURS_WITH_DASO = "expected-reward+daso"
"""Our own way to split on the paper's way to place."""

ORACLE = "oracle+earliest-finish"
"""Sees true response times."""

EVERY_ARM = ("whole", "layer", "semantic", "compressed")
"""What the product chooses among unless it is told otherwise; the paper knows two of them."""

DEFAULT = PolicyRow(f"{OURS} (every arm)", OURS, EVERY_ARM)
"""The product as it ships. `OURS` alone has the paper's two arms, as its rivals have."""

FORESIGHT = PolicyRow(f"{ORACLE} (every arm)", ORACLE, EVERY_ARM)
"""Sees true response times of every arm."""

LEARNERS = ("mab+earliest-finish", "linucb+earliest-finish", "thompson+earliest-finish")
"""Other ways to learn how to split, on the placement that needs no learning."""

FIXED = ("semantic+earliest-finish", "layer+earliest-finish")
"""What splitting alone does, on the placement that needs no learning."""

ALL = (*PAPER, *FIXED, "rule+earliest-finish", *LEARNERS, OURS, OURS_WITH_DASO, ORACLE)
"""Of the great comparison."""

SWEPT = ("mc+gobi", "layer+gobi", "mab+gobi", "mab+daso")
"""Those of the paper's models that meet many settings: its best, its ablation and its extremes."""

SWEEP = (*SWEPT, "rule+earliest-finish", OURS)
"""Of the long sweeps, which have to end within half an hour on two cores."""
