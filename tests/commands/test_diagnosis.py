"""The doctor finds what is wrong, and says how to fix it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from splitplace.bus.settings import Settings
from splitplace.commands.doctor import command, diagnosis
from splitplace.commands.doctor.diagnosis import QUEUE_MESSAGES, Check
from splitplace.commands.shared.client import Seen
from splitplace.commands.shared.system_report import NodeReport, ServiceReport, SystemReport, report_on
from splitplace.messages.application import Application
from splitplace.messages.limits import MAX_PACKET_BYTES
from splitplace.messages.topics import APPLICATION, SERVICES
from tests.support.tiny_application import build_tiny_application


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Application:
    return build_tiny_application(tmp_path_factory.mktemp("store"))


def node(name: str, *, online: bool = True, software: str = "splitplace 1.2, ONNX Runtime 9") -> NodeReport:
    return NodeReport(name, online, 10.0, 1, None, 1000, 0, 0, 0, 0.0, software)


def status(*nodes: NodeReport, missing: str | None = None, software: str = "1.2") -> SystemReport:
    services = tuple(ServiceReport(name, name != missing, software) for name in SERVICES)
    return SystemReport(services, nodes)


def level(check: Check) -> str:
    """Its level; and what is not ok says what to do."""
    assert bool(check.remedy) is (check.level != "ok")
    assert check.finding
    return check.level


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(None, "ok"), (MAX_PACKET_BYTES, "ok"), (MAX_PACKET_BYTES - 1, "fail"), (2_000_000, "fail")],
)
def test_a_broker_must_let_our_largest_task_through(limit: int | None, expected: str) -> None:
    assert level(diagnosis.packet_limit(limit)) == expected


@pytest.mark.parametrize(("held", "expected"), [(QUEUE_MESSAGES, "ok"), (1010, "warn"), (0, "warn")])
def test_a_broker_that_drops_silently_is_a_warning(held: int, expected: str) -> None:
    assert level(diagnosis.queue_length(held)) == expected


@pytest.mark.parametrize(("trouble", "expected"), [("", "ok"), ("fragments cannot be written", "warn")])
def test_a_node_that_cannot_do_its_work_is_named_with_the_reason(trouble: str, expected: str) -> None:
    check = diagnosis.work(status(replace(node("n1"), trouble=trouble), node("n2")))
    assert level(check) == expected
    assert trouble in check.finding


@pytest.mark.parametrize(("year", "expected"), [(1970, "warn"), (2030, "ok"), (2150, "warn")])
def test_an_absurd_clock_is_a_warning_only(year: int, expected: str) -> None:
    assert level(diagnosis.clock(datetime(year, 6, 1, tzinfo=UTC))) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (status(node("n1")), "ok"),
        (status(node("n1", software="splitplace 1.20, ONNX Runtime 1.2")), "warn"),
        (status(node("n1", online=False, software="splitplace 0.1")), "ok"),
        (status(software="1.1"), "warn"),
    ],
)
def test_parts_of_another_version_are_named(found: SystemReport, expected: str) -> None:
    assert level(diagnosis.versions("1.2", found)) == expected


def test_a_missing_service_fails_and_is_named() -> None:
    assert level(diagnosis.services(status())) == "ok"
    check = diagnosis.services(status(missing="placer"))
    assert (level(check), "placer" in check.finding) == ("fail", True)


def test_without_a_node_nothing_can_run() -> None:
    assert level(diagnosis.nodes(status())) == "fail"
    assert level(diagnosis.nodes(status(node("n1", online=False)))) == "fail"
    assert level(diagnosis.nodes(status(node("n1"), node("n2", online=False)))) == "warn"
    assert level(diagnosis.nodes(status(node("n1")))) == "ok"


@pytest.mark.parametrize(
    ("budget", "expected", "named"),
    [
        (300_000, "ok", "whole, layer, semantic"),
        (299_999, "ok", "layer, semantic"),
        (99_999, "fail", "0.1 MB"),
    ],
)
def test_some_variant_of_every_application_must_fit(
    application: Application, budget: int, expected: str, named: str
) -> None:
    check = diagnosis.memory(application, {"n1": budget, "n2": 10})
    assert (level(check), named in check.finding) == (expected, True)


def test_without_a_node_nothing_is_said_about_memory(application: Application) -> None:
    seen = Seen("system")
    seen._payloads[APPLICATION.at(application=application.name)] = application.model_dump_json().encode()
    names = [check.name for check in command._system_checks(Settings(), seen, [application.name])]
    assert "nodes" in names
    assert not [name for name in names if "memory" in name]


@pytest.mark.parametrize(
    ("local", "announced", "expected"),
    [(["a"], ["a"], "ok"), ([], ["a"], "ok"), (["a", "b"], ["a"], "warn"), (["a"], [], "fail")],
)
def test_what_the_splitter_announces_is_compared_with_the_store(
    local: list[str], announced: list[str], expected: str
) -> None:
    assert level(diagnosis.catalogue(local, announced)) == expected


def test_an_experiment_that_fails_is_a_failed_check() -> None:
    def fails() -> None:
        raise OSError("it broke")

    check = diagnosis.attempt("thing", fails, OSError, "works", "fix it")
    assert (level(check), check.finding) == ("fail", "it broke")
    assert level(diagnosis.attempt("thing", lambda: None, OSError, "works", "fix it")) == "ok"


@pytest.mark.parametrize(("days", "expected"), [(31, "ok"), (29, "warn"), (-1, "warn")])
def test_a_certificate_is_replaced_a_month_before_it_expires(days: int, expected: str) -> None:
    now_s = 1_800_000_000.0
    expires = datetime.fromtimestamp(now_s + days * 86_400, UTC).strftime("%b %d %H:%M:%S %Y GMT")
    check = diagnosis.expiry("certificate", expires, now_s, "renew it")
    assert (check.level, check.remedy) == (expected, "" if expected == "ok" else "renew it")


def test_the_newest_authority_counts_and_a_rotation_that_is_not_finished_is_told() -> None:
    now_s = 1_800_000_000.0
    near, far = (
        datetime.fromtimestamp(now_s + days * 86_400, UTC).strftime("%b %d %H:%M:%S %Y GMT")
        for days in (10, 3000)
    )
    assert diagnosis.authorities([], now_s) == ()
    (check,) = diagnosis.authorities([near], now_s)
    assert (check.level, "secure rotate authority" in check.remedy) == ("warn", True)
    newest, old = diagnosis.authorities([far, near], now_s)
    assert (newest.level, old.level, "--finish" in old.remedy) == ("ok", "warn", True)


def test_what_this_user_may_not_read_is_unknown_and_not_offline() -> None:
    seen = Seen("system")
    seen.unreadable.append("service/+/status")
    checks = list(command._system_checks(Settings(username="camera"), seen, []))
    assert [check.level for check in checks] == ["warn"]
    assert "this user (camera) may not read service/+/status" in checks[0].finding
    assert report_on(seen).missing == ()


@pytest.mark.parametrize(
    ("username", "address", "expected"),
    [
        (None, "127.0.0.1", "ok"),
        (None, "localhost", "ok"),
        (None, "192.168.1.10", "warn"),
        ("anna", "hub", "ok"),
    ],
)
def test_a_broker_that_lets_in_everybody_is_warned_of_where_others_reach_it(
    username: str | None, address: str, expected: str
) -> None:
    assert diagnosis.users(username, address).level == expected
