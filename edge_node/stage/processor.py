"""What a prepared stage depends on besides its pieces: ONNX Runtime and the processor."""

import platform
import re
from functools import cache
from pathlib import Path

import onnxruntime as ort

_CPU_INFO = Path("/proc/cpuinfo")
_TELLING = re.compile(
    r"^(flags|Features|CPU implementer|CPU architecture|CPU part|isa|vendor_id|cpu family|model)\s*:\s*(.*)$",
    re.MULTILINE,
)
"""Lines that say which instructions a processor has, on x86, AArch64 and RISC-V."""


@cache
def runtime_identity() -> str:
    """Return a text that changes when ONNX Runtime or the processor's instructions change.

    ONNX Runtime lays weights out for the vector registers that it finds. A form that was prepared on another
    processor may be slow, wrong or refused.
    """
    try:
        information = _CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        information = ""
    return f"onnxruntime {ort.__version__}, {platform.machine()}, {instructions(information)}"


def instructions(information: str) -> str:
    """Return what `/proc/cpuinfo` tells of the instructions, alike for any order of cores and flags."""
    found = {(key, " ".join(sorted(value.split()))) for key, value in _TELLING.findall(information)}
    return "; ".join(f"{key} {value}" for key, value in sorted(found))
