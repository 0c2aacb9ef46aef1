"""Memory for several runs of a fragment at once."""

from pathlib import Path

from splitplace.edge_node.catalogue import Catalogue
from splitplace.edge_node.lending import ActivationLender
from splitplace.edge_node.memory import MemoryBudget
from tests.support.tiny_application import build_tiny_application


def test_each_further_run_takes_its_activations_while_there_is_memory(tmp_path: Path) -> None:
    application = build_tiny_application(tmp_path)
    fragment = application.fragments[0]
    activations = fragment.peak_memory_bytes - fragment.weight_bytes
    assert activations > 0
    catalogue = Catalogue(50.0)
    budget = MemoryBudget(fragment.peak_memory_bytes + 2 * activations)
    lender = ActivationLender(catalogue, budget)
    assert not lender.lend(fragment.sha256), "nothing is known of it"
    catalogue.add_application(application)
    budget.reserve(fragment.sha256, fragment.peak_memory_bytes, ())
    assert [lender.lend(fragment.sha256) for _ in range(3)] == [True, True, False]
    lender.repay(fragment.sha256)
    assert [lender.lend(fragment.sha256) for _ in range(2)] == [True, False]
