"""The base of all errors that the package raises on purpose, and the exit codes of its commands."""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of all commands."""

    OK = 0
    """Success. For `submit`: there is an answer, on time or late."""
    PROBLEM = 1
    """A problem was found: a service is missing, a check failed, tasks were lost, a process died."""
    USAGE = 2
    """Wrong flags or settings."""
    REFUSED = 3
    """`submit`: the task was refused, or was not valid."""
    NO_RESULT = 4
    """`submit`: the task was accepted, then expired or failed."""
    UNREACHABLE = 5
    """The broker, or for `submit` the gateway, cannot be reached."""


class SplitPlaceError(Exception):
    """Something that the user can understand and act on: the message says what is wrong.

    The command line prints the message and exits; anything else is a fault of ours and keeps its traceback.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.PROBLEM
    """How a command ends with this error."""


class ConfigurationError(SplitPlaceError):
    """A flag, a variable or the configuration file is wrong."""

    exit_code = ExitCode.USAGE


class UnreachableError(SplitPlaceError):
    """The broker, or the service behind it, cannot be reached."""

    exit_code = ExitCode.UNREACHABLE


class MissingExtraError(SplitPlaceError):
    """A package is missing that an extra of SplitPlace brings."""

    def __init__(self, user: str, package: str, extra: str) -> None:
        """Say what to install.

        Args:
            user: What needs the package.
            package: The package that is missing.
            extra: The extra that brings it.
        """
        super().__init__(
            f"{user} needs {package}: install SplitPlace again with the extra {extra!r} "
            f"(in a clone of its repository: pipx install --force '.[edge,broker,secure,models,experiments]')"
        )
