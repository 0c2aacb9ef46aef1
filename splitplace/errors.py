"""The base of all errors that the package raises on purpose, and the exit codes of its commands."""

import sys
from enum import IntEnum
from typing import ClassVar, Final

_64_BIT: Final = 2**32
"""No Python of 32 bits counts so far (`sys.maxsize`)."""


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


class NotAllowedError(UnreachableError):
    """The broker refuses a user, or what it asks for: to ask again is no use."""


class MissingExtraError(SplitPlaceError):
    """A package is missing that an extra of SplitPlace brings."""

    def __init__(self, user: str, package: str, extra: str) -> None:
        """Say what to install.

        Args:
            user: What needs the package.
            package: The package that is missing.
            extra: The extra that brings it.
        """
        if package == "onnxruntime" and sys.maxsize < _64_BIT:
            super().__init__(
                f"{user} needs ONNX Runtime, which does not exist for 32-bit systems such as this: "
                "install the 64-bit Raspberry Pi OS (getconf LONG_BIT says 64 there; uname -m tells of the "
                "kernel only)"
            )
            return
        super().__init__(
            f"{user} needs {package}: install SplitPlace again with the extra {extra!r} "
            "(in a clone of its repository: "
            "pipx install --force '.[edge,broker,camera,secure,models,experiments]')"
        )
