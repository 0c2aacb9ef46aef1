"""What is promised of the tree itself and can be checked."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from splitplace.commands.main import COMMANDS
from splitplace.policies.placement import PLACEMENT_POLICIES
from splitplace.policies.splitting import SPLIT_POLICIES
from splitplace.storage.paths import SHIPPED_STORE
from tests.support.texts import ROOT, texts

LEAN_PACKAGES = tuple(
    f"splitplace.{room}" for room in ("messages", "bus", "storage", "policies", "services", "edge_node")
)
THIS_FILE = Path(__file__).relative_to(ROOT)
MOST_LINES = 400
MOST_STORE_BYTES = 40_000_000


def lines_with(pattern: str) -> list[str]:
    """Every line that a regular expression finds something in, as `file:line: text`."""
    wanted = re.compile(pattern)
    return [
        f"{path}:{number}: {line.strip()[:120]}"
        for path, text in texts()
        if path != THIS_FILE  # it names what it looks for
        for number, line in enumerate(text.splitlines(), start=1)
        if wanted.search(line)
    ]


def test_no_source_file_is_longer_than_one_can_read_at_a_sitting() -> None:
    long = {
        str(path): count
        for path, text in texts()
        if path.suffix == ".py" and path.parts[0] != "tests" and (count := text.count("\n")) > MOST_LINES
    }
    assert not long


@pytest.mark.parametrize("package", LEAN_PACKAGES)
def test_nodes_and_services_import_neither_torch_nor_onnx(package: str) -> None:
    """In a fresh interpreter, every module of the package."""
    program = f"""
import importlib, pkgutil, sys
package = importlib.import_module({package!r})
names = [module.name for module in pkgutil.walk_packages(package.__path__, {package + "."!r})]
assert names
for name in names:
    importlib.import_module(name)
heavy = {{"torch", "onnx", "onnxscript"}} & sys.modules.keys()
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_every_command_is_explained_in_the_documentation() -> None:
    prose = "\n".join(text for path, text in texts() if path.suffix == ".md" and path.name != "CHANGELOG.md")
    missing = [name for name in COMMANDS if not re.search(rf"splitplace {name}\b", prose)]
    assert not missing


def test_every_policy_is_explained_in_the_documentation() -> None:
    page = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
    assert [name for name in (*SPLIT_POLICIES, *PLACEMENT_POLICIES) if f"`{name}`" not in page] == []


def test_every_link_in_the_documentation_leads_to_a_file() -> None:
    broken = [
        f"{path}: {target}"
        for path, text in texts()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
        if "://" not in target and not (ROOT / path.parent / target).exists()
    ]
    assert not broken


def test_every_decision_record_is_listed_and_has_its_parts() -> None:
    folder = ROOT / "docs" / "decisions"
    records = {path.name for path in folder.glob("[0-9]*.md")}
    assert set(re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text("utf-8"))) == records
    assert len({name[:4] for name in records}) == len(records)
    for name in records:
        headings = re.findall(r"^## (\w+)", (folder / name).read_text("utf-8"), re.MULTILINE)
        assert headings[0] == "Context", name
        assert {"Decision", "Consequences"} <= set(headings), name


def test_no_path_of_somebodys_machine_stands_anywhere() -> None:
    assert lines_with(r"(?<![\w.$}])/(home|root|Users|work)/") == []
    assert lines_with(r"\.\./shared") == []


def test_no_package_registry_is_named() -> None:
    assert lines_with(r"index-url|find-links|pypi\.org|registry\.npmjs|files\.pythonhosted") == []


def test_no_test_is_skipped() -> None:
    assert lines_with(r"mark\.(skip|xfail)|pytest\.(skip|xfail)|importorskip") == []


def test_no_code_reads_pickles() -> None:
    """A pickle from outside runs whatever its author wanted."""
    modules = r"^\s*(import|from) (pickle|dill)\b|^\s*import joblib\b|^\s*from joblib import .*\bload\b"
    readers = lines_with(rf"{modules}|allow_pickle=True")
    assert [line for line in readers if not line.startswith(("benchmarks/", "tests/"))] == []


def test_the_committed_models_stay_small() -> None:
    sizes = {path.name: path.stat().st_size for path in SHIPPED_STORE.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= MOST_STORE_BYTES, sizes


def test_the_licence_is_the_one_that_the_package_states() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
