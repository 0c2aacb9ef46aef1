"""Memory for several runs of a fragment at once."""

from splitplace.edge_node.lending import ActivationLender
from splitplace.edge_node.memory import MemoryBudget


def test_each_further_run_takes_its_activations_while_there_is_memory() -> None:
    sizes: dict[str, int] = {}
    budget = MemoryBudget(100 + 2 * 30)
    lender = ActivationLender(sizes.get, budget)
    assert not lender.lend("f"), "nothing is known of it"
    sizes["f"] = 30
    budget.reserve("f", 100, ())
    assert [lender.lend("f") for _ in range(3)] == [True, True, False]
    lender.repay("f")
    assert [lender.lend("f") for _ in range(2)] == [True, False]


def test_what_was_lent_is_paid_back_though_more_is_needed_since() -> None:
    sizes = {"f": 30}
    budget = MemoryBudget(60)
    lender = ActivationLender(sizes.get, budget)
    assert lender.lend("f")
    sizes["f"] = 60
    lender.repay("f")
    assert budget.lend(60)
