"""`splitplace experiments live`."""

import secrets
import time
from pathlib import Path

from splitplace.commands.demo.options import DemoError
from splitplace.commands.live.run import POLICIES, SMALL_POLICIES, SMALL_TASKS, TASKS, conduct
from splitplace.commands.processes.broker import BrokerError
from splitplace.commands.processes.shaped_links import LinkError
from splitplace.commands.shared.options import fail
from splitplace.commands.shared.output import print_json
from splitplace.commands.shared.places import model_store, paths
from splitplace.commands.shared.progress import telling
from splitplace.errors import ConfigurationError, ExitCode
from splitplace.policies.pairs import parse_policy
from splitplace.simulator.calibration import CalibrationError
from splitplace.storage.model_store import StoreError

REPETITIONS = 5


def live(
    out: Path,
    *,
    store: Path | None,
    repetitions: int | None,
    policies: str | None,
    small: bool,
    shaped: bool,
    as_json: bool,
) -> None:
    """Run real systems for recorded tasks, simulate the same, and write the page."""
    chosen = tuple(policies.split(",")) if policies else SMALL_POLICIES if small else POLICIES
    count = repetitions or (1 if small else REPETITIONS)
    try:
        for policy in chosen:
            parse_policy(policy)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    folder = paths().demos / f"live-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    words = ["splitplace experiments live"]
    words += ["--small"] if small else []
    words += ["--shaped"] if shaped else []
    words += [f"--policies {policies}"] if policies else []
    words += [f"--seeds {repetitions}"] if repetitions else []
    with telling("live") as step:
        try:
            page = conduct(
                out,
                store=model_store(store),
                folder=folder,
                policies=chosen,
                repetitions=count,
                tasks=SMALL_TASKS if small else TASKS,
                shaped=shaped,
                command=" ".join(words),
                step=step,
            )
        except (DemoError, BrokerError, LinkError, StoreError, CalibrationError) as error:
            fail(f"{error}\nlogs: {folder}", ExitCode.PROBLEM)
    if as_json:
        print_json({"pages": [str(page)]})
    else:
        print(page)
