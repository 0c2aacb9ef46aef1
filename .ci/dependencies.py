"""Check what is installed: a bill of materials, licences, and known weaknesses where they can be asked for.

    python .ci/dependencies.py --bill sbom.json

Writes a bill of materials (CycloneDX) of this environment. Ends with 1 where packages contradict each other,
a package has no version or address, what we ship needs a package under the GPL or AGPL, or `pip-audit` knows of
a weakness. Where the service that knows of weaknesses cannot be reached, the last line says so: no failure, and
no audit.
"""

import argparse
import json
import subprocess
import sys
import urllib.request
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
PROBE = "https://pypi.org/pypi/requests/2.19.0/json"
"""What `pip-audit` asks for each package; this version is known to be weak."""
_PROBE_S = 15


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


def knows_weaknesses() -> str:
    """Return why weaknesses cannot be asked for; empty where they can."""
    try:
        with urllib.request.urlopen(PROBE, timeout=_PROBE_S) as answer:
            if json.load(answer).get("vulnerabilities"):
                return ""
    except (OSError, ValueError, AttributeError) as error:
        return f"{PROBE}: {type(error).__name__}"
    return f"{PROBE} tells nothing of weaknesses"


def run(*command: str) -> int:
    """Run a module of this environment; return its exit code."""
    return subprocess.run([sys.executable, "-m", *command], check=False).returncode  # noqa: S603


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bill", type=Path, required=True, help="file of the bill of materials")
    bill_file = parser.parse_args().bill
    made = run("cyclonedx_py", "environment", "--output-reproducible", "-o", str(bill_file), sys.executable)
    if made:
        return made
    bill = json.loads(bill_file.read_text("utf-8"))
    found = complaints(bill, needed(installed_requirements))
    if run("pip", "check"):
        found.append("packages contradict each other")
    why_not = knows_weaknesses()
    if not why_not and run("pip_audit", "--strict", "--skip-editable", "--progress-spinner", "off"):
        found.append("a package has a known weakness, or the audit failed")
    for each in found:
        print(each)
    print(f"bill of materials: {len(bill.get('components', ()))} packages in {bill_file}")
    print(f"NOT AUDITED for known weaknesses: {why_not}" if why_not else "audited for known weaknesses")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
