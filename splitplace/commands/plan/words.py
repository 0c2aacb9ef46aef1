"""A plan for people: tables and plain words; and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from rich.console import Console
from rich.table import Table

from splitplace.commands.shared.output import cell
from splitplace.commands.shared.wording import counted
from splitplace.planning.advice import Change, Verdict
from splitplace.planning.forecast import COVERAGE, Figure, Forecast
from splitplace.planning.question import Question
from splitplace.planning.standing import StandingStage, StandingVariant


@dataclass(frozen=True, slots=True)
class Plan:
    """A question with its answer."""

    question: Question
    standing: tuple[StandingVariant, ...]
    forecast: Forecast
    verdict: Verdict
    changes: tuple[Change, ...]


def as_json_value(plan: Plan) -> dict[str, Any]:
    """Return the plan for programs."""
    question = plan.question
    known = question.calibration
    return {
        "verdict": plan.verdict,
        "wanted_hit_rate": question.wanted,
        "forecast": asdict(plan.forecast),
        "variants": [asdict(each) for each in plan.standing],
        "changes": [asdict(each) for each in plan.changes],
        "nodes": [
            {"name": group.name, "count": group.count, **group.kind.model_dump()}
            for group in question.cluster.groups
        ],
        "question": {
            "application": question.application.name,
            "rate": question.rate,
            "deadline_ms": question.deadline_ms,
            "batch": question.batch,
            "pattern": question.pattern,
            "policy": question.policy,
        },
        "calibration": known.model_dump(include={"measured_on", "tasks", "hop_ms", "check", "speeds_known"}),
        "notes": list(notes(question)),
    }


def notes(question: Question) -> Iterator[str]:
    """Say what a reader of the figures must know."""
    known = question.calibration
    yield f"Calibrated on {known.measured_on}."
    check = known.check
    if check is not None:
        yield (
            f"On {check.tasks} tasks of that run that it was not fitted to, the simulator promised a hit "
            f"rate of {check.simulated_hit_rate:.1%}; live it was {check.live_hit_rate:.1%}. The intervals "
            "hold that error."
        )
    if not known.speeds_known:
        yield (
            "That log did not tell the speeds of its nodes: computing times are those of the networks' "
            "descriptions."
        )
    for group in question.cluster.groups:
        if group.kind.doubt:
            yield (
                f"The speed of a {group.name} ({group.kind.speed:g} GFLOP/s) is {group.kind.basis}; nothing "
                f"was measured on one. Speeds {group.kind.doubt:.0%} lower and higher were tried."
            )
    if question.application.name not in known.work_factors:
        yield (
            f"{question.application.name} did not run in the calibration: its computing times are those that "
            "its description was measured with, scaled by the speed of the nodes."
        )
    yield "Every network is taken as loaded already, and nothing else runs on the nodes."


def print_plan(plan: Plan) -> None:
    """Print the plan for people."""
    console = Console()
    question, found = plan.question, plan.forecast
    console.print(
        f"{question.application.name} on {question.cluster.named}: "
        f"{counted(question.rate, 'task')} a second of "
        f"{counted(question.batch, 'input')}, each within {question.deadline_ms:g} ms "
        f"({question.policy})",
        highlight=False,
    )
    console.print(_standing_table(plan.standing))
    for variant in plan.standing:
        if variant.reason:
            console.print(cell(f"does not fit: {variant.reason}", "yellow"))
    console.print(_forecast_table(found))
    for note in notes(question):
        console.print(cell(note, "dim"))
    console.print(cell(sentence(plan), "bold"))


def sentence(plan: Plan) -> str:
    """Say yes, perhaps or no, and the cheapest change that would help."""
    hits, wanted = plan.forecast.hit_rate, plan.question.wanted
    span = f"{hits.low:.0%} to {hits.high:.0%} of the tasks in time"
    if plan.verdict == "yes":
        return f"Yes: {span}, at least the {wanted:.0%} that you want."
    start = (
        f"Perhaps: {span}; {wanted:.0%} lies within."
        if plan.verdict == "perhaps"
        else (f"No: {span}, less than the {wanted:.0%} that you want.")
    )
    if not plan.changes:
        return f"{start} No single change that was tried makes it certain."
    first, *others = [_change(each) for each in plan.changes]
    also = f" So would {' or '.join(others)}." if others else ""
    return f"{start} The cheapest change that would help: {first}.{also}"


def _change(change: Change) -> str:
    price = f" (about ${change.price:g})" if change.price and isfinite(change.price) else ""
    return f"{change.words}{price}"


def _standing_table(variants: tuple[StandingVariant, ...]) -> Table:
    table = Table(title="Where it would stand, on idle nodes", title_justify="left")
    for heading in ("variant", "stages", "memory MB"):
        table.add_column(heading)
    for heading in ("accuracy", "alone, ms"):
        table.add_column(heading, justify="right")
    for each in variants:
        stages = "\n".join(f"{stage.stage} on {', '.join(stage.nodes)}" for stage in each.stages)
        memory = "\n".join(_memory(stage) for stage in each.stages)
        alone = "" if each.predicted_ms is None else f"{each.predicted_ms:.0f}"
        table.add_row(
            cell(each.variant), cell(stages or "fits nowhere"), memory, f"{each.accuracy:.3f}", alone
        )
    return table


def _memory(stage: StandingStage) -> str:
    mapped = f" + {stage.mapped_bytes / 1e6:.0f} mapped" if stage.mapped_bytes else ""
    return f"{stage.memory_bytes / 1e6:.1f}{mapped}"


def _forecast_table(found: Forecast) -> Table:
    title = f"Predicted, over {found.seeds} simulations of {found.tasks // found.seeds} tasks"
    table = Table("figure", "predicted", f"{COVERAGE:.0%} interval", title=title, title_justify="left")
    table.add_row("hit rate", f"{found.hit_rate.value:.1%}", _span(found.hit_rate, "{:.1%}"))
    for name, figure in (("response p50, ms", found.p50_ms), ("response p95, ms", found.p95_ms)):
        if figure is not None:
            table.add_row(name, f"{figure.value:.0f}", _span(figure, "{:.0f}"))
    table.add_row("reward", f"{found.reward:.3f}", "")
    if found.accuracy is not None:
        table.add_row("accuracy", f"{found.accuracy:.3f}", "")
    shares = ", ".join(
        f"{'refused' if name == 'none' else name} {share:.0%}" for name, share in found.decisions
    )
    table.add_row("decisions", cell(shares), "")
    return table


def _span(figure: Figure, form: str) -> str:
    return f"{form.format(figure.low)} to {form.format(figure.high)}"
