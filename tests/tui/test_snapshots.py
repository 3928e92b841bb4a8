"""A few screens as pictures. Everything that moves is frozen; new pictures are a commit of their own:
`python -m pytest tests/tui/test_snapshots.py --snapshot-update`."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.runs.events import CheckpointWritten, Log
from tests.tui.helpers import text_of, until
from tests.tui.live_run import LiveRun
from tui.app.app import H2QApp

Compare = Callable[..., bool]
BEGAN = 1_793_000_000.0


@pytest.fixture(autouse=True)
def frozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in (("TZ", "UTC"), ("TERM", "xterm-256color"), ("LC_ALL", "C.UTF-8")):
        monkeypatch.setenv(name, value)
    for name in ("COLORTERM", "NO_COLOR", "TMUX", "STY", "SSH_CONNECTION", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def app_on(folder: Path) -> H2QApp:
    """The app on one finished run."""
    ws = Workspace(folder)
    ticks = itertools.count(BEGAN, 0.5)
    run = LiveRun(ws, steps=200, now=BEGAN, clock=lambda: next(ticks))
    run.memory()
    for number in range(1, 201):
        run.step(number)
        if number % 50 == 0:
            run.write(CheckpointWritten(phase="native", step=number, path="x", seconds=0.034, bytes=9))
    run.write(Log(level="warning", text="[red]not red[/red] \x1b[2J 怎么"))
    run.end()
    return H2QApp(ws, settings=Settings(theme="dark", signs="unicode"))


async def settled(pilot: Pilot[Any]) -> None:
    """Waits until the run is shown and nothing changes any more."""
    await until(pilot, lambda: "tok/s" in text_of(pilot.app))
    unchanged, before = 0, ""
    while unchanged < 5:
        await asyncio.sleep(0.05)
        await pilot.pause()
        unchanged, before = unchanged + 1 if text_of(pilot.app) == before else 0, text_of(pilot.app)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
def test_a_finished_run(snap_compare: Compare, tmp_path: Path, size: tuple[int, int]) -> None:
    assert snap_compare(app_on(tmp_path), terminal_size=size, run_before=settled)


def test_the_sheet_of_keys(snap_compare: Compare, tmp_path: Path) -> None:
    async def open_sheet(pilot: Pilot[Any]) -> None:
        await settled(pilot)
        await pilot.press("question_mark")
        await pilot.pause()

    assert snap_compare(app_on(tmp_path), terminal_size=(80, 24), run_before=open_sheet)
