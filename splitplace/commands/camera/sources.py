"""Where frames come from: a folder, a video file, a camera of this device or of the network."""

import errno
import io
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitplace.commands.camera.frames import THUMBNAIL, Frame
from splitplace.errors import ConfigurationError, MissingExtraError

log = logging.getLogger(__name__)

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
TOPIC = "mqtt:"
"""Beginning of a source that is a topic of the broker."""
_LOOK_S = 0.5
"""Time between two looks into a folder."""
_SETTLED_S = 0.3
"""A file is complete once it was not written for this time."""
_OPEN_S, _READ_S = 10.0, 10.0
_LONGEST_PAUSE_S = 5.0
_QUALITY = 90
_NETWORK = {"rtsp", "rtsps", "http", "https", "rtmp", "udp", "tcp"}


class SourceError(ConfigurationError):
    """A source that cannot be opened."""


class Source(Protocol):
    """Gives frames one after the other, from a thread."""

    @property
    def is_live(self) -> bool:
        """Whether frames come whether or not they are taken; else none of them is skipped."""
        ...

    @property
    def is_endless(self) -> bool:
        """Whether frames come until somebody ends the command."""
        ...

    @property
    def name(self) -> str:
        """What the camera is called unless the user says."""
        ...

    def frames(self) -> Iterator[Frame]:
        """Yield frames. Raises SourceError."""
        ...


@dataclass(frozen=True)
class Folder:
    """The pictures in a folder, and those that come if it is followed."""

    folder: Path
    follows: bool

    @property
    def is_live(self) -> bool:
        """Never: each picture is sent."""
        return False

    @property
    def is_endless(self) -> bool:
        """Whether it is followed."""
        return self.follows

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name or "folder"

    def frames(self) -> Iterator[Frame]:
        """Yield each picture once, by name. What cannot be read is left out, and told once."""
        seen: set[str] = set()
        while True:
            for path in sorted(self.folder.iterdir()):
                if path.name in seen or path.suffix.lower() not in PICTURES:
                    continue
                try:
                    if self.follows and time.time() - path.stat().st_mtime < _SETTLED_S:
                        continue
                    content = path.read_bytes()
                except OSError as error:
                    log.warning("%s cannot be read: %s; it is left out", path, error.strerror)
                    seen.add(path.name)
                    continue
                seen.add(path.name)
                yield _picture(path.name, None, content)
            if not self.follows:
                return
            time.sleep(_LOOK_S)


@dataclass(frozen=True)
class Video:
    """A video file, a camera of this device (`/dev/video0`), or one of the network (RTSP)."""

    place: str

    @property
    def is_live(self) -> bool:
        """Whether it is a camera, not a file."""
        return self._scheme in _NETWORK or self._is_device

    @property
    def is_endless(self) -> bool:
        """Whether it is a camera."""
        return self.is_live

    @property
    def name(self) -> str:
        """The host or the file."""
        if self._scheme in _NETWORK:
            return urlsplit(self.place).hostname or "camera"
        return Path(self.place).stem

    def frames(self) -> Iterator[Frame]:
        """Yield every frame; a camera that ends or fails is opened again."""
        pause_s, count = 1.0, 0
        while True:
            try:
                for frame in self._opened():
                    count += 1
                    pause_s = 1.0
                    yield frame
                if not self.is_live:
                    return
                raise SourceError(f"{self._shown} has ended")  # noqa: TRY301 - as if it had said why
            except SourceError as error:
                if not count or not self.is_live:
                    raise
                log.warning("%s; it is opened again in %.0f s", error, pause_s)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _opened(self) -> Iterator[Frame]:
        try:
            import av  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingExtraError("splitplace camera", "av", "camera") from error
        options = {"rtsp_transport": "tcp"} if self._scheme.startswith("rtsp") else {}
        kind = "v4l2" if self._is_device else None
        number, heard_s = 0, time.monotonic()
        try:
            with av.open(self.place, format=kind, options=options, timeout=(_OPEN_S, _READ_S)) as container:
                if not container.streams.video:
                    raise SourceError(f"{self._shown} has no pictures")
                for frame in container.decode(video=0):
                    heard_s = time.monotonic()
                    at_s = time.monotonic() if self.is_live else float(frame.time or 0.0)
                    yield Frame(f"frame-{number:06}", at_s, partial(_jpeg, frame), partial(_grey, frame))
                    number += 1
        except av.error.ExitError as error:
            # How many times the library waits before it gives up depends on the protocol.
            silent_s = time.monotonic() - heard_s
            raise SourceError(f"{self._shown} cannot be read: nothing came for {silent_s:.0f} s") from error
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            is_vague = not number and self._scheme in _NETWORK and getattr(error, "errno", 0) == errno.EIO
            advice = " (is the name of the host right?)" if is_vague else ""
            raise SourceError(f"{self._shown} cannot be read: {reason}{advice}") from error

    @property
    def _scheme(self) -> str:
        return urlsplit(self.place).scheme.lower() if "://" in self.place else ""

    @property
    def _is_device(self) -> bool:
        return self.place.startswith("/dev/")

    @property
    def _shown(self) -> str:
        """The place without a password."""
        return re.sub(r"//[^/@]*@", "//***@", self.place)


def source_of(text: str, *, follows: bool) -> Source:
    """Return what a user names: a folder, a video file, a device or an address. Raises SourceError."""
    path = Path(text)
    if path.is_dir():
        return Folder(path, follows)
    if follows:
        raise SourceError("--follow is for folders")
    if "://" not in text and not path.exists():
        raise SourceError(
            f"{text} is neither a folder, a video file, a device nor an address (rtsp://..., {TOPIC}TOPIC)"
        )
    return Video(text)


def picture_of_topic(topic: str, content: bytes) -> Frame:
    """Return the frame that came on a topic of the broker."""
    return _picture(topic, time.monotonic(), content)


def _picture(name: str, at_s: float | None, content: bytes) -> Frame:
    return Frame(name, at_s, lambda: content, partial(_grey_of_file, content))


def _jpeg(frame: Any) -> bytes:  # noqa: ANN401 - PyAV's frame
    written = io.BytesIO()
    frame.to_image().save(written, "JPEG", quality=_QUALITY)
    return written.getvalue()


def _grey(frame: Any) -> NDArray[Any]:  # noqa: ANN401 - PyAV's frame
    width, height = THUMBNAIL
    grey: NDArray[Any] = frame.reformat(width=width, height=height, format="gray").to_ndarray()
    return grey


def _grey_of_file(content: bytes) -> NDArray[Any]:
    """Return a file's picture in grey; black where it is none, which the gateway tells the sender."""
    width, height = THUMBNAIL
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.draft("L", THUMBNAIL)
            return np.asarray(picture.convert("L").resize(THUMBNAIL))
    except Exception:  # noqa: BLE001 - broken files make Pillow raise errors of many kinds
        return np.zeros((height, width), np.uint8)
