"""Extend MkDocs: pages from outside `docs/`, CommonMark, and a site that fetches nothing.

Pages of the repository link to each other as files, so that they work where code is read. Here such a link
leads to the page that is made of the file, or to a copy of the file. A link to a folder becomes text.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages at the top of the repository, and what they are called here."""
COPIES = "repository"
"""Folder for files outside `docs/` that a page links to."""
_LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\((?!\w+:)([^)#\s]+)(#[^)\s]*)?((?:\s+\"[^\"]*\")?)\)")
_FETCHED_BY_THEME = re.compile(rb"https://(?:unpkg\.com|api\.github\.com|\$\{\w+\}/api/v4)(?=/)")
_repository_paths: dict[str, str] = {}
"""Path in the repository of each page and file of the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages at the top of the repository and files that pages link to; complete the navigation."""
    _repository_paths.clear()
    _repository_paths.update({file.src_uri: f"docs/{file.src_uri}" for file in files})
    waiting = [(TOP[name], name) for name in TOP]
    pages = [(file.src_uri, f"docs/{file.src_uri}") for file in files.documentation_pages()]
    while waiting or pages:
        for uri, path in waiting:
            _repository_paths[uri] = path
            added = File.generated(config, uri, abs_src_path=str(ROOT / path))
            added.inclusion = InclusionLevel.NOT_IN_NAV if uri.startswith(COPIES) else InclusionLevel.INCLUDED
            files.append(added)
        texts = [*pages, *(each for each in waiting if each[1].endswith(".md"))]
        linked = {target for _uri, path in texts for target in _files_linked_from(path)}
        waiting = [(_uri_of(each), each) for each in sorted(linked) if _uri_of(each) not in _repository_paths]
        pages = []
    config.nav = config.nav or []
    named = set(_uris_in(config.nav))
    uris = [file.src_uri for file in files.documentation_pages() if file.inclusion.is_in_nav()]
    config.nav = _completed(config.nav, uris)
    left = sorted(set(uris) - set(_uris_in(config.nav)) - named)
    if left:
        config.nav.append({"More": left})
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Let links to files of the repository lead to pages and copies."""
    here = posixpath.dirname(page.file.src_uri)
    path = _repository_paths[page.file.src_uri]

    def rewritten(match: re.Match[str]) -> str:
        text, target, anchor, title = match[1], match[2], match[3] or "", match[4]
        found = _resolved(path, target)
        if found is None:
            return match[0]  # MkDocs complains
        if (ROOT / found).is_dir():
            return text[1:-1]
        return f"{text}({posixpath.relpath(_uri_of(found), here or '.')}{anchor}{title})"

    return as_python_markdown(_LINK.sub(rewritten, markdown))


def as_python_markdown(text: str) -> str:
    """Return CommonMark as Python-Markdown reads it.

    That is with four spaces for each list around a line, and an empty line before each list.
    """
    lines = text.split("\n")
    indents: list[tuple[int, int]] = [(0, 0)] * len(lines)
    """Per line: lists around it, and the columns that they take."""
    separate = set()
    """Lines before which an empty line must stand."""
    is_loose = [False]
    for token in MarkdownIt("commonmark").parse(text):
        start, end = token.map or (0, 0)
        if token.type.endswith("list_open"):
            is_loose.append(not all(each.strip() for each in lines[start : end - 1]))
            if token.level == 0:
                separate.add(start)
        elif token.type.endswith("list_close"):
            is_loose.pop()
        elif token.type == "list_item_open":
            if is_loose[-1]:
                separate.add(start)
            marker = re.match(r"\s*([-*+]|\d+[.)])\s+", lines[start])
            for number in range(start + 1, end):
                columns = len(marker[0]) if marker else 2
                indents[number] = (indents[number][0] + 1, columns)
    out = []
    for number, (line, (depth, columns)) in enumerate(zip(lines, indents, strict=True)):
        if number in separate and out and out[-1].strip():
            out.append("")
        inside = line.startswith(" " * columns)
        out.append(" " * 4 * depth + line[columns:] if inside and line else line)
    return "\n".join(out)


def on_post_build(config: MkDocsConfig) -> None:
    """Take out what scripts of the theme would fetch for diagrams and counts of stars: none is used."""
    for script in Path(config.site_dir).rglob("*.js"):
        script.write_bytes(_FETCHED_BY_THEME.sub(b"", script.read_bytes()))
    for useless in Path(config.site_dir).rglob("*.map"):
        useless.unlink()


def _files_linked_from(path: str) -> list[str]:
    targets = [_resolved(path, match[2]) for match in _LINK.finditer((ROOT / path).read_text("utf-8"))]
    return [each for each in targets if each is not None and (ROOT / each).is_file()]


def _resolved(path: str, target: str) -> str | None:
    """Return the file or folder of the repository that a link means, None if there is none."""
    found = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if found.startswith("../") or not (ROOT / found).exists():
        return None
    page = posixpath.join(found, "README.md")
    return page if (ROOT / page).is_file() else found


def _uri_of(path: str) -> str:
    """Return the place in the site of a file of the repository."""
    return TOP.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"{COPIES}/{path}")


def _uris_in(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [uri for each in (nav.values() if isinstance(nav, dict) else nav) for uri in _uris_in(each)]


def _completed(nav: Any, uris: list[str]) -> Any:
    """Return the navigation with every folder replaced by its pages, its README first."""
    if isinstance(nav, str):
        if not nav.endswith("/"):
            return nav
        inside = [uri for uri in uris if uri.startswith(nav)]
        return sorted(inside, key=lambda uri: (not uri.endswith("README.md"), uri))
    if isinstance(nav, dict):
        return {title: _completed(each, uris) for title, each in nav.items()}
    return [_completed(each, uris) for each in nav]
