"""Pictures of a folder, a video and a topic become tasks, over a real broker and a gateway that answers."""

import asyncio
import io
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import av
import numpy as np
import pytest
import typer
from PIL import Image

from splitplace.bus.connection import Bus
from splitplace.bus.publication import Publication
from splitplace.bus.settings import Settings
from splitplace.commands.camera.command import command
from splitplace.commands.camera.frames import Chooser, Frame, Waiting
from splitplace.commands.camera.sources import (
    Folder,
    Source,
    SourceError,
    Video,
    picture_of_topic,
    source_of,
)
from splitplace.commands.camera.watching import Camera, watch
from splitplace.commands.processes.broker import started_broker
from splitplace.commands.shared.client import connected
from splitplace.errors import ExitCode, UnreachableError
from splitplace.messages.cluster import ServiceStatus
from splitplace.messages.findings import Prediction
from splitplace.messages.task import Answer
from splitplace.messages.topics import GATEWAY, SERVICE_STATUS
from tests.support.waiting import PATIENCE_S, every, until

Heard = list[tuple[str, int]]
"""Sensor and brightness of each picture that came."""


def _jpeg(grey: int) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (64, 48), (grey, grey, grey)).save(written, "JPEG", quality=95)
    return written.getvalue()


@asynccontextmanager
async def _gateway(settings: Settings) -> AsyncIterator[Heard]:
    """A gateway that answers with the brightness of the picture."""
    heard: Heard = []

    async def serve() -> None:
        async for message in client.messages:
            *_, application, sensor, task = str(message.topic).split("/")
            assert isinstance(message.payload, bytes)
            content = message.payload
            grey = int(np.asarray(Image.open(io.BytesIO(content)).convert("L")).mean())
            heard.append((sensor, grey))
            answer = Answer(
                task=task,
                client=sensor,
                application=application,
                status="answered",
                reason="test",
                predictions=(Prediction(label=f"grey {grey}", index=grey, confidence=0.5),),
                on_time=True,
            )
            topic = f"{settings.prefix}/answer/{sensor}/{task}"
            await client.publish_once(Publication(topic, answer.model_dump_json().encode()))

    async with Bus(settings, "gateway") as bus, connected(settings, "gateway") as client:
        status = ServiceStatus(service=GATEWAY, boot="0" * 16, online=True, software="1")
        await bus.publish(SERVICE_STATUS, status)
        await client.subscribe(f"{settings.prefix}/task/+/+/+", qos=1)
        serving = asyncio.create_task(serve())
        yield heard
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def _camera(
    source: Source | None, topic: str = "", every_s: float = 1.0, *, on_motion: bool = False
) -> Camera:
    return Camera("door", "tiny", 5000.0, Chooser(every_s, on_motion=on_motion), source, topic)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, grey in enumerate((10, 90, 200)):
        (folder / f"{number}.jpg").write_bytes(_jpeg(grey))
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Four seconds that become brighter by 50 each second."""
    path = tmp_path / "garden.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(40):
            shade = np.full((48, 64, 3), 50 * (number // 10), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _close(heard: Heard, expected: list[int]) -> None:
    assert [sensor for sensor, _ in heard] == ["door"] * len(expected)
    np.testing.assert_allclose([grey for _, grey in heard], expected, atol=4)


async def _run(settings: Settings, camera: Camera) -> list[tuple[str, str | None]]:
    answers: list[tuple[str, str | None]] = []

    def take(frame: Frame, _content: bytes, answer: Answer | None) -> None:
        found = answer.predictions[0] if answer is not None else None
        answers.append((frame.name, found.label if isinstance(found, Prediction) else None))

    await watch(settings, camera, take, Waiting())
    return answers


async def test_every_picture_of_a_folder_is_answered(broker_url: str, pictures: Path) -> None:
    settings = Settings(broker=broker_url)
    async with _gateway(settings) as heard:
        answers = await _run(settings, _camera(Folder(pictures, follows=False)))
    _close(heard, [10, 90, 200])
    assert [name for name, _ in answers] == ["0.jpg", "1.jpg", "2.jpg"]
    assert None not in [label for _, label in answers]


def test_what_cannot_be_read_in_a_folder_keeps_no_other_picture_back(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pictures / "0.png").mkdir()
    (pictures / "1.png").symlink_to(pictures / "gone")
    assert [frame.name for frame in Folder(pictures, follows=False).frames()] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [record.message.rpartition("/")[2] for record in caplog.records] == [
        "0.png cannot be read: Is a directory; it is left out",
        "1.png cannot be read: No such file or directory; it is left out",
    ]


@pytest.mark.mosquitto
async def test_a_followed_folder_goes_on_after_a_restart_of_the_broker(
    tmp_path: Path, pictures: Path
) -> None:
    with started_broker(tmp_path / "broker", kind="mosquitto") as broker:
        settings = Settings(broker=broker.url)
        async with _gateway(settings) as heard:
            watching = asyncio.create_task(_run(settings, _camera(Folder(pictures, follows=True))))
            await until(lambda: len(heard) == 3 or watching.done())
        await asyncio.to_thread(broker.restart)
        (pictures / "3.jpg").write_bytes(_jpeg(250))
        async with _gateway(settings) as later:
            await until(lambda: any(grey > 245 for _, grey in later) or watching.done())
            shutil.rmtree(pictures)
            with pytest.raises(FileNotFoundError):
                await watching
    _close(heard, [10, 90, 200])
    assert later[-1][1] > 245


async def test_a_frame_that_was_not_settled_is_taken_again() -> None:
    waiting = Waiting()
    first, second = (picture_of_topic("topic", _jpeg(grey)) for grey in (10, 20))
    await waiting.put(first, replaces=False)
    assert await waiting.take() is first
    await waiting.put(second, replaces=False)
    assert await waiting.take() is first
    waiting.settle()
    assert await waiting.take() is second


@pytest.mark.parametrize("on_motion", [False, True])
async def test_a_frame_of_each_second_of_a_video_is_answered(
    broker_url: str, video: Path, *, on_motion: bool
) -> None:
    settings = Settings(broker=broker_url)
    camera = _camera(Video(str(video)), every_s=0.0 if on_motion else 1.0, on_motion=on_motion)
    async with _gateway(settings) as heard:
        await _run(settings, camera)
    _close(heard, [0, 50, 100, 150])


async def test_pictures_on_a_topic_are_answered_and_the_newest_replaces_the_one_that_waits(
    broker_url: str,
) -> None:
    settings = Settings(broker=broker_url)
    camera = _camera(None, "frigate/door/snapshot", every_s=0.0)
    waiting = Waiting()
    async with _gateway(settings) as heard, connected(settings, "frigate") as frigate:
        watching = asyncio.create_task(watch(settings, camera, lambda *_: None, waiting))
        async with asyncio.timeout(PATIENCE_S):
            async for _ in every(0.05):  # it has subscribed once something comes through
                if heard:
                    break
                if watching.done():
                    await watching
                await frigate.publish_once(Publication(camera.topic, _jpeg(100)))
        for grey in range(0, 200, 10):
            await frigate.publish_once(Publication(camera.topic, _jpeg(grey)))
        async with asyncio.timeout(PATIENCE_S):
            async for _ in every(0.2):  # as cameras do: a broker may drop one of many that come at once
                if heard[-1][1] >= 245:
                    break
                await frigate.publish_once(Publication(camera.topic, _jpeg(250)))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert {sensor for sensor, _ in heard} == {"door"}


async def test_a_camera_without_a_gateway_is_told_so(broker_url: str, pictures: Path) -> None:
    with pytest.raises(UnreachableError, match="no gateway runs"):
        await _run(Settings(broker=broker_url), _camera(Folder(pictures, follows=False)))


async def test_a_video_that_cannot_be_read_ends_with_the_reason(broker_url: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    settings = Settings(broker=broker_url)
    async with _gateway(settings):
        with pytest.raises(SourceError, match=r"broken\.mp4 cannot be read"):
            await _run(settings, _camera(Video(str(broken))))


def test_a_name_that_cannot_be_a_level_of_a_topic_is_refused_with_the_reason(pictures: Path) -> None:
    with pytest.raises(SourceError, match=r"--name 'a/b': it holds \+, # or /"):
        command(str(pictures), app="tiny", name="a/b", broker="mqtt://127.0.0.1:1")


def test_a_source_that_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="neither a folder"):
        source_of(str(tmp_path / "missing"), follows=False)
    with pytest.raises(SourceError, match="for folders"):
        source_of("rtsp://10.0.0.9/stream", follows=True)
    assert source_of("rtsp://user:secret@10.0.0.9/stream", follows=False).name == "10.0.0.9"
    assert source_of("rtsp://10.0.0.9/stream", follows=False).is_live


async def test_the_command_prints_answers_and_keeps_drawn_pictures(
    broker_url: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "2.jpeg").write_bytes(_jpeg(10))
    run: Callable[[], None] = lambda: command(  # noqa: E731
        str(pictures), app="tiny", save=tmp_path / "drawn", broker=broker_url, as_json=True
    )
    async with _gateway(Settings(broker=broker_url)):
        await asyncio.to_thread(run)
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["camera"] for line in lines] == ["pictures"] * 4
    assert [line["frame"] for line in lines] == ["0.jpg", "1.jpg", "2.jpeg", "2.jpg"]
    assert "4 pictures sent, 4 with an answer, 0 replaced" in err
    kept = sorted(file.name for file in (tmp_path / "drawn").iterdir())
    assert kept == ["0.png", "1.png", "2-000004.png", "2.png"]  # 2.jpeg and 2.jpg have one each
    drawn = Image.open(tmp_path / "drawn" / "2-000004.png")
    assert np.asarray(drawn)[-5:].min() < 100  # the bar below a bright picture


async def test_a_command_without_any_answer_exits_with_1(broker_url: str, tmp_path: Path) -> None:
    run: Callable[[], None] = lambda: command(str(tmp_path), app="tiny", broker=broker_url)  # noqa: E731
    async with _gateway(Settings(broker=broker_url)):
        with pytest.raises(typer.Exit) as caught:
            await asyncio.to_thread(run)
    assert caught.value.exit_code == ExitCode.PROBLEM
