"""Ctrl-C before a command has begun: it ends as any other that is interrupted, without a traceback."""

import sys

import pytest

from splitplace import __main__ as started
from splitplace import commands


class Interrupted:
    """Imports that Ctrl-C comes in between of."""

    def __init__(self, module: str) -> None:
        self.module = module

    def find_spec(self, name: str, *_: object) -> None:
        if name == self.module:
            raise KeyboardInterrupt


@pytest.mark.parametrize("module", ["splitplace.commands.main", "splitplace.commands.replay"])
def test_an_interrupt_while_a_command_loads_leaves_no_traceback(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Both are loaded anew, and are as before afterwards.
    monkeypatch.setattr(commands, "main", getattr(commands, "main", None), raising=False)
    for loaded in ("splitplace.commands.main", "splitplace.commands.replay"):
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(module), *sys.meta_path])
    monkeypatch.setattr(sys, "argv", ["splitplace", "replay", "log.jsonl"])
    with pytest.raises(SystemExit) as end:
        started.main()
    assert end.value.code == 130
    assert capsys.readouterr().err == ""
