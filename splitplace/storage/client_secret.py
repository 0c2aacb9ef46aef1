"""The secret part of a client id that must outlive its process, because the broker keeps a session for it."""

import logging
import re
import secrets
from pathlib import Path

from splitplace.storage.replace import replace_file

log = logging.getLogger(__name__)

_PATTERN = re.compile(r"[0-9a-f]{32}")
_ONLY_OWNER = 0o600


def draw_secret() -> str:
    """Return a new secret: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def kept_secret(path: Path) -> str:
    """Return the secret in a file that only its owner may read; draw one where there is none. Blocks.

    A file that cannot be used is replaced, and one that cannot be written is not: both are logged.
    """
    try:
        found = path.read_text("ascii").strip()
        if _PATTERN.fullmatch(found):
            if path.stat().st_mode & 0o777 != _ONLY_OWNER:  # else a read-only disk would refuse
                path.chmod(_ONLY_OWNER)
            return found
        log.warning("%s does not hold a client id's secret; drawing a new one", path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read, drawing a new secret: %s", path, error)
    secret = draw_secret()
    try:
        replace_file(path, f"{secret}\n".encode(), mode=_ONLY_OWNER)
    except OSError as error:
        log.warning(
            "%s cannot be written: %s (what waits at the broker while this part is away will be lost)",
            path,
            error,
        )
    return secret
