"""Move a broken file out of the way, so that a part can go on without it and nothing of it is lost."""

import os
from pathlib import Path

from splitplace.errors import ConfigurationError

_MOST_KEPT = 3
"""Broken files of one name that are kept; the last is replaced by the next."""


def set_aside(path: Path) -> Path:
    """Rename a file or folder to `<name>.unusable` (`-2`, `-3` where there is one). Return its new path.

    Raises:
        OSError: The disk refuses.
    """
    names = [f"{path.name}.unusable", *(f"{path.name}.unusable-{n}" for n in range(2, _MOST_KEPT + 1))]
    targets = [path.with_name(name) for name in names]
    target = next((each for each in targets if not os.path.lexists(each)), targets[-1])
    return path.replace(target)


def check_folder(folder: Path, flag: str) -> None:
    """Check that a folder is one that files can be written to. Make it if it is missing.

    A full or read-only disk is no error here: a part that can go on without the disk should.

    Raises:
        ConfigurationError: It is no folder, or not ours to write to. Trying again would not help.
    """
    reason = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        reason = "is not a folder"
    except PermissionError:
        reason = "cannot be made: permission denied"
    except OSError:
        return
    else:
        if not os.access(folder, os.W_OK | os.X_OK) and not os.statvfs(folder).f_flag & os.ST_RDONLY:
            reason = "cannot be written to: permission denied"
    if reason:
        raise ConfigurationError(f"{folder}: {reason}; choose another folder with {flag}")
