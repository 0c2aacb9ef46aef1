"""The documentation site: every page is in it, reads as it does in the repository, and fetches nothing."""

import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import yaml
from markdown_it import MarkdownIt
from playwright.sync_api import Browser

from tests.support.browsers import running_browser
from tests.support.texts import ROOT

AROUND = {"README.md": "index.html", "CONTRIBUTING.md": "contributing.html", "CHANGELOG.md": "changelog.html"}
FETCHING = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src")}
COUNTED = ("h2", "h3", "li", "ol", "pre", "table", "tr")


class Reader(HTMLParser):
    """What a page is made of: tags in its article, links, anchors, and what a browser fetches for it."""

    def __init__(self, html: str, *, is_article: bool = False) -> None:
        super().__init__()
        self.counts = Counter[str]()
        self.links: list[str] = []
        self.anchors = {""}
        self.fetched: list[str] = []
        self._is_article = is_article
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._is_article = self._is_article or tag == "article"
        if self._is_article and tag in COUNTED:
            self.counts[tag] += 1
        for name, value in attributes:
            if name == "id" and value:
                self.anchors.add(value)
            if (tag, name) == ("a", "href") and value:
                self.links.append(value)
            if (tag, name) in FETCHING and ("rel", "canonical") not in attributes and value:
                self.fetched.append(value)

    def handle_endtag(self, tag: str) -> None:
        self._is_article = self._is_article and tag != "article"


def build(folder: Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # Never --quiet: warnings that are not shown do not count, and a broken link is one.
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def browser(site: Path) -> Iterator[Browser]:
    assert site.is_dir()
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Reader]:
    return {path: Reader(path.read_text("utf-8")) for path in site.rglob("*.html")}


def sources(site: Path) -> Iterator[tuple[Path, Path]]:
    """Every page of the repository and the page of the site that is made of it."""
    for source in sorted((ROOT / "docs").rglob("*.md")):
        page = site / source.relative_to(ROOT / "docs").with_suffix(".html")
        yield source, page.with_name("index.html") if source.name == "README.md" else page
    for name, page_name in AROUND.items():
        yield ROOT / name, site / page_name


def test_every_page_is_in_the_navigation(site: Path, pages: dict[Path, Reader]) -> None:
    start = site / "index.html"
    reached = {(start.parent / unquote(urldefrag(link).url)).resolve() for link in pages[start].links}
    assert [str(source) for source, page in sources(site) if page.resolve() not in reached] == []


def test_pages_named_in_the_navigation_exist() -> None:
    text = re.sub(r"!!python\S+", "", (ROOT / "mkdocs.yml").read_text("utf-8"))
    named = re.findall(r"[\w./-]+\.md\b", str(yaml.safe_load(text)["nav"]))
    assert len(named) == len(set(named))
    around = {name.replace(".html", ".md") for name in AROUND.values()}
    assert [name for name in named if name not in around and not (ROOT / "docs" / name).is_file()] == []


def test_pages_read_on_the_site_as_they_do_in_the_repository(site: Path, pages: dict[Path, Reader]) -> None:
    """As many headings, lists, tables and blocks of code: MkDocs reads another Markdown."""
    markdown = MarkdownIt("commonmark").enable("table")
    differ = {}
    for source, page in sources(site):
        wanted = Reader(markdown.render(source.read_text("utf-8")), is_article=True).counts
        if wanted != pages[page].counts:
            differ[str(source.relative_to(ROOT))] = (wanted, pages[page].counts)
    assert differ == {}


def test_every_link_of_the_site_leads_to_a_page_and_a_place_on_it(
    site: Path, pages: dict[Path, Reader]
) -> None:
    broken = []
    for page, reader in pages.items():
        for link in reader.links:
            target, anchor = urldefrag(link)
            if "://" in target or page.name == "404.html":
                continue
            found = (page.parent / unquote(target)).resolve() if target else page
            found = found / "index.html" if found.is_dir() else found
            if not found.is_file() or (found in pages and unquote(anchor) not in pages[found].anchors):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert broken == []


def test_a_browser_is_told_to_fetch_nothing_from_elsewhere(site: Path, pages: dict[Path, Reader]) -> None:
    assert [each for reader in pages.values() for each in reader.fetched if "//" in each] == []
    for style in site.rglob("*.css"):
        text = style.read_text("utf-8")
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", text) == [], style
    for script in site.rglob("*.js"):
        text = re.sub(r"/\*.*?\*/", "", script.read_text("utf-8"), flags=re.DOTALL)
        found = re.findall(r"[\"'`](https?://[^\"'`]*)", text)
        assert [each for each in found if not each.startswith("http://www.w3.org/")] == [], script


def test_a_browser_shows_the_site_and_searches_it_without_another_server(
    site: Path, browser: Browser
) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - its name there
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}/"
    asked: list[str] = []
    page = browser.new_page()
    try:
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{here}index.html")
        page.fill("input[name=query]", "bandit")
        page.wait_for_selector(".md-search-result__link")
    finally:
        page.close()
        server.shutdown()
        server.server_close()
    assert any("search_index" in each for each in asked)
    assert [each for each in asked if not each.startswith((here, "data:", "blob:"))] == []


def test_a_broken_link_ends_the_build(tmp_path: Path) -> None:
    for name in ("docs", "website", "examples", "splitplace/shipped_store/mnist"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("mkdocs.yml", *AROUND):
        shutil.copy(ROOT / name, tmp_path)
    with (tmp_path / "docs" / "camera.md").open("a") as page:
        page.write("\n[gone](away.md) and [no such place](files.md#nowhere)\n")
    done = build(tmp_path / "built", cwd=tmp_path)
    assert done.returncode != 0
    assert "away.md" in done.stderr
    assert "nowhere" in done.stderr
