"""What the exit code of a `splitplace` command says."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of all commands; 2 is also what wrong flags give."""

    OK = 0
    """It worked. For `submit`: there is an answer (also a late one, which says so)."""
    PROBLEM = 1
    """Something is wrong: a service is missing, a check failed, tasks were lost, a process died."""
    USAGE = 2
    """Wrong flags or settings."""
    REFUSED = 3
    """`submit`: the task was refused, or was not valid; the reason is printed."""
    NO_RESULT = 4
    """`submit`: the task was accepted and then expired or failed; the reason is printed."""
    UNREACHABLE = 5
    """The broker, or for `submit` the gateway, cannot be reached."""
