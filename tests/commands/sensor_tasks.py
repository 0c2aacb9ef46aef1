"""Tasks as the demo's sensors report them."""

from typing import Any

from splitplace.commands.demo.summary import SensorTask


def sent(number: int, **changes: Any) -> SensorTask:
    """A task that was answered in time by `layer`; `changes` replace fields."""
    usual: dict[str, Any] = {
        "client": "s",
        "task": f"t{number}",
        "format": "json",
        "batch": 10,
        "deadline_ms": 100.0,
        "answers": 1,
        "status": "answered",
        "reason": "because",
        "decision": "layer",
        "on_time": True,
        "response_ms": 50.0,
        "elapsed_ms": 60.0,
        "published_s": float(number),
        "right": 9,
    }
    return SensorTask(**{**usual, **changes})
