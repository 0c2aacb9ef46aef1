"""Run the `splitplace` command under a profiler that counts the CPU time of the event loop's thread.

    python -m benchmarks.profiled FILE services --broker ...

SIGUSR1 begins the profile, a second one ends it and writes it to FILE. See `benchmarks.steps --parts`.
"""

import cProfile
import signal
import sys
import time
from pathlib import Path

from splitplace.commands.main import main


def profiled(file: Path) -> None:
    """Let signals begin and end a profile."""
    profile = cProfile.Profile(time.thread_time)
    running: list[bool] = []

    def toggle(*_: object) -> None:
        if running:
            profile.disable()
            profile.create_stats()
            half = file.with_suffix(".half")
            profile.dump_stats(half)
            half.rename(file)
        else:
            running.append(True)
            profile.enable()

    signal.signal(signal.SIGUSR1, toggle)


if __name__ == "__main__":
    profiled(Path(sys.argv[1]))
    sys.argv = ["splitplace", *sys.argv[2:]]
    main()
