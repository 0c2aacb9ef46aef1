"""Lines of the log: control characters are escaped, and only a record's first line begins at the margin."""

import logging

from splitplace.bus.process import _PrintableFormatter


def formatted(message: str, *arguments: object, error: BaseException | None = None) -> str:
    formatter = _PrintableFormatter("%(levelname)s %(message)s")
    info = (type(error), error, None) if error is not None else None
    return formatter.format(logging.LogRecord("test", logging.INFO, "", 0, message, arguments, info))


def test_a_record_cannot_forge_another() -> None:
    shown = formatted("rejected %s", "x\nERROR the disk is full")
    assert shown == "INFO rejected x\n    ERROR the disk is full"
    assert all(line.startswith("    ") for line in shown.splitlines()[1:])


def test_an_exception_of_a_record_cannot_either() -> None:
    shown = formatted("failed", error=ValueError("x\nERROR forged\x1b[2J"))
    assert "\x1b" not in shown
    assert not any(line.startswith("ERROR") for line in shown.splitlines())
