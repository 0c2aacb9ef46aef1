"""Cameras of the network: what happens when a stream ends, stalls, or is not there."""

import io
import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from threading import Event, Thread

import pytest
from PIL import Image

from splitplace.commands.camera import sources
from splitplace.commands.camera.sources import SourceError, source_of

FRAMES = 30


class Camera(BaseHTTPRequestHandler):
    """Sends some JPEGs one after the other. `/ends` ends then, `/stalls` says nothing more."""

    over: Event

    def do_GET(self) -> None:
        if self.path == "/nothing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for _ in range(FRAMES):
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
            self.wfile.write(b"Content-Length: %d\r\n\r\n%s\r\n" % (len(PICTURE), PICTURE))
        if self.path == "/stalls":
            self.over.wait()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _picture() -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (32, 24), "red").save(written, "JPEG")
    return written.getvalue()


PICTURE = _picture()


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(sources, "_READ_S", 0.5)
    Camera.over = Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        Camera.over.set()
        server.shutdown()


@pytest.mark.parametrize(("path", "said"), [("ends", "Input/output error;"), ("stalls", "nothing came for")])
def test_a_stream_that_ends_or_stalls_is_opened_again_and_that_is_said(
    address: str, path: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    frames = source_of(f"{address}/{path}", follows=False).frames()
    with caplog.at_level(logging.WARNING):
        assert len(list(islice(frames, 2 * FRAMES))) == 2 * FRAMES
    (line,) = caplog.messages
    assert said in line
    assert "it is opened again in 1 s" in line


def test_a_stream_that_is_not_there_is_refused_at_once(address: str) -> None:
    with pytest.raises(SourceError, match=r"cannot be read: .*404"):
        next(source_of(f"{address}/nothing", follows=False).frames())
