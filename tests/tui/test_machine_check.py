"""The sheet of the preflight: failures first, and a change only after it was agreed to."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from engine.core.paths import Workspace
from engine.health.grades import CheckResult, Fix, Grade
from engine.workspace.open import open_workspace
from tests.tui.helpers import text_of, until
from tui.app.app import H2QApp
from tui.screens.ask import Confirm
from tui.screens.machine_check import MachineCheck, check_lines
from tui.widgets.footer import Footer

ONLY = ("secrets", "sqlite")


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """A workspace whose secrets others can read."""
    workspace = open_workspace(Workspace(tmp_path / "ws"))
    secrets = workspace.config / "secrets.json"
    secrets.write_text("{}")
    secrets.chmod(0o644)
    return workspace


def mode(ws: Workspace) -> int:
    return (ws.config / "secrets.json").stat().st_mode & 0o777


async def test_a_change_is_made_after_asking(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        sheet = MachineCheck(ws, ONLY)
        await app.push_screen(sheet)
        await until(pilot, lambda: len(sheet.items) == 2, 30.0)
        assert [item.grade for item in sheet.items] == [Grade.FAIL, Grade.PASS]
        text = text_of(app)
        assert "FAIL" in text and "0644" in text and "f chmod go-rwx" in text and "1 thing to look at" in text
        await pilot.press("f")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n")
        await until(pilot, lambda: app.screen is sheet)
        assert mode(ws) == 0o644
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: all(item.grade is Grade.PASS for item in sheet.items), 30.0)
        assert mode(ws) == 0o600 and "everything is in order" in text_of(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is not sheet)


async def test_a_change_of_the_terminal_is_made_where_the_terminal_is(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called, program = tmp_path / "called", tmp_path / "tmux"
    program.write_text(f"#!/bin/sh\necho \"$@\" >> {called}\necho 'xterm|256'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TMUX", "/tmp/tmux,1,0")
    monkeypatch.setenv("TERM", "screen")
    for name in ("COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    master, slave = os.openpty()
    with os.fdopen(master), os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "__stdout__", terminal)
        app = H2QApp(ws)
        async with app.run_test(size=(80, 24)) as pilot:
            sheet = MachineCheck(ws, ("colours",))
            await app.push_screen(sheet)
            await until(pilot, lambda: [item.grade for item in sheet.items] == [Grade.WARN], 30.0)
            await pilot.press("f")
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press("y")
            await until(pilot, lambda: "New windows of this tmux" in text_of(app), 30.0)
            assert "set -g default-terminal tmux-256color" in called.read_text()
            assert [item.grade for item in sheet.items] == [Grade.WARN], "this window stays as it is"


async def test_an_app_that_only_looks_changes_nothing(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        sheet = MachineCheck(ws, ONLY, read_only=True)
        await app.push_screen(sheet)
        await until(pilot, lambda: len(sheet.items) == 2, 30.0)
        await pilot.press("f", "enter", "y")
        await until(pilot, lambda: "read-only" in text_of(app))
        assert mode(ws) == 0o644


async def test_it_opens_by_its_key_and_from_the_palette(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("5", "V")
        await until(pilot, lambda: isinstance(app.screen, MachineCheck))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, MachineCheck) and bool(app.query(Footer)))
        await pilot.press("ctrl+p", *"check this machine")
        await until(pilot, lambda: "check this machine" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, MachineCheck))


@pytest.mark.parametrize("width", [34, 74, 94])
def test_every_line_fits_and_no_markup_of_a_path_is_read(width: int) -> None:
    fix = Fix(change="Let only you read it", command=("chmod", "go-rwx", "/home/u/[red]x[/]"))
    item = CheckResult(
        id="secrets",
        name="secrets",
        grade=Grade.FAIL,
        detail="others can read /home/u/[red]x[/] (0644) \x1b[2J " + "and more " * 9,
        hint=fix.hint,
        fix=fix,
    )
    text = check_lines(item, width)
    assert "[red]x[/]" in "".join(text.plain.split()) and "\x1b" not in text.plain
    column = 28
    lines = text.split("\n")
    assert max(line.cell_length for line in lines) <= max(width, column + 16), [line.plain for line in lines]
