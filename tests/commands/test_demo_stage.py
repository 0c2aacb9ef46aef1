"""Where the demo speaks: a live page on a terminal, unless lines are asked for."""

import asyncio

import pytest

from splitplace.commands.demo.stage import Stage
from splitplace.commands.watch.observation import Observation

HIDDEN_CURSOR = "\x1b[?25l"
"""What a live page begins with."""


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("on_stderr", [False, True])
def test_a_page_is_live_unless_it_is_plain_and_leaves_standard_output_alone_if_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, plain: bool, on_stderr: bool
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for rich
    monkeypatch.setenv("TERM", "xterm")
    stage = Stage(Observation(), plain=plain, on_stderr=on_stderr)

    async def speak() -> None:
        async with stage.open():
            stage.say("Act 1")

    asyncio.run(speak())
    said = capsys.readouterr()
    shown, empty = (said.err, said.out) if on_stderr else (said.out, said.err)
    assert "Act 1" in shown
    assert (HIDDEN_CURSOR in shown) is not plain
    assert empty == ""
