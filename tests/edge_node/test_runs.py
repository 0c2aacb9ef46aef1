"""Nodes run pieces that were grouped for a task, which no manifest describes."""

from pathlib import Path

import numpy as np
import pytest

from splitplace.edge_node import runs
from splitplace.edge_node.catalogue import Catalogue
from splitplace.messages.cluster import PrepareFragments
from splitplace.messages.groupings import grouped
from splitplace.messages.pieces import PieceRun
from splitplace.messages.topics import NODE_PREPARE
from tests.edge_node.world import routes, world
from tests.support.free_stages import free_application
from tests.support.tiny_application import build_tiny_application, right_answers, tiny_images
from tests.support.waiting import until


def test_a_run_is_described_once_its_application_is_known() -> None:
    app = free_application(4)
    found = grouped(app, app.variant("layer"), [1])
    catalogue = Catalogue(score=10.0)
    for name, fragment in found.fragments.items():
        catalogue.add_run(fragment.sha256, app.name, found.runs[name])
        assert catalogue.described(fragment.sha256) is None
    catalogue.add_application(app)
    for fragment in found.fragments.values():
        described = catalogue.described(fragment.sha256)
        assert described is not None
        assert described.fragment == fragment
        assert described.files == app.files_of(fragment)
        assert described.stage == app.stage_of(fragment)
        assert catalogue.expected_ms(fragment.sha256, 4, None) > 0


@pytest.mark.parametrize(
    "run", [PieceRun(chain="net", first=0, end=2), PieceRun(chain="other", first=0, end=1)]
)
def test_a_run_with_another_hash_than_it_was_said_to_have_is_none(run: PieceRun) -> None:
    app = free_application(6)
    catalogue = Catalogue(score=10.0)
    catalogue.add_application(app)
    catalogue.add_run("e" * 64, app.name, run)
    assert catalogue.described("e" * 64) is None


def test_runs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_RUNS", 2)
    app = free_application(4)
    catalogue = Catalogue(score=10.0)
    catalogue.add_application(app)
    hashes = []
    for cut in (1, 2, 3):
        found = grouped(app, app.variant("layer"), [cut])
        name, fragment = list(found.fragments.items())[-1]
        catalogue.add_run(fragment.sha256, app.name, found.runs[name])
        catalogue.described(fragment.sha256)
        hashes.append(fragment.sha256)
    assert catalogue.described(hashes[0]) is None
    assert catalogue.described(hashes[2]) is not None


@pytest.mark.parametrize("cuts", [[], [1], [2]])
async def test_stages_that_were_grouped_for_a_task_give_the_right_answers(
    mosquitto_url: str, tmp_path: Path, cuts: list[int]
) -> None:
    images, _ = tiny_images(8)
    application = build_tiny_application(tmp_path / "models", most_stages=3)
    found = grouped(application, application.variant("layer"), cuts)
    names = ["n1", "n2"][: len(found.fragments)]
    async with world(mosquitto_url, tmp_path, *names, application=application) as w:
        (route,) = routes(found.variant, names, found.runs)
        await w.outside.send(route, images)
        await until(lambda: w.outside.outputs, 30)
        last = found.variant.sinks[0].name
        np.testing.assert_array_equal(w.outside.output(last), right_answers(images))
        assert [report.node for report in w.outside.header(last).trace] == names


async def test_a_hint_prepares_pieces_that_no_manifest_describes(mosquitto_url: str, tmp_path: Path) -> None:
    application = build_tiny_application(tmp_path / "models", most_stages=3)
    found = grouped(application, application.variant("layer"), [2])
    fragments = {name: fragment.sha256 for name, fragment in found.fragments.items()}
    async with world(mosquitto_url, tmp_path, "n1", application=application) as w:
        hint = PrepareFragments(
            node="n1",
            task="c.t",
            attempt=1,
            fragments=tuple(fragments.values()),
            application=application.name,
            runs=tuple(found.runs[name] for name in fragments),
        )
        await w.outside.bus.publish(NODE_PREPARE, hint)
        await until(lambda: set(w.info("n1").loaded) == set(fragments.values()), 30)
