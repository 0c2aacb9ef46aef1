"""The regularisation by which SplitNet learns groups."""

import numpy as np
import pytest
import torch

from splitplace.workshop.training.splitnet import (
    Assignments,
    Grouped,
    Strengths,
    nearest_groups,
    off_group,
    overlap,
    unevenness,
)

PURE = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
"""Two groups of two members each."""


def test_weights_inside_groups_cost_nothing_and_those_between_groups_their_norm() -> None:
    inside = torch.kron(torch.eye(2), torch.ones(2, 2))
    assert off_group(inside, PURE, PURE) == pytest.approx(0, abs=1e-2)
    crossing = inside.clone()
    crossing[0, 3] = 3.0
    assert off_group(crossing, PURE, PURE) == pytest.approx(2 * 3.0, abs=1e-2)


def test_a_kernel_counts_as_one_connection_of_its_norm() -> None:
    kernels = torch.zeros(4, 4, 3, 3)
    kernels[0, 3] = 1.0
    assert off_group(kernels, PURE, PURE) == pytest.approx(2 * 3.0, abs=1e-2)


def test_undecided_members_and_unequal_groups_cost_more() -> None:
    undecided = torch.full((2, 4), 0.5)
    lopsided = torch.tensor([[1.0] * 4, [0.0] * 4])
    assert overlap(PURE) == 0
    assert overlap(undecided) == pytest.approx(4 * 0.25)
    assert unevenness(PURE) == unevenness(undecided) == pytest.approx(4 * 0.5)
    assert unevenness(lopsided) == pytest.approx(4.0)


def test_every_group_gets_its_least_number_of_members_from_groups_that_can_spare_them() -> None:
    probabilities = np.array([[0.9, 0.8, 0.6, 0.55], [0.1, 0.2, 0.4, 0.45]])
    assert nearest_groups(probabilities, least=0).tolist() == [0, 0, 0, 0]
    assert nearest_groups(probabilities, least=2).tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="4 members are too few"):
        nearest_groups(probabilities, least=3)


def test_descent_on_the_penalty_finds_the_blocks_of_a_matrix() -> None:
    torch.manual_seed(0)
    order = torch.randperm(8)
    weight = (torch.kron(torch.eye(2), torch.ones(4, 4)) + 0.05)[order]
    assignments = Assignments(2, {"out": 8, "in": 8})
    optimizer = torch.optim.SGD(assignments.parameters(), lr=0.01, momentum=0.9)
    for _ in range(100):
        optimizer.zero_grad()
        penalty = assignments.penalty([Grouped(weight, "out", "in")], Strengths(0.1, 0.01, 0.5))
        penalty.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    outputs, inputs = assignments.hard("out", 1), assignments.hard("in", 1)
    assert inputs.tolist() in ([0] * 4 + [1] * 4, [1] * 4 + [0] * 4)
    assert (outputs == inputs[order.numpy()]).all()
