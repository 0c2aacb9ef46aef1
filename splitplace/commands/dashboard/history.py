"""What ended, in a small bounded SQLite file: a day of tasks in detail, a month of minutes. Blocks."""

import json
import logging
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from splitplace.commands.dashboard.minutes import MINUTE_S, Minute
from splitplace.storage.set_aside import set_aside

log = logging.getLogger(__name__)

DETAIL_S = 86_400.0
MINUTES_S = 31 * 86_400.0
MAX_DETAILED = 100_000
"""Tasks in detail, about 60 MB: a day at one task a second."""

_TABLES = """
CREATE TABLE IF NOT EXISTS tasks (task TEXT PRIMARY KEY, at REAL NOT NULL, content BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS tasks_by_time ON tasks (at);
CREATE TABLE IF NOT EXISTS minutes (minute INTEGER PRIMARY KEY, finished INTEGER NOT NULL,
  on_time INTEGER NOT NULL, late INTEGER NOT NULL, responses TEXT NOT NULL);
"""


def open_history(path: Path) -> "History":
    """Open a history; a damaged file is set aside, and a new one begins. Raises OSError."""
    try:
        return History(path)
    except sqlite3.DatabaseError as error:
        log.warning("%s is damaged (%s): it is kept as %s", path, error, set_aside(path).name)
        return History(path)


def _literal(name: str) -> str:
    """Return a pattern of GLOB that only this name fits."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


class History:
    """One file, one writer."""

    def __init__(self, path: Path) -> None:
        """Open the file, or begin one. Raises OSError, sqlite3.Error."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.Error:
            self._database.close()
            raise
        path.chmod(0o600)  # names of sensors are nobody else's business

    def _prepare(self) -> None:
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute("PRAGMA cache_size=-1000")
        self._database.executescript(_TABLES)

    def add(self, tasks: Sequence[tuple[str, bytes]], minutes: Iterable[Minute], now_s: float) -> None:
        """Write ended tasks as JSON and the figures of minutes; drop what is too old or too much."""
        with self._database as database:
            database.executemany(
                "INSERT OR REPLACE INTO tasks VALUES (?, ?, ?)",
                [(task, now_s, zlib.compress(content, 1)) for task, content in tasks],
            )
            database.executemany(
                "INSERT OR REPLACE INTO minutes VALUES (?, ?, ?, ?, ?)",
                [(m.minute, m.finished, m.on_time, m.late, json.dumps(m.responses)) for m in minutes],
            )
            database.execute("DELETE FROM tasks WHERE at < ?", (now_s - DETAIL_S,))
            database.execute(
                "DELETE FROM tasks WHERE rowid <= (SELECT MAX(rowid) FROM tasks) - ?", (MAX_DETAILED,)
            )
            database.execute("DELETE FROM minutes WHERE minute < ?", ((now_s - MINUTES_S) // MINUTE_S,))

    def task(self, task: str) -> bytes | None:
        """Return a task as JSON: by its key, or the last one that a sensor sent under an id."""
        query = "SELECT content FROM tasks WHERE task = ? OR task GLOB ? ORDER BY at DESC LIMIT 1"
        found = self._database.execute(query, (task, f"{_literal(task)}.*")).fetchone()
        return zlib.decompress(found[0]) if found else None

    def minutes(self, since_s: float) -> list[Minute]:
        """Return the minutes since a moment, oldest first."""
        rows = self._database.execute(
            "SELECT * FROM minutes WHERE minute >= ? ORDER BY minute", (since_s // MINUTE_S,)
        )
        return [
            Minute(minute, finished, on_time, late, Counter({int(k): v for k, v in json.loads(text).items()}))
            for minute, finished, on_time, late, text in rows
        ]

    def close(self) -> None:
        """Close the file."""
        self._database.close()
