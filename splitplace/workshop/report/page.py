"""Write one page about the content of the store: self-contained HTML without scripts."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from splitplace.messages.application import Application, Stage, Variant
from splitplace.policies.memory import described_bytes
from splitplace.workshop.report import figures
from splitplace.workshop.report.cuts import TARGET
from splitplace.workshop.report.groups import GroupConfusion, several_sinks
from splitplace.workshop.report.tables import size
from splitplace.workshop.report.times import BATCH, times_of

_STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
td { vertical-align: top; font-variant-numeric: tabular-nums }
img { max-width: 100%; display: block; margin: 1rem 0 }
.wide { overflow-x: auto }
.note { color: #555; font-size: 13px }
"""
_MAX_LABELS = 12
"""Labels shown of a group; a hundred would hide the table."""


@dataclass(frozen=True)
class Chapter:
    """One application, with drawings and counts for the page."""

    application: Application
    diagrams: Mapping[str, str] = field(default_factory=dict)
    """SVG of each chain, by variant name."""
    confusions: Sequence[GroupConfusion] = ()
    notes: Sequence[str] = ()
    """What could not be drawn or counted, and why."""


def report_page(chapters: Sequence[Chapter], command: str) -> str:
    """Return the page as HTML.

    Args:
        chapters: One for each application, at least one.
        command: The command that writes the page.
    """
    applications = [chapter.application for chapter in chapters]
    node = TARGET.nodes[0]
    parts = [
        "<h1>Contents of the model store</h1>",
        f"<p>Written by <code>{escape(command)}</code>.</p>",
        "<h2>Accuracy against time</h2>",
        _picture(figures.trade_off(applications), "Accuracy against time for every variant"),
        _note(
            f"Left: predicted from stored times, for a task of {BATCH} pictures on idle boards, one for each "
            f"fragment, each {node.slowdown:g} times slower than the reference machine and with a link of "
            f"{node.link_bytes_per_ms / 1000:g} MB/s. It includes computing, sending (uncompressed) and the "
            "hops through the broker. Right: measured in one thread on the reference machine when the "
            "application was built; the sum of the fragments on the slowest path from the picture to an "
            "answer. Accuracy: share of right answers on held-out test images."
        ),
        *(part for chapter in chapters for part in _chapter(chapter)),
    ]
    head = f'<meta charset="utf-8">\n<title>SplitPlace models</title>\n<style>{_STYLE}</style>'
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _chapter(chapter: Chapter) -> Iterable[str]:
    application = chapter.application
    yield f"<h2>{escape(application.name)}: {escape(application.title)}</h2>"
    yield _variants(application)
    yield "<h3>Fragments</h3>"
    yield _stages(application)
    yield from map(_note, chapter.notes)
    confusions = {confusion.variant: confusion for confusion in chapter.confusions}
    for variant in several_sinks(application):
        yield f"<h3>Groups of {escape(variant.name)}</h3>"
        yield _groups(application, variant)
        if variant.name in confusions:
            yield from _confusion(confusions[variant.name])
    for name, svg in chapter.diagrams.items():
        yield f"<h3>Cuts of {escape(name)}</h3>"
        yield _picture(svg, f"The network of {application.name} and where {name} is cut")
        yield _note(
            "Times: measured on the machine that wrote this page, scaled to the boards above. "
            "Box width: FLOPs."
        )


def _variants(application: Application) -> str:
    columns = (
        "variant",
        "accuracy",
        "fragments",
        "slowest path, ms",
        "slowest fragment, ms",
        f"answer to {BATCH}, ms",
        "MFLOPs",
        "files",
        "weights",
        "greatest peak",
    )
    rows = []
    for variant in application.variants:
        times = times_of(application, variant)
        fragments = [application.fragment(stage.fragment) for stage in variant.stages]
        stated = "" if variant.accuracy_images else " (stated)"
        rows.append(
            (
                variant.name,
                f"{variant.accuracy:.2%}{stated}",
                str(len(fragments)),
                f"{times.path_ms:.3f}",
                f"{times.slowest_stage_ms:.3f}",
                f"{times.answer_ms:.0f}",
                f"{sum(fragment.flops_per_image for fragment in fragments) / 1e6:.1f}",
                size(sum(fragment.file_bytes for fragment in fragments)),
                size(sum(fragment.weight_bytes for fragment in fragments)),
                size(max(fragment.peak_memory_bytes for fragment in fragments)),
            )
        )
    micro_batches = sorted({variant.micro_batch for variant in application.variants})
    return _table(columns, rows) + _note(
        f"FLOPs (per picture), files and weights are sums over all fragments. Peak: weights and live tensors "
        f"of the largest fragment for a micro-batch of {', '.join(map(str, micro_batches))}. "
        f"Reference machine: benchmark score {application.reference_score:g}."
    )


def _stages(application: Application) -> str:
    columns = (
        "fragment",
        "reads",
        "ms/picture",
        "ms/call",
        "MFLOPs",
        "output, bytes",
        "file",
        "weights",
        "peak",
        "on a node",
    )
    rows = []
    for variant in application.variants:
        for stage in variant.stages:
            fragment = application.fragment(stage.fragment)
            rows.append(
                (
                    f"{variant.name}/{stage.name}",
                    stage.source,
                    f"{fragment.milliseconds_per_image:.3f}",
                    f"{fragment.milliseconds_per_call:.3f}",
                    f"{fragment.flops_per_image / 1e6:.1f}",
                    f"{fragment.output_bytes_per_image:,}",
                    size(fragment.file_bytes),
                    size(fragment.weight_bytes),
                    size(fragment.peak_memory_bytes),
                    size(described_bytes(fragment)),
                )
            )
    return _table(columns, rows) + _note(
        "Peak: weights and live tensors. On a node: the private memory that it reserves, as measured when "
        "the network was added, until it has measured it itself. Weights that are mapped do not count."
    )


def _groups(application: Application, variant: Variant) -> str:
    rows = [
        (
            stage.name,
            str(len(stage.classes)),
            "not measured" if stage.accuracy is None else f"{stage.accuracy:.2%}",
            _labels(application, stage),
        )
        for stage in variant.sinks
    ]
    return _table(("branch", "classes", "accuracy on these", "names"), rows)


def _labels(application: Application, stage: Stage) -> str:
    names = [application.labels[index] for index in stage.classes]
    more = len(names) - _MAX_LABELS
    return ", ".join(names[:_MAX_LABELS]) + (f" and {more} more" if more > 0 else "")


def _confusion(confusion: GroupConfusion) -> Iterable[str]:
    pictures = int(confusion.won.sum())
    yield _picture(figures.group_accuracies(confusion), "Accuracy on the classes of each branch")
    yield _picture(figures.confusion_matrix(confusion), "Which branch won for the pictures of each group")
    yield _note(
        f"Counted for this page on {pictures:,} test pictures. For {confusion.wrong_branch:.2%} of them, a "
        "branch won that does not own the right class."
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return f'<div class="wide"><table>\n{line("th", columns)}\n{body}\n</table></div>'


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _picture(svg: str, alternative: str) -> str:
    """Embed a picture as its own document, so that its ids and styles do not clash with the page's."""
    content = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(alternative)}" src="data:image/svg+xml;base64,{content}">'
