"""What was learnt, on disk: one small JSON file, replaced at once. Blocking: to be called in a thread."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

log = logging.getLogger(__name__)

MAX_BYTES = 16 * 1024 * 1024
_VERSION = 1


def load(path: Path) -> dict[str, Json]:
    """What was saved; empty where there is nothing that can be used (then why is logged)."""
    try:
        if path.stat().st_size > MAX_BYTES:
            log.warning("%s is larger than %d bytes; starting anew", path, MAX_BYTES)
            return {}
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read, starting anew: %s", path, error)
        return {}
    if not isinstance(content, dict) or content.pop("version", None) != _VERSION:
        log.warning("%s is not of version %d; starting anew", path, _VERSION)
        return {}
    return content


def save(path: Path, state: Mapping[str, Json]) -> None:
    """Write the state; whoever reads meanwhile sees the old file or the new one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps({"version": _VERSION, **state}))
    partial.replace(path)
