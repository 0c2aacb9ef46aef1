"""Give each container of a secured system its own credentials, and nobody else's.

    python hand_out.py SECURE OUT

SECURE is the folder that `splitplace secure init` made; only its owner can read it. OUT has a folder for each
part, which is a volume of its own: the part named `broker` gets certificate, key and users, each other part
its file of credentials as `credentials.toml`. Runs as root with no rights but to read and to give away.
"""

import os
import shutil
import sys
from pathlib import Path

BROKER = "broker"
PARTS_USER = 10001
"""User of the containers of ours."""
BROKERS_USER = 1883
"""User of Mosquitto in its image."""
_USERS = "dynamic-security.json"


def hand_out(secure: Path, out: Path) -> list[str]:
    """Copy what each folder in `out` is for; return the names of parts without credentials."""
    missing = []
    for folder in sorted(each for each in out.iterdir() if each.is_dir()):
        if folder.name == BROKER:
            for name in ("broker.pem", "broker.key"):
                _give(secure / "broker" / name, folder / name, BROKERS_USER)
            if not (folder / _USERS).exists():  # from then on the broker itself keeps it
                _give(secure / "broker" / _USERS, folder / _USERS, BROKERS_USER)
            _own(folder, BROKERS_USER)
            continue
        file = secure / "users" / f"{folder.name}.toml"
        if file.is_file():
            _give(file, folder / "credentials.toml", PARTS_USER)
            _own(folder, PARTS_USER)
        else:
            missing.append(folder.name)
    return missing


def _give(source: Path, target: Path, user: int) -> None:
    """Copy a file whole or not at all; only the user may read it."""
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    with (
        source.open("rb") as reading,
        os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as copy,
    ):
        shutil.copyfileobj(reading, copy)
    os.chown(fresh, user, user)
    fresh.replace(target)


def _own(folder: Path, user: int) -> None:
    folder.chmod(0o700)
    os.chown(folder, user, user)


def main() -> None:
    """Hand out. Ends with 1 where something is missing."""
    secure, out = map(Path, sys.argv[1:])
    if not (secure / "secured.toml").is_file():
        sys.exit(
            f"{secure} is no secured system: make it with splitplace secure init, or set SPLITPLACE_SECURE"
        )
    missing = hand_out(secure, out)
    if missing:
        sys.exit(
            f"no credentials for {', '.join(missing)}: name the nodes when making the system: "
            f"splitplace secure init --host broker --node {missing[0]}"
        )


if __name__ == "__main__":
    main()
