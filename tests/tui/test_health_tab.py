"""The Health tab: the machine in panels, looked at only while somebody sees it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine.alerts.alert_state import observe, speak
from engine.alerts.desk import add_channel, muted_until, open_alerts
from engine.alerts.diagnosis import diagnose
from engine.alerts.message import MessagePlace, compose
from engine.alerts.readings import MachineReading, Observation, ObservationState, RunReading
from engine.alerts.silence import Silence
from engine.alerts.store import AlertStore
from engine.core.config import load_settings
from engine.core.paths import Workspace
from engine.machine.probes import MachineSample
from engine.runs.view import RunView
from tests.alert_servers import http_server
from tests.tui.helpers import text_of, until
from tests.tui.live_run import live_run
from tui.app.app import H2QApp
from tui.tabs.health import panels_text
from tui.tabs.health.graph import area, scaled
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
    assert text.count("unknown") == 4 and "– °C" in text
    assert panels_text.training(None, "", NOTHING, UNICODE, now=0.0)[0].plain == "nothing running"


def test_ascii_bars_are_ascii() -> None:
    import msgspec

    busy = msgspec.structs.replace(NOTHING, cpu_percent=[50.0, 100.0], memory_total=100, memory_used=50)
    lines = [*panels_text.cpu(busy, [[50.0, 100.0]], ASCII, 30), *panels_text.memory(busy, ASCII, 30)]
    assert all(line.plain.replace("–", "").replace("°", "").isascii() for line in lines)


def test_a_run_without_recent_events_is_highlighted() -> None:
    view = RunView(None)
    view.updated_at = 0.0
    lines = panels_text.training(view, "1121-0000", NOTHING, UNICODE, now=90.0)
    assert "01:30" in lines[-1].plain
    assert "warning" in str(lines[-1].spans)


# Graphs and alerts


def test_an_area_graph_is_as_high_as_its_values_with_the_newest_at_the_right() -> None:
    assert area([0.0, 0.5, 1.0], 4, 2, UNICODE) == ["   █", "  ██"]
    assert area([0.25, None, 0.75], 3, 2, UNICODE) == ["  ▄", "▄ █"]
    assert area([1.0] * 99, 2, 1, ASCII) == ["@@"]
    assert area([1.0], 0, 3, UNICODE) == area([1.0], 3, 0, UNICODE) == []


def test_a_speed_is_drawn_within_its_own_range() -> None:
    assert scaled([5000.0, None, 6000.0]) == [0.1, None, 1.0]
    assert scaled([7.0, 7.0]) == [0.5, 0.5] and scaled([None]) == [None]


def put_alert(ws: Workspace, rule: str = "machine.disk") -> None:
    """An alert in force, as a watcher writes it."""
    one = Observation(rule=rule, state=ObservationState.BAD, figures={"free": 3.0 * 2**30})
    after, (notice,) = speak(observe({}, [one], time.time()), Silence(), time.time())
    with AlertStore(ws) as store, store.transaction():
        store.save_states({}, after)
        store.tell(notice, compose(notice, MessagePlace("mini", ws.root)), [], notice.at)


async def test_an_alert_in_force_is_shown_and_acknowledged(ws: Workspace) -> None:
    put_alert(ws)
    app = H2QApp(ws, interval=0.5)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(DIGIT)
        await until(pilot, lambda: "disk almost full: 3.0 GB free" in text_of(app))
        assert "a acknowledge" in text_of(app) and "notify setup" in text_of(app)
        await pilot.press("a")
        await until(pilot, lambda: open_alerts(ws)[0].acknowledged_at is not None)
        await until(pilot, lambda: "a acknowledge" not in text_of(app))


async def test_the_header_counts_the_alerts_that_nobody_has_seen_in_every_tab(ws: Workspace) -> None:
    put_alert(ws)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "▲1" in text_of(app).splitlines()[0])


async def test_everything_is_muted_and_no_longer(ws: Workspace) -> None:
    app = H2QApp(ws, interval=0.5)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press(DIGIT)
        await pilot.press("m")
        await until(pilot, lambda: "muted until" in text_of(app))
        await pilot.press("m")
        await until(pilot, lambda: muted_until(ws) is None and "muted until" not in text_of(app))


async def test_a_test_message_reaches_the_channel(ws: Workspace) -> None:
    with http_server() as server:
        add_channel(ws, "hook", "webhook", {"password": f"http://127.0.0.1:{server.port}/", "private": "yes"})
        app = H2QApp(ws, settings=load_settings(ws), interval=0.5)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press(DIGIT)
            await pilot.press("T")
            await until(pilot, lambda: "hook: sent" in text_of(app))
    assert len(server.requests) == 1


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50)])
async def test_the_panels_fill_the_window_and_the_alerts_end_it(ws: Workspace, size: tuple[int, int]) -> None:
    put_alert(ws)
    app = H2QApp(ws, interval=0.5)
    async with app.run_test(size=size) as pilot:
        await pilot.press(DIGIT)
        tab = tab_of(app)
        await until(pilot, lambda: tab.snapshot is not None and bool(tab.alerts.open))

        def fills_the_window() -> bool:
            alerts = tab.query_one("#health-alerts").region
            ends = tab.region.bottom - 2 <= alerts.bottom <= tab.region.bottom
            return alerts.height >= 5 and ends and not tab.query_one("#health-scroll").max_scroll_y

        # Graphs take what the lines of the panels leave, so their heights follow the first figures.
        await until(pilot, fills_the_window)


def test_the_diagnosis_joins_both_sides() -> None:
    run = RunReading(run_id="a", tokens_per_s=590.0, usual_tokens_per_s=1000.0, slow_since=0.0)
    machine = MachineReading(t=0.0, swap_grown=2 * 2**30, ollama_models=("qwen3:8b",))
    assert diagnose(machine, run) == "tokens/s −41 % since 00:00: swap +2.0 GB, ollama holds qwen3:8b"
    well = RunReading(run_id="a", tokens_per_s=990.0, usual_tokens_per_s=1000.0)
    assert diagnose(machine, well) == ""
