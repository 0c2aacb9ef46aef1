"""What CI says of dependencies: bill of materials, licences, and whether weaknesses could be asked for."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / ".ci" / "dependencies.py"


@pytest.fixture(scope="module")
def checks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dependencies", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def component(name: str, *licences: str, version: str = "1") -> dict[str, Any]:
    found = [{"license": {"name": each}} for each in licences]
    return {"name": name, "version": version, "purl": f"pkg:pypi/{name}@1", "licenses": found}


def bill(*components: dict[str, Any]) -> dict[str, Any]:
    return {"components": [component("splitplace"), *components]}


@pytest.mark.parametrize(
    ("licences", "is_fine"),
    [
        (("MIT",), True),
        ((), True),
        (("LGPL-2.1-or-later",), True),
        (("GNU Lesser General Public License v2 (LGPLv2)",), True),
        (("GPL-3.0-only",), False),
        (("GNU Affero General Public License v3",), False),
        (("GPL-2.0", "BSD-3-Clause"), True),
        (("BSD-3-Clause OR GPL-2.0",), True),
    ],
)
def test_what_we_ship_needs_nothing_under_strong_copyleft(
    checks: ModuleType, licences: Sequence[str], *, is_fine: bool
) -> None:
    found = checks.complaints(bill(component("thing", *licences)), ["Thing"])
    assert (found == []) is is_fine
    assert checks.complaints(bill(component("thing", *licences)), []) == []  # only to develop with


def test_a_bill_that_lacks_something_is_refused(checks: ModuleType) -> None:
    assert checks.complaints({}, []) == ["the bill is empty"]
    assert "needed and not in the bill" in checks.complaints(bill(), ["thing"])[0]
    assert "no version" in checks.complaints(bill(component("thing", version="")), [])[0]


def test_what_is_needed_follows_markers_and_extras(checks: ModuleType) -> None:
    said = {
        "splitplace": [
            "A_b>=1",
            "edge-only; extra == 'edge'",
            "dev-only; extra == 'dev'",
            "splitplace[edge]; extra == 'all'",
            "other-system; sys_platform == 'nowhere'",
        ],
        "a-b": ["c", "d; extra == 'x'", "a-b"],
        "c": ["e[x]"],
        "e": ["f; extra == 'x'"],
    }
    found = checks.needed(lambda package: said.get(package, ()))
    assert found == {"a-b", "edge-only", "c", "e", "f"}


@pytest.mark.parametrize(
    ("answer", "is_known"),
    [
        ('{"dependencies": [{"name": "requests", "vulns": [{"id": "PYSEC-1"}]}]}', True),
        ('{"dependencies": [{"name": "requests", "vulns": []}]}', False),
        ('{"dependencies": [{"name": "requests", "skip_reason": "not found"}]}', False),
        ('{"dependencies": []}', False),
        ("[]", False),
        ("", False),
    ],
)
def test_a_service_that_knows_nothing_is_no_audit(checks: ModuleType, answer: str, *, is_known: bool) -> None:
    assert checks.knows_weaknesses(lambda _requirement: answer) is is_known
