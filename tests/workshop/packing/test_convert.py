"""Applications of SplitPlace 0.2 become pieces; nothing is lost, whenever it ends."""

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from typing_extensions import override

from splitplace.edge_node.runtime import FragmentRuntime, load_fragment
from splitplace.edge_node.stage.pieces import joined_from
from splitplace.edge_node.stage.session import joined_session
from splitplace.messages.application import Application
from splitplace.messages.limits import MAX_STAGES
from splitplace.storage.model_store import ModelStore, sha256_of, verify
from splitplace.workshop.cutting.layer_split import cut
from splitplace.workshop.onnx.file import file_content
from splitplace.workshop.packing.convert import ConversionError, converted
from splitplace.workshop.packing.earlier import earlier_application, earlier_file
from splitplace.workshop.packing.evaluation import variant_logits
from splitplace.workshop.packing.merging import merged
from splitplace.workshop.pieces.loaded import stage_runtime
from tests.support.commands import exit_code
from tests.support.earlier_store import Earlier, build_earlier_application, narrow_network
from tests.support.small_pieces import noise


def alike(_: onnx.ModelProto, ends: Sequence[int]) -> list[float]:
    """Stands for a clock: segments that are each worth a piece."""
    return [1.0] * (len(ends) + 1)


def pieces_of(store: ModelStore, folder: Path, name: str = "old") -> Application:
    """The converted application; its files lie in the folder."""
    folder.mkdir()
    earlier = earlier_application(store, name)
    return converted(earlier, partial(earlier_file, store, name), folder, measure=alike)


def contents(application: Application, folder: Path) -> list[bytes]:
    return [(folder / file.sha256).read_bytes() for file in application.files]


def convert(root: Path) -> Application:
    """Convert `old` in the store in a folder."""
    store = ModelStore(root)
    application = pieces_of(store, root.with_name("pieces"))
    store.save(application, contents(application, root.with_name("pieces")))
    return application


def earlier_logits(before: Earlier, variant: dict[str, Any]) -> NDArray[Any]:
    tensors = {"input": noise(5)}
    for stage in variant["stages"]:
        tensors[stage["name"]] = load_fragment(before.file(stage["fragment"])).run(tensors[stage["source"]])
    return np.concatenate(
        [tensors[stage["name"]] for stage in variant["stages"] if stage.get("classes")], axis=1
    )


def run(*arguments: object) -> int:
    return exit_code("models", *arguments)


def without_ids(variant: dict[str, Any]) -> dict[str, Any]:
    filled: dict[str, Any] = {"classes": [], "accuracy": None}
    stages = [filled | {key: stage[key] for key in stage if key != "fragment"} for stage in variant["stages"]]
    kept = {key: value for key, value in variant.items() if key != "most_stages"}
    return kept | {"stages": stages}


def test_everything_that_was_measured_is_kept_and_every_variant_answers_as_before(tmp_path: Path) -> None:
    before = build_earlier_application(tmp_path / "store")
    expected = {variant["name"]: earlier_logits(before, variant) for variant in before.manifest["variants"]}
    after = convert(tmp_path / "store")
    store = ModelStore(tmp_path / "store")
    assert store.application("old") == after
    manifest = after.model_dump(mode="json")
    for key in ("name", "title", "input", "labels", "default_deadline_ms", "reference_score"):
        assert manifest[key] == before.manifest[key]
    assert list(map(without_ids, manifest["variants"])) == list(map(without_ids, before.manifest["variants"]))
    assert {variant.name: variant.most_stages for variant in after.variants if variant.most_stages} == {
        "layer": MAX_STAGES
    }
    for old, new in zip(before.manifest["fragments"], manifest["fragments"], strict=True):
        for key in ("milliseconds_per_image", "milliseconds_per_call", "input", "output"):
            assert new[key] == old[key]
    for variant in after.variants:
        found = variant_logits(after, variant, partial(stage_runtime, store, after), noise(5))
        np.testing.assert_allclose(found, expected[variant.name], rtol=1e-5, atol=1e-5)


def test_chains_of_one_network_share_its_pieces_and_others_get_their_own(tmp_path: Path) -> None:
    build_earlier_application(tmp_path / "store")
    after = convert(tmp_path / "store")
    runs = {
        variant.name: [
            (after.fragment(stage.fragment).chain, after.fragment(stage.fragment).first)
            for stage in variant.stages
        ]
        for variant in after.variants
    }
    assert {chain for name in ("whole", "layer") for chain, _ in runs[name]} == {"whole"}
    assert {chain for chain, _ in runs["narrow"]} == {"narrow"}, "its halves were put together again"
    assert runs["narrow"][0][1] == 0 < runs["narrow"][1][1]
    assert runs["semantic"] == [("semantic-0", 0), ("semantic-1", 0)]
    layers = [after.fragment(stage.fragment) for stage in after.variant("layer").stages]
    assert [layers[0].first, layers[-1].end] == [0, len(after.chain("whole").chain.pieces)]
    assert all(a.end == b.first for a, b in pairwise(layers))
    whole = after.fragment(after.variant("whole").stages[0].fragment)
    assert set(after.files_of(whole)) == {file for each in layers for file in after.files_of(each)}


def test_weights_in_nodes_and_of_shapes_count_as_memory(tmp_path: Path) -> None:
    build_earlier_application(tmp_path / "store")
    after = convert(tmp_path / "store")
    in_a_node, of_a_shape, classifier = 4 * 16 * 3 * 9, 4 * 16 * 12 * 12, 4 * 16 * 4
    chain = after.chain("narrow")
    assert sum(cost.weight_bytes for cost in chain.costs) == in_a_node + of_a_shape + classifier
    assert sum(piece.weights_bytes for piece in chain.chain.pieces) >= in_a_node + of_a_shape


def test_times_of_pieces_sum_up_to_those_of_their_network(tmp_path: Path) -> None:
    build_earlier_application(tmp_path / "store")
    after = convert(tmp_path / "store")
    runs = [each for each in after.fragments if each.chain == "narrow"]
    costs = after.chain("narrow").costs
    assert sum(cost.milliseconds_per_image for cost in costs) == pytest.approx(
        sum(each.milliseconds_per_image for each in runs), abs=1e-3
    )


def test_a_chain_with_other_weights_than_the_whole_is_a_network_of_its_own(tmp_path: Path) -> None:
    before = build_earlier_application(tmp_path / "store")
    old = before.manifest["variants"][1]["stages"][1]["fragment"]
    model = onnx.load(before.file(old))
    values = numpy_helper.to_array(model.graph.initializer[0]) * np.float32(1.5)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, model.graph.initializer[0].name))
    new = sha256_of(file_content(model))
    before.file(new).write_bytes(file_content(model))
    text = json.dumps(before.manifest).replace(old, new)
    (tmp_path / "store" / "old" / "manifest.json").write_text(text)
    after = convert(tmp_path / "store")
    assert {after.fragment(stage.fragment).chain for stage in after.variant("layer").stages} == {"layer"}


class _Deviating(FragmentRuntime):
    """Gives 1.001 times what it should."""

    @override
    def run(self, array: NDArray[Any], *, all_cores: bool = False) -> NDArray[Any]:
        right = super().run(array, all_cores=all_cores)
        return (right * 1.001).astype(right.dtype)


def test_pieces_that_answer_otherwise_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build_earlier_application(tmp_path / "store")
    monkeypatch.setattr(
        "splitplace.workshop.packing.convert.load_stage",
        lambda stage, folder: _Deviating(joined_session(stage, joined_from(folder, stage), folder)),
    )
    with pytest.raises(ConversionError, match="differ from its file"):
        convert(tmp_path / "store")
    assert json.loads((tmp_path / "store" / "old" / "manifest.json").read_text()) == before.manifest


def test_parts_that_contradict_each_other_are_not_put_together() -> None:
    first, second = cut(narrow_network(), ["code"])
    assert merged([first, second]) is not None
    assert merged([second, first]) is None
    other = onnx.ModelProto()
    other.CopyFrom(second)
    other.graph.node[0].output[0] = other.graph.node[1].input[0] = "r"
    assert merged([first, other]) is None


def test_the_command_converts_what_needs_it_and_says_what_it_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "own"
    for name in ("one", "two"):
        build_earlier_application(store, name)
    assert run("convert", "one", "--store", store) == 0
    assert "converted: one" in capsys.readouterr().out
    assert run("convert", "--store", store) == 0
    shown = capsys.readouterr().out
    assert "converted: two" in shown
    assert "one" not in shown.replace("none", "")
    assert run("convert", "one", "--store", store) == 0
    assert "one is in pieces already" in capsys.readouterr().out
    assert {path.name for path in (store / "one").iterdir()} == {"manifest.json", "pieces"}

    build_earlier_application(tmp_path / "shipped", "three")
    both = ModelStore(store, tmp_path / "shipped")
    monkeypatch.setattr("splitplace.commands.models.convert.model_store", lambda _: both)
    assert run("convert", "three") == 1
    assert "can only be read" in capsys.readouterr().err


CRASHING = """
import os, pathlib, shutil, sys
from splitplace.messages.application import Application
from splitplace.storage.model_store import ModelStore

root, pieces, manifest = map(pathlib.Path, sys.argv[1:])
application = Application.model_validate_json(manifest.read_bytes())
contents = [(pieces / file.sha256).read_bytes() for file in application.files]
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def save(copy, steps):
    left = steps

    def hook(event, arguments):
        nonlocal left
        if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            left -= 1
            if left < 0:
                os._exit(9)

    sys.addaudithook(hook)
    ModelStore(copy).save(application, contents)
    os._exit(0)


for steps in range(10_000):
    copy = root.with_name(f"{root.name}-{steps}")
    shutil.copytree(root, copy)
    child = os.fork()
    if child == 0:
        save(copy, steps)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == 0:
        break
print(steps)
"""


def test_an_end_at_any_moment_leaves_the_old_application_or_the_new_one(tmp_path: Path) -> None:
    """A process that saves the converted application ends before its first, second, ... change on disk."""
    before = build_earlier_application(tmp_path / "store")
    after = pieces_of(ModelStore(tmp_path / "store"), tmp_path / "pieces")
    (tmp_path / "after.json").write_text(after.model_dump_json())
    child = subprocess.run(
        [sys.executable, "-c", CRASHING, tmp_path / "store", tmp_path / "pieces", tmp_path / "after.json"],
        capture_output=True,
        text=True,
        check=True,
    )
    steps = int(child.stdout)
    assert steps > 2 * len(after.files), "each file is opened and moved"
    converted_already = []
    for step in range(steps + 1):
        copy = ModelStore(tmp_path / f"store-{step}")
        found = json.loads(copy.manifest("old"))
        if found == before.manifest:
            for fragment in before.manifest["fragments"]:
                verify(earlier_file(copy, "old", fragment["sha256"]), fragment["sha256"])
        else:
            assert copy.application("old") == after
            for file in after.files:
                verify(copy.file_path(file.sha256), file.sha256)
        converted_already.append(found != before.manifest)
    assert converted_already == sorted(converted_already), "the old one, then the new one"
    assert converted_already.count(True) > 1, "old files are removed after the manifest is replaced"
    half = tmp_path / f"store-{steps // 2}"
    ModelStore(half).save(after, contents(after, tmp_path / "pieces"))
    left = {path.name for path in half.rglob("*") if path.is_file()}
    assert left == {"manifest.json", *(file.sha256 for file in after.files)}
