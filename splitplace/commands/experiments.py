"""`splitplace experiments`."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from splitplace.commands.shared.options import fail
from splitplace.commands.shared.output import JsonOption, print_json
from splitplace.commands.shared.places import paths
from splitplace.commands.shared.progress import progress
from splitplace.errors import ExitCode, MissingExtraError
from splitplace.storage.paths import SHIPPED_STORE

if TYPE_CHECKING:
    from splitplace.experiments.plan import Experiment

Backend = Literal["loky", "threading", "dask", "ray"]


def command(
    *,
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Experiments or figures, or `all`, or `list`.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the pages.", show_default="pages in the state folder")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Runs of each policy.", show_default="set by each experiment"),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Simulations that run at the same time.")] = 2,
    backend: Annotated[
        Backend, typer.Option(help="What runs them: local processes, threads, or a cluster.")
    ] = "loky",
    cluster: Annotated[
        str | None, typer.Option(help="Address of the dask scheduler or of the ray cluster.")
    ] = None,
    profile: Annotated[
        Literal["paper", "paper-bzip2", "store"] | None,
        typer.Option(
            help="Workload: that of the paper, or of the model store.", show_default="set by each experiment"
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Folder of the networks of that profile.", show_default="the shipped ones"),
    ] = None,
    intervals: Annotated[
        int | None,
        typer.Option(
            min=1, max=100_000, help="Length of a simulation.", show_default="set by each experiment"
        ),
    ] = None,
    training: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=100_000,
            help="Intervals in which policies learn first.",
            show_default="set by each experiment",
        ),
    ] = None,
    policies: Annotated[
        str | None, typer.Option(help="Only these policies, with commas: mab+daso,rule+earliest-finish.")
    ] = None,
    small: Annotated[
        bool, typer.Option("--small", help="`live`: one repetition of two policies, in about two minutes.")
    ] = False,
    shaped: Annotated[
        bool,
        typer.Option(
            "--shaped", help="`live`: each node has a link of 12, 6 or 3 MB/s; root on Linux, ip, tc."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Repeat the paper's experiments on the simulator.

    Writes a page for each experiment, with tables, pictures, comparisons with the paper, and CSV files. All
    policies of an experiment meet the same arrivals, with several seeds. An
    interrupted command goes on where it was if it is given again.
    """
    from splitplace.experiments import catalogue  # noqa: PLC0415 - not for the help

    if names == ["list"]:
        _print_list(catalogue, as_json=as_json)
        return
    if names == ["live"]:
        from splitplace.commands.live.command import live  # noqa: PLC0415 - starts a whole system

        live(
            out or paths().pages,
            store=store,
            repetitions=seeds,
            policies=policies,
            small=small,
            shaped=shaped,
            as_json=as_json,
        )
        return
    chosen = _chosen(names, catalogue)
    only = _only(policies, chosen)
    try:
        from splitplace.experiments import session  # noqa: PLC0415 - plots and statistics are an extra
        from splitplace.experiments.backends import connect  # noqa: PLC0415
        from splitplace.experiments.running import RunCache, Workers  # noqa: PLC0415
        from splitplace.experiments.simulation import simulate, train_policies  # noqa: PLC0415
        from splitplace.experiments.unfinished import unfinished_runs  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError("splitplace experiments", str(error.name), "experiments") from error
    plan = session.SessionPlan(
        experiments=[session.adapted(each, [store] if store else [SHIPPED_STORE]) for each in chosen],
        scenario=_given(
            profile=profile,
            stores=(store,) if store else None,
            intervals=intervals,
            training_intervals=training,
        ),
        seeds=seeds,
        policies=only,
        command=("splitplace", *sys.argv[1:]),
        commit=_commit(),
    )
    folder = out or paths().pages
    kept = unfinished_runs(folder)
    cache = RunCache(train_policies, simulate, Workers(jobs, backend), kept)
    try:
        with connect(backend, cluster), progress(session.simulations(plan, cache)) as step:
            pages = []
            for page in session.conduct(plan, cache, folder, lambda each: step(each.name)):
                pages.append(page)
                if not as_json:
                    print(page, flush=True)
        kept.forget()
    except ModuleNotFoundError as error:
        fail(f"--backend {backend} needs {error.name}: pip install {error.name}", ExitCode.PROBLEM)
    except ValueError as error:
        fail(str(error), ExitCode.PROBLEM)
    if as_json:
        print_json({"pages": pages})


def _print_list(catalogue: Any, *, as_json: bool) -> None:  # noqa: ANN401 - a module, loaded late
    experiments = catalogue.EXPERIMENTS.values()
    if as_json:
        print_json({"experiments": [{"name": each.name, "title": each.title} for each in experiments]})
        return
    for each in experiments:
        print(f"{each.name:10} {each.title}")


def _chosen(names: list[str], catalogue: Any) -> "list[Experiment]":  # noqa: ANN401 - a module, loaded late
    if names == ["all"]:
        return list(catalogue.EXPERIMENTS.values())
    try:
        return list({each.name: each for each in map(catalogue.experiment, names)}.values())
    except KeyError as error:
        known = ", ".join(catalogue.EXPERIMENTS)
        fail(
            f"no experiment {error.args[0]!r}; known are {known}, the paper's figures, and all",
            ExitCode.USAGE,
        )


def _only(policies: str | None, chosen: "list[Experiment]") -> tuple[str, ...]:
    """Return the policies of the option. Exit if no experiment has one of that name."""
    wanted = tuple(policies.split(",")) if policies else ()
    rows = [row for each in chosen for row in each.rows]
    known = list(dict.fromkeys(name for each in rows for name in (each.name, each.policy)))
    for policy in wanted:
        if policy not in known:
            fail(f"no policy {policy!r} in these experiments; known are {', '.join(known)}", ExitCode.USAGE)
    return wanted


def _given(**fields: object) -> dict[str, Any]:
    """Return the fields of the scenario that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def _commit() -> str | None:
    """Return the commit of the source, marked if files changed since; None without a repository."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],  # noqa: S607 - the user's git
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
