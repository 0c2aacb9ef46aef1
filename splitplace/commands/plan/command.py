"""`splitplace plan`."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Literal

import typer

from splitplace.commands.plan.sources import chosen_calibration, nodes_and_networks
from splitplace.commands.plan.words import Plan, as_json_value, print_plan
from splitplace.commands.shared.options import (
    BrokerOption,
    CredentialsOption,
    PrefixOption,
    fail,
    parse_deadline_ms,
    settings_from,
)
from splitplace.commands.shared.output import JsonOption, print_json
from splitplace.commands.shared.places import StateDirOption, StoreOption
from splitplace.commands.shared.progress import Step, telling
from splitplace.commands.shared.running_system import found_network
from splitplace.errors import ConfigurationError, ExitCode
from splitplace.planning.advice import changes, verdict
from splitplace.planning.forecast import Simulator, forecast, simulate
from splitplace.planning.kinds import known_kinds
from splitplace.planning.question import DEFAULT_POLICY, OutOfReachError, Question, check_reach
from splitplace.planning.standing import standing
from splitplace.policies.pairs import parse_policy
from splitplace.policies.splitting import parse_arms
from splitplace.simulator.result import TaskRecord


def command(
    *,
    app: Annotated[str, typer.Option(help="The application that is to run.")],
    rate: Annotated[float, typer.Option(min=0.001, max=1000, help="Tasks a second.")],
    deadline: Annotated[str, typer.Option(help="Time in which each should be answered, such as 400ms.")],
    nodes: Annotated[
        str | None,
        typer.Option(
            help="Nodes: 2xpi4,1xpi5; also pi3, jetson, here (this machine); an own kind as "
            "1xname:speed=GFLOP/s,memory=MB,link=MB/s; or a TOML file.",
        ),
    ] = None,
    from_system: Annotated[
        bool, typer.Option("--from-system", help="Ask the running system for its nodes and networks.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Inputs of a task.")] = 1,
    pattern: Annotated[
        Literal["poisson", "steady"],
        typer.Option(help="Arrivals: poisson, as of many sensors, or steady, as of one camera."),
    ] = "poisson",
    policy: Annotated[
        str, typer.Option(metavar="SPLIT+PLACEMENT", help="How to split and where to place.")
    ] = DEFAULT_POLICY,
    arms: Annotated[
        str, typer.Option(help="Variants to choose among: all, or names or kinds with commas.")
    ] = "all",
    want: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of tasks that should be in time.")
    ] = 0.95,
    seeds: Annotated[int, typer.Option(min=2, max=200, help="Simulations.")] = 8,
    tasks: Annotated[int, typer.Option(min=20, max=10_000, help="Tasks that count in each of them.")] = 120,
    advise: Annotated[
        bool, typer.Option("--advice/--no-advice", help="Whether to look for changes that would help.")
    ] = True,
    calibration: Annotated[
        Path | None,
        typer.Option(help="A file of splitplace calibrate.", show_default="yours, or the shipped one"),
    ] = None,
    store: StoreOption = None,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    credentials: CredentialsOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Will my nodes make it? Predict hit rate and response by calibrated simulation.

    Runs the policies of the live system over seeds, says which stages would stand where and what does not
    fit, and answers yes, perhaps or no. Exits with 1 where the calibration does not reach.
    """
    if (nodes is None) == (not from_system):
        raise ConfigurationError("give either --nodes, for example 2xpi4,1xpi5, or --from-system")
    settings = settings_from(broker, prefix, credentials) if from_system else None
    cluster, applications = nodes_and_networks(nodes, settings, store)
    known = chosen_calibration(calibration, state_dir)
    try:
        parse_policy(policy)
        question = Question(
            cluster=cluster,
            application=found_network(app, applications),
            calibration=known,
            rate=rate,
            deadline_ms=parse_deadline_ms(deadline),
            batch=batch,
            pattern=pattern,
            policy=policy,
            arms=parse_arms(arms),
            wanted=want,
            tasks=tasks,
            seeds=seeds,
        )
        check_reach(question)
    except OutOfReachError as error:
        fail(f"no answer: {error}", ExitCode.PROBLEM)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    plan = _answer(question, advise=advise)
    if as_json:
        print_json(as_json_value(plan))
    else:
        print_plan(plan)


def _answer(question: Question, *, advise: bool) -> Plan:
    stands = standing(question)
    with telling("plan") as step, simulators() as simulator:
        step(f"{question.seeds} simulations of {question.tasks} tasks")
        found = forecast(question, simulator)
        answer = verdict(found, question.wanted)
        helpful = []
        if advise and answer != "yes":
            helpful = changes(question, found, known_kinds(), _telling_what_is_tried(simulator, step))
    return Plan(question, stands, found, answer, tuple(helpful))


def _telling_what_is_tried(simulator: Simulator, step: Step) -> Simulator:
    def run(question: Question) -> Iterable[tuple[TaskRecord, ...]]:
        step(
            f"would this help? {question.cluster.named}, {question.rate:.2g} tasks a second, each within "
            f"{question.deadline_ms:g} ms"
        )
        return simulator(question)

    return run


@contextmanager
def simulators() -> Iterator[Simulator]:
    """Offer to run simulations in as many processes as this machine has cores."""
    with ProcessPoolExecutor(os.cpu_count() or 1, get_context("spawn")) as pool:
        yield lambda question: pool.map(partial(simulate, question), range(question.seeds))
