"""Grouping the classes, and branches under one softmax."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.semantic import Branches, class_similarity, distillation, group_classes
from tests.models.networks import random_images, small_network, untrained_network


def test_classes_that_look_alike_come_together() -> None:
    families = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    similarity = (families[:, None] == families).astype(np.float64)
    similarity += np.random.default_rng(0).normal(0, 0.01, similarity.shape)
    similarity = (similarity + similarity.T) / 2
    assert group_classes(similarity, 3) == ((0, 3, 6), (1, 4, 7), (2, 5, 8))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_groups_hold_every_class_once_and_are_of_equal_size(classes: int, branches: int, seed: int) -> None:
    branches = min(branches, classes)
    noise = np.random.default_rng(seed).normal(size=(classes, classes))
    groups = group_classes(noise + noise.T, branches)
    assert sorted(index for group in groups for index in group) == list(range(classes))
    sizes = {len(group) for group in groups}
    assert len(groups) == branches
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("branches", [0, 4])
def test_more_branches_than_classes_are_refused(branches: int) -> None:
    with pytest.raises(ValueError, match="cannot divide 3 classes"):
        group_classes(np.eye(3), branches)


def test_similarity_is_of_the_class_means() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2], np.uint8)
    features = np.array([[1, 0], [3, 0], [2, 0.1], [2, -0.1], [-4, 1], [-4, -1]], np.float32)
    similarity = class_similarity(features, labels)
    np.testing.assert_allclose(np.diag(similarity), 1)
    assert similarity[0, 1] > 0.9
    assert similarity[0, 2] < 0


def test_columns_stand_in_the_order_of_the_classes() -> None:
    groups = ((1, 4), (0, 2, 3))
    torch.manual_seed(0)
    branches = Branches(groups, untrained_network).eval()
    images = torch.from_numpy(random_images(3))
    with torch.inference_mode():
        logits = branches(images)
        for branch, group in zip(branches.branches, groups, strict=True):
            torch.testing.assert_close(logits[:, list(group)], branch(images))


def test_distillation_pulls_towards_the_teacher_and_leaves_it_unchanged() -> None:
    teacher, student = small_network(3, seed=1), small_network(3, seed=2)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    images, labels = torch.from_numpy(random_images(8)), torch.zeros(8, dtype=torch.int64)
    only_teacher = distillation(student, teacher, share=1.0)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05)

    def distance() -> float:
        with torch.inference_mode():
            answers, aims = (torch.softmax(network(images), 1) for network in (student.eval(), teacher))
        return float(nn.functional.mse_loss(answers, aims))

    first = distance()
    for _ in range(20):
        optimizer.zero_grad()
        only_teacher(images, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert distance() < first / 2
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
