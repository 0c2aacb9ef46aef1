"""The policies that the experiments compare."""

from splitplace.experiments.plan import PolicyRow
from splitplace.simulator.oracle import UPPER_BOUND

PAPER = ("mc+gobi", "gillis+gobi", "semantic+gobi", "layer+gobi", "random+daso", "mab+gobi", "mab+daso")
"""The seven models of Table 4. The paper does not say how its two baselines place fragments; here they use
GOBI, as its ablations do."""

SPLITPLACE = "mab+daso"
"""The policy that the paper proposes."""

UNTRAINED = PolicyRow(f"{SPLITPLACE} (untrained)", SPLITPLACE, trained=False)
"""The paper's policy without training: its bandit explores by equation 9 from the beginning. It can
earn more than the trained one, so a lead counts against both."""

BOUND = PolicyRow("upper bound", f"{UPPER_BOUND}+earliest-finish")
"""What no policy can exceed with the paper's arms."""

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

BOUND_OF_ALL = PolicyRow("upper bound (every arm)", BOUND.policy, EVERY_ARM)
"""What no policy can exceed with every arm."""

SIMPLE = ("semantic+earliest-finish", "rule+earliest-finish")
"""What needs a few lines and no training, with the placement that needs none either."""

ALL = (*PAPER[1:], *SIMPLE, OURS, OURS_WITH_DASO, ORACLE)
"""All policies of the main comparison."""

SWEPT = ("gillis+gobi", "semantic+gobi", "layer+gobi", "random+daso", "mab+gobi", "mab+daso")
"""The paper's models with the arms that it gives them, in experiments with many settings."""

SWEEP = (*SWEPT, OURS)
"""Policies of the sweeps."""

SWEEP_SHORT = ("gillis+gobi", "semantic+gobi", "layer+gobi", "mab+gobi", SPLITPLACE, OURS)
"""Rows of the first table of the sweeps."""

COMPRESSED = PolicyRow("mc+gobi", "mc+gobi", ("compressed",))
"""The paper's model compression: one compressed network. `mc` may choose `whole` as well, which the
paper's cannot."""
