"""Run a command that ends with the process that started it, however that ends.

Used as a script: `python dies_with_parent.py <pid of the parent> <command> [argument ...]`. It asks the
kernel for a SIGKILL at the parent's death and then *becomes* the command, so that the child's process id is
the command's. This is safe if the parent has threads, unlike code between its fork and exec (`preexec_fn`).
Standard library only, because it starts often.

The kernel watches the *thread* that started the child: start children from one that lives as long as they.
Only Linux knows this; elsewhere a child outlives a parent that was killed with SIGKILL.
"""

import os
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


def tied_to_this_process(command: Sequence[str]) -> list[str]:
    """Return a command that runs `command` and ends with the process that calls this."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def _main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform.startswith("linux"):
        import ctypes  # noqa: PLC0415 - only for this, and this file is imported by others

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel was told
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - no shell is what is wanted


if __name__ == "__main__":
    _main()
