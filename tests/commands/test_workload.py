"""What a demo asks for suits the applications and nodes it has."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitplace.commands.demo.samples import IMAGES, find_samples
from splitplace.commands.demo.workload import LARGEST_BATCH, OVERHEAD_MS, largest_batch, tight_deadline
from splitplace.messages.application import Application
from splitplace.messages.cluster import NodeState
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.datasets import DatasetError
from tests.support.tiny_application import build_tiny_application


def application(root: Path, milliseconds_per_image: float, name: str = "tiny") -> Application:
    return build_tiny_application(root, name=name, milliseconds_per_image=milliseconds_per_image)


def node(name: str, score: float, queue_ms: float = 0.0) -> NodeState:
    return NodeState(
        node=name,
        boot="b" * 16,
        online=True,
        silent_ms=0.0,
        score=score,
        memory_budget_bytes=1_000_000,
        loaded=(),
        queue_ms=queue_ms,
        queue_length=0,
        cpu_ratio=0.0,
        link_megabytes_per_second=100.0,
        timings=(),
    )


NODES = (node("a", 50.0), node("b", 50.0))


def test_heavy_applications_get_smaller_batches(tmp_path: Path) -> None:
    light, heavy = application(tmp_path / "a", 0.01), application(tmp_path / "b", 5.0)
    assert largest_batch(light) == LARGEST_BATCH
    assert 1 <= largest_batch(heavy) < 16


def test_deadlines_grow_with_the_work_of_an_application(tmp_path: Path) -> None:
    light = tight_deadline(application(tmp_path / "a", 0.1), NODES)
    heavy = tight_deadline(application(tmp_path / "b", 1.0), NODES)
    assert light is not None
    assert heavy is not None
    assert heavy.ms_per_image > 3 * light.ms_per_image > 0
    assert heavy.ms == pytest.approx(light.ms)
    assert light.ms > OVERHEAD_MS


def test_deadlines_grow_on_slower_nodes_but_not_with_their_queues(tmp_path: Path) -> None:
    tiny = application(tmp_path, 1.0)
    usual = tight_deadline(tiny, NODES)
    slower = tight_deadline(tiny, (node("a", 5.0), node("b", 5.0)))
    assert usual is not None
    assert slower is not None
    assert slower.ms_per_image == pytest.approx(10 * usual.ms_per_image, rel=0.2)
    assert tight_deadline(tiny, (node("a", 50.0, queue_ms=900.0), NODES[1])) == usual


def test_without_a_node_that_can_run_it_there_is_no_deadline(tmp_path: Path) -> None:
    assert tight_deadline(application(tmp_path, 1.0), ()) is None


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """CIFAR-100 with its first training pictures only: decoding others fails."""
    folder = tmp_path / "data"
    folder.mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "one.webp", lossless=True)
    picture = np.frombuffer((folder / "one.webp").read_bytes(), np.uint8)
    offsets = np.full(50_001, IMAGES * len(picture))
    offsets[: IMAGES + 1] = np.arange(IMAGES + 1) * len(picture)
    np.savez(
        folder / "cifar100.npz",
        train_images_blob=np.tile(picture, IMAGES),
        train_offsets=offsets,
        train_labels=np.arange(50_000) % 100,
    )
    return folder


def test_cifar_images_are_held_out_training_images_and_no_others(tmp_path: Path, data: Path) -> None:
    cifar = application(tmp_path / "store", 1.0, "cifar100")
    found = find_samples(ModelStore(tmp_path / "store"), [cifar], data, tmp_path / "run")
    with np.load(found["cifar100"]) as samples:
        assert (samples["images"].shape, samples["images"].dtype) == ((IMAGES, 3, 32, 32), np.uint8)
        assert samples["labels"].tolist() == [number % 100 for number in range(IMAGES)]


def test_samples_of_the_store_come_first(tmp_path: Path, data: Path) -> None:
    cifar = application(tmp_path / "store", 1.0, "cifar100")
    shipped = tmp_path / "store" / "cifar100" / "samples.npz"
    shipped.touch()
    found = find_samples(ModelStore(tmp_path / "store"), [cifar], data, tmp_path / "run")
    assert found == {"cifar100": shipped}


def test_samples_of_a_shipped_network_serve_the_own_one_in_its_place(tmp_path: Path) -> None:
    for folder in ("own", "shipped"):
        cifar = application(tmp_path / folder, 1.0, "cifar100")
    shipped = tmp_path / "shipped" / "cifar100" / "samples.npz"
    shipped.touch()
    store = ModelStore(tmp_path / "own", tmp_path / "shipped")
    assert find_samples(store, [cifar], None, tmp_path / "run") == {"cifar100": shipped}


def test_an_application_without_images_is_left_out(tmp_path: Path) -> None:
    others = [application(tmp_path / "store", 1.0, name) for name in ("tiny", "cifar100")]
    assert find_samples(ModelStore(tmp_path / "store"), others, None, tmp_path / "run") == {}


def test_a_folder_that_was_given_and_holds_nothing_is_an_error(tmp_path: Path) -> None:
    cifar = application(tmp_path / "store", 1.0, "cifar100")
    with pytest.raises(DatasetError, match="does not hold cifar100"):
        find_samples(ModelStore(tmp_path / "store"), [cifar], tmp_path, tmp_path / "run")
