"""The policies that the experiments compare."""

from splitplace.experiments.plan import PolicyRow

PAPER = ("mc+gobi", "gillis+gobi", "semantic+gobi", "layer+gobi", "random+daso", "mab+gobi", "mab+daso")
"""The seven models of Table 4. The paper does not say how its two baselines place fragments; here they use
GOBI, as its ablations do."""

SPLITPLACE = "mab+daso"
"""The policy that the paper proposes."""

OURS = "expected-reward+earliest-finish"
"""The default of the product, with the paper's arms."""

OURS_WITH_DASO = "expected-reward+daso"
"""Our split policy with the paper's placement policy."""

ORACLE = "oracle+earliest-finish"
"""An oracle that sees true response times."""

EVERY_ARM = ("whole", "layer", "semantic", "compressed")
"""The arms that the product chooses among by default; the paper has two of them."""

DEFAULT = PolicyRow(f"{OURS} (every arm)", OURS, EVERY_ARM)
"""The product with its default arms. `OURS` alone has the paper's two arms, like the other policies."""

FORESIGHT = PolicyRow(f"{ORACLE} (every arm)", ORACLE, EVERY_ARM)
"""An oracle with every arm."""

LEARNERS = ("mab+earliest-finish", "linucb+earliest-finish", "thompson+earliest-finish")
"""Other learning split policies, with the placement that needs no learning."""

FIXED = ("semantic+earliest-finish", "layer+earliest-finish")
"""Fixed split policies, with the placement that needs no learning."""

ALL = (*PAPER, *FIXED, "rule+earliest-finish", *LEARNERS, OURS, OURS_WITH_DASO, ORACLE)
"""All policies of the main comparison."""

SWEPT = ("mc+gobi", "layer+gobi", "mab+gobi", "mab+daso")
"""The paper's models in experiments with many settings: its best, its ablation and its extremes."""

SWEEP = (*SWEPT, "rule+earliest-finish", OURS)
"""Policies of the long sweeps, so that `all` ends within about half an hour on two cores."""
