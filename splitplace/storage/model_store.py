"""The model store on disk: applications and the ONNX fragments they are made of.

Layout, below one root::

    <application>/manifest.json             an `Application` as JSON
    <application>/fragments/<sha256>.onnx   every fragment that the manifest describes

Plain blocking disk code: callers on an event loop run it in a thread.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from splitplace.errors import SplitPlaceError
from splitplace.messages.application import Application
from splitplace.messages.limits import MAX_CATALOGUE_BYTES, MAX_FRAGMENT_BYTES

MANIFEST = "manifest.json"
FRAGMENTS = "fragments"

_SHA256 = re.compile(r"[0-9a-f]{64}")


class StoreError(SplitPlaceError):
    """A store, manifest or fragment on disk that cannot be used; `path` says which one."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def sha256_of(content: bytes) -> str:
    """Content address of a fragment that is in memory."""
    return hashlib.sha256(content).hexdigest()


def verify(path: Path, sha256: str) -> None:
    """Checks that a fragment file is the one that its name promises.

    Raises:
        StoreError: The file is missing, larger than `MAX_FRAGMENT_BYTES`, or has another hash.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FRAGMENT_BYTES:
            raise StoreError(path, f"{size} bytes, more than the {MAX_FRAGMENT_BYTES} a fragment may have")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(path, f"cannot be read: {error.strerror}") from error
    if found != sha256:
        raise StoreError(path, f"has SHA-256 {found}, expected {sha256}")


class ModelStore:
    """Reads the applications below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def applications(self) -> tuple[Application, ...]:
        """Every application, in the order of their names. Folders without a manifest are passed over.

        Raises:
            StoreError: The root is no folder, or a manifest is too large, not valid, or names an
                application other than its folder.
        """
        if not self.root.is_dir():
            raise StoreError(self.root, "is not a folder")
        manifests = sorted(self.root.glob(f"*/{MANIFEST}"))
        return tuple(_read_manifest(path) for path in manifests)

    def application(self, name: str) -> Application:
        """One application by name.

        Raises:
            StoreError: There is none of that name, or its manifest is unusable.
        """
        if not name or Path(name).name != name:
            raise StoreError(self.root, f"{name!r} is not the name of an application")
        return _read_manifest(self.root / name / MANIFEST)

    def fragment_path(self, sha256: str) -> Path:
        """Where the fragment lies. Its content is not checked: see `verify`.

        Raises:
            StoreError: No application has this fragment, or `sha256` is not a SHA-256 in hexadecimal.
        """
        if not _SHA256.fullmatch(sha256):
            raise StoreError(self.root, f"{sha256[:80]!r} is not a SHA-256")
        for path in self.root.glob(f"*/{FRAGMENTS}/{sha256}.onnx"):
            return path
        raise StoreError(self.root, f"has no fragment {sha256}")

    def save(self, application: Application, fragments: Iterable[bytes]) -> None:
        """Writes an application with its fragments; fragments that it no longer names are removed.

        The manifest is replaced last and at once, so that a reader never sees one without its fragments.

        Raises:
            StoreError: `fragments` are not exactly those that the application describes, or the disk
                refuses.
        """
        folder = self.root / application.name
        contents = {sha256_of(content): content for content in fragments}
        described = {fragment.sha256 for fragment in application.fragments}
        if contents.keys() != described:
            raise StoreError(folder, "the fragments given are not those that the application describes")
        try:
            (folder / FRAGMENTS).mkdir(parents=True, exist_ok=True)
            for sha256, content in contents.items():
                _replace(folder / FRAGMENTS / f"{sha256}.onnx", content)
            _replace(folder / MANIFEST, f"{application.model_dump_json(indent=2)}\n".encode())
            for path in (folder / FRAGMENTS).glob("*.onnx"):
                if path.stem not in described:
                    path.unlink()
        except OSError as error:
            raise StoreError(folder, f"cannot be written: {error.strerror}") from error


def _read_manifest(path: Path) -> Application:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CATALOGUE_BYTES + 1)
    except OSError as error:
        raise StoreError(path, f"cannot be read: {error.strerror}") from error
    if len(text) > MAX_CATALOGUE_BYTES:
        raise StoreError(path, f"larger than the {MAX_CATALOGUE_BYTES} bytes a manifest may have")
    try:
        application = Application.model_validate_json(text)
    except ValidationError as error:
        raise StoreError(path, f"not a valid manifest: {error}") from error
    if application.name != path.parent.name:
        raise StoreError(path, f"names the application {application.name!r}, unlike its folder")
    return application


def _replace(path: Path, content: bytes) -> None:
    """Writes a file at once: readers see the old content or the new, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)
