"""Valid messages about tasks and nodes; every field can be changed by its name."""

from typing import Any

from splitplace.messages.cluster import NodeInfo, NodeStatus, NodeVitals
from splitplace.messages.task import TaskAccepted, TaskDecided, TaskFinished, TaskPlaced

BOOTS = ("a" * 16, "b" * 16, "c" * 16)
"""Boot ids of three starts of a process."""


def accepted(task: str = "c.t", **changes: Any) -> TaskAccepted:
    """A task of four inputs with a deadline of a second, as the gateway announces it."""
    fields = {
        "task": task,
        "attempt": 1,
        "application": "toy",
        "batch": 4,
        "input_bytes": 1,
        "deadline_ms": 1000.0,
        **changes,
    }
    return TaskAccepted.model_validate({"slack_ms": fields["deadline_ms"], **fields})


def decided(task: str = "c.t", **changes: Any) -> TaskDecided:
    """A task of six inputs for which the splitter chose `whole`."""
    fields = {
        "task": task,
        "attempt": 1,
        "application": "toy",
        "batch": 6,
        "slack_ms": 1000.0,
        "policy": "rule",
        "variant": "whole",
        "reason": "",
        "predicted_ms": None,
        "alternatives": (),
    }
    return TaskDecided.model_validate(fields | changes)


def placed(task: str = "c.t", **changes: Any) -> TaskPlaced:
    """A task of six inputs whose only stage runs on node `n1`."""
    fields = {
        "task": task,
        "attempt": 1,
        "application": "toy",
        "variant": "whole",
        "batch": 6,
        "micro_batch": 6,
        "policy": "earliest-finish",
        "stages": ({"stage": "whole", "node": "n1", "work_ms": 1.0},),
        "predicted_ms": None,
        "reason": "",
    }
    return TaskPlaced.model_validate(fields | changes)


def finished(task: str = "c.t", **changes: Any) -> TaskFinished:
    """A task of six inputs that was answered in time."""
    fields = {
        "task": task,
        "attempt": 1,
        "application": "toy",
        "batch": 6,
        "status": "answered",
        "reason": "",
        "variant": "whole",
        "deadline_ms": 1000.0,
        "response_ms": 100.0,
        "predicted_ms": None,
        "on_time": True,
        "accuracy": None,
        "variant_accuracy": 0.9,
    }
    return TaskFinished.model_validate(fields | changes)


def finished_after(decision: TaskDecided, response_ms: float, **changes: Any) -> TaskFinished:
    """How a decided task with a deadline of a second ended after this many ms."""
    fields = {
        "attempt": decision.attempt,
        "application": decision.application,
        "batch": decision.batch,
        "variant": decision.variant,
        "response_ms": response_ms,
        "predicted_ms": decision.predicted_ms,
        "on_time": response_ms <= changes.get("deadline_ms", 1000.0),
        "variant_accuracy": None,
    }
    return finished(decision.task, **(fields | changes))


def node_status(node: str = "n1", boot: str = BOOTS[0], *, online: bool = True) -> NodeStatus:
    """What a node says when it comes, or the broker when it goes."""
    return NodeStatus(node=node, boot=boot, online=online)


def node_info(node: str = "n1", boot: str = BOOTS[0], **changes: Any) -> NodeInfo:
    """What a node of score 50 with 1000 bytes of memory can do."""
    fields = {
        "node": node,
        "boot": boot,
        "score": 50.0,
        "cores": 4,
        "cpu_share": None,
        "memory_budget_bytes": 1000,
        "encode_megabytes_per_second": 900.0,
        "platform": "test",
        "software": "test",
        "loaded": ("0" * 64,),
        "stored": (),
        "timings": (),
    }
    return NodeInfo.model_validate(fields | changes)


def node_vitals(node: str = "n1", boot: str = BOOTS[0], **changes: Any) -> NodeVitals:
    """The heartbeat of a node that is half busy."""
    fields = {
        "node": node,
        "boot": boot,
        "uptime_s": 1.0,
        "cpu_ratio": 0.5,
        "resident_bytes": 100,
        "loaded_bytes": 10,
        "queue_length": 2,
        "queue_ms": 7.0,
        "executed": 5,
        "dropped": 1,
        "rejected": 0,
        "sent_bytes": 11,
        "received_bytes": 12,
        "temperature_celsius": 41.5,
        "throttled": False,
        "energy_joules": 3.0,
    }
    return NodeVitals.model_validate(fields | changes)
