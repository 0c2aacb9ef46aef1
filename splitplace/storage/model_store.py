"""The model store on disk: applications and the files that their fragments are made of.

Layout of each folder::

    <application>/manifest.json             an `Application` as JSON
    <application>/previous.json             the one that it replaced, for `roll_back`
    <application>/pieces/<sha256>           every file of the pieces that the manifest describes
    <application>/fragments/<sha256>.onnx   every fragment that is one file, as SplitPlace 0.2 wrote them

Files of pieces have no suffix: ONNX Runtime looks up weights in one folder, by their bare hash.

Blocks: call it in a thread where there is an event loop.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from splitplace.errors import SplitPlaceError
from splitplace.messages.application import Application
from splitplace.messages.limits import MAX_CATALOGUE_BYTES, MAX_FILE_BYTES
from splitplace.storage.replace import replace_file

MANIFEST = "manifest.json"
PREVIOUS = "previous.json"
PIECES = "pieces"
FRAGMENTS = "fragments"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NOT_THOSE = "the files given are not those that the application describes"


class StoreError(SplitPlaceError):
    """A store, manifest or other file on disk that cannot be used; `path` says which one."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def sha256_of(content: bytes) -> str:
    """Return the content address of a file in memory."""
    return hashlib.sha256(content).hexdigest()


def verify(path: Path, sha256: str) -> None:
    """Check that a file is the one that its name promises.

    Raises:
        StoreError: The file is missing, larger than `MAX_FILE_BYTES`, or has another hash.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise StoreError(path, f"{size} bytes, more than the {MAX_FILE_BYTES} a file may have")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(path, f"cannot be read: {error.strerror}") from error
    if found != sha256:
        raise StoreError(path, f"has SHA-256 {found}, expected {sha256}")


class ModelStore:
    """The applications of one folder, or of several that are read as one.

    Where two folders hold an application of the same name, the first folder's is used.
    """

    def __init__(self, root: Path, *read_only: Path) -> None:
        """Name the folders; nothing is read yet.

        Args:
            root: Where applications are read from, written to and removed from. May be missing if there are
                others.
            read_only: Further folders, which are only read.
        """
        self.root = root
        self.folders = (root, *read_only)

    def __str__(self) -> str:
        return " and ".join(map(str, self.folders))

    def applications(self) -> tuple[Application, ...]:
        """Return every application, in the order of their names. Folders without a manifest are passed over.

        Raises:
            StoreError: A folder is missing, or a manifest is too large, not valid, or names another
                application than its folder.
        """
        applications, broken = self.usable()
        if broken:
            raise broken[0]
        return applications

    def stamp(self) -> tuple[tuple[str, int, int], ...]:
        """Return what changes whenever an application is added, replaced or removed."""
        found = []
        for folder in self.folders:
            for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
                try:
                    status = manifest.stat()
                except OSError:  # it is being replaced or removed
                    continue
                found.append((str(manifest), status.st_mtime_ns, status.st_ino))
        return tuple(found)

    def usable(self) -> tuple[tuple[Application, ...], tuple[StoreError, ...]]:
        """Return every application that can be read, in the order of their names, and what cannot be used.

        An unusable application does not make one of the same name in another folder visible.

        Raises:
            StoreError: No folder can be read.
        """
        found, broken = self._found()
        applications = []
        for name in sorted(found):
            try:
                applications.append(_read_manifest(found[name]))
            except StoreError as error:
                broken.append(error)
        return tuple(applications), tuple(broken)

    def names(self) -> tuple[str, ...]:
        """Return the names of all applications, readable or not. Raises StoreError as `usable` does."""
        return tuple(sorted(self._found()[0]))

    def _found(self) -> tuple[dict[str, Path], list[StoreError]]:
        """Return the manifest of every application, and which folders cannot be read."""
        found: dict[str, Path] = {}
        broken: list[StoreError] = []
        for folder in reversed(self.folders):
            if not folder.exists() and folder == self.root and len(self.folders) > 1:
                continue
            try:
                found |= {path.name: path / MANIFEST for path in folder.iterdir() if _is_application(path)}
            except (NotADirectoryError, FileNotFoundError):
                broken.append(StoreError(folder, "is not a folder"))
            except OSError as error:
                broken.append(StoreError(folder, f"cannot be read: {error.strerror}"))
        if len(broken) == len(self.folders):
            raise broken[0]
        return found, broken

    def missing(self, application: Application) -> tuple[StoreError, ...]:
        """Return which files of an application are not there in full. Their content is not checked."""
        found = []
        for file in application.files:
            try:
                path = self.file_path(file.sha256)
                size = path.stat().st_size
                if size != file.file_bytes:
                    raise StoreError(path, f"has {size} bytes instead of {file.file_bytes}")  # noqa: TRY301
            except StoreError as error:
                found.append(error)
            except OSError as error:
                found.append(StoreError(self.root, f"file {file.sha256}: {error.strerror}"))
        return tuple(found)

    def application(self, name: str) -> Application:
        """Return one application.

        Raises:
            StoreError: There is none of that name, or its manifest is unusable.
        """
        return _read_manifest(self.folder(name) / MANIFEST)

    def manifest(self, name: str) -> bytes:
        """Return the manifest of an application as it is written. Raises StoreError as `application` does."""
        return _manifest_text(self.folder(name) / MANIFEST)

    def folder(self, name: str) -> Path:
        """Return the folder of an application.

        Raises:
            StoreError: There is none of that name.
        """
        if not name or Path(name).name != name:
            raise StoreError(self.root, f"{name!r} is not the name of an application")
        for folder in self.folders:
            if (folder / name / MANIFEST).is_file():
                return folder / name
        raise StoreError(
            self.root, f"has no application {name!r}; splitplace models list shows what there is"
        )

    def is_read_only(self, name: str) -> bool:
        """Whether the application lies in a folder that is only read. Raises StoreError as `folder` does."""
        return self.folder(name).parent != self.root

    def hides_another(self, name: str) -> bool:
        """Whether the application is used in place of another one of the same name. Raises StoreError."""
        used = self.folder(name)
        return any((folder / name / MANIFEST).is_file() for folder in self.folders if folder != used.parent)

    def file_path(self, sha256: str) -> Path:
        """Return where a file lies. Its content is not checked: see `verify`.

        Raises:
            StoreError: No application has this file, or `sha256` is not a SHA-256 in hexadecimal.
        """
        if not _SHA256.fullmatch(sha256):
            raise StoreError(self.root, f"{sha256[:80]!r} is not a SHA-256")
        for folder in self.folders:
            for path in folder.glob(f"*/{PIECES}/{sha256}"):
                return path
        raise StoreError(self.root, f"has no file {sha256}")

    def pieces_folder(self, name: str) -> Path:
        """Return the folder with the files of an application's pieces. Raises StoreError as `folder` does."""
        return self.folder(name) / PIECES

    def save(self, application: Application, files: Iterable[bytes], *, keep_previous: bool = False) -> None:
        """Write an application with its files; files that it no longer names are removed.

        The manifest is replaced last and at once, so that a reader never sees one without its files. A crash
        leaves the application as it was or as it should be, and perhaps files that the next save removes.

        Args:
            application: The application.
            files: Contents of exactly the files that it describes, in any order. They may be made one by one.
            keep_previous: Whether `roll_back` can bring back the application that is replaced. The files of
                one version back are kept.

        Raises:
            StoreError: `files` are not exactly those that the application describes, or the disk refuses.
        """
        folder = self.root / application.name
        paths = _paths(folder, application)
        saved: set[Path] = set()
        try:
            for content in files:
                path = paths.get(sha256_of(content))
                if path is None:
                    raise StoreError(folder, _NOT_THOSE)  # noqa: TRY301
                saved.add(path)
                if not _holds(path, content):
                    replace_file(path, content)
            if len(saved) < len(paths):
                raise StoreError(folder, _NOT_THOSE)  # noqa: TRY301
            text = f"{application.model_dump_json(indent=2)}\n".encode()
            if keep_previous:
                _keep_previous(folder, text)
            replace_file(folder / MANIFEST, text)
            _remove_others(folder, _named(folder))
        except OSError as error:
            raise StoreError(folder, f"cannot be written: {error.strerror}") from error
        except StoreError:
            _remove_unnamed(folder)
            raise

    def roll_back(self, name: str) -> Application:
        """Put the version in place that the present one replaced, and keep the present one for the next call.

        A crash in between leaves one of the two in place; the other one may be lost.

        Returns:
            The application that is in place now.

        Raises:
            StoreError: There is none of that name, no previous version with its files, or the disk refuses.
        """
        folder = self.folder(name)
        previous = folder / PREVIOUS
        if not previous.is_file():
            raise StoreError(folder, "has no previous version; only `splitplace models add` keeps one")
        found = _read_manifest(previous)
        for path in _paths(folder, found).values():
            verify(path, path.name)
        now, before = _manifest_text(folder / MANIFEST), _manifest_text(previous)
        try:
            replace_file(folder / MANIFEST, before)
            replace_file(previous, now)
        except OSError as error:
            raise StoreError(folder, f"cannot be written: {error.strerror}") from error
        return found

    def remove(self, name: str) -> None:
        """Delete an application and its files, the manifest first.

        Raises:
            StoreError: There is none of that name, its folder is only read, or the disk refuses.
        """
        folder = self.folder(name)
        if self.is_read_only(name):
            raise StoreError(
                folder, "comes with SplitPlace and stays; only networks that you added can be removed"
            )
        try:
            (folder / MANIFEST).unlink()
            shutil.rmtree(folder)
        except OSError as error:
            raise StoreError(folder, f"cannot be removed: {error.strerror}") from error


def _is_application(folder: Path) -> bool:
    try:
        return os.path.lexists(folder / MANIFEST)
    except OSError:
        return True  # a folder that cannot be looked into: reading its manifest says why


def _paths(folder: Path, application: Application) -> dict[str, Path]:
    """Return where the files of an application lie, by their hashes."""
    return {file.sha256: folder / PIECES / file.sha256 for file in application.files}


def _named(folder: Path) -> set[Path]:
    """Return the files of an application's folder that it or its previous version names."""
    named: set[Path] = set()
    for manifest in (folder / MANIFEST, folder / PREVIOUS):
        with contextlib.suppress(StoreError):  # it is missing, or cannot be used
            named.update(_paths(folder, _read_manifest(manifest)).values())
    return named


def _keep_previous(folder: Path, text: bytes) -> None:
    """Keep the manifest that `text` is about to replace, unless it is the same. Raises OSError."""
    with contextlib.suppress(StoreError):  # the first version, or one that cannot be used
        _read_manifest(folder / MANIFEST)
        before = _manifest_text(folder / MANIFEST)
        if before != text:
            replace_file(folder / PREVIOUS, before)


def _holds(path: Path, content: bytes) -> bool:
    """Whether a file is there already, undamaged."""
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _remove_others(folder: Path, named: Collection[Path]) -> None:
    """Remove files of an application's folder that its manifest does not name. Raises OSError."""
    for part in (folder / PIECES, folder / FRAGMENTS):
        for path in part.glob("*"):
            if path not in named and path.is_file():
                path.unlink()
        with contextlib.suppress(OSError):  # it is missing, or holds something
            part.rmdir()


def _remove_unnamed(folder: Path) -> None:
    """Remove what a save that failed has written, as far as that can be told."""
    with contextlib.suppress(OSError, StoreError):
        manifest = folder / MANIFEST
        if manifest.exists():
            _read_manifest(manifest)  # what cannot be read is left as it is
        _remove_others(folder, _named(folder))
        folder.rmdir()


def _manifest_text(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CATALOGUE_BYTES + 1)
    except OSError as error:
        raise StoreError(path, f"cannot be read: {error.strerror}") from error
    if len(text) > MAX_CATALOGUE_BYTES:
        raise StoreError(path, f"larger than the {MAX_CATALOGUE_BYTES} bytes a manifest may have")
    return text


def _is_earlier(text: bytes) -> bool:
    """Whether a manifest is one of SplitPlace 0.2 or 0.1: its fragments are files."""
    try:
        manifest: Any = from_json(text)
    except ValueError:
        return False
    return isinstance(manifest, dict) and manifest.get("version") == 1 and bool(manifest.get("fragments"))


def _read_manifest(path: Path) -> Application:
    text = _manifest_text(path)
    try:
        application = Application.model_validate_json(text)
    except ValidationError as error:
        if _is_earlier(text):
            name = path.parent.name
            raise StoreError(
                path, f"written by SplitPlace 0.2: run `splitplace models convert {name}`"
            ) from None
        raise StoreError(path, f"not a valid manifest: {error}") from error
    if application.name != path.parent.name:
        raise StoreError(path, f"names the application {application.name!r}, unlike its folder")
    return application
