"""When gateway and broker could not do their work, so that an answer may come later. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nemesis import history as records
from nemesis.faults import BROKER, GATEWAY, TOGETHER

_BROKER_FORGETS_S = 3.0
"""A gateway that lives takes a task from the broker sooner. What it has not taken dies with the broker."""

_SAVED_EVERY_S = 300.0
"""The shipped broker writes what it holds so often; nothing older dies with it."""

_NAMESAKES_NOTICE_S = 10.0
"""Two parts of one name notice each other within this time."""

STARVED_SHARE = 0.25
"""Share of a measurement for which a part wanted a processor and got none: then it was starved."""

_HEARD_LATE_S = 0.5
"""An acknowledgement may be read after the death of the broker that sent it."""


@dataclass(frozen=True)
class Window:
    """A time in which no answer can be expected."""

    from_s: float
    until_s: float
    kills_broker: bool = False


@dataclass(frozen=True)
class Hampered:
    """When the system could not do its work, in the order of the beginnings."""

    hindrances: Sequence[Window]
    """Gateway or broker were away, or the nemesis itself."""
    deaths: Sequence[Window]
    """A killed broker may have forgotten what it had acknowledged."""
    short: Sequence[Window]
    """Processors were short."""
    gateway_ends: Sequence[float]
    """When the gateway's process was ended."""


def windows(
    events: Iterable[records.Record],
    recovery_s: float,
    *,
    short: Sequence[Window] = (),
    starved_recovery_s: float = 0.0,
) -> list[Window]:
    """Return the downtimes of gateway and broker, recovery included, in the order of their beginnings.

    Times in which the nemesis itself got no processor are among them.

    Args:
        events: the history.
        recovery_s: time that gateway or broker need after a fault.
        short: when processors were short.
        starved_recovery_s: the time that they need then; starting a process is mostly work.
    """

    def recovered_s(healed_s: float) -> float:
        is_starved = any(w.from_s <= healed_s + recovery_s and w.until_s >= healed_s for w in short)
        return healed_s + (max(recovery_s, starved_recovery_s) if is_starved else recovery_s)

    began: dict[int, records.FaultBegan] = {}
    found: list[Window] = []
    last_s = 0.0
    for event in events:
        last_s = max(last_s, event.at_s)
        match event:
            case records.Lagged():
                found.append(Window(event.at_s - event.lag_s, event.at_s))
            case records.FaultBegan() if _hinders(event):
                began[event.number] = event
            case records.FaultHealed() if event.number in began:
                found.append(_window(began.pop(event.number), recovered_s(event.at_s)))
            case _:
                pass
    found += [_window(fault, last_s) for fault in began.values()]
    return sorted(found, key=lambda window: window.from_s)


def starved(events: Iterable[records.Record]) -> list[Window]:
    """Return when processors were short, in the order of the beginnings: by burners, or by others' work.

    Others' work shows in parts that wanted a processor and got none.
    """
    began: dict[int, float] = {}
    found: list[Window] = []
    last_s = 0.0
    for event in events:
        last_s = max(last_s, event.at_s)
        match event:
            case records.FaultBegan() if event.fault.startswith("starve:"):
                began[event.number] = event.at_s
            case records.FaultHealed() if event.number in began:
                found.append(Window(began.pop(event.number), event.at_s))
            case records.Measured() if event.starved_s > STARVED_SHARE * event.period_s:
                found.append(Window(event.at_s - event.period_s, event.at_s))
            case _:
                pass
    found += [Window(from_s, last_s) for from_s in began.values()]
    return sorted(found, key=lambda window: window.from_s)


def _window(fault: records.FaultBegan, until_s: float) -> Window:
    kills = BROKER in fault.targets and fault.fault.endswith(":kill")
    return Window(fault.at_s, until_s, kills_broker=kills)


def _hinders(fault: records.FaultBegan) -> bool:
    """Poison and burners excuse nothing."""
    family = fault.fault.partition(":")[0]
    if family in {"poison", "starve", "clone"}:
        return False
    return family == "disk" or bool({BROKER, GATEWAY, TOGETHER} & set(fault.targets))


def allowed_until_s(began_s: float, due_s: float, hindrances: Sequence[Window]) -> float:
    """Return when an answer is due, prolonged by every hindrance on the way to it.

    Args:
        began_s: when the task was sent.
        due_s: when its answer is due without hindrances.
        hindrances: in the order of their beginnings; what overlaps counts once.
    """
    counted_s = began_s
    for window in hindrances:
        from_s = max(window.from_s, counted_s)
        if from_s > due_s:
            break
        if window.until_s > from_s:
            due_s += window.until_s - from_s
            counted_s = window.until_s
    return due_s


def broker_deaths(hindrances: Sequence[Window]) -> list[Window]:
    """Return when a broker that was killed may have forgotten what it acknowledged.

    It forgets what the gateway had not taken, for which it may have had no chance for a while. When the
    broker is back it does not know the gateway's session, so it drops what comes until the gateway has
    subscribed again.

    Args:
        hindrances: in the order of their beginnings.
    """
    return [_away(window, hindrances) for window in hindrances if window.kills_broker]


def gateway_ends(events: Iterable[records.Record]) -> list[float]:
    """Return when faults ended the gateway's process: it forgot which tasks it had refused."""
    return [
        event.at_s
        for event in events
        if isinstance(event, records.FaultBegan)
        and event.fault.endswith((":kill", ":stop"))
        and {GATEWAY, TOGETHER} & set(event.targets)
    ]


def clone_windows(events: Iterable[records.Record]) -> dict[str, list[Window]]:
    """Return when a clone of each part lived, with the time in which the two may notice each other."""
    began: dict[int, records.FaultBegan] = {}
    found: dict[str, list[Window]] = defaultdict(list)
    for event in events:
        match event:
            case records.FaultBegan() if event.fault.startswith("clone:"):
                began[event.number] = event
            case records.FaultHealed() if event.number in began:
                fault = began.pop(event.number)
                for part in fault.targets:
                    found[part].append(Window(fault.at_s, event.at_s + _NAMESAKES_NOTICE_S))
            case _:
                pass
    return found


def _away(kill: Window, hindrances: Sequence[Window]) -> Window:
    """Return how long the gateway could take nothing: a broker's death, with the hindrances around it."""
    from_s, until_s = kill.from_s - _BROKER_FORGETS_S, kill.until_s
    for window in hindrances:
        if window.from_s <= until_s and window.until_s >= kill.from_s:
            until_s = max(until_s, window.until_s)
    before = [window for window in hindrances if window.from_s <= kill.from_s]
    for window in sorted(before, key=_until_s, reverse=True):
        if window.until_s >= from_s:
            from_s = min(from_s, window.from_s - _BROKER_FORGETS_S)
    return Window(max(from_s, kill.from_s - _SAVED_EVERY_S), until_s + _HEARD_LATE_S, kills_broker=True)


def _until_s(window: Window) -> float:
    return window.until_s


def covered_s(found: Iterable[Window]) -> float:
    """Return the seconds in at least one of the windows, which are in the order of their beginnings."""
    total_s, end_s = 0.0, 0.0
    for window in found:
        total_s += max(0.0, window.until_s - max(window.from_s, end_s))
        end_s = max(end_s, window.until_s)
    return total_s
