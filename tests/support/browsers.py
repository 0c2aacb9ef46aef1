"""Debian's Chromium, which CI installs."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Run a browser; end it afterwards."""
    path = shutil.which("chromium")
    assert path, "no browser: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
