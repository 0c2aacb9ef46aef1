"""Grouping the classes, and branches under one softmax."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from splitplace.workshop.training.semantic import (
    Branches,
    branch_loss,
    branch_of,
    class_similarity,
    distillation,
    group_classes,
    index_groups,
    other_loss,
)
from tests.support.small_networks import random_images, small_network, untrained_network


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


def test_groups_by_index_are_neighbouring_classes_and_of_equal_size() -> None:
    assert index_groups(10, 3) == ((0, 1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert index_groups(3, 1) == ((0, 1, 2),)
    with pytest.raises(ValueError, match="cannot divide 3 classes"):
        index_groups(3, 4)


def test_every_class_has_one_branch() -> None:
    np.testing.assert_array_equal(branch_of(((1, 4), (0, 2, 3))), [1, 0, 1, 1, 0])


def test_none_of_mine_is_a_logit_of_zero_in_each_branch() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
    owners = torch.tensor([0, 1, 0])
    labels = torch.tensor([0, 1])
    e = np.exp
    first = -np.log(e(2.0) / (1 + e(2.0) + e(0.5))), -np.log(1 / (1 + e(-1.0)))
    second = -np.log(1 / (1 + e(0.0) + e(-2.0))), -np.log(e(3.0) / (1 + e(3.0)))
    expected = (first[0] + second[0]) / 4 + (first[1] + second[1]) / 4
    assert float(other_loss(logits, labels, owners)) == pytest.approx(expected, rel=1e-6)


def test_a_branch_that_learns_to_say_none_of_mine_gives_low_logits_to_what_is_not_its_own() -> None:
    groups = ((0, 2), (1,))
    torch.manual_seed(0)
    student = Branches(groups, lambda outputs: nn.Sequential(nn.Flatten(), nn.Linear(4, outputs)))
    images = torch.eye(4)[torch.arange(60) % 3].reshape(60, 1, 2, 2)
    labels = torch.arange(60) % 3
    loss = branch_loss(student, groups=groups, other_share=1.0)
    optimizer = torch.optim.SGD(student.parameters(), lr=2.0)
    for _ in range(200):
        optimizer.zero_grad()
        loss(images, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.inference_mode():
        logits = student(images[:3])
    owners = branch_of(groups)
    for label in range(3):
        assert logits[label, label] > 1
        assert (logits[label][torch.from_numpy(owners != owners[label])] < -1).all()


def test_with_no_help_the_loss_is_cross_entropy_with_the_labels() -> None:
    student = small_network(10, seed=2)
    images, labels = torch.from_numpy(random_images(8)), torch.arange(8)
    plain = nn.functional.cross_entropy(student(images), labels)
    assert float(branch_loss(student)(images, labels).detach()) == pytest.approx(float(plain.detach()))
