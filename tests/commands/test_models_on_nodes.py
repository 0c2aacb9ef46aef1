"""The words about an application on a running system's nodes, and what cannot be asked."""

import pytest

from splitplace.commands.models.on_nodes import lines, summary
from splitplace.planning.idle_nodes import IdleVariant
from splitplace.planning.standing import StandingStage
from tests.support.commands import exit_code

REASON = "whole: stage all needs 221 MiB of memory, the largest node (n4) has 64 MiB"
WHY = "stage all needs 221 MiB of memory, the largest node (n4) has 64 MiB"
WHOLE = IdleVariant("whole", "whole", 0.9, 8, reason=REASON)


def layer(name: str, predicted_ms: float, first_ms: float | None = None) -> IdleVariant:
    stages = tuple(StandingStage(f"s{index}", (f"n{index}",), 1000, 0) for index in (1, 2))
    return IdleVariant(name, "layer", 0.9, 8, stages, predicted_ms, 900.0, first_ms)


def test_the_sentence_names_the_fastest_of_each_kind_and_what_fits_none() -> None:
    variants = (WHOLE, layer("layer-2", 500.0), layer("layer", 410.2))
    assert summary(4, variants) == f"On your 4 nodes: layer 410 ms over n1, n2; whole fits none ({WHY})."
    assert summary(1, (WHOLE,)) == f"On your 1 node: whole fits none ({WHY})."


def test_a_line_says_times_and_stages_or_why_it_fits_none() -> None:
    assert list(lines((WHOLE, layer("layer", 7.26), layer("later", 1260.0, first_ms=3000.0)))) == [
        f"whole: fits none: {WHY}",
        "layer: one input 7.3 ms, 8 inputs 900 ms; s1 on n1, s2 on n2",
        "later: one input 1.3 s, 8 inputs 900 ms (now 3.0 s: it must be loaded first); s1 on n1, s2 on n2",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("mine.onnx", "--from-system"), 2, "splitplace models add"),
        (("mnist", "--from-system", "--stages", "2", "--memory", "48"), 2, "--stages, --memory: not with"),
        (("mnist", "--broker", "mqtt://127.0.0.1:1"), 5, "broker"),
    ],
)
def test_what_cannot_be_asked_is_explained(
    arguments: tuple[str, ...], code: int, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("models", "inspect", *arguments) == code
    assert why in " ".join(capsys.readouterr().err.split())


def test_a_broker_without_services_is_no_running_system(
    broker_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("models", "inspect", "mnist", "--broker", broker_url) == 1
    assert "is its resource monitor running" in capsys.readouterr().err
