"""Kinds of nodes: a small table, a user's own, and what a running cluster says of itself."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from splitplace.errors import ConfigurationError
from splitplace.messages.cluster import NodeState
from splitplace.messages.validation_errors import problem_of
from splitplace.simulator.hosts import Host, Machines

MOST_NODES = 200
BROKER_LINK = 100.0
"""MB/s of the device on which broker and services run, unless said otherwise."""

_DEFAULT_LINK = 25.0
_DEFAULT_LATENCY_MS = 2.0
_DEFAULT_WATTS = (3.0, 7.0)
_SIZES = {"": 1.0, "MB": 1.0, "MiB": 1.048576, "GB": 1000.0, "GiB": 1073.741824}
_RATES = {"": 1.0, "MB/s": 1.0, "Mbit": 0.125, "Mbit/s": 0.125, "Gbit": 125.0, "Gbit/s": 125.0}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z/]*)")
_COUNTED = re.compile(r"(?:(\d+)\s*x\s*)?(.+)", re.DOTALL)

Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


class NodesError(ConfigurationError, ValueError):
    """The nodes of a plan cannot be understood."""


class NodeKind(BaseModel):
    """A kind of node. `speed` in GFLOP/s as nodes report it, `memory` for networks in MB, `link` in MB/s."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = ""
    cores: Annotated[int, Field(ge=1, le=4096)] = 1
    together: Annotated[float, Field(ge=1, le=4096)] = 1.0
    """Speed of a call on each core at once, against one at a time on all of them."""
    speed: Positive
    doubt: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """By what share the speed may be lower or higher; 0 where it was measured."""
    memory: Positive
    link: Positive = _DEFAULT_LINK
    latency_ms: Annotated[float, Field(ge=0, le=60_000)] = _DEFAULT_LATENCY_MS
    watts: Annotated[tuple[float, ...], Field(min_length=2)] = _DEFAULT_WATTS
    price: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """Dollars for one more of them; None = unknown."""
    basis: str = "as given"
    """Where the speed comes from."""

    def host(self, name: str, *, speed_factor: float = 1.0, count: int = 1) -> Host:
        """Return the simulator's host of this kind."""
        return Host(
            kind=name,
            weight=count,
            cores=self.cores,
            together=self.together,
            score=self.speed * speed_factor,
            memory_megabytes=self.memory,
            swap_slowness=100.0,
            megabytes_per_second=self.link,
            latency_ms=self.latency_ms,
            watts=self.watts,
        )


class NodeGroup(BaseModel):
    """Some equal nodes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,30}$")]
    count: Annotated[int, Field(ge=1, le=MOST_NODES)]
    kind: NodeKind


class Cluster(BaseModel):
    """The nodes that are asked about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: Annotated[tuple[NodeGroup, ...], Field(min_length=1, max_length=MOST_NODES)]
    broker_link: Positive | None = None
    """MB/s; None where nobody has said it: then `BROKER_LINK` is assumed, and policies do not know it."""

    @property
    def assumed_broker_link(self) -> float:
        """MB/s of the broker's link, said or not."""
        return BROKER_LINK if self.broker_link is None else self.broker_link

    @property
    def count(self) -> int:
        """Number of nodes."""
        return sum(group.count for group in self.groups)

    @property
    def named(self) -> str:
        """The nodes in words, such as `2 x pi4, 1 x pi5`."""
        return ", ".join(f"{group.count} x {group.name}" for group in self.groups)

    def machines(self, speed_factors: Mapping[str, float] | None = None) -> Machines:
        """Return the simulator's hosts, each kind's speed times its factor."""
        factors = speed_factors or {}
        hosts = [
            group.kind.host(group.name, speed_factor=factors.get(group.name, 1.0), count=group.count)
            for group in self.groups
        ]
        return Machines.model_validate(
            {"broker": {"megabytes_per_second": self.assumed_broker_link}, "host": tuple(hosts)}
        )

    def with_one_more(self, name: str, kind: NodeKind) -> "Cluster":
        """Return the cluster with one more node of a kind."""
        groups = [
            group.model_copy(update={"count": group.count + 1}) if group.name == name else group
            for group in self.groups
        ]
        if name not in {group.name for group in self.groups}:
            groups.append(NodeGroup(name=name, count=1, kind=kind))
        return self.model_copy(update={"groups": tuple(groups)})

    def without_one(self, name: str) -> "Cluster | None":
        """Return the cluster with one node of a group fewer; None if nothing would be left.

        Raises:
            NodesError: there is no such group.
        """
        if name not in {group.name for group in self.groups}:
            raise NodesError(f"there is no node {name}; there are {self.named}")
        groups = [
            group.model_copy(update={"count": group.count - (group.name == name)})
            for group in self.groups
            if group.count > 1 or group.name != name
        ]
        return self.model_copy(update={"groups": tuple(groups)}) if groups else None


def known_kinds() -> Mapping[str, NodeKind]:
    """Return the table of kinds."""
    text = files("splitplace.planning").joinpath("kinds.toml").read_text(encoding="utf-8")
    return {name: NodeKind.model_validate(kind) for name, kind in tomllib.loads(text).items()}


def parse_nodes(text: str, kinds: Mapping[str, NodeKind] | None = None) -> Cluster:
    """Return the nodes that `--nodes` names.

    Args:
        text: counts and kinds with commas (`2xpi4,1xpi5`); an own kind as
            `1xname:speed=20,memory=2GB,link=10MB/s`; or the name of a TOML file (`read_nodes`).
        kinds: the kinds that may be named; default the table.

    Raises:
        NodesError: it cannot be understood; the text says what may be given.
    """
    if text.strip().endswith(".toml"):
        return read_nodes(Path(text.strip()), kinds)
    known = known_kinds() if kinds is None else kinds
    groups = [_group(item, known) for item in _items(text)]
    return _cluster(groups)


def read_nodes(path: Path, kinds: Mapping[str, NodeKind] | None = None) -> Cluster:
    """Read nodes from a TOML file: a table for each kind, with `count` and the fields of `NodeKind`.

    A table named like a known kind takes what it does not say from there; so does one with `like = "pi4"`.
    The table `broker` may have `link`.

    Raises:
        NodesError: it cannot be read or is not valid.
    """
    known = known_kinds() if kinds is None else kinds
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        broker = tables.pop("broker", {})
        groups = [_from_table(name, table, known) for name, table in tables.items()]
    except OSError as error:
        raise NodesError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise NodesError(f"{path}: {error}") from error
    return _cluster(groups, broker.get("link") if isinstance(broker, dict) else None)


def from_states(states: Iterable[NodeState], *, broker_link: float | None = None) -> Cluster:
    """Return the nodes of a running cluster as they have measured themselves, each a kind of its own.

    Raises:
        NodesError: no node is online.
    """
    groups = [
        NodeGroup(
            name=_kind_name(state.node),
            count=1,
            kind=NodeKind(
                title=f"node {state.node}",
                cores=state.threads,
                together=state.together,
                speed=state.score,
                memory=max(1.0, state.memory_budget_bytes / 1e6),
                link=max(1e-3, min(state.link_megabytes_per_second, state.up)),
                latency_ms=state.latency_ms,
                basis="measured by the node itself",
            ),
        )
        for state in measured(states)
    ]
    return _cluster(groups, broker_link)


def measured(states: Iterable[NodeState]) -> Sequence[NodeState]:
    """Return the nodes that are online and know their speed. Raises NodesError if there are none."""
    found = [state for state in states if state.online and state.score > 0]
    if not found:
        raise NodesError(
            "no node of this system is online and has measured its speed: start one with "
            "splitplace node --node NAME (splitplace status shows them)"
        )
    return found


def _items(text: str) -> list[str]:
    """Split at commas, except those between the fields of an own kind."""
    items: list[str] = []
    for part in text.replace('"', "").replace("'", "").split(","):
        if items and re.match(r"\s*\w+\s*=", part):
            items[-1] += f",{part}"
        elif part.strip():
            items.append(part.strip())
    if not items:
        raise NodesError("no nodes are given: for example --nodes 2xpi4,1xpi5")
    return items


def _group(item: str, known: Mapping[str, NodeKind]) -> NodeGroup:
    match = _COUNTED.fullmatch(item)
    assert match is not None  # noqa: S101 - the expression takes anything
    count, (name, _, fields) = int(match[1] or 1), match[2].strip().partition(":")
    if not fields:
        if name not in known:
            raise NodesError(
                f"no kind of node {name!r}: known are {', '.join(known)} and here (this machine); "
                "an own one is name:speed=GFLOP/s,memory=MB,link=MB/s"
            )
        return _checked(name, count, known[name].model_dump())
    given: dict[str, object] = {}
    for field in fields.split(","):
        key, equals, value = field.strip().partition("=")
        if not equals:
            raise NodesError(f"{name}: {field.strip()!r} is no field=value")
        given[key.strip()] = _value(name, key.strip(), value.strip())
    return _from_table(name, {"count": count, **given}, known)


def _value(name: str, key: str, text: str) -> object:
    """Return a field's value: sizes in MB and rates in MB/s may have units."""
    if key in {"like", "title", "basis"}:
        return text
    match = _NUMBER.fullmatch(text)
    units = _SIZES if key == "memory" else _RATES if key == "link" else {"": 1.0}
    if match is None or match[2] not in units:
        allowed = ", ".join(unit for unit in units if unit)
        raise NodesError(
            f"{name}: {key}={text} is no number" + (f" with one of {allowed}" if allowed else "")
        )
    return float(match[1]) * units[match[2]]


def _from_table(name: str, table: Mapping[str, object], known: Mapping[str, NodeKind]) -> NodeGroup:
    fields = dict(table)
    count, like = fields.pop("count", 1), fields.pop("like", name)
    if "like" in table and like not in known:
        raise NodesError(f"{name}: no kind of node {like!r}: known are {', '.join(known)}")
    base = known[str(like)].model_dump() if like in known else {}
    if "speed" in fields:
        base |= {"doubt": 0.0, "basis": "as given"}
    if "cores" in fields and isinstance(fields["cores"], float):
        fields["cores"] = int(fields["cores"])
    missing = {"speed", "memory"} - fields.keys() - base.keys()
    if missing:
        raise NodesError(
            f"{name}: {' and '.join(sorted(missing))} not given: a plan needs the speed in GFLOP/s "
            "(splitplace status shows it for a running node) and the memory for networks in MB"
        )
    return _checked(name, count, {**base, **fields})


def _checked(name: str, count: object, kind: Mapping[str, object]) -> NodeGroup:
    try:
        return NodeGroup.model_validate({"name": name, "count": count, "kind": kind})
    except ValidationError as error:
        first = error.errors()[0]
        raise NodesError(f"{name}: {'.'.join(map(str, first['loc']))}: {problem_of(first)}") from error


def _cluster(groups: list[NodeGroup], broker_link: float | None = None) -> Cluster:
    names = [group.name for group in groups]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise NodesError(f"{', '.join(doubled)} is given twice: give one count, or two names")
    try:
        cluster = Cluster(groups=tuple(groups), broker_link=broker_link)
    except ValidationError as error:
        raise NodesError(f"these nodes cannot be used: {problem_of(error.errors()[0])}") from error
    if cluster.count > MOST_NODES:
        raise NodesError(f"{cluster.count} nodes are more than {MOST_NODES}")
    return cluster


def _kind_name(node: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]", "-", node)[:31]
    return name if re.match(r"[A-Za-z0-9]", name) else f"n{name}"[:31]
