"""Parallel runs: a test marked `serial` runs while no other test of the run does.

Such tests measure ratios of times or start whole systems. All workers share two lock files: every test
holds the first one together with others, a serial test holds it alone. The second is a turnstile: while a
serial test waits in it, no other test begins, so the serial one need not wait for a lucky moment.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(file: Path, *, alone: bool) -> Iterator[None]:
    """Hold a lock on a file, alone or together with others; wait for it as long as it takes."""
    with file.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Take a turn among all workers that share the folder; `alone` means that no other turn overlaps."""
    with contextlib.ExitStack() as turnstile:
        turnstile.enter_context(locked(folder / "turnstile", alone=True))
        with locked(folder / "running", alone=alone):
            turnstile.close()
            yield
