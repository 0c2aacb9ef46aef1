"""The doctor's checks: what was found, what is wrong with it, and how to fix it. Pure."""

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from splitplace.bus.hints import OPEN_TO_ALL, is_loopback
from splitplace.commands.shared.system_report import SystemReport
from splitplace.messages.application import Application, Variant
from splitplace.messages.limits import MAX_PACKET_BYTES, MEBIBYTE
from splitplace.policies.memory import least_budget_bytes

Level = Literal["ok", "warn", "fail"]

QUEUE_MESSAGES = 2000
"""Messages that a broker must queue for a slow subscriber. Mosquitto's default is 1000."""

RENEW_DAYS = 30
"""A certificate that is valid for fewer days should be replaced."""

_EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
"""No right clock shows less: this software is younger."""

_LATEST = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    level: Level
    finding: str
    remedy: str = ""
    """How to fix it; empty if it is ok."""


def packet_limit(limit: int | None) -> Check:
    """Compare the broker's packet limit (from CONNACK) with the largest task."""
    name = "packet limit"
    if limit is None:
        return Check(name, "ok", "the broker states none")
    if limit >= MAX_PACKET_BYTES:
        return Check(name, "ok", f"{limit} bytes")
    return Check(
        name,
        "fail",
        f"{limit} bytes, but tasks may need {MAX_PACKET_BYTES}",
        f"in Mosquitto, set max_packet_size {MAX_PACKET_BYTES} (as in mosquitto/mosquitto.conf)",
    )


def attempt(name: str, tried: Callable[[], None], errors: type[Exception], good: str, remedy: str) -> Check:
    """Run an experiment that raises one of `errors` if it fails."""
    try:
        tried()
    except errors as error:
        return Check(name, "fail", str(error), remedy)
    return Check(name, "ok", good)


def queue_length(held: int) -> Check:
    """Judge how many messages the broker kept for a slow subscriber."""
    if held >= QUEUE_MESSAGES:
        return Check("broker queue", "ok", f"{held} messages were queued for a slow subscriber, none dropped")
    return Check(
        "broker queue",
        "warn",
        f"only {held} of {QUEUE_MESSAGES} messages reached a slow subscriber; the broker dropped the rest",
        "in Mosquitto, set max_queued_messages 100000 and max_queued_bytes 268435456",
    )


def clock(now: datetime) -> Check:
    """Check this clock. Clocks need not agree (only durations are sent), but TLS and logs need a sane one."""
    shown = f"{now:%Y-%m-%d %H:%M} UTC (clocks of devices need not agree)"
    if _EARLIEST <= now < _LATEST:
        return Check("clock", "ok", shown)
    return Check("clock", "warn", shown, "set the clock (timedatectl set-ntp true): TLS needs the right time")


def users(username: str | None, address: str) -> Check:
    """Check that others in the network cannot speak for anybody."""
    if username is not None:
        return Check("users", "ok", f"the broker knows us as {username}")
    if is_loopback(address):
        return Check("users", "ok", "none, and the broker is on this machine")
    return Check("users", "warn", "the broker lets in anybody", OPEN_TO_ALL)


def expiry(name: str, expires: str, now_s: float, remedy: str) -> Check:
    """Check that a certificate is valid for another month.

    Args:
        name: what it is.
        expires: as `ssl` says it: `Nov 28 12:00:00 2027 GMT`.
        now_s: seconds since 1970.
        remedy: how to replace it.
    """
    days = (ssl.cert_time_to_seconds(expires) - now_s) / 86_400
    finding = f"valid until {expires} ({days:.0f} days)"
    return Check(name, "ok", finding) if days > RENEW_DAYS else Check(name, "warn", finding, remedy)


def authorities(expire: Sequence[str], now_s: float) -> Sequence[Check]:
    """Check that the newest of the authorities that are trusted is valid for another month.

    Args:
        expire: when each expires, as `ssl` says it; none without users.
        now_s: seconds since 1970.
    """
    if not expire:
        return ()
    newest = max(expire, key=ssl.cert_time_to_seconds)
    check = expiry("authority", newest, now_s, "splitplace secure rotate authority, where init ran")
    if len(expire) == 1:
        return (check,)
    return (
        check,
        Check(
            "old authority",
            "warn",
            "is trusted beside the new one",
            "when all nodes have been online: splitplace secure rotate authority --finish",
        ),
    )


def versions(own: str, status: SystemReport) -> Check:
    """Compare the versions of all services and nodes with this one."""
    if status.strangers:
        return Check(
            "versions",
            "fail",
            f"this is {own}; {'; '.join(map(str, status.strangers))}",
            "install the same version everywhere, or clear their retained topics if they are gone",
        )
    others = {service.name: service.software for service in status.services if service.online}
    others |= {node.name: node.software for node in status.nodes if node.online}
    same = (own, f"splitplace {own}")
    different = {
        name: said for name, said in others.items() if said is not None and said.split(",")[0] not in same
    }
    if not others:
        return Check("versions", "ok", f"{own}; there is no service or node to compare it with")
    if not different:
        return Check("versions", "ok", f"{own} everywhere ({len(others)} services and nodes)")
    named = ", ".join(f"{name} has {said}" for name, said in sorted(different.items()))
    return Check("versions", "warn", f"this is {own}; {named}", "install the same version everywhere")


def services(status: SystemReport) -> Check:
    """Check that all five services are online."""
    if not status.missing:
        return Check("services", "ok", "all online")
    return Check(
        "services",
        "fail",
        f"not online: {', '.join(status.missing)}",
        "run splitplace up, or each service by its name",
    )


def work_of_services(status: SystemReport) -> Check:
    """Check that the services that are online can do their work."""
    name = "work of services"
    troubled = [f"{each.name}: {each.trouble}" for each in status.services if each.online and each.trouble]
    if not troubled:
        return Check(name, "ok", "no service says that it is in trouble")
    return Check(name, "warn", "; ".join(troubled), "see the log of the service; it goes on with the rest")


def nodes(status: SystemReport) -> Check:
    """Check that nodes are online."""
    online = [node.name for node in status.nodes if node.online]
    offline = [node.name for node in status.nodes if not node.online]
    if not online:
        return Check(
            "nodes", "fail", "none is online", "run splitplace node --node NAME --broker URL on each device"
        )
    if offline:
        return Check(
            "nodes",
            "warn",
            f"{len(online)} online; offline: {', '.join(offline)}",
            "start them, or clear their retained topics node/<id>/status and node/<id>/info",
        )
    return Check("nodes", "ok", f"{len(online)} online")


def work(status: SystemReport) -> Check:
    """Check that the nodes that are online can do their work."""
    troubled = {node.name: node.trouble for node in status.nodes if node.online and node.trouble}
    if not troubled:
        return Check("work of nodes", "ok", "no node says that it is in trouble")
    named = "; ".join(f"{name}: {trouble}" for name, trouble in sorted(troubled.items()))
    return Check(
        "work of nodes",
        "warn",
        named,
        "see the node's log; a full disk needs room, and a fragment that hangs should leave the store",
    )


def memory(application: Application, budgets: Mapping[str, int]) -> Check:
    """Check that some variant of an application fits the online nodes (`budgets`: bytes by node)."""
    name = f"memory for {application.name}"
    largest = max(budgets.values(), default=0)
    needs = {variant.name: _largest_fragment(application, variant) for variant in application.variants}
    fitting = [variant for variant, needed in needs.items() if needed <= largest]
    if len(fitting) == len(needs):
        return Check(name, "ok", f"every variant fits: {', '.join(fitting)}")
    if fitting:
        return Check(name, "ok", f"fits: {', '.join(fitting)} (others need a node with more memory)")
    smallest = min(needs.values())
    return Check(
        name,
        "fail",
        f"no variant fits: the smallest needs {smallest / MEBIBYTE:.1f} MB on one node, "
        f"the largest budget is {largest / MEBIBYTE:.1f} MB",
        "raise --memory-budget-mb of a node, or build the application with more fragments",
    )


def _largest_fragment(application: Application, variant: Variant) -> int:
    return max(least_budget_bytes(application.fragment(stage.fragment)) for stage in variant.stages)


def catalogue(local: Sequence[str], announced: Sequence[str]) -> Check:
    """Check that the splitter has announced the applications of the model store."""
    if not announced:
        return Check(
            "catalogue",
            "fail",
            "no application is announced",
            "start the splitter, and check its --store",
        )
    hidden = sorted(set(local) - set(announced))
    if hidden:
        return Check(
            "catalogue",
            "warn",
            f"announced: {', '.join(announced)}; only in the store here: {', '.join(hidden)}",
            "restart the splitter with --store set to this model store",
        )
    return Check("catalogue", "ok", f"announced: {', '.join(announced)}")
