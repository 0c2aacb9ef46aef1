"""`splitplace up`."""

import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from splitplace.commands.main import PARTS
from splitplace.commands.processes.children import Processes
from splitplace.commands.shared.options import BrokerOption, PrefixOption, settings_from
from splitplace.commands.shared.places import StateDirOption, paths
from splitplace.commands.shared.policy_option import PolicyOption, parse_pair, policy_flags
from splitplace.messages.topics import SERVICES

_WATCH_S = 0.2


def command(
    *,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    policy: PolicyOption = None,
    state_dir: StateDirOption = None,
    folder: Annotated[
        Path | None, typer.Option(help="For the logs.", show_default="log in the state folder")
    ] = None,
) -> None:
    """Run all five services.

    Each is a process of its own; one that dies is started again. Their settings come from SPLITPLACE_*
    variables and splitplace.toml. The broker must be there already, or come later (see `splitplace broker`).
    """
    settings = settings_from(broker, prefix)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    own_flags = policy_flags(parse_pair(policy))
    shared = ["--broker", settings.broker, "--prefix", settings.prefix]
    if state_dir is not None:
        shared += ["--state-dir", str(state_dir)]
    with Processes(folder or paths(state_dir).logs) as processes:
        try:
            for name in SERVICES:
                module = PARTS[name][0].removesuffix(".__main__")
                command_line = [sys.executable, "-m", module, *shared, *own_flags.get(name, ())]
                child = processes.start(name, command_line, restart=True)
                print(f"{name:18} process {child.pid}, log in {child.log_file}", flush=True)
            print(
                f"all services use {settings.broker}, topics below {settings.prefix} (Ctrl-C ends them)",
                flush=True,
            )
            while True:
                time.sleep(_WATCH_S)
                for death in processes.check():
                    print(f"{death}\nstarting {death.name} again", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print("stopping")
