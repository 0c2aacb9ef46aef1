"""Make everything that a release consists of, in dist/: exactly these files are tested, and published.

    python .ci/release.py [--snapshot] [--debian amd64,arm64] [--networks FOLDER]

The version stands in pyproject.toml, its notes in CHANGELOG.md. A version without a section there, or changes
that no version has yet, end it, unless it is only a snapshot. Networks that are neither in the repository
nor in the package (`splitplace models build NAME --store FOLDER`) become a file each, to be unpacked
into a store.
"""

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "dist"
SUMS = "SHA256SUMS"
UNRELEASED = "Unreleased"


def notes_of(changelog: str, version: str) -> str:
    """Return the section of a version, without its heading; empty where there is none."""
    found = re.search(
        rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    return found[1].strip() + "\n" if found and found[1].strip() else ""


def complaints(changelog: str, version: str) -> list[str]:
    """Return what keeps a version from being released."""
    found = [] if notes_of(changelog, version) else [f"CHANGELOG.md has no section [{version}]"]
    if notes_of(changelog, UNRELEASED):
        found.append(f"changes below [{UNRELEASED}] belong to a version: raise it in pyproject.toml")
    return found


def archive(folder: Path, file: Path, name: str) -> None:
    """Write a folder as a tar file: the same bytes whoever makes it, and whenever."""
    with (
        file.open("wb") as raw,
        gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            entry = tar.gettarinfo(path, f"{name}/{path.relative_to(folder)}")
            entry.mtime = entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mode = 0o644
            with path.open("rb") as content:
                tar.addfile(entry, content)


def sums(folder: Path) -> str:
    """Return the checksums of all files, as sha256sum writes and checks them."""
    files = sorted(each for each in folder.iterdir() if each.name != SUMS)
    return "".join(f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.name}\n" for each in files)


def applications(store: Path) -> list[Path]:
    """Return the folder of each network of a store."""
    return sorted(manifest.parent for manifest in store.glob("*/manifest.json"))


def faults(folder: Path, store: Path, further: Path | None = None) -> list[str]:
    """Return what is wrong with the files of a release: sums, and what the archives hold.

    Args:
        folder: The release.
        store: The networks that its archive is of.
        further: The networks that have an archive each.
    """
    found = []
    if (folder / SUMS).read_text("utf-8") != sums(folder):
        found.append(f"{SUMS} does not fit the files")
    (networks,) = folder.glob("splitplace-networks-*.tar.gz")
    found += _faults_of_networks(networks, store, "networks")
    for each in applications(further) if further else ():
        (network,) = folder.glob(f"splitplace-network-{each.name}-*.tar.gz")
        found += _faults_of_networks(network, each, each.name)
    (documentation,) = folder.glob("splitplace-documentation-*.tar.gz")
    with tarfile.open(documentation) as tar:
        if "documentation/index.html" not in tar.getnames():
            found.append(f"{documentation.name} has no index.html")
    return found


def _faults_of_networks(file: Path, folder: Path, name: str) -> list[str]:
    """Return what is wrong with an archive of networks that was made of a folder."""
    found = []
    with tarfile.open(file) as tar:
        packed = {entry.name: hashlib.sha256(tar.extractfile(entry).read()).hexdigest() for entry in tar}  # type: ignore[union-attr]
    there = {f"{name}/{each.relative_to(folder)}" for each in folder.rglob("*") if each.is_file()}
    if there != packed.keys():
        found.append(f"{file.name} lacks or adds {sorted(there ^ packed.keys())}")
    wrong = [path for path, sha256 in packed.items() if "/pieces/" in path and Path(path).name != sha256]
    if wrong:
        found.append(f"{file.name}: these are not what their names say: {wrong}")
    return found


def run(*command: str | Path) -> None:
    """Run a program of this environment; what it prints goes on."""
    variables = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    subprocess.run([sys.executable, *command], cwd=ROOT, env=variables, check=True)  # noqa: S603


def main() -> None:
    """Make the release."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snapshot", action="store_true", help="make it although the changelog is not ready")
    parser.add_argument("--debian", default="", help="architectures to make Debian packages for, with commas")
    parser.add_argument("--networks", type=Path, help="folder of networks that become a file each")
    given = parser.parse_args()
    if given.networks and not applications(given.networks):
        parser.error(f"{given.networks} holds no network")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    found = complaints(changelog, version)
    if found and not given.snapshot:
        sys.exit("\n".join(found))
    shutil.rmtree(OUT, ignore_errors=True)
    run("-m", "build", "--no-isolation", "--outdir", OUT)
    (wheel,) = OUT.glob("*.whl")
    for architecture in filter(None, given.debian.split(",")):
        run("deploy/debian/package.py", wheel, "--architecture", architecture, "--out", OUT)
    archive(ROOT / "splitplace" / "shipped_store", OUT / f"splitplace-networks-{version}.tar.gz", "networks")
    for each in applications(given.networks) if given.networks else ():
        archive(each, OUT / f"splitplace-network-{each.name}-{version}.tar.gz", each.name)
    run("-m", "mkdocs", "build")
    archive(ROOT / "build" / "site", OUT / f"splitplace-documentation-{version}.tar.gz", "documentation")
    run(".ci/dependencies.py", "--bill", OUT / f"splitplace-{version}.cdx.json")
    notes = notes_of(changelog, UNRELEASED if given.snapshot and found else version)
    (OUT / "RELEASE-NOTES.md").write_text(notes, "utf-8")
    (OUT / SUMS).write_text(sums(OUT), "utf-8")
    wrong = faults(OUT, ROOT / "splitplace" / "shipped_store", given.networks)
    if wrong:
        sys.exit("\n".join(wrong))
    print(
        f"{OUT}: {version}{' (snapshot)' if found else ''}",
        *sorted(each.name for each in OUT.iterdir()),
        sep="\n  ",
    )


if __name__ == "__main__":
    main()
