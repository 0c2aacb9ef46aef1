"""One light for a system, and what to do: the rules of `doctor`, and more that need a history. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Literal

from splitplace.commands.dashboard.minutes import period
from splitplace.commands.dashboard.state import DashboardState, NodeRecord
from splitplace.commands.doctor import diagnosis
from splitplace.commands.doctor.diagnosis import Check
from splitplace.commands.shared.client import SPEAKS_WITHIN_S
from splitplace.commands.shared.system_report import NodeReport, ServiceReport, SystemReport
from splitplace.messages.topics import SERVICES

Light = Literal["well", "strained", "broken"]

ENOUGH_TASKS = 10
"""Fewer tasks prove nothing."""
GOOD_HIT_RATE = 0.9
_MINUTES = 5
MUCH_SLOWER = 4.0
"""A link that is so many times slower than the median is worth a word."""
SLOW_WORK = 2.0
"""Computing time over the expected one from which a node counts as slow."""
_MOST_OF_ALL = 0.5
_FLOOD_PER_SECOND = 5.0
_MANY_REFUSED_PER_SECOND = 1.0
_LEAST_MS = 1.0
"""Fragments that take less say little about the speed of a node."""


@dataclass(frozen=True, slots=True)
class Health:
    """The light, and every check that is not ok first."""

    light: Light
    why: str
    checks: tuple[Check, ...]


def health(state: DashboardState, now_s: float, software: str) -> Health:
    """Judge a system. `software` is the version of this dashboard."""
    checks = sorted(
        _checks(state, now_s, software), key=lambda each: ("fail", "warn", "ok").index(each.level)
    )
    worst = checks[0]
    light: Light = "broken" if worst.level == "fail" else "strained" if worst.level == "warn" else "well"
    wrong = [each for each in checks if each.level == worst.level]
    why = "; ".join(f"{each.name}: {each.finding}" for each in wrong[:3])
    return Health(light, "everything checked is ok" if light == "well" else why, tuple(checks))


def report(state: DashboardState, now_s: float) -> SystemReport:
    """Return services and nodes as `doctor` knows them. Who is silent is offline, whatever is retained."""
    services = []
    for name in SERVICES:
        status, metrics = state.services.get(name), state.service_metrics.get(name)
        heard_s = max(metrics[1] if metrics else 0.0, state.started_s)
        services.append(
            ServiceReport(
                name,
                status is not None and status.online and now_s - heard_s <= SPEAKS_WITHIN_S,
                status.software if status else None,
                metrics[0].trouble if metrics else "",
            )
        )
    nodes = tuple(_node(name, node) for name, node in sorted(state.nodes.items()))
    return SystemReport(services=tuple(services), nodes=nodes)


def _node(name: str, node: NodeRecord) -> NodeReport:
    info, known = node.info, node.state
    return NodeReport(
        name=name,
        online=node.online,
        score=known.score if known else info.score if info else None,
        threads=known.threads if known else None,
        cpu_share=info.cpu_share if info else None,
        memory_budget_bytes=info.memory_budget_bytes if info else None,
        mapped_bytes=known.mapped_bytes if known else None,
        fragments_loaded=len(known.loaded) if known else None,
        queue_length=known.queue_length if known else None,
        queue_ms=known.queue_ms if known else None,
        software=info.software if info else None,
        stalled=bool(known and known.online and known.stalled),
        trouble=(known.stalled or known.trouble) if known else "",
    )


def _checks(state: DashboardState, now_s: float, software: str) -> Iterator[Check]:
    if not state.connected:
        yield Check(
            "broker", "fail", state.trouble or "not reached yet", "run splitplace broker, then splitplace up"
        )
        return
    yield Check("broker", "ok", "connected")
    seen = report(state, now_s)
    yield diagnosis.services(seen)
    yield diagnosis.work_of_services(seen)
    yield diagnosis.catalogue([], sorted(state.applications))
    yield diagnosis.nodes(seen)
    yield diagnosis.work(seen)
    yield diagnosis.versions(software, seen)
    budgets = {
        node.name: node.memory_budget_bytes
        for node in seen.nodes
        if node.online and node.memory_budget_bytes is not None
    }
    for application in state.applications.values() if budgets else ():
        yield diagnosis.memory(application, budgets)
    yield deadlines(state, now_s)
    online = {name: node for name, node in sorted(state.nodes.items()) if node.online}
    yield slow_nodes(online)
    yield slow_links(online)
    yield flood(state, now_s)


def deadlines(state: DashboardState, now_s: float) -> Check:
    """Check that most tasks of the last minutes were on time."""
    recent = period(state.last_minutes(_MINUTES, now_s))
    name = "deadlines"
    if recent.hit_rate is None or recent.finished < ENOUGH_TASKS:
        return Check(name, "ok", f"{recent.finished} tasks in {_MINUTES} minutes: too few to judge")
    finding = f"{recent.hit_rate:.0%} of {recent.finished} tasks in {_MINUTES} minutes were on time"
    if recent.hit_rate >= GOOD_HIT_RATE:
        return Check(name, "ok", finding)
    return Check(name, "warn", finding, "look for slow nodes, links or a busy sensor below; or add a node")


def slow_nodes(online: dict[str, NodeRecord]) -> Check:
    """Check that nodes compute about as fast as was expected of them, and are not throttled."""
    name = "speed of nodes"
    slow = []
    beside_others = times_of_others(online)
    for node, record in online.items():
        ratios = record.work_ratios
        lately = median(ratios) if len(ratios) >= ENOUGH_TASKS else 0.0
        times = max(lately, beside_others.get(node, 0.0))
        if record.metrics is not None and record.metrics.throttled:
            slow.append(f"{node} is throttled (heat or power)")
        elif times >= SLOW_WORK:
            slow.append(f"{node} computes {times:.1f} times as long as expected")
    if not slow:
        return Check(name, "ok", "as expected")
    remedy = "look for other programs on that node (top), heat, or a weak power supply"
    return Check(name, "warn", "; ".join(slow), remedy)


def times_of_others(online: dict[str, NodeRecord]) -> dict[str, float]:
    """Return how many times as long as on the other nodes the same fragments take on each node.

    By what nodes measured, at equal speed in the reference benchmark. So a node is told to be slow also when
    everybody expects it to be and gives it no more work. Nodes without a fragment in common,
    and those that have run few micro-batches, are not compared.
    """
    costs: dict[str, dict[str, float]] = {}
    for node, record in online.items():
        state, metrics = record.state, record.metrics
        is_known = metrics is not None and metrics.executed >= ENOUGH_TASKS  # the first runs take longer
        for timing in state.timings if state is not None and is_known else ():
            took_ms = timing.milliseconds_per_image + (timing.milliseconds_per_call or 0.0)
            if took_ms >= _LEAST_MS and state is not None and state.score:
                costs.setdefault(timing.fragment, {})[node] = took_ms * state.score
    ratios: dict[str, list[float]] = {}
    for of_nodes in costs.values():
        if len(of_nodes) > 1:
            for node, of_others in _medians_of_others(of_nodes).items():
                ratios.setdefault(node, []).append(of_nodes[node] / of_others)
    return {node: median(each) for node, each in ratios.items()}


def _medians_of_others(costs: dict[str, float]) -> dict[str, float]:
    """Return for each of at least two nodes the median of the others; all are sorted only once."""
    nodes = sorted(costs, key=costs.__getitem__)
    low, high = (len(nodes) - 2) // 2, (len(nodes) - 1) // 2  # the middle of what is left without one
    return {
        node: (costs[nodes[low + (low >= rank)]] + costs[nodes[high + (high >= rank)]]) / 2
        for rank, node in enumerate(nodes)
    }


def slow_links(online: dict[str, NodeRecord]) -> Check:
    """Check that no link is far slower than the others."""
    name = "links"
    speeds = {
        node: min(record.state.link_megabytes_per_second, record.state.up)
        for node, record in online.items()
        if record.state is not None
    }
    usual = median(speeds.values()) if speeds else 0.0
    slow = [node for node, speed in speeds.items() if speed * MUCH_SLOWER < usual]
    if not slow:
        return Check(name, "ok", "all nodes have similar links")
    named = "; ".join(f"{node} has {speeds[node]:.2g} MB/s, the median is {usual:.2g}" for node in slow)
    return Check(name, "warn", named, "use a cable, a nearer access point, or another channel for that node")


def flood(state: DashboardState, now_s: float) -> Check:
    """Check that no sensor crowds out the others."""
    name = "sensors"
    sent = state.sent_lately(now_s)
    if not sent:
        return Check(name, "ok", "no task in the last minute")
    (busiest, count), *others = sent.most_common()
    per_second = count / 60
    refused = sum(each for _, _, each in state.turned_away) / 60
    hit_rate = period(state.last_minutes(2, now_s)).hit_rate
    is_late = hit_rate is not None and hit_rate < GOOD_HIT_RATE
    is_flood = per_second >= _FLOOD_PER_SECOND and count > _MOST_OF_ALL * sent.total()
    is_refused = refused >= _MANY_REFUSED_PER_SECOND
    if is_flood and (is_late or is_refused):
        harm = f"{refused:.0f} a second are refused" if is_refused else "tasks are late"
        finding = f"{busiest} sends {per_second:.0f} of {sent.total() / 60:.0f} tasks a second, and {harm}"
        return Check(name, "warn", finding, f"let {busiest} send less often, or add nodes")
    return Check(name, "ok", f"{len(others) + 1} sent tasks in the last minute")
