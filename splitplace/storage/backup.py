"""Copy what must not be lost into one archive, also while the system runs, and put it back.

An archive is a tar file, packed by gzip, that only its owner may read: it holds pictures of tasks and, in a
secured system, every password.
"""

import contextlib
import gzip
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Final

from splitplace.errors import SplitPlaceError
from splitplace.storage.exclusive import exclusive
from splitplace.storage.paths import Paths
from splitplace.storage.replace import replacing

FACTS: Final = "backup.json"
VERSION: Final = 1
_JOURNAL: Final = "gateway.sqlite3"
_STORE: Final = "store"
_COMPANIONS: Final = ("-wal", "-shm", ".under-way")
"""What stands beside a journal and belongs to no other copy of it."""
_ONLY_OWNER: Final = 0o600
_MAX_FACTS_BYTES: Final = 64 * 1024
_CHUNK_BYTES: Final = 1024 * 1024
_GZIP: Final = b"\x1f\x8b"
"""What a file of gzip begins with."""


class BackupError(SplitPlaceError):
    """A backup cannot be made, read or put back."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What is in an archive."""

    software: str
    """Version of SplitPlace that made it."""
    made_unix_s: float
    names: tuple[str, ...]
    """Names of the files and folders in it, as they are called in the state folder."""


def places(paths: Paths) -> Mapping[str, Path]:
    """Return what is copied: its name in an archive, and where it lies."""
    return {
        _JOURNAL: paths.gateway_journal,
        "gateway.client-id": paths.gateway_client_id,
        "splitter.json": paths.splitter_state,
        "placer.json": paths.placer_state,
        "calibration.json": paths.calibration,
        "secure": paths.secured,
        _STORE: paths.own_store,
    }


def save(paths: Paths, archive: Path, *, software: str) -> Backup:
    """Write an archive of what there is; all parts may run meanwhile.

    Args:
        paths: Where files lie.
        archive: The file to write. An earlier one is replaced once the new one is complete.
        software: Version of SplitPlace that does this.

    Raises:
        BackupError: There is nothing to copy, or it cannot be read or written.
    """
    found = {name: place for name, place in places(paths).items() if place.exists()}
    if not found:
        raise BackupError(f"{paths.state_dir} has nothing to keep: --state-dir names another folder")
    backup = Backup(software, time.time(), tuple(found))
    facts = {
        "version": VERSION,
        "software": software,
        "made_unix_s": backup.made_unix_s,
        "names": list(found),
    }
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            replacing(archive, mode=_ONLY_OWNER) as file,
            # Content, not links: a store may lie on another disk, and that is not in the archive.
            tarfile.open(fileobj=file, mode="w:gz", dereference=True) as tar,
        ):
            (Path(folder) / FACTS).write_text(json.dumps(facts), "utf-8")
            tar.add(Path(folder) / FACTS, FACTS)
            for name, place in found.items():
                if name == _JOURNAL:
                    place = _copy_of_journal(place, Path(folder))  # noqa: PLW2901 - the same, at rest
                tar.add(place, name)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"no backup was made: {error}") from error
    return backup


def _copy_of_journal(journal: Path, folder: Path) -> Path:
    """Copy a database as it is at one moment, although others write to it."""
    copy = folder / _JOURNAL
    with (
        contextlib.closing(sqlite3.connect(f"{journal.resolve().as_uri()}?mode=ro", uri=True)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    return copy


def restore(paths: Paths, archive: Path) -> tuple[Backup, Path | None]:
    """Put back what an archive holds, in the place of what is there; no part may run.

    Nothing is deleted: what was there is moved into a folder of its own. A fault before that changes nothing.

    Returns:
        The backup, and the folder with what was there before; None where nothing was.

    Raises:
        BackupError: The archive is none, or a gateway runs, or the disk refuses.
    """
    if not archive.exists():
        raise BackupError(f"{archive}: No such file or directory")
    paths.state_dir.mkdir(parents=True, exist_ok=True)
    try:
        with (
            _no_gateway(paths),
            tempfile.TemporaryDirectory(prefix=".restoring-", dir=paths.state_dir) as folder,
        ):
            backup = _unpack(archive, Path(folder))
            _belong_to_owner_of(paths.state_dir, Path(folder))
            return backup, _exchange(paths, Path(folder), backup.names)
    except gzip.BadGzipFile as error:
        what = "is damaged" if _begins_like_gzip(archive) else "is no backup of SplitPlace"
        raise BackupError(f"{archive} {what}; nothing was changed") from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise BackupError(f"{archive} is damaged or not complete; nothing was changed") from error
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        raise BackupError(f"{archive} was not put back: {where}{error.strerror or error}") from error


def _begins_like_gzip(archive: Path) -> bool:
    with archive.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


@contextlib.contextmanager
def _no_gateway(paths: Paths) -> Iterator[None]:
    lock = paths.gateway_journal.with_name(f"{paths.gateway_journal.name}.lock")
    try:
        with exclusive(lock):
            yield
    except BlockingIOError:
        raise BackupError(
            f"a gateway uses {paths.gateway_journal}: stop all parts first (splitplace up, or systemctl stop)"
        ) from None


def _unpack(archive: Path, folder: Path) -> Backup:
    """Unpack an archive: only plain files and folders below the names that a backup has."""
    with gzip.open(archive) as packed, tarfile.open(fileobj=packed) as tar:
        first = tar.next()
        if first is None or first.name != FACTS or not first.isfile() or first.size > _MAX_FACTS_BYTES:
            raise BackupError(f"{archive} is no backup of SplitPlace")
        backup = _facts(archive, (tar.extractfile(first) or _nothing(archive)).read())
        for entry in islice(tar, 1, None):
            parts = PurePosixPath(entry.name).parts
            if not parts or parts[0] not in backup.names or ".." in parts or entry.name.startswith("/"):
                raise BackupError(f"{archive} holds {entry.name!r}, which is not part of a backup")
            target = folder.joinpath(*parts)
            if entry.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif entry.isfile():
                target.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(entry) or _nothing(archive)
                with target.open("xb") as file:
                    shutil.copyfileobj(content, file)
            else:
                raise BackupError(f"{archive}: {entry.name} is neither file nor folder")
            target.chmod(entry.mode & 0o777)
        while packed.read(_CHUNK_BYTES):  # to the checksum at the end
            pass
    missing = [name for name in backup.names if not (folder / name).exists()]
    if missing:
        raise BackupError(f"{archive} is not complete: {', '.join(missing)} is missing")
    return backup


def _nothing(archive: Path) -> tarfile.ExFileObject:
    raise BackupError(f"{archive} is damaged")


def _facts(archive: Path, content: bytes) -> Backup:
    try:
        facts = json.loads(content)
        version, names = int(facts["version"]), tuple(map(str, facts["names"]))
        backup = Backup(str(facts["software"]), float(facts["made_unix_s"]), names)
    except (ValueError, KeyError, TypeError):
        raise BackupError(f"{archive} is no backup of SplitPlace") from None
    if version != VERSION or not set(names) <= places(Paths(Path(), Path())).keys():
        raise BackupError(f"{archive} was made by SplitPlace {backup.software}: restore it with that version")
    return backup


def _belong_to_owner_of(folder: Path, below: Path) -> None:
    """Give files to the owner of the state folder, where root puts them back for an account of its own."""
    if os.geteuid() != 0:
        return
    owner = folder.stat()
    for path in (below, *below.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _exchange(paths: Paths, folder: Path, names: Sequence[str]) -> Path | None:
    """Move what is there aside and what was unpacked into its place."""
    kept = paths.state_dir / time.strftime("before-restore-%Y%m%d-%H%M%S")
    number = 1
    while kept.exists():
        number += 1
        kept = kept.with_name(f"{kept.name.partition('+')[0]}+{number}")
    for name, place in places(paths).items():
        companions = _COMPANIONS if name == _JOURNAL else ()
        for suffix in ("", *companions):
            there = place.with_name(place.name + suffix)
            if there.exists():
                kept.mkdir(mode=0o700, exist_ok=True)
                shutil.move(there, kept / (name + suffix))
        if name in names:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder / name, place)
    return kept if kept.exists() else None
