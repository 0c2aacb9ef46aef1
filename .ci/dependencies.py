"""Check what is installed: a bill of materials, licences, and known weaknesses where they can be asked for.

    python .ci/dependencies.py --bill sbom.json

Writes a bill of materials (CycloneDX) of this environment. Ends with 1 where packages contradict each other,
a package has no version or address, what we ship needs a package under the GPL or AGPL, or `pip-audit` knows
of a weakness. Where the service that knows of weaknesses cannot be reached, the last line says so: that is no
failure, and no audit.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

OURS = "splitplace"
SHIPPED = ("edge", "broker", "secure")
"""Extras that people install; the others are for development and experiments."""
STRONG_COPYLEFT = ("gpl", "gnu general public", "agpl", "affero")
WEAK_COPYLEFT = ("lgpl", "lesser")
PROBE = "requests==2.19.0"
"""Known to be weak: a service that says nothing of it knows nothing of others."""


def complaints(bill: Mapping[str, Any], shipped: Iterable[str]) -> list[str]:
    """Return what is wrong with a bill of materials.

    Args:
        bill: CycloneDX, as JSON.
        shipped: names of packages that what we ship needs.
    """
    components = {normal(each["name"]): each for each in bill.get("components", ())}
    found = ["the bill is empty"] if not components else []
    for name, each in sorted(components.items()):
        if name != OURS and not (each.get("version") and each.get("purl")):
            found.append(f"{name} has no version or no address")
    for name in sorted(set(map(normal, shipped))):
        if name not in components:
            found.append(f"{name} is needed and not in the bill")
        elif is_strong_copyleft(licences(components[name])):
            found.append(
                f"{name} is under {', '.join(licences(components[name]))}: we cannot ship what needs it"
            )
    return found


def licences(component: Mapping[str, Any]) -> list[str]:
    """Return the licences of a component, as SPDX or in the words of its author."""
    found = []
    for each in component.get("licenses", ()):
        licence = each.get("license", {})
        found.append(each.get("expression") or licence.get("id") or licence.get("name") or "")
    return [each for each in found if each]


def is_strong_copyleft(names: Iterable[str]) -> bool:
    """Whether all licences to choose from are strong copyleft."""
    judged = [
        any(word in name.lower() for word in STRONG_COPYLEFT)
        and not any(word in name.lower() for word in WEAK_COPYLEFT)
        for name in names
        if " or " not in name.lower()
    ]
    return bool(judged) and all(judged)


def needed(requirements: Callable[[str], Sequence[str]], extras: Sequence[str] = SHIPPED) -> set[str]:
    """Return the names of all packages that what we ship needs here.

    Args:
        requirements: returns what a package says of others that it needs; nothing if it is not installed.
        extras: of ours.
    """
    reached: set[str] = set()
    left = [(OURS, ("", *extras))]
    while left:
        package, wanted = left.pop()
        for requirement in map(Requirement, requirements(package)):
            name, marker = normal(requirement.name), requirement.marker
            is_wanted = marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted)
            if is_wanted and name not in {OURS, *reached}:
                reached.add(name)
                left.append((name, ("", *requirement.extras)))
    return reached


def installed_requirements(package: str) -> Sequence[str]:
    """Return what an installed package says of others that it needs."""
    try:
        return metadata.requires(package) or ()
    except metadata.PackageNotFoundError:
        return ()


def normal(name: str) -> str:
    """Return a package's name as registries compare it."""
    return name.lower().replace("_", "-").replace(".", "-")


def knows_weaknesses(audit: Callable[[str], str]) -> bool:
    """Whether weaknesses can be asked for.

    Args:
        audit: returns what `pip-audit` says of one requirement, as JSON.
    """
    try:
        return any(each.get("vulns") for each in json.loads(audit(PROBE))["dependencies"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def audited(requirement: str) -> str:
    """Return what `pip-audit` says of one requirement, as JSON; nothing where it cannot ask."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(f"{requirement}\n")
        file.flush()
        options = ("--no-deps", "--disable-pip", "--progress-spinner", "off", "-f", "json")
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "pip_audit", "-r", file.name, *options],
            capture_output=True,
            text=True,
            check=False,
        )
    return done.stdout


def run(*command: str) -> int:
    """Run a module of this environment; return its exit code."""
    return subprocess.run([sys.executable, "-m", *command], check=False).returncode  # noqa: S603


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bill", type=Path, required=True, help="file of the bill of materials")
    bill_file: Path = parser.parse_args().bill
    bill_file.parent.mkdir(parents=True, exist_ok=True)
    made = run("cyclonedx_py", "environment", "--output-reproducible", "-o", str(bill_file), sys.executable)
    if made:
        return made
    bill = json.loads(bill_file.read_text("utf-8"))
    found = complaints(bill, needed(installed_requirements))
    if run("pip", "check"):
        found.append("packages contradict each other")
    is_known = knows_weaknesses(audited)
    if is_known and run("pip_audit", "--strict", "--skip-editable", "--progress-spinner", "off"):
        found.append("a package has a known weakness, or the audit failed")
    for each in found:
        print(each)
    print(f"bill of materials: {len(bill.get('components', ()))} packages in {bill_file}")
    print("audited for known weaknesses" if is_known else "NOT AUDITED: nobody here knows of weaknesses")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
