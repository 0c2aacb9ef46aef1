"""Where the model store lies that comes with the package."""

from pathlib import Path
from typing import Final

SHIPPED_STORE: Final = Path(__file__).parents[1] / "shipped_store"
"""The applications that come with the package."""


def default_store() -> Path:
    """The model store below the current folder, else the shipped one."""
    here = Path.cwd() / "store"
    return here if here.is_dir() else SHIPPED_STORE
