"""`splitplace doctor`."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import typer
from rich.console import Console

from splitplace.bus.hints import hint
from splitplace.bus.service import software_version
from splitplace.bus.settings import Settings
from splitplace.commands.doctor import diagnosis
from splitplace.commands.doctor.broker_probe import BrokerProbe, MayNotError, ProbeError
from splitplace.commands.doctor.diagnosis import QUEUE_MESSAGES, Check
from splitplace.commands.shared.client import Seen, connected, may_not_read
from splitplace.commands.shared.options import BrokerOption, CredentialsOption, PrefixOption, settings_from
from splitplace.commands.shared.output import JsonOption, cell, print_json
from splitplace.commands.shared.places import StoreOption, model_store
from splitplace.commands.shared.system_report import TOPICS, look, report_on
from splitplace.errors import ExitCode, SplitPlaceError
from splitplace.messages.application import Application
from splitplace.messages.limits import MAX_TASK_BYTES, MEBIBYTE
from splitplace.messages.topics import APPLICATION
from splitplace.storage.model_store import ModelStore, StoreError, verify

_AS_OPERATOR = "run doctor with the credentials of an operator (splitplace secure add operator NAME)"
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def command(
    *,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    credentials: CredentialsOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find what is wrong with an installation, and say how to fix it.

    Tests the broker with messages of its own, reads the model store, and looks for services and nodes. Exits
    with 1 if a check fails. A warning is not a failure.
    """
    settings = settings_from(broker, prefix, credentials)
    console = Console()
    checks = []
    for check in _checks(settings, model_store(store)):
        checks.append(check)
        if not as_json:
            _print(console, check)
    if as_json:
        print_json({"checks": checks})
    if any(check.level == "fail" for check in checks):
        raise typer.Exit(ExitCode.PROBLEM)


def _print(console: Console, check: Check) -> None:
    level = cell(f"{check.level:4} ", _COLOURS[check.level])
    console.print(level + cell(f"{check.name}: {check.finding}"))
    if check.remedy:
        console.print(cell(f"     → {check.remedy}"))


def _checks(settings: Settings, store: ModelStore) -> Iterator[Check]:
    yield Check("software", "ok", f"splitplace {software_version()}, Python {sys.version.split()[0]}")
    yield diagnosis.clock(datetime.now(UTC))
    local: list[str] = []
    yield from _store_checks(store, local)
    try:
        with ExitStack() as stack:
            probe = stack.enter_context(BrokerProbe(settings))
            yield from _broker_checks(settings, probe)
    except (SplitPlaceError, OSError) as error:
        yield Check(
            "broker",
            "fail",
            f"{settings.broker}: {error}",
            hint(error, settings.broker),
        )
        return
    try:
        yield from _system_checks(settings, asyncio.run(_look(settings)), local)
    except (SplitPlaceError, OSError) as error:
        yield Check("system", "fail", str(error), "see the broker's log")


def _broker_checks(settings: Settings, probe: BrokerProbe) -> Iterator[Check]:
    yield Check("broker", "ok", f"{settings.broker} speaks MQTT 5")
    yield diagnosis.users(settings.username, settings.host)
    yield diagnosis.packet_limit(probe.greeting.max_packet_bytes)
    yield from _certificate_checks(settings, probe)
    try:
        probe.rights()
    except MayNotError as error:
        yield Check("broker's limits", "warn", f"not tried: {error}", _AS_OPERATOR)
        return
    except ProbeError:
        pass  # the checks below say what is wrong
    rights = "check that the broker's access list lets this user read and write below the prefix"
    yield diagnosis.attempt(
        "largest task",
        lambda: probe.round_trip(MAX_TASK_BYTES),
        ProbeError,
        f"{MAX_TASK_BYTES // MEBIBYTE} MB were sent and received",
        f"raise the broker's packet or payload limit; {rights}",
    )
    yield diagnosis.attempt("retained messages", probe.retained, ProbeError, "are kept", rights)
    yield diagnosis.queue_length(probe.queue_holds(QUEUE_MESSAGES))


def _certificate_checks(settings: Settings, probe: BrokerProbe) -> Iterator[Check]:
    now_s = datetime.now(UTC).timestamp()
    if probe.certificate_expires is not None:
        yield diagnosis.expiry(
            "certificate", probe.certificate_expires, now_s, "splitplace secure rotate broker, where init ran"
        )
    context = settings.tls_context()
    own = [] if context is None or settings.credentials is None else context.get_ca_certs()
    yield from diagnosis.authorities([str(each["notAfter"]) for each in own], now_s)


def _store_checks(store: ModelStore, found: list[str]) -> Iterator[Check]:
    remedy = "run splitplace models add or build, or name another with --store (a node needs no store)"
    try:
        applications, broken = store.usable()
    except (StoreError, OSError) as error:
        yield Check("model store", "fail", str(error), remedy)
        return
    wrong = [*broken, *(error for application in applications for error in _wrong_files(store, application))]
    again = "copy or build that network again, or remove it; the others are used without it"
    for each in wrong:
        yield Check("model store", "fail", str(each), again)
    if not applications:
        yield Check("model store", "warn", f"{store} holds no application", remedy)
        return
    found += [application.name for application in applications]
    count = sum(len(application.fragments) for application in applications)
    if not wrong:
        yield Check("model store", "ok", f"{', '.join(found)}: {count} fragments, all hashes right")


def _wrong_files(store: ModelStore, application: Application) -> Iterator[StoreError]:
    for file in application.files:
        try:
            verify(store.file_path(file.sha256), file.sha256)
        except StoreError as error:
            yield error


async def _look(settings: Settings) -> Seen:
    async with connected(settings, "doctor") as client:
        return await look(client, settings, APPLICATION)


def _system_checks(settings: Settings, seen: Seen, local: list[str]) -> Iterator[Check]:
    report = report_on(seen)
    applications = list(seen.messages(APPLICATION))
    if report.unreadable or seen.unreadable:
        finding = may_not_read(settings, seen.unreadable)
        yield Check("system", "warn", f"services and nodes are unknown: {finding}", _AS_OPERATOR)
        return
    yield diagnosis.services(report)
    yield diagnosis.work_of_services(report)
    yield diagnosis.catalogue(local, [application.name for application in applications])
    yield diagnosis.nodes(report)
    yield diagnosis.work(report)
    yield diagnosis.versions(software_version(), report)
    budgets = {
        node.name: node.memory_budget_bytes
        for node in report.nodes
        if node.online and node.memory_budget_bytes is not None
    }
    for application in applications if budgets else ():  # without a node, that is what to fix first
        yield diagnosis.memory(application, budgets)
    for topic, why in seen.broken((*TOPICS, APPLICATION)).items():
        yield Check(
            "messages",
            "warn",
            f"{topic}: {why}",
            "another version, or a foreign message: clear the retained topic",
        )
