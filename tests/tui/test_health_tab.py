"""The Health tab: the machine in panels, looked at only while somebody sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.core.paths import Workspace
from engine.machine.probes import MachineSample
from engine.runs.view import RunView
from tests.tui.helpers import text_of, until
from tests.tui.live_run import live_run
from tui.app.app import H2QApp
from tui.tabs.health import panels_text
from tui.tabs.health.tab import HealthTab
from tui.tabs.registry import TABS
from tui.terminal.glyphs import ASCII, UNICODE

DIGIT = str(1 + [row.id for row in TABS].index("health"))
NOTHING = MachineSample(
    time=0.0,
    cpu_percent=None,
    load=None,
    memory_total=None,
    memory_used=None,
    swap_total=None,
    swap_used=None,
    disk_free=None,
    disk_total=None,
    disk_full_in_s=None,
    temperature_c=None,
)


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def tab_of(app: H2QApp) -> HealthTab:
    assert isinstance(app.tab, HealthTab)
    return app.tab


async def test_the_machine_and_the_run_are_shown(ws: Workspace) -> None:
    app = H2QApp(ws)
    with live_run(ws, done=7) as run:
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: app.board.current is not None)
            await pilot.press(DIGIT)
            await until(pilot, lambda: "step 7 of 200" in text_of(app))
            screen = text_of(app)
            assert run.dir.run_id[:9] in screen
            for words in ("CPU", "load", "of", "free", "budget", "colours", "not started"):
                assert words in screen


async def test_nothing_is_sampled_while_another_tab_is_shown(ws: Workspace) -> None:
    app = H2QApp(ws, interval=0.5)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(DIGIT)
        tab = tab_of(app)
        await until(pilot, lambda: tab.snapshot is not None)
        await pilot.press("1")
        await until(pilot, lambda: not [worker for worker in app.workers if worker.group == "health"])


async def test_comma_and_dot_change_the_interval(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(DIGIT)
        await pilot.press("comma")
        assert app.interval == 1.0
        await pilot.press("full_stop", "full_stop")
        assert app.interval == 5.0
        await until(pilot, lambda: "every 5 s" in text_of(app))


def test_missing_figures_are_shown_as_unknown() -> None:
    lines = [
        *panels_text.cpu(NOTHING, [], UNICODE, 30),
        *panels_text.memory(NOTHING, UNICODE, 30),
        *panels_text.disk(NOTHING),
    ]
    text = "\n".join(line.plain for line in lines)
    assert text.count("unknown") == 5
    assert panels_text.training(None, "", NOTHING, UNICODE, now=0.0)[0].plain == "nothing running"


def test_ascii_bars_are_ascii() -> None:
    import msgspec

    busy = msgspec.structs.replace(NOTHING, cpu_percent=[50.0, 100.0], memory_total=100, memory_used=50)
    lines = [*panels_text.cpu(busy, [[50.0, 100.0]], ASCII, 30), *panels_text.memory(busy, ASCII, 30)]
    assert all(line.plain.replace("–", "").isascii() for line in lines)


def test_a_run_without_recent_events_is_highlighted() -> None:
    view = RunView(None)
    view.updated_at = 0.0
    lines = panels_text.training(view, "1121-0000", NOTHING, UNICODE, now=90.0)
    assert "01:30" in lines[-1].plain
    assert "warning" in str(lines[-1].spans)
