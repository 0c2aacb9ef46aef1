"""Applications whose fragments are runs of pieces."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from splitplace.messages.application import Application, Fragment, Stage, Variant
from splitplace.messages.pieces import (
    Chain,
    ChainStage,
    NamedChain,
    NamedTensor,
    OperatorSet,
    Piece,
    PieceCost,
)
from splitplace.messages.tensors import TensorSpec

SPECS = tuple(TensorSpec(dtype="float32", shape=(size,)) for size in (3, 5, 7, 2))
COST = PieceCost(
    milliseconds_per_image=0.1, weight_bytes=80, activation_bytes_per_image=40, flops_per_image=100.0
)


def chain_of_three() -> Chain:
    """The first and the last piece have the same weights."""
    return Chain(
        ir_version=9,
        opsets=(OperatorSet(domain="", version=20),),
        pieces=tuple(
            Piece(
                graph=f"{index:064x}",
                graph_bytes=10 + index,
                weights=None if index == 1 else "f" * 64,
                weights_bytes=0 if index == 1 else 4096,
            )
            for index in range(3)
        ),
        bundles=tuple((NamedTensor(name=f"t{index}", spec=spec),) for index, spec in enumerate(SPECS)),
    )


def fragment_of(chain: NamedChain, first: int, end: int) -> Fragment:
    stage = chain.chain.stage(first, end)
    return Fragment(
        sha256=stage.sha256,
        file_bytes=sum(file.file_bytes for file in stage.files),
        weight_bytes=100,
        peak_memory_bytes=200,
        flops_per_image=10.0,
        milliseconds_per_image=1.0,
        milliseconds_per_call=0.1,
        input=stage.inputs[0].spec,
        output=stage.outputs[0].spec,
        chain=chain.name,
        first=first,
        end=end,
    )


def in_pieces(*runs: tuple[int, int]) -> Application:
    """`whole`, and `layer` cut after the first piece, of one chain."""
    chain = NamedChain(name="whole", chain=chain_of_three(), costs=(COST,) * 3)
    fragments = [fragment_of(chain, first, end) for first, end in runs or ((0, 3), (0, 1), (1, 3))]
    whole = Stage(name="whole", fragment=fragments[0].sha256, source="input", classes=(0, 1))
    common: dict[str, Any] = {"micro_batch": 4, "accuracy": 0.9, "accuracy_images": 10}
    variants = [Variant(name="whole", kind="whole", stages=(whole,), **common)]
    if len(fragments) > 1:
        front = Stage(name="front", fragment=fragments[1].sha256, source="input")
        back = Stage(name="back", fragment=fragments[2].sha256, source="front", classes=(0, 1))
        variants.append(Variant(name="layer", kind="layer", stages=(front, back), **common))
    return Application(
        name="small",
        title="Small",
        input=SPECS[0],
        labels=("a", "b"),
        default_deadline_ms=100.0,
        reference_score=50.0,
        variants=tuple(variants),
        fragments=tuple(fragments),
        chains=(chain,),
    )


def test_variants_that_group_the_same_pieces_share_files() -> None:
    small = in_pieces()
    whole, front, back = small.fragments
    assert [len(small.files_of(each)) for each in (whole, front, back)] == [4, 2, 3], "the weights once"
    assert set(small.files_of(front)) | set(small.files_of(back)) == set(small.files_of(whole))
    assert set(small.files) == set(small.files_of(whole))
    assert len(small.files) == 4


def test_a_manifest_with_chains_comes_back_unchanged_from_its_file() -> None:
    small = in_pieces()
    assert Application.model_validate_json(small.model_dump_json(indent=2)) == small


def test_an_id_depends_on_everything_that_is_joined() -> None:
    stage = chain_of_three().stage(0, 3)
    others = [
        stage.model_copy(update=change)
        for change in (
            {"ir_version": 10},
            {"opsets": (OperatorSet(domain="", version=21),)},
            {"pieces": stage.pieces[:2]},
            {"inputs": stage.outputs},
            {"outputs": stage.inputs},
        )
    ]
    ids = {ChainStage.model_validate(each.model_dump()).sha256 for each in (stage, *others)}
    assert len(ids) == 6


def _another_id(manifest: dict[str, Any]) -> None:
    manifest["fragments"][0]["sha256"] = manifest["variants"][0]["stages"][0]["fragment"] = "0" * 64


def _another_run(manifest: dict[str, Any]) -> None:
    manifest["fragments"][0]["end"] = 2


def _no_such_run(manifest: dict[str, Any]) -> None:
    manifest["fragments"][0]["end"] = 4


def _no_such_chain(manifest: dict[str, Any]) -> None:
    manifest["fragments"][0]["chain"] = "other"


def _two_chains_of_a_name(manifest: dict[str, Any]) -> None:
    manifest["chains"].append(manifest["chains"][0])


def _another_input(manifest: dict[str, Any]) -> None:
    manifest["fragments"][2]["input"] = manifest["fragments"][1]["output"] = {
        "dtype": "float32",
        "shape": [6],
    }


def _another_size(manifest: dict[str, Any]) -> None:
    manifest["fragments"][0]["file_bytes"] += 1


def _two_sizes_of_a_file(manifest: dict[str, Any]) -> None:
    manifest["chains"][0]["chain"]["pieces"][2]["weights_bytes"] += 1


def _a_cost_too_few(manifest: dict[str, Any]) -> None:
    manifest["chains"][0]["costs"].pop()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_another_id, "another SHA-256 than its pieces"),
        (_another_run, "another SHA-256 than its pieces"),
        (_no_such_run, "no pieces 0 to 4"),
        (_no_such_chain, "chain 'other' that is not described"),
        (_two_chains_of_a_name, "name of a chain is given twice"),
        (_another_input, "other inputs or outputs than its pieces"),
        (_another_size, "another size than its files"),
        (_two_sizes_of_a_file, "two sizes"),
        (_a_cost_too_few, "2 costs for 3 pieces"),
    ],
)
def test_a_manifest_that_contradicts_its_pieces_is_refused(
    damage: Callable[[dict[str, Any]], None], reason: str
) -> None:
    manifest = in_pieces().model_dump(mode="json")
    damage(manifest)
    with pytest.raises(ValidationError, match=reason):
        Application.model_validate_json(json.dumps(manifest))


def test_pieces_of_all_chains_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces()
    monkeypatch.setattr("splitplace.messages.application.MAX_STORED_PIECES", 2)
    with pytest.raises(ValidationError, match="more than 2 pieces"):
        in_pieces()
