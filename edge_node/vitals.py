"""Measures the node's process and device: CPU, memory, temperature, throttling, energy."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

RASPBERRY_PI_WATTS = (0.45, 0.78, 0.90, 1.03, 1.65, 1.66, 1.69, 1.71, 1.72, 1.74, 1.75)
"""Power of a Raspberry Pi at 0, 10, ..., 100 % CPU, from the published SplitPlace code."""

_THROTTLED_FILE = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
_THROTTLED_NOW = 0b1110
"""Bits of that file: frequency capped, throttled, soft temperature limit (bit 0 is under-voltage)."""


def power_watts(cpu_ratio: float) -> float:
    """Estimate the power (W) of a Raspberry Pi at a CPU use of 0 to 1: linear between measured points."""
    return float(np.interp(cpu_ratio, np.linspace(0, 1, len(RASPBERRY_PI_WATTS)), RASPBERRY_PI_WATTS))


@dataclass(frozen=True, slots=True)
class VitalsSample:
    """Measurements at one moment."""

    cpu_ratio: float
    """Use of the CPU share since the last sample, 0 to 1."""
    resident_bytes: int
    temperature_celsius: float | None
    throttled: bool | None
    energy_joules: float
    """Estimate since the meter was made."""


class Meter:
    """Samples this process. Reads files below /proc and /sys, so call it in a thread."""

    def __init__(self, capacity: float) -> None:
        """Begin to measure.

        Args:
            capacity: CPU seconds a second that count as full use: the node's share, or its cores.
        """
        self._capacity = capacity
        self._process = psutil.Process()
        self._energy_joules = 0.0
        self._last_s = time.monotonic()
        self._last_cpu_s = self._cpu_s()

    def sample(self) -> VitalsSample:
        """Measure; the CPU use is that since the last call."""
        now_s, cpu_s = time.monotonic(), self._cpu_s()
        elapsed_s = max(now_s - self._last_s, 1e-6)
        cpu_ratio = min(1.0, max(0.0, (cpu_s - self._last_cpu_s) / elapsed_s / self._capacity))
        self._last_s, self._last_cpu_s = now_s, cpu_s
        self._energy_joules += power_watts(cpu_ratio) * elapsed_s
        return VitalsSample(
            cpu_ratio=cpu_ratio,
            resident_bytes=self._process.memory_info().rss,
            temperature_celsius=read_temperature(),
            throttled=read_throttled(),
            energy_joules=self._energy_joules,
        )

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


def read_temperature() -> float | None:
    """Return the CPU temperature in °C (the first sensor of a known name, else any); None if unknown."""
    if not hasattr(psutil, "sensors_temperatures"):  # macOS, Windows
        return None
    with contextlib.suppress(OSError, ValueError):
        found = psutil.sensors_temperatures()
        for name in ("cpu_thermal", "coretemp", "k10temp", "soc_thermal", *found):
            for entry in found.get(name, ()):
                if -100 <= entry.current <= 300:  # noqa: PLR2004 - message limits
                    return float(entry.current)
    return None


def read_throttled(file: Path = _THROTTLED_FILE) -> bool | None:
    """Whether a Raspberry Pi slows itself down at this moment; None on other devices."""
    try:
        return bool(int(file.read_text().strip(), 16) & _THROTTLED_NOW)
    except (OSError, ValueError):
        return None
