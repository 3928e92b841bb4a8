"""A fault of the app itself is one sentence; its traceback stands in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.core.i18n import set_language
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.workspace.open import open_workspace
from tui.app.app import H2QApp
from tui.app.global_actions import GlobalActions
from tui.cli.commands.app import FAULT_FILE, explain_fault


class Fault(Exception):
    """Stands for what nobody foresaw."""


async def test_a_fault_is_reported_in_one_sentence_and_logged_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ws = open_workspace(Workspace(tmp_path))

    def broken(_self: GlobalActions) -> None:
        private = "what a person said"
        raise Fault(f"{len(private)}")

    monkeypatch.setattr(GlobalActions, "action_settings", broken)
    app = H2QApp(ws, settings=Settings(first_start_done=True))
    with pytest.raises(Fault):
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("S")
            await pilot.pause()
    assert isinstance(app.fault, Fault)
    app._print_error_renderables()
    assert "what a person said" not in capsys.readouterr().err
    set_language("en")
    told = explain_fault(ws, app.fault)
    assert told.exit_code == 5
    assert "(Fault); runs continue" in told.message and str(tmp_path / FAULT_FILE) in told.message
    kept = tmp_path / FAULT_FILE
    assert "Fault: 18" in kept.read_text(encoding="utf-8")
    assert kept.stat().st_mode & 0o777 == 0o600
