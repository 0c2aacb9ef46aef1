"""Fit a calibration to the log of a live run, and check it on tasks that it was not fitted to. Pure.

What is fitted, each from the tasks whose first attempt was answered in full:

* **intake**: deadline less slack at the decision.
* **work**: the computing time that stages reported, times the speed of their nodes, over what the manifest
  says of the calls. The median for each application is its factor; what is left is the spread.
* **hops**: of a task of one micro-batch whose stages form a chain without replicas, nothing runs side by
  side. What is left of its time since the decision without queues, computing, bytes and the way to its nodes
  was spent in hops (as `services/resource_monitor/hops.py` reckons). The median is a hop; all of them over it
  are the spread.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from statistics import fmean, median

from splitplace.messages.application import INPUT, Application, Fragment, Variant
from splitplace.messages.cluster import NodeState
from splitplace.messages.groupings import GroupingError, derived_fragment, free_chain
from splitplace.messages.pieces import PieceRun
from splitplace.messages.task import StageReport
from splitplace.planning.forecast import simulate
from splitplace.planning.kinds import from_states
from splitplace.planning.logged import LoggedRun, LoggedTask
from splitplace.planning.question import DEFAULT_POLICY, Question
from splitplace.policies import cost
from splitplace.policies.scoring import mean, quantile
from splitplace.simulator.calibration import Calibration, CalibrationError, Check, Range, Reach, Spread
from splitplace.simulator.result import TaskRecord

FEWEST = 20
"""Tasks from which something is fitted."""
FEWEST_OF_APPLICATION = 5
"""Tasks of an application that give it a factor of its own."""
HOPS_BESIDE_STAGES = 4
"""Decision to placer, placement to gateway, last stage to aggregator, result to gateway."""
_LEAST_HOP_MS = 0.1
_TRIM = 0.995
"""Values beyond this quantile count as it: one stalled task must not make every tail."""


def fit(run: LoggedRun, applications: Iterable[Application], *, measured_on: str) -> Calibration:
    """Fit the constants to all tasks of a run.

    Args:
        run: what was logged.
        applications: the manifests of its networks; tasks of others tell nothing of work and hops.
        measured_on: the run in words.

    Raises:
        CalibrationError: it holds too few tasks that went well.
    """
    known = {application.name: application for application in applications}
    well = [task for task in run.tasks if task.went_well and task.decided.application in known]
    if len(well) < FEWEST:
        raise CalibrationError(
            f"the log holds {len(well)} tasks of known networks whose first attempt was answered in full; "
            f"{FEWEST} are needed (record more with splitplace watch --record, or name their store with "
            "--store)"
        )
    scores = run.scores
    ratios: dict[str, list[float]] = defaultdict(list)
    for task in well:
        ratio = work_ratio(task, known[task.decided.application], scores)
        if ratio is not None:
            ratios[task.decided.application].append(ratio)
    factors = {name: median(seen) for name, seen in ratios.items() if len(seen) >= FEWEST_OF_APPLICATION}
    spread = [ratio / factors[name] for name, seen in ratios.items() if name in factors for ratio in seen]
    last = {node.node: node for node in run.nodes}
    hops = [hop for task in well if (hop := hop_ms(task, known[task.decided.application], last)) is not None]
    hop = max(_LEAST_HOP_MS, median(hops)) if len(hops) >= FEWEST_OF_APPLICATION else cost.HOP_MS
    return Calibration(
        measured_on=measured_on,
        tasks=len(well),
        hop_ms=hop,
        hops=_spread([each / hop for each in hops]) if len(hops) >= FEWEST else Spread.constant(1.0),
        intake=_spread([task.intake_ms for task in well]),
        work=_spread(spread) if len(spread) >= FEWEST else Spread.constant(1.0),
        work_factors=factors,
        speeds_known=bool(scores),
        reach=_reach(run, well),
    )


def fit_and_check(
    run: LoggedRun,
    applications: Sequence[Application],
    *,
    measured_on: str,
    policy: str = DEFAULT_POLICY,
    seeds: int = 4,
) -> Calibration:
    """Fit to all tasks, and check on every other task what constants of the rest say of it.

    Halves of the run would not do: where the networks change in its course, as in the demo, the first half
    may hold no task that tells the time of a hop. Tasks that might not have a variant that could run are not
    checked, because simulated ones may. Without times of arrival, or speeds of nodes, there is no check.

    Raises:
        CalibrationError: too few tasks went well.
        ValueError: no such policy.
    """
    fitted = fit(run, applications, measured_on=measured_on)
    arrivals = run.arrivals()
    checked = set(run.unrestricted[1::2])
    known = {application.name: application for application in applications}
    if arrivals is None or not run.nodes or any(task.application not in known for task in arrivals):
        return fitted
    try:
        rest = fit(run.only(set(range(len(run.tasks))) - checked), applications, measured_on=measured_on)
    except CalibrationError:
        return fitted
    used = [known[name] for name in dict.fromkeys(task.application for task in arrivals)]
    question = Question(
        cluster=from_states(run.nodes),
        application=used[0],
        more=tuple(used[1:]),
        calibration=rest,
        rate=1.0,
        deadline_ms=1000.0,
        policy=policy,
        arms=run.arms,
        seeds=seeds,
        given=tuple(arrivals),
    )
    names = {arrivals[number].task for number in checked}
    records = [[each for each in simulate(question, seed) if each.task in names] for seed in range(seeds)]
    return fitted.model_copy(update={"check": _check(run.only(checked).tasks, records)})


def _check(live: Sequence[LoggedTask], simulated: Sequence[Sequence[TaskRecord]]) -> Check:
    responses = [task.finished.response_ms for task in live if task.finished.status == "answered"]
    found = [record for records in simulated for record in records]
    foretold = [record.response_ms for record in found if record.response_ms is not None]
    return Check(
        tasks=len(live),
        live_hit_rate=fmean([task.on_time for task in live]),
        simulated_hit_rate=mean([record.on_time for record in found]) or 0.0,
        live_p50_ms=quantile(responses, 0.5) or 0.0,
        simulated_p50_ms=quantile(foretold, 0.5) or 0.0,
        live_p95_ms=quantile(responses, 0.95) or 0.0,
        simulated_p95_ms=quantile(foretold, 0.95) or 0.0,
    )


def work_ratio(task: LoggedTask, application: Application, scores: Mapping[str, float]) -> float | None:
    """Return reported computing over what the manifest says of nodes of these speeds; None where unknown.

    Without speeds it is the reported time over that which the decision foresaw.
    """
    stages = task.finished.stages
    variant = _variant(application, task.finished.variant)
    if variant is None or not stages:
        return None
    if not scores:
        estimates = {each.variant: each.work_ms for each in task.decided.alternatives}
        foreseen_ms = estimates.get(variant.name)
        return sum(each.compute_ms for each in stages) / foreseen_ms if foreseen_ms else None
    if any(report.node not in scores for report in stages):
        return None
    fragments = _fragments(application, variant, stages)
    if fragments is None:
        return None
    batch = task.decided.batch
    calls = ceil(batch / variant.micro_batch)
    described = sum(
        calls * fragment.milliseconds_per_call + batch * fragment.milliseconds_per_image
        for fragment in fragments.values()
    )
    worked = sum(report.compute_ms * scores[report.node] for report in stages)
    return worked / (described * application.reference_score) if described > 0 else None


def hop_ms(task: LoggedTask, application: Application, nodes: Mapping[str, NodeState]) -> float | None:
    """Return what a hop took for a task; None where too much ran side by side to tell."""
    variant, stages = _variant(application, task.finished.variant), task.finished.stages
    after_ms = task.finished.after_decision_ms
    if variant is None or after_ms is None or task.decided.batch > variant.micro_batch:
        return None
    sources = [stage.source for stage in variant.stages]
    is_chain = sources == [INPUT, *[stage.name for stage in variant.stages[:-1]]]
    fragments = _fragments(application, variant, stages)
    if not is_chain or fragments is None or len(fragments) < len(stages):
        return None
    way_ms = sum(
        _way_ms(task, fragments[report.stage].input_bytes_per_image, nodes.get(report.node))
        for report in stages
    )
    busy_ms = sum(report.queue_ms + report.compute_ms for report in stages)
    return max(0.0, (after_ms - busy_ms - way_ms) / (HOPS_BESIDE_STAGES + len(stages)))


def _way_ms(task: LoggedTask, image_bytes: float, node: NodeState | None) -> float:
    link = node.link_megabytes_per_second if node is not None else task.decided.link_megabytes_per_second
    latency_ms = 2 * node.latency_ms if node is not None else 0.0
    return latency_ms + (cost.transfer_ms(task.decided.batch * image_bytes, link) if link > 0 else 0.0)


def _variant(application: Application, name: str | None) -> Variant | None:
    return next((variant for variant in application.variants if variant.name == name), None)


def _fragments(
    application: Application, variant: Variant, stages: Sequence[StageReport]
) -> Mapping[str, Fragment] | None:
    """Return the fragment of each reported stage, also of those grouped anew; None if one is unknown."""
    listed = {stage.name: stage.fragment for stage in variant.stages}
    chain = free_chain(application, variant)
    found = {}
    for report in stages:
        if report.stage in listed:
            found[report.stage] = application.fragment(listed[report.stage])
            continue
        first, dash, last = report.stage.partition("-")
        if chain is None or not (dash and first.isdecimal() and last.isdecimal()):
            return None
        try:
            run = PieceRun(chain=chain.name, first=int(first), end=int(last) + 1)
            found[report.stage] = derived_fragment(application, run)
        except (GroupingError, ValueError):
            return None
    return found


def _spread(values: Sequence[float]) -> Spread:
    most = quantile(values, _TRIM) or 0.0
    return Spread.of([min(value, most) for value in values])


def _reach(run: LoggedRun, well: Sequence[LoggedTask]) -> Reach | None:
    nodes = run.nodes
    if not nodes:
        return None
    links = [node.link_megabytes_per_second for node in nodes]
    batches = [task.decided.batch for task in well]
    return Reach(
        node_scores=Range(least=min(run.scores.values()), greatest=max(run.scores.values())),
        batch=Range(least=min(batches), greatest=max(batches)),
        links=Range(least=min(links), greatest=max(links)),
        nodes=len(nodes),
        applications=tuple(sorted({task.decided.application for task in well})),
    )
