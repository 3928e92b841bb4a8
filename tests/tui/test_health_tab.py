"""The Health tab: the machine in panels, looked at only while somebody sees it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from textual.content import Content

from engine.alerts.alert_state import observe, speak
from engine.alerts.desk import add_channel, muted_until, open_alerts
from engine.alerts.diagnosis import diagnose
from engine.alerts.message import MessagePlace, compose
from engine.alerts.readings import MachineReading, Observation, ObservationState, RunReading
from engine.alerts.silence import Silence
from engine.alerts.store import AlertStore
from engine.core.config import load_settings
from engine.core.paths import Workspace
from engine.machine.accelerators import GpuSample
from engine.machine.core_groups import CoreGroup
from engine.machine.history import MachineHistory
from engine.machine.probes import MachineSample
from engine.machine.recording import RunFigures, record
from engine.runs.view import RunView
from engine.sinks.peers import PeerReading
from tests.alert_servers import http_server
from tests.tui.helpers import text_of, until
from tests.tui.live_run import live_run
from tui.app.app import H2QApp
from tui.tabs.health.alerts_text import AlertBoard, alert_lines
from tui.tabs.health.layout import TWO_COLUMNS, panel_rows, row_heights
from tui.tabs.health.machine_text import cpu_lines, device_lines, memory_lines
from tui.tabs.health.run_text import training_lines
from tui.tabs.health.scene import RANGES, MachineScene
from tui.tabs.health.tab import HealthTab
from tui.tabs.registry import TABS
from tui.terminal.glyphs import ASCII, UNICODE, Glyphs

DIGIT = str(1 + [row.id for row in TABS].index("health"))
GB = 1 << 30
NOON = 1_800_000_000.0
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
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: app.board.current is not None)
            await pilot.press(DIGIT)
            await until(pilot, lambda: "step 7 of 200" in text_of(app) and "budget" in text_of(app))
            screen = text_of(app)
            assert run.dir.run_id[:9] in screen
            for words in ("CPU", "load", "of", "free", "budget", "colours", "not started"):
                assert words in screen


async def test_the_machine_is_sampled_from_the_start_and_the_rest_only_while_the_tab_is_shown(
    ws: Workspace,
) -> None:
    app = H2QApp(ws, interval=0.5)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: len(app.machine.history) > 1)
        assert not [worker for worker in app.workers if worker.group.startswith("health")]
        await pilot.press(DIGIT)
        tab = tab_of(app)
        await until(pilot, lambda: tab.readings.limits is not None)
        await pilot.press("1")
        await until(pilot, lambda: not [one for one in app.workers if one.group.startswith("health")])
        count = len(app.machine.history)
        await until(pilot, lambda: len(app.machine.history) > count)


async def test_comma_and_dot_change_the_interval(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(DIGIT)
        await pilot.press("comma")
        assert app.interval == 1.0
        await pilot.press("full_stop", "full_stop")
        assert app.interval == 5.0
        await until(pilot, lambda: "every 5 s" in text_of(app))


def scene(
    *samples: MachineSample, run: RunFigures | None = None, glyphs: Glyphs = UNICODE, colours: int = 256
) -> MachineScene:
    history = MachineHistory()
    for sample in samples:
        history.add(record(sample, run or RunFigures()))
    return MachineScene(samples[-1], history, glyphs, colours=colours)


def busy(**values: object) -> MachineSample:
    figures: dict[str, object] = {
        "time": NOON,
        "cpu_percent": [10.0, 30.0, 90.0, 100.0],
        "load": (1.0, 2.0, 3.0),
        "memory_total": 16 * GB,
        "memory_used": 8 * GB,
        "memory_cached": 4 * GB,
        "swap_total": 4 * GB,
        "swap_used": GB,
        "disk_free": 50 * GB,
        "disk_total": 100 * GB,
        "core_groups": (CoreGroup("performance", (2, 3)), CoreGroup("efficiency", (0, 1))),
    }
    return msgspec.structs.replace(NOTHING, **{**figures, **values})


def text(lines: Sequence[Content]) -> str:
    return "\n".join(line.plain for line in lines)


def test_missing_figures_are_shown_as_unknown() -> None:
    empty = scene(NOTHING)
    shown = text([*cpu_lines(empty, 36, 6), *memory_lines(empty, 36, 6), *device_lines(empty, 36, 6)])
    assert shown.count("unknown") == 6 and "– °C" in shown
    assert training_lines(empty, None, "", 36, 6, now=0.0)[0].plain == "nothing running"


@pytest.mark.parametrize("width", [36, 56, 116, 196])
@pytest.mark.parametrize("height", [3, 4, 5, 6, 9, 14])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_a_panel_has_as_many_lines_as_it_is_high_and_none_is_wider(
    width: int, height: int, glyphs: Glyphs
) -> None:
    one = scene(busy(), run=RunFigures(memory=2 * GB, budget=4 * GB), glyphs=glyphs)
    for lines in (
        cpu_lines(one, width, height),
        memory_lines(one, width, height, run=2 * GB, budget=4 * GB),
        device_lines(one, width, height),
    ):
        assert len(lines) <= max(3, height)
        assert all(line.cell_length <= width for line in lines)
        assert not glyphs.ascii or text(lines).replace("–", "").replace("°", "").isascii()


@pytest.mark.parametrize("width", [1, 36, 116, 196, 400])
def test_a_graph_has_a_value_for_each_column_and_moves_at_most_with_every_second_sample(width: int) -> None:
    history, moved, before = MachineHistory(), 0, None
    for second in range(0, 120, 2):
        sample = busy(time=NOON + second, cpu_percent=[float(second % 40)], core_groups=())
        history.add(record(sample, RunFigures()))
        shown = MachineScene(sample, history, UNICODE).columns("cpu_1", width)
        assert len(shown) == width and shown[-1] is not None
        moved += before is not None and shown[:-12] != before[:-12]
        before = shown
    assert moved <= 31


def test_each_group_of_cores_has_a_graph_where_there_is_room() -> None:
    high = text(cpu_lines(scene(busy()), 80, 8))
    assert "performance cores 95 %" in high and "efficiency cores 20 %" in high
    low = text(cpu_lines(scene(busy()), 80, 4))
    assert "performance" not in low and "58 %" in low


def test_the_memory_is_stacked_against_the_budget() -> None:
    one = scene(busy(), run=RunFigures(memory=2 * GB, budget=4 * GB))
    lines = memory_lines(one, 40, 11, run=2 * GB, budget=4 * GB)
    graph = lines[:8]
    # 16 GB in 8 rows: 2 GB a row. Run 2, others 6, cache 4, and the budget at 4.
    assert ["█" in line.plain or "─" in line.plain for line in graph] == [False] * 2 + [True] * 6
    assert "─" in graph[5].plain and graph[6].plain.strip() == graph[7].plain.strip() != ""
    assert "run 2.0" in text(lines) and "others 6.0" in text(lines) and "cache 4.0" in text(lines)
    assert "used 8.0 of 16.0 GB, budget 4.0" in text(lines) and "swap 1.0 of 4.0 GB" in text(lines)


def test_without_colours_the_layers_have_signs_of_their_own() -> None:
    one = scene(busy(), run=RunFigures(memory=2 * GB), colours=0)
    shown = text(memory_lines(one, 40, 11, run=2 * GB))
    assert all(sign in shown for sign in "█▓░")


def test_a_growing_swap_is_said() -> None:
    before = busy(time=NOON - 300, swap_used=GB // 2)
    line = memory_lines(scene(before, busy(swap_used=3 * GB)), 60, 6)[-1]
    assert ", +2.5 in 10 min" in line.plain


def test_the_disk_has_its_rate_and_the_time_until_it_is_full() -> None:
    one = busy(disk_fill_rate=GB / 3600, disk_full_in_s=50 * 3600.0, disk_read_rate=2e6, disk_write_rate=3e6)
    shown = text(device_lines(scene(one), 60, 4))
    assert "free 50.0 of 100 GB, full in 2 days" in shown
    assert "read 2.0, write 3.0 MB/s, −1.0 GB/h" in shown


def test_graphics_pressure_and_other_machines_are_shown() -> None:
    gpu = GpuSample(
        name="H200",
        busy_percent=87.0,
        memory_used=40 * GB,
        memory_total=140 * GB,
        temperature_c=61.0,
        power_w=312.0,
    )
    one = busy(gpus=(gpu,), cpu_stalled_percent=50.0, memory_stalled_percent=12.0, io_stalled_percent=0.0)
    peers = [
        PeerReading(name="mini", t=NOON, cpu_percent=12.0, memory_percent=45.0, training=True, loss=1.5),
        PeerReading(name="pi", t=NOON, error="silent"),
    ]
    shown = text(device_lines(scene(one), 70, 9, peers))
    assert "H200  87 %  40.0 of 140 GB  61 °C  312 W" in shown
    assert "waiting: cpu 50, memory 12, disk 0 %" in shown
    assert "● mini  cpu 12 %  memory 45 %  loss 1.500" in shown and "▲ pi  no answer" in shown


def test_a_run_without_recent_events_is_highlighted() -> None:
    view = RunView(None)
    view.updated_at = 0.0
    lines = training_lines(scene(NOTHING), view, "1121-0000", 36, 6, now=90.0)
    assert "01:30" in lines[-1].plain
    assert "warning" in str(lines[-1].spans)


@pytest.mark.parametrize(
    ("width", "height"), [(60, 18), (80, 22), (100, 30), (120, 38), (200, 48), (119, 60), (300, 90)]
)
def test_the_rows_of_the_panels_fill_the_window(width: int, height: int) -> None:
    rows = panel_rows(width, height)
    heights = row_heights(rows, height)
    assert all(one >= row.least for one, row in zip(heights, rows, strict=True))
    assert sum(heights) == (height if width >= TWO_COLUMNS else sum(row.least for row in rows))
    assert all(sum(span for _name, span in row.panels) == 6 for row in rows)


def test_alerts_are_wrapped_where_they_all_fit() -> None:
    board = AlertBoard(
        diagnosis="tokens/s −41 % since 14:02: swap +1.8 GB, ollama holds qwen3:8b", channels=1
    )
    assert "qwen3:8b" in text(alert_lines(board, UNICODE, 36, 5))
    assert len(alert_lines(board, UNICODE, 36, 1)) == 1


async def test_the_brackets_change_how_far_the_graphs_reach_back(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(DIGIT)
        tab = tab_of(app)
        for key, span in [("]", 900), ("]", 3600), ("]", 21600), ("]", 86400), ("]", 86400), ("[", 21600)]:
            await pilot.press({"]": "right_square_bracket", "[": "left_square_bracket"}[key])
            assert tab.span == span
        await until(pilot, lambda: "6 h" in text_of(app))
        assert len(RANGES) == 5


async def test_the_processes_are_filtered_and_escape_shows_all(ws: Workspace) -> None:
    app = H2QApp(ws, interval=0.5)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press(DIGIT)
        tab = tab_of(app)
        await until(pilot, lambda: len(tab.processes.ids) > 1)
        await pilot.press("slash", *"no such name", "enter")
        await until(pilot, lambda: not tab.processes.ids and "no process has these words" in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: len(tab.processes.ids) > 1)


async def test_only_processes_of_own_runs_can_be_ended(ws: Workspace) -> None:
    app = H2QApp(ws, interval=0.5)
    async with app.run_test(size=(120, 40)) as pilot:
        with live_run(ws, done=7) as run:
            await until(pilot, lambda: app.board.current is not None)
            await pilot.press(DIGIT)
            tab = tab_of(app)
            # The run of this test is this process itself.
            await until(
                pilot,
                lambda: (
                    bool(tab.processes.ids) and bool(tab.processes.current and tab.processes.current.run_id)
                ),
            )
            await pilot.press("x")
            await until(pilot, lambda: f"stop run {run.dir.run_id[:9]}?" in text_of(app))
            await pilot.press("n")
            await pilot.press("G")
            row = tab.processes.current
            assert row is not None and not row.run_id
            await pilot.press("x")
            await until(pilot, lambda: "only your own runs" in text_of(app))


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
        await until(pilot, lambda: "disk almost full" in text_of(app))
        assert "a acknowledge" in text_of(app) and "where alerts are sent" in text_of(app)
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
        await until(pilot, lambda: app.machine.sample is not None and bool(tab.alerts.open))

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
