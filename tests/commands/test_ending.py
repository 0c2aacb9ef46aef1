"""SIGTERM ends a command as Ctrl-C does."""

import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from splitplace.commands.shared.ending import ended_by_sigterm


def wait_for_sigterm(made: list[Path]) -> None:
    with ended_by_sigterm(), TemporaryDirectory() as folder:
        made.append(Path(folder))
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()


def test_sigterm_puts_temporary_files_away_and_is_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    made: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        wait_for_sigterm(made)
    assert not made[0].exists()
    assert signal.getsignal(signal.SIGTERM) is before
