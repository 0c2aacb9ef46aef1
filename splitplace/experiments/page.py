"""Write an experiment's page: its question, the results, the paper's values, and how to repeat it."""

import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from splitplace.experiments import tables
from splitplace.experiments.figures import Runs
from splitplace.experiments.findings import Finding, Tested, against_reference, best, check, p_value
from splitplace.experiments.metrics import METRICS
from splitplace.experiments.plan import ApplicationDots, Case, Experiment, PolicyRow
from splitplace.experiments.plots import draw
from splitplace.experiments.running import FIRST_SEED
from splitplace.experiments.statistics import CONFIDENCE
from splitplace.experiments.summary import commit_of, keep_verdicts, write_summary
from splitplace.messages.application import VARIANT_KINDS
from splitplace.simulator import Scenario, arms_of

_UNMEASURED = (
    "`whole` and `compressed` of the paper's workload were not measured as such. They are the computing of "
    "the layer fragments (`compressed` half of it), without packing and without transfers between them, and "
    "need no more memory than the largest of them. How much of the advantage of rows that may choose them "
    "comes from that is not known."
)

_LIVE = "live.md"
"""Page of `splitplace experiments live`, which takes an hour of a machine that does nothing else."""
_TESTS = "tests.csv"
TestTable = tuple[str, str, str, list[Tested]]
"""Case, reference and metric of a table of tests, and its rows."""
_FEW_ROWS, _FEW_COLUMNS = 6, 4
"""Size of the first table."""

DERIVED = frozenset({"whole", "compressed"})
"""Arms of the paper's workload whose costs are derived, not measured."""

_DISTRIBUTIONS = ("splitplace", "numpy", "scipy", "matplotlib", "joblib")


@dataclass(frozen=True)
class Origin:
    """Where the numbers of a page come from.

    Attributes:
        command: the command that was given.
        commit: commit of the source; None if unknown.
        scenario: settings of all cases that differ from the simulator's defaults.
        seeds: number of runs of each policy in each case.
        first_seed: the first of these seeds.
    """

    command: Sequence[str]
    commit: str | None
    scenario: Mapping[str, Any]
    seeds: int
    first_seed: int = FIRST_SEED


def write(experiment: Experiment, runs: Runs, origin: Origin, folder: Path, notes: str = "") -> Path:
    """Write `NAME.md` and, in a folder NAME beside it, pictures and CSV files.

    Args:
        experiment: the experiment.
        runs: all its runs.
        origin: where the numbers come from.
        folder: an existing folder.
        notes: remarks by a person on an earlier run; shown apart from computed results.

    Returns:
        Path of the page.
    """
    attachments = folder / experiment.name
    attachments.mkdir(exist_ok=True)
    tables.write_runs(attachments / "runs.csv", runs)
    tables.write_summary(attachments / "summary.csv", runs, experiment.metrics)
    tests = _all_tests(experiment, runs)
    tables.write_tests(attachments / _TESTS, tests)
    pictures = [
        f"![{plot.caption}]({picture.relative_to(folder).as_posix()})\n\n*{plot.caption}*"
        for plot in experiment.plots
        for picture in [draw(plot, experiment, runs, attachments)]
    ]
    sections = [
        f"# {experiment.title}",
        _introduction(experiment),
        *_short(experiment, runs),
        *pictures[:1],
        *_findings(experiment, runs, origin),
        *_results(experiment, runs, origin),
        *pictures[1:],
        *_beside_paper(experiment, runs),
        *_tests(experiment, runs, tests),
        *_notes(notes),
        "## How it was made",
        _made(experiment, runs, origin),
    ]
    keep_verdicts(_verdicts(experiment, runs, origin), attachments)
    page = folder / f"{experiment.name}.md"
    page.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return page


def write_index(experiments: Iterable[Experiment], folder: Path, in_words: str = "") -> Path:
    """Write `README.md`, a list of the experiments that have a page in the folder, and `summary.md`.

    Args:
        experiments: all experiments.
        folder: the folder.
        in_words: beginning of the summary.
    """
    experiments = list(experiments)
    write_summary(experiments, folder, in_words)
    rows = [
        [
            f"[{_title_of(folder / f'{experiment.name}.md')}]({experiment.name}.md)",
            experiment.question,
            ", ".join(experiment.figures) or "–",
            commit_of(folder / f"{experiment.name}.md"),
        ]
        for experiment in experiments
        if (folder / f"{experiment.name}.md").is_file()
    ]
    text = [
        "# Results of the experiments",
        "Written by `splitplace experiments`. Each page says how it was made.",
        "What holds of the paper, and of our aims: [summary.md](summary.md).",
        tables.markdown(["page", "question", "in the paper", "commit"], rows),
        *(["Real processes beside the simulator: [live.md](live.md)."] if (folder / _LIVE).is_file() else []),
    ]
    index = folder / "README.md"
    index.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    return index


def _title_of(page: Path) -> str:
    """Return the title of a page, which may be about other networks than the experiment as it comes."""
    return page.read_text("utf-8").partition("\n")[0].removeprefix("# ")


def _introduction(experiment: Experiment) -> str:
    if not experiment.figures:
        return f"{experiment.question} The paper has nothing to compare this with."
    return f"{experiment.question} In the paper: {', '.join(experiment.figures)}."


def _short(experiment: Experiment, runs: Runs) -> list[str]:
    """Return the first table: a few rows and the first metrics, of one case."""
    case = experiment.cases[0].name
    if len(experiment.cases) == 1 and len(runs.policies()) <= _FEW_ROWS:
        return []
    table = tables.results(experiment, runs, case, rows_of=experiment.short, columns=_FEW_COLUMNS)
    seeds = max(len(by_seed) for by_seed in runs.by_seed.values())
    name = _of_case(experiment, case).removeprefix(", ")
    where = f" {name[:1].upper()}{name[1:]}:" if len(experiment.cases) > 1 else ""
    return [f"Means over {seeds} seeds ± half of the {CONFIDENCE:.0%} interval.{where}", table]


def _unlike(experiment: Experiment, origin: Origin) -> frozenset[str]:
    """Return the rows with arms whose costs were derived, not measured as the paper's."""
    return frozenset(
        row.name
        for case in experiment.cases
        for row in experiment.rows
        if (scenario := _scenario_of(row, case, origin)).profile.startswith("paper")
        and arms_of(scenario, row.policy.partition("+")[0]) & DERIVED
    )


def _verdicts(experiment: Experiment, runs: Runs, origin: Origin) -> list[Finding]:
    unlike = _unlike(experiment, origin)
    return [check(claim, runs, unlike) for claim in experiment.claims]


def _findings(experiment: Experiment, runs: Runs, origin: Origin) -> list[str]:
    found = _verdicts(experiment, runs, origin)
    leaders = [
        f"- {prefix}{best(runs, key, case.name, among=_without_oracles(runs, case.name))}"
        for case in experiment.cases
        if len(_without_oracles(runs, case.name)) > 1
        for prefix in ["" if len(experiment.cases) == 1 else f"{case.name}: "]
        for key in experiment.tested
        if METRICS.of(key).better is not None
    ]
    sections = ["## What the numbers show"] if found or leaders else []
    if leaders:
        sections.append("\n".join(leaders))
    if found:
        sections.append(tables.findings(found))
        sections.append(
            "*Confirmed* and *reached*, *refuted* and *missed*: the whole interval of the difference, paired "
            "by seed, is on that side. "
            "For a statement about several comparisons the intervals are widened so that they hold together. "
            "*Not comparable*: the verdict depends on a row whose arms are not the paper's. Oracles see what "
            "no policy can know, and bounds are not policies; neither is among the best."
        )
    return sections


def _without_oracles(runs: Runs, case: str) -> list[str]:
    return [
        policy
        for policy in runs.policies()
        if (case, policy) in runs.by_seed and not policy.startswith(("oracle", tables.UPPER_BOUND_ROW))
    ]


def _results(experiment: Experiment, runs: Runs, origin: Origin) -> list[str]:
    sections = [
        "## All results",
        f"Means over runs ± half of the {CONFIDENCE:.0%} interval (Student's t).",
        *_choices(experiment, runs, origin),
    ]
    for case in experiment.cases:
        if len(experiment.cases) > 1:
            sections.append(f"### {case.name}")
        sections.append(tables.results(experiment, runs, case.name))
    for plot in experiment.plots:
        if isinstance(plot, ApplicationDots):
            sections.append(f"### By application{_of_case(experiment, plot.case)}")
            sections.append(tables.by_application(runs, plot.metrics, plot.case))
    return sections


def _choices(experiment: Experiment, runs: Runs, origin: Origin) -> list[str]:
    """List the arms of each row, because rows with different arms are not directly comparable."""
    rows_by_arms = {
        case.name: _rows_by_arms(
            [row for row in experiment.rows if (case.name, row.name) in runs.by_seed], case, origin
        )
        for case in experiment.cases
    }
    first = next(iter(rows_by_arms.values()))
    alike = all(rows == first for rows in rows_by_arms.values())
    lines = [
        f"- {'' if alike else f'{case}: '}{arms}: {', '.join(rows)}"
        for case, by_arms in ({"": first} if alike else rows_by_arms).items()
        for arms, rows in by_arms.items()
    ]
    sections = ["Ways to split that each may choose:", "\n".join(lines)]
    offered = {arm for by_arms in rows_by_arms.values() for arms in by_arms for arm in arms.split(", ")}
    if Scenario.model_validate(origin.scenario).profile.startswith("paper") and offered & DERIVED:
        sections.append(_UNMEASURED)
    return sections


def _rows_by_arms(rows: Iterable[PolicyRow], case: Case, origin: Origin) -> dict[str, list[str]]:
    by_arms: dict[str, list[str]] = {}
    for row in rows:
        arms = arms_of(_scenario_of(row, case, origin), row.policy.partition("+")[0])
        by_arms.setdefault(", ".join(kind for kind in VARIANT_KINDS if kind in arms), []).append(row.name)
    return by_arms


def _scenario_of(row: PolicyRow, case: Case, origin: Origin) -> Scenario:
    own = {} if row.arms is None else {"arms": row.arms}
    return Scenario.model_validate({**origin.scenario, **case.changes, **own})


def _beside_paper(experiment: Experiment, runs: Runs) -> list[str]:
    table = tables.paper(experiment, runs)
    return ["## Beside the paper", table] if table else []


def _tests(experiment: Experiment, runs: Runs, found: Sequence[TestTable]) -> list[str]:
    explanation = (
        "Paired: the same seed gives all policies the same tasks at the same times. Wilcoxon's p cannot fall "
        f"below 2 / 2^n with n seeds: {p_value(_smallest_wilcoxon(runs))} here."
    )
    if not found:
        return []
    case, reference, metric, shown = found[0]
    heading = f"{METRICS.of(metric).label}{_of_case(experiment, case)}"
    sections = [f"## {reference} against the others", explanation, f"### {heading}"]
    sections.append(tables.tests(shown, reference, metric))
    if len(found) > 1:
        sections.append(f"{len(found) - 1} more: [{_TESTS}]({experiment.name}/{_TESTS}).")
    return sections


def _all_tests(experiment: Experiment, runs: Runs) -> list[TestTable]:
    return [
        (case.name, reference, metric, found)
        for reference in experiment.references
        for case in experiment.cases
        for metric in experiment.tested
        if (found := against_reference(runs, reference, metric, case.name))
    ]


def _of_case(experiment: Experiment, case: str) -> str:
    return f", {case}" if len(experiment.cases) > 1 else ""


def _notes(notes: str) -> list[str]:
    if not notes:
        return []
    return [
        "## Notes",
        "*Written by hand after an earlier run; everything above is counted.*",
        notes.strip(),
    ]


def _smallest_wilcoxon(runs: Runs) -> float:
    return 2.0 ** (1 - max(len(by_seed) for by_seed in runs.by_seed.values()))


def _made(experiment: Experiment, runs: Runs, origin: Origin) -> str:
    everything = [run for by_seed in runs.by_seed.values() for run in by_seed.values()]
    processor_s = sum(run.figures.get("cpu_s", 0.0) for run in everything)
    last = origin.first_seed + origin.seeds - 1
    seeds = f"{origin.seeds} seeds ({origin.first_seed} to {last}) of each policy in each case"
    cases = "; ".join(
        f"{case.name + ': ' if len(experiment.cases) > 1 else ''}{_settings(case.changes, 'no changes')}"
        for case in experiment.cases
    )
    versions = ", ".join(f"{name} {version(name)}" for name in _DISTRIBUTIONS)
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    commit = f"; commit {origin.commit}" if origin.commit else ""
    files = (
        f"every figure of every run: [runs.csv]({experiment.name}/runs.csv); "
        f"means and intervals: [summary.csv]({experiment.name}/summary.csv)"
    )
    facts = [
        f"{len(everything)} runs, {seeds}, {processor_s:.0f} s of processor time",
        f"all cases: {_settings(origin.scenario, 'defaults of the simulator')}",
        f"changes of the scenario: {cases}",
        f"{versions}; {machine}{commit}",
        files,
    ]
    return "\n".join([f"    {shlex.join(origin.command)}", "", *(f"- {fact}" for fact in facts)])


def _settings(settings: Mapping[str, Any], otherwise: str) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in settings.items()) or otherwise


def _plain(value: object) -> str:
    """Return a value as a person writes it; folders of networks are paths."""
    if isinstance(value, tuple) and value and all(isinstance(part, Path) for part in value):
        return " ".join(map(str, value))
    return str(value)
