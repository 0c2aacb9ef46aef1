"""A whole secured system of real processes: services and nodes, each with a user of its own."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from splitplace.commands.processes.children import Processes
from splitplace.commands.secure.control import controlling
from splitplace.commands.secure.init import credentials_of
from splitplace.messages.topics import ENROLLER, NODE, OPERATOR, SERVICES
from splitplace.security.dynamic_security import User
from splitplace.security.passwords import draw_password
from splitplace.security.register import Note
from tests.support.secured import PREFIX, Secured, secure, secured_broker, visiting
from tests.support.tiny_application import build_tiny_application
from tests.support.waiting import block_until, until
from tests.support.whole_system import LONG_DEADLINE_MS, START_S, Sensor

NODES = ("n1", "n2")
SENSORS = ("camera", "thief")


@dataclass(frozen=True, slots=True)
class SecuredSystem:
    """Its broker and files, and its processes."""

    secured: Secured
    processes: Processes

    def logs(self) -> str:
        """What all processes have written."""
        return "\n".join(child.log_file.read_text() for child in self.processes.children.values())


@contextlib.contextmanager
def secured_system(folder: Path) -> Iterator[SecuredSystem]:
    """A system with two nodes, two sensors and a dashboard, all of it gone afterwards."""
    build_tiny_application(folder / "store", milliseconds_per_image=0.2)
    with secured_broker(folder / "state") as secured, Processes(folder / "logs") as processes:
        for name in SENSORS:
            assert secure(secured, "add", "sensor", name).code == 0
        assert secure(secured, "add", "dashboard", "wall").code == 0
        state = ("--credentials", str(secured.folder.users.path), "--state-dir", str(folder / "state"))
        for name in SERVICES:
            options = ("--store", str(folder / "store")) if name == "splitter" else ()
            processes.start(name, (sys.executable, "-m", "splitplace", name, *state, *options))
        for name in NODES:
            _add_node(secured, name)
            processes.start(name, (sys.executable, "-m", "splitplace", "node", "--node", name, *state))
        system = SecuredSystem(secured, processes)
        _wait_until_ready(system)
        yield system


def _wait_until_ready(system: SecuredSystem) -> None:
    with visiting(system.secured, OPERATOR) as operator:
        assert operator.may_subscribe(f"{PREFIX}/service/#")
        assert operator.may_subscribe(f"{PREFIX}/cluster/#")

        def is_complete() -> bool:
            said = {
                topic: json.loads(payload) for topic, payload in dict(operator.received).items() if payload
            }
            services = [said.get(f"{PREFIX}/service/{name}/status", {}).get("online") for name in SERVICES]
            nodes = [said.get(f"{PREFIX}/cluster/node/{name}", {}).get("online") for name in NODES]
            return all(services) and all(nodes)

        block_until(is_complete, START_S)


def _add_node(secured: Secured, name: str) -> None:
    """Make the user of a node, as joining does."""

    async def add() -> None:
        user = User(NODE, name, name, draw_password())
        authority = secured.credentials(ENROLLER).authority
        own = credentials_of(user, secured.facts, secured.facts.url, authority)
        own.save(secured.folder.users.file(name))
        async with controlling(secured.settings(ENROLLER)) as control:
            await control.add(user, Note())

    asyncio.run(add())


@contextlib.asynccontextmanager
async def camera_of(system: SecuredSystem) -> AsyncIterator[Sensor]:
    """The honest sensor, connected."""
    sensor = Sensor(system.secured.settings("camera"), "camera")
    async with sensor.bus:
        await sensor.bus.connected()
        yield sensor


async def answers_rightly(sensor: Sensor, tasks: int = 1) -> dict[str, int]:
    """Have tasks answered; return how many ended in which way. Checks every label."""
    for _ in range(tasks):
        await sensor.ask(2, LONG_DEADLINE_MS)
    await until(lambda: not sensor.unanswered())
    return sensor.check()
