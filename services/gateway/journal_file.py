"""Opens the journal's file: makes and migrates its tables, and rescues what a damaged file still holds."""

import contextlib
import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from splitplace.messages.limits import MEBIBYTE
from splitplace.storage.set_aside import set_aside

log = logging.getLogger(__name__)

LOCK_PATIENCE_S: Final = 1.0
"""How long a write waits for another program that has locked the file."""

_ONLY_OWNER: Final = 0o600
"""Mode of a new file, which the two beside it take over."""
_WAL_BYTES: Final = 16 * MEBIBYTE
CACHE_KIB: Final = 512
"""Pages that a connection keeps. SQLite's own 2 MiB take half an hour to fill and look like a leak."""
_FREED_PAGES: Final = 4_000
"""Pages (4 KiB) that are given back to the disk at a time: some 40 ms."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    key TEXT PRIMARY KEY,
    client TEXT NOT NULL,
    task TEXT NOT NULL,
    application TEXT NOT NULL,
    deadline_ms REAL NOT NULL,
    accepted_unix_s REAL NOT NULL,
    attempt INTEGER NOT NULL,
    dtype TEXT NOT NULL,
    shape TEXT NOT NULL,
    inputs BLOB,
    labels TEXT,
    response_topic TEXT,
    correlation_data BLOB,
    packed INTEGER NOT NULL,
    answer TEXT,
    delivered INTEGER NOT NULL DEFAULT 0,
    finished_unix_s REAL
) STRICT;
CREATE INDEX IF NOT EXISTS unfinished ON tasks(delivered) WHERE delivered = 0;
CREATE INDEX IF NOT EXISTS named ON tasks(client, task);
"""

_FIRST_COLUMNS: Final = {"key", "client", "task", "application", "inputs", "answer", "delivered"}
"""Columns by which a journal of any version is known."""

_ADDED_COLUMNS: Mapping[str, str] = {
    "content": "TEXT",
    "warnings": "TEXT",
    "quarantined": "TEXT",
    "boot": "TEXT",
    "boot_s": "REAL",
    "finished_boot": "TEXT",
    "finished_boot_s": "REAL",
    "views": "TEXT",
    "traceparent": "TEXT",
}
"""Columns that older journals do not have; NULL there."""

_LATER_INDICES = """
DROP INDEX IF EXISTS finished;
DROP INDEX IF EXISTS ended;
CREATE INDEX IF NOT EXISTS over ON tasks(finished_unix_s, finished_boot, finished_boot_s) WHERE delivered > 0;
"""

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_TEMPORARY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def is_damage(error: Exception) -> bool:
    """Whether the file itself is broken: trying again does not help."""
    return _code(error) in _DAMAGE


def is_temporary(error: Exception) -> bool:
    """Whether the disk is full or the file locked: trying again may help."""
    return _code(error) in _TEMPORARY


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def open_journal(path: Path, *, durable: bool, is_ours: bool) -> tuple[sqlite3.Connection, str]:
    """Return a connection to the journal, and what had to be done to open it; nothing as a rule.

    Args:
        path: The file, which is made if it is missing.
        durable: Flush the disk for every group of writes.
        is_ours: Whether it is a gateway's file: the default one, or used before. Then a damaged one is set
            aside, and the rows that can be read are copied into a new one.

    Raises:
        sqlite3.Error, OSError: It cannot be used.
    """
    try:
        if not is_ours and path.is_file():
            _look_at(path)
        return _opened(path, durable=durable), ""
    except sqlite3.DatabaseError as error:
        if not is_ours or not (is_damage(error) or path.is_dir()):
            raise
        reason = "it is a folder" if path.is_dir() else str(error)
    aside = set_aside(path)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(aside.with_name(aside.name + suffix))
    connection = _opened(path, durable=durable)
    rescued = _rescue(aside, connection) if aside.is_file() else 0
    finding = f"journal {path} was damaged ({reason}); kept as {aside.name}, {rescued} tasks were rescued"
    log.error("%s", finding)
    return connection, finding


def _look_at(path: Path) -> None:
    """Check that a file may become a journal, and change nothing. Raises sqlite3.Error."""
    is_in_use = any(path.with_name(path.name + suffix).exists() for suffix in ("-wal", "-journal"))
    where = f"{path.resolve().as_uri()}?mode=ro{'' if is_in_use else '&immutable=1'}"
    with contextlib.closing(sqlite3.connect(where, uri=True, timeout=LOCK_PATIENCE_S)) as connection:
        _check_content(connection)
        _check_tables(connection)


def _check_content(connection: sqlite3.Connection) -> None:
    finding = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if finding != "ok":
        _raise_damage(finding)


def _check_tables(connection: sqlite3.Connection) -> None:
    """Check that the tables, if there are any, are those of a journal. Raises sqlite3.Error."""
    has_tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    columns = {row[1] for row in connection.execute("PRAGMA table_info(tasks)")}
    if has_tables and not columns >= _FIRST_COLUMNS:
        _raise_damage("a database with other tables")


def _opened(path: Path, *, durable: bool) -> sqlite3.Connection:
    # It holds inputs of tasks, which may be pictures of a home. If it cannot be made, SQLite says why.
    with contextlib.suppress(OSError):
        path.touch(mode=_ONLY_OWNER)
    connection = sqlite3.connect(path, isolation_level=None, timeout=LOCK_PATIENCE_S)
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # counts for a new file only
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA cache_size = {-CACHE_KIB}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        _check_content(connection)
        _check_tables(connection)
        connection.executescript(_SCHEMA)
        _migrate(connection)
        connection.executescript(_LATER_INDICES)
    except BaseException:
        connection.close()
        raise
    return connection


def _raise_damage(finding: str) -> None:
    error = sqlite3.DatabaseError(finding.splitlines()[-1])
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    raise error


def _migrate(connection: sqlite3.Connection) -> None:
    """Add the columns that an older journal lacks, and let its file shrink."""
    present = {row[1] for row in connection.execute("PRAGMA table_info(tasks)")}
    for name, kind in _ADDED_COLUMNS.items():
        if name not in present:
            connection.execute(f"ALTER TABLE tasks ADD COLUMN {name} {kind}")
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] == 0:
        try:
            connection.execute("VACUUM")
        except sqlite3.Error as error:  # it only stays as large as it is
            log.warning("the journal's file cannot be made smaller: %s", error)


def give_back(connection: sqlite3.Connection) -> None:
    """Give free pages back to the disk. Raises sqlite3.Error."""
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    for _ in range(min(free, _FREED_PAGES)):
        connection.execute("PRAGMA incremental_vacuum(1)")  # Python's sqlite3 frees one page a call anyway


def _rescue(damaged: Path, connection: sqlite3.Connection) -> int:
    """Copy the rows that can be read, from both ends of the table. Return how many are new."""
    with contextlib.closing(sqlite3.connect(damaged, isolation_level=None)) as source:
        source.execute("PRAGMA writable_schema = ON")  # reads a file that was cut off, too
        for order in ("ASC", "DESC"):
            with contextlib.suppress(sqlite3.DatabaseError):
                rows = source.execute(f"SELECT * FROM tasks ORDER BY rowid {order}")  # noqa: S608
                names = [column[0] for column in rows.description]
                marks = ", ".join("?" * len(names))
                insert = f"INSERT OR IGNORE INTO tasks ({', '.join(names)}) VALUES ({marks})"  # noqa: S608
                for row in rows:
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute(insert, row)
    return int(connection.execute("SELECT count(*) FROM tasks").fetchone()[0])
