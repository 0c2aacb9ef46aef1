"""How the split of the largest network changes with the deadline. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from splitplace.commands.demo.summary import SensorTask
from splitplace.commands.demo.workload import TightDeadline
from splitplace.messages.application import Application
from splitplace.policies.scoring import mean

_HARDLY = 0.005
"""Loss of accuracy that is not worth a word."""

_CLEARLY = 0.2
"""Difference of shares from which on it is called one."""

_NAMES = ("tight", "medium", "loose")
_TIGHTEST = 0.75
"""Shortest deadline as a multiple of the tight one, as the sensor draws them."""


@dataclass(frozen=True, slots=True)
class Group:
    """Tasks with about the same deadline, as a multiple of the tight one for their batch."""

    name: str
    up_to: float
    tasks: int
    layer: int
    """Answered by a chain."""
    semantic: int
    """Answered by branches."""
    unanswered: int
    deadline_hit_rate: float | None
    accuracy: float | None
    """Share of right labels among the answered inputs."""


def by_deadline(
    tasks: Sequence[SensorTask], deadline: TightDeadline | None, application: Application, loosest: float
) -> tuple[Group, ...]:
    """Return the tasks in three groups, tight deadlines first; nothing if the tight deadline is not known.

    Deadlines are drawn log-uniformly, so the groups have about as many tasks each. `loosest` is the longest
    deadline as a multiple of the tight one.
    """
    if deadline is None:
        return ()
    kinds = {variant.name: variant.kind for variant in application.variants}
    groups, below = [], 0.0
    for number, name in enumerate(_NAMES, 1):
        share = number / len(_NAMES)
        up_to = round(_TIGHTEST * (loosest / _TIGHTEST) ** share, 1) if share < 1 else inf
        members = [each for each in tasks if below < _multiple(each, deadline) <= up_to]
        groups.append(_group(name, up_to, members, kinds))
        below = up_to
    return tuple(groups)


def sentence(groups: Sequence[Group], application: Application) -> str:
    """Say what the groups show about `layer` and `semantic`."""
    split = [each for each in groups if each.layer + each.semantic]
    if not split:
        return "No task was answered by a split network, so nothing can be said about deadlines."
    accuracies = {variant.kind: variant.accuracy for variant in application.variants}
    layer, semantic = accuracies.get("layer"), accuracies.get("semantic")
    known = f"layer is right in {layer:.1%}, semantic in {semantic:.1%}" if layer and semantic else ""
    first, last = split[0], split[-1]
    if all(_semantic(each) == 1 for each in split) and not (
        layer and semantic and semantic >= layer - _HARDLY
    ):
        return (
            f"Semantic was chosen wherever a task was answered. A chain is right more often ({known}), but "
            f"is "
            f"predicted to "
            "need much longer, and so it risks more than it gains."
        )
    shares = ", ".join(
        f"{each.semantic} of {each.semantic + each.layer} with {each.name} deadlines" for each in split
    )
    said = f"Semantic was chosen for {shares}"
    if first is not last and _semantic(first) >= _semantic(last) + _CLEARLY:
        why = "its accuracy" if layer and semantic and layer > semantic + _HARDLY else "its smaller work"
        return (
            f"{said}: where time is short, branches side by side are faster; where there is time, the chain "
            f"is chosen for {why} ({known})."
        )
    if all(_semantic(each) == 1 for each in split) and layer and semantic and semantic >= layer - _HARDLY:
        return f"{said}: it is faster, and here hardly less accurate ({known}), so nothing speaks for layer."
    return f"{said}; here the deadline makes no clear difference ({known})."


def _semantic(group: Group) -> float:
    return group.semantic / (group.semantic + group.layer)


def _multiple(task: SensorTask, deadline: TightDeadline) -> float:
    tight = deadline.ms + deadline.ms_per_image * task.batch
    return task.deadline_ms / tight if tight > 0 else inf


def _group(name: str, up_to: float, tasks: Sequence[SensorTask], kinds: Mapping[str, str]) -> Group:
    results = [each for each in tasks if each.status == "answered"]
    counts = Counter(kinds.get(each.decision or "") for each in results)
    inputs = sum(each.batch for each in results)
    return Group(
        name,
        up_to,
        len(tasks),
        counts["layer"],
        counts["semantic"],
        len(tasks) - len(results),
        mean([each.counts_as_on_time for each in tasks]),
        sum(each.right for each in results) / inputs if inputs else None,
    )
