"""Manifests: what describes a network that cannot run is refused when it is read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from splitplace.messages.application import INPUT, Application, Fragment, Stage, Variant
from splitplace.messages.tensors import TensorSpec
from tests.support.message_examples import (
    BACK,
    CUT,
    FRONT,
    IMAGE,
    LEFT,
    LOGITS,
    RIGHT,
    WHOLE,
    application,
    fragment,
    variant,
)

EVERYTHING = (0, 1, 2, 3)


def test_a_chain_a_star_and_a_single_stage_are_applications() -> None:
    digits = application()
    assert [len(variant.stages) for variant in digits.variants] == [1, 2, 2]
    assert [len(variant.roots) for variant in digits.variants] == [1, 1, 2]
    assert [len(variant.sinks) for variant in digits.variants] == [1, 1, 2]
    assert digits.variant("layer").children("front") == digits.variant("layer").sinks


def test_an_application_names_every_file_once() -> None:
    digits = application()
    assert set(digits.files) == {file for each in digits.fragments for file in digits.files_of(each)}
    assert len(set(digits.files)) == len(digits.files)


def test_a_manifest_comes_back_unchanged_from_its_file() -> None:
    digits = application()
    assert Application.model_validate_json(digits.model_dump_json(indent=2)) == digits


def test_what_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        application().variant("nothing")
    with pytest.raises(KeyError):
        application().fragment("f" * 64)


@pytest.mark.parametrize(
    "stages",
    [
        [],
        [("a", "a")],  # reads itself
        [("a", "b"), ("b", "a")],  # a circle
        [("a", INPUT), ("b", "c"), ("c", "a")],  # a reader before its source
        [("a", INPUT), ("a", INPUT)],  # a name twice
        [(INPUT, INPUT)],  # the reserved name
        [("a", "nothing")],
        [(f"s{number}", INPUT) for number in range(65)],
    ],
)
def test_stages_that_are_no_out_tree_are_refused(stages: list[tuple[str, str]]) -> None:
    with pytest.raises(ValidationError):
        variant("v", *(Stage(name=name, fragment=WHOLE, source=source) for name, source in stages))


@given(parents=st.lists(st.integers(0, 30), min_size=1, max_size=20))
def test_every_out_tree_has_its_roots_its_sinks_and_all_stages_between(parents: list[int]) -> None:
    """Stage i reads the input or any stage before it: all out-trees can be written so."""
    sources = [INPUT if parent >= index else f"s{parent}" for index, parent in enumerate(parents)]
    tree = variant(
        "v", *(Stage(name=f"s{i}", fragment=WHOLE, source=source) for i, source in enumerate(sources))
    )
    reached, waiting = set[str](), [stage.name for stage in tree.roots]
    while waiting:
        name = waiting.pop()
        assert name not in reached
        reached.add(name)
        waiting += [stage.name for stage in tree.children(name)]
    assert reached == {stage.name for stage in tree.stages}
    assert {stage.name for stage in tree.sinks} == reached - set(sources)


def whole(**changes: Any) -> Variant:
    fields: dict[str, Any] = {"name": "whole", "fragment": WHOLE, "source": INPUT, "classes": EVERYTHING}
    return variant("whole", Stage(**(fields | changes)))


def star(left: tuple[int, ...], right: tuple[int, ...]) -> Variant:
    return variant(
        "semantic",
        Stage(name="left", fragment=LEFT, source=INPUT, classes=left),
        Stage(name="right", fragment=RIGHT, source=INPUT, classes=right),
    )


@pytest.mark.parametrize(
    "broken",
    [
        whole(fragment="f" * 64),  # not described
        whole(classes=()),
        whole(classes=(0, 1, 2)),  # a class without a column
        whole(classes=(0, 1, 2, 2)),
        whole(classes=(0, 1, 2, 4)),
        whole(fragment=LEFT),  # two columns for four classes
        whole(fragment=BACK),  # reads what the input is not
        star((0, 1), (1, 2)),
        star((0, 1, 2), (3,)),  # covers every class once, but not with these columns
        variant(
            "layer",  # the second fragment does not read what the first gives
            Stage(name="front", fragment=FRONT, source=INPUT),
            Stage(name="back", fragment=WHOLE, source="front", classes=EVERYTHING),
        ),
    ],
    ids=str,
)
def test_a_variant_whose_stages_do_not_fit_together_is_refused(broken: Variant) -> None:
    with pytest.raises(ValidationError, match=broken.name):
        application(variants=(broken,))


def test_a_micro_batch_that_is_larger_than_any_tensor_may_be_is_refused() -> None:
    wide = TensorSpec(dtype="float32", shape=(1 << 20,))
    fragments = (fragment(1, IMAGE, wide), fragment(2, wide, LOGITS))
    stages = (
        Stage(name="front", fragment=fragments[0].sha256, source=INPUT),
        Stage(name="back", fragment=fragments[1].sha256, source="front", classes=EVERYTHING),
    )
    assert (
        application(variants=(variant("layer", *stages),), fragments=fragments).variants[0].micro_batch == 16
    )
    with pytest.raises(ValidationError, match="micro-batch"):
        application(variants=(variant("layer", *stages, micro_batch=17),), fragments=fragments)


def test_names_and_hashes_may_not_stand_twice() -> None:
    with pytest.raises(ValidationError, match="twice"):
        application(variants=(whole(), whole()))
    with pytest.raises(ValidationError, match="twice"):
        application(fragments=(*application().fragments, application().fragments[0]))


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "F" * 64},
        {"sha256": "../../etc/passwd"},
        {"file_bytes": -1},
        {"peak_memory_bytes": 2**60},
        {"milliseconds_per_image": float("nan")},
        {"milliseconds_per_call": float("inf")},
        {"flops_per_image": -1.0},
    ],
    ids=str,
)
def test_a_fragment_with_impossible_figures_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        fragment(0, IMAGE, LOGITS, **changes)


@pytest.mark.parametrize("dtype", ["float64", "uint16", "object", ""])
def test_a_tensor_of_another_type_is_refused(dtype: str) -> None:
    with pytest.raises(ValidationError):
        TensorSpec.model_validate_json(json.dumps({"dtype": dtype, "shape": [1]}))


@pytest.mark.parametrize("shape", [[0], [-1], [1 << 21], [1] * 9, ["n"], [1.5]])
def test_a_tensor_of_impossible_shape_is_refused(shape: list[object]) -> None:
    with pytest.raises(ValidationError):
        TensorSpec.model_validate_json(json.dumps({"dtype": "uint8", "shape": shape}))


def test_bytes_of_an_image_count_every_dimension() -> None:
    assert CUT.bytes_per_image == 8 * 7 * 7 * 2
    assert isinstance(application().fragment(FRONT), Fragment)
