"""A part as a process: lines of its log cannot be forged, and what it imported is not collected again."""

import gc
import logging

from splitplace.bus.process import _PrintableFormatter, run_until_signal
from splitplace.bus.settings import Settings


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


def test_what_was_imported_is_not_collected_again() -> None:
    frozen: list[int] = []

    async def work() -> None:
        frozen.append(gc.get_freeze_count())

    before = gc.get_freeze_count()
    try:
        run_until_signal(work(), Settings())
    finally:
        gc.unfreeze()
    assert frozen[0] > before + 10_000
