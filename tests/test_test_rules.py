"""What is promised of the tests themselves (CONTRIBUTING.md)."""

import ast
from collections.abc import Iterator
from pathlib import PurePath

import pytest

from tests.support.texts import texts

SLEEPS = {"asyncio.sleep", "time.sleep"}
MAY_SLEEP = PurePath("tests/support/waiting.py")
SUPPORT = "support"


def _modules() -> Iterator[tuple[PurePath, ast.Module]]:
    """Every module of the tests."""
    for path, content in texts():
        if path.parts[0] == "tests" and path.suffix == ".py":
            yield path, ast.parse(content)


def _imports(tree: ast.Module) -> Iterator[tuple[ast.stmt, list[str]]]:
    """Every import of a module of the tests, as the parts of its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        else:
            continue
        yield from ((node, name.split(".")) for name in names if name.startswith("tests."))


def _breaches(path: PurePath, tree: ast.Module) -> Iterator[str]:
    for statement, parts in _imports(tree):
        where = f"{path}:{statement.lineno}: {'.'.join(parts)}"
        if any(part.startswith("test_") for part in parts):
            yield f"{where} holds tests; helpers stand in tests/support or in a module beside them"
        elif parts[1] not in {SUPPORT, path.parts[1]}:
            yield f"{where} belongs to other tests; what two folders share stands in tests/support"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in SLEEPS and path != MAY_SLEEP:
            if all(isinstance(argument, ast.Constant) and argument.value == 0 for argument in node.args):
                continue  # gives way to other tasks
            yield f"{path}:{node.lineno}: {ast.unparse(node)}; wait for a condition ({MAY_SLEEP})"


def test_tests_share_helpers_through_support_and_never_sleep() -> None:
    assert [breach for path, tree in _modules() for breach in _breaches(path, tree)] == []


@pytest.mark.parametrize(
    "source",
    [
        "from tests.bus.test_acl import Part",
        "from tests.bus import test_acl",
        "import tests.simulator.worlds",
        "from tests.simulator.worlds import host",
        "async def wait():\n    await asyncio.sleep(0.1)",
        "time.sleep(1)",
    ],
)
def test_breaches_are_found(source: str) -> None:
    assert list(_breaches(PurePath("tests/commands/test_plan.py"), ast.parse(source)))
