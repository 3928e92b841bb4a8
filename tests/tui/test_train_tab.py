"""The Train tab on journals that an engine could have written."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from engine.core.i18n import set_language
from engine.core.paths import Workspace
from engine.runs import control
from engine.runs.control import Reply
from engine.runs.events import (
    CommandHandled,
    Evaluated,
    Log,
    ModelSample,
    RunStatus,
    StatusChanged,
    VerdictGiven,
)
from engine.runs.kinds import TrainParams
from engine.runs.rundir import RunDir
from engine.runs.spec import RunSpec, params_of
from tests.tui.helpers import text_of, until
from tests.tui.live_run import LiveRun, live_run
from tui.app.app import H2QApp
from tui.screens.ask import Confirm, LinePrompt
from tui.tabs.train.samples import SamplePane
from tui.widgets.log import LogPane
from tui.widgets.virtual_list import VirtualList


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


async def test_without_a_run_the_tab_shows_how_to_start_one(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "n starts one" in text_of(app))


async def test_a_live_run_is_followed(ws: Workspace) -> None:
    app = H2QApp(ws)
    with live_run(ws, done=60) as run:
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: "2.1 of 4.0 GB" in text_of(app))
            screen = text_of(app)
            assert "best" in screen
            assert "28.4k tok/s" in screen
            assert any("\u2801" <= c <= "\u28ff" for c in screen), "a curve"
            assert "2.1/4.0G" in screen.splitlines()[0]
            run.step(61, speed=31_000.0)
            run.write(Log(level="info", text="something new"))
            await until(pilot, lambda: "31.0k tok/s" in text_of(app) and "something new" in text_of(app))


async def test_a_pause_is_seen_in_the_list_as_soon_as_in_the_figures(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui.host.run_follower.LIST_S", 60.0)
    app = H2QApp(ws)
    with live_run(ws) as run:
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: "● " + run.dir.run_id[:9] in text_of(app) and "tok/s" in text_of(app))
            run.write(StatusChanged(status=RunStatus.PAUSED))
            await until(pilot, lambda: "‖ " + run.dir.run_id[:9] in text_of(app))
            run.write(StatusChanged(status=RunStatus.RUNNING))
            await until(pilot, lambda: "● " + run.dir.run_id[:9] in text_of(app))


async def test_a_run_that_starts_while_the_app_is_open_is_shown(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "n starts one" in text_of(app))
        with live_run(ws) as run:
            await until(pilot, lambda: run.dir.run_id[:9] in text_of(app) and "loss" in text_of(app))
        await until(pilot, lambda: "✓ " + run.dir.run_id[:9] in text_of(app))
        assert "nothing running" in text_of(app).splitlines()[0]


async def test_a_dead_run_is_shown_as_dead(ws: Workspace) -> None:
    run = LiveRun(ws)
    run.step(1)
    run.die()
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "dead" in text_of(app))
        assert "✗ " + run.dir.run_id[:9] in text_of(app)


async def test_a_failed_run_shows_its_error(ws: Workspace) -> None:
    run = LiveRun(ws)
    run.end(RunStatus.FAILED, "the disk is full")
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "the disk is full" in text_of(app))


async def test_a_long_history_is_shown_to_its_last_step(ws: Workspace) -> None:
    run = LiveRun(ws, steps=20_000)
    for number in range(1, 20_001):
        run.step(number)
    run.end()
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "tok/s" in text_of(app))
        entry = app.board.runs[0]
        view = app.board.view(entry.run_id)
        assert view is not None
        assert view.step == 20_000


async def test_hostile_text_in_a_journal_is_shown_as_text(ws: Workspace) -> None:
    app = H2QApp(ws)
    with live_run(ws) as run:
        run.write(Log(level="error", text="\x1b]0;pwned\x07 [red]x[/] [@click=app.quit]y[/] \u202ez\x9b2J"))
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: "[@click=app.quit]y[/]" in text_of(app))
            screen = text_of(app)
            assert "␛]0;pwned␇ [red]x[/]" in screen
            assert "<U+202E>z<U+009B>2J" in screen
            assert not {c for c in screen if c != "\n" and not c.isprintable()}


def sample(step: int, text: str) -> ModelSample:
    return ModelSample(phase="native", step=step, prompt="How do I make tea?", text=text, own=True)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_what_the_model_writes_is_shown_newest_on_top(ws: Workspace, size: tuple[int, int]) -> None:
    app = H2QApp(ws)
    with live_run(ws) as run:
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: "tok/s" in text_of(app))
            assert "Learning rate" in text_of(app), "without samples there is something else to see"
            run.write(sample(10, "[red]tee tee[/] \x1b[2J"))
            run.write(sample(20, "Boil some 水"))
            await until(pilot, lambda: "Boil some 水" in text_of(app))
            pane = app.query_one(SamplePane)
            rows = pane.text.splitlines()
            assert rows == [
                "step 20  How do I make tea?",
                "  Boil some 水",
                "step 10  How do I make tea?",
                "  [red]tee tee[/] ␛[2J",
            ]
            pane.scroll_to(y=pane.max_scroll_y, animate=False)
            await pilot.pause()
            shown, before = pane.text.splitlines(), int(pane.scroll_offset.y)
            run.write(sample(30, "Boil some water."))
            await until(pilot, lambda: "Boil some water." in pane.text)
            if before:
                assert pane.text.splitlines()[int(pane.scroll_offset.y)] == shown[before]
            await pilot.press("v")
            await until(pilot, lambda: "Learning rate" in text_of(app))


async def test_a_scrolled_up_log_keeps_its_place(ws: Workspace) -> None:
    app = H2QApp(ws)
    with live_run(ws) as run:
        for number in range(50):
            run.write(Log(level="info", text=f"line {number}"))
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: "line 49" in text_of(app))
            log = app.query_one(LogPane)
            log.focus()
            await pilot.press("home")
            await until(pilot, lambda: "line 49" not in text_of(app))
            before = log.scroll_offset
            run.write(Log(level="info", text="the newest"))
            await until(pilot, lambda: log.count > 52)
            assert log.scroll_offset == before
            assert "the newest" not in text_of(app)
            await until(pilot, lambda: "▼ 1 new line, G: follow" in text_of(app))
            await pilot.press("G")
            await until(pilot, lambda: "the newest" in text_of(app))
            assert "new line" not in text_of(app)


async def test_a_log_follows_its_end_through_other_sizes_and_views(ws: Workspace) -> None:
    app = H2QApp(ws)
    with live_run(ws) as run:
        for number in range(80):
            run.write(Log(level="info", text="long " * 30 + f"line {number}"))
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: "line 79" in text_of(app))
            for size in ((80, 24), (160, 50), (80, 24), (120, 40)):
                await pilot.resize_terminal(*size)
                await pilot.press("o")
                await pilot.pause()
                await pilot.press("o")
                await until(pilot, lambda: "line 79" in text_of(app))
            run.write(Log(level="info", text="the newest"))
            await until(pilot, lambda: "the newest" in text_of(app))


async def test_commands_are_sent_and_their_replies_shown(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, str]] = []

    async def send(_run: RunDir, name: str, value: str = "") -> Reply:
        sent.append((name, value))
        return Reply(True, f"did {name}")

    monkeypatch.setattr(control, "send", send)
    app = H2QApp(ws)
    with live_run(ws):
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: "tok/s" in text_of(app))
            await pilot.press("s")
            await until(pilot, lambda: "did checkpoint" in text_of(app))
            await pilot.press("space")
            await until(pilot, lambda: "did pause" in text_of(app))
            await pilot.press("x")
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press("escape")
            await until(pilot, lambda: len(app.screen_stack) == 1)
            await pilot.press("x")
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press("y")
            await until(pilot, lambda: "did stop" in text_of(app))
            await pilot.press("L")
            await until(pilot, lambda: isinstance(app.screen, LinePrompt))
            await pilot.press("ctrl+u", "ctrl+k", *"zero", "enter")
            await until(pilot, lambda: "a number" in text_of(app))
            await pilot.press("ctrl+u", *"0.01", "enter")
            await until(pilot, lambda: "did set" in text_of(app))
    assert sent == [("checkpoint", ""), ("pause", ""), ("stop", ""), ("set", "lr=0.01")]


async def test_a_rate_that_is_typed_replaces_the_peak_of_the_schedule(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, str]] = []

    async def send(_run: RunDir, name: str, value: str = "") -> Reply:
        sent.append((name, value))
        return Reply(True, f"did {name}")

    monkeypatch.setattr(control, "send", send)
    app = H2QApp(ws)
    with live_run(ws, done=150) as run:
        async with app.run_test(size=(100, 24)) as pilot:
            await until(pilot, lambda: "tok/s" in text_of(app))
            await pilot.press("L")
            await until(pilot, lambda: isinstance(app.screen, LinePrompt))
            assert "0.02" in text_of(app).splitlines()[-1], "the peak, not the rate that has decayed"
            await pilot.press("enter")
            await until(pilot, lambda: len(app.screen_stack) == 1)
            assert sent == [], "the same rate is no change"
            await pilot.press("L")
            await until(pilot, lambda: isinstance(app.screen, LinePrompt))
            await pilot.press(*"0.01", "enter")
            await until(pilot, lambda: sent == [("set", "lr=0.01")])
            run.write(CommandHandled(name="set", value="lr=0.01", accepted=True))
            await until(pilot, lambda: "by hand 1" in text_of(app))
            await pilot.press("L")
            await until(pilot, lambda: "0.01 " in text_of(app).splitlines()[-1])


async def test_marked_runs_are_laid_over_each_other_with_a_table(ws: Workspace) -> None:
    first = LiveRun(ws, now=1000.0)
    for number in range(1, 201):
        first.step(number)
        if number % 50 == 0:
            first.write(Evaluated(phase="native", step=number, name="general", loss=1.75))
    first.write(
        VerdictGiven(base="a", new="b", decision="promote", sentence="s", verdict=msgspec.Raw(b"null"))
    )
    first.end()
    app = H2QApp(ws)
    with live_run(ws, done=60) as run:
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: "tok/s" in text_of(app))
            assert "c compare" not in text_of(app).splitlines()[-1]
            await pilot.press("m", "j", "m")
            await until(pilot, lambda: f"b {first.dir.run_id[:9]}" in text_of(app))
            assert f"a {run.dir.run_id[:9]}" in text_of(app)
            await pilot.press("c")
            await until(pilot, lambda: "PROMOTE" in text_of(app))
            screen = text_of(app)
            rows = [line for line in screen.splitlines() if "native" in line]
            assert len(rows) == 2
            assert "1.750" in rows[1] and "200" in rows[1] and "28.4k" in rows[1]
            assert "–" in rows[0] and "60" in rows[0]
            plot = "\n".join(screen.splitlines()[:-5])
            assert "a" in plot and "b" in plot and any("\u2801" <= c <= "\u28ff" for c in plot)
            assert any("B" in line and "A held out" not in line for line in plot.splitlines()), (
                "held out of b"
            )
            run.step(61)
            await until(pilot, lambda: any(" 61 " in line for line in text_of(app).splitlines()))
            await pilot.press("escape")
            await until(pilot, lambda: len(app.screen_stack) == 1)
            await pilot.press("m")
            await until(pilot, lambda: f"b {first.dir.run_id[:9]}" not in text_of(app))


async def test_no_more_than_four_runs_are_marked(ws: Workspace) -> None:
    for number in range(5):
        LiveRun(ws, now=1000.0 + number).end()
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: len(app.board.runs) == 5)
        for _time in range(5):
            await pilot.press("m", "j")
        await until(pilot, lambda: "at most 4 runs" in text_of(app))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
@pytest.mark.parametrize("lang", ["en", "zh"])
async def test_space_resumes_a_dead_training_run(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], lang: str
) -> None:
    begun: list[LiveRun] = []

    def launch(workspace: Workspace, spec: RunSpec) -> RunDir:
        begun.append(LiveRun(workspace, spec=spec))
        return begun[-1].dir

    monkeypatch.setattr("engine.runs.launch.launch", launch)
    dead, ended = LiveRun(ws, now=1000.0), LiveRun(ws, now=2000.0)
    dead.die()
    ended.end()
    set_language(lang)
    word = "resume" if lang == "en" else "继续"
    try:
        async with H2QApp(ws).run_test(size=size) as pilot:
            app = pilot.app
            await until(pilot, lambda: "✗ " + dead.dir.run_id[:9] in text_of(app))
            assert word not in text_of(app).splitlines()[-1]
            await pilot.press("space", "G")  # the newest one ended well: nothing to resume
            await until(pilot, lambda: f"space {word}" in text_of(app).splitlines()[-1])
            await pilot.press("space", "space")
            await until(pilot, lambda: len(begun) == 1 and "● " + begun[0].dir.run_id[:9] in text_of(app))
            params = params_of(begun[0].dir.spec, TrainParams)
            assert params.resume == dead.dir.run_id
            begun[0].end()
    finally:
        set_language("en")
    assert len(begun) == 1


async def test_a_run_that_does_not_answer_is_one_sentence(ws: Workspace) -> None:
    app = H2QApp(ws)
    run = LiveRun(ws)
    run.step(1)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "tok/s" in text_of(app))
        run.die()
        await pilot.press("s")
        await until(pilot, lambda: "is not running" in text_of(app))


async def test_brackets_step_through_the_runs(ws: Workspace) -> None:
    older = LiveRun(ws, now=time.time() - 100)
    older.end()
    newer = LiveRun(ws)
    newer.end()
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        table = app.query_one("#runs", VirtualList)
        await until(pilot, lambda: table.cursor_id == newer.dir.run_id)
        await pilot.press("right_square_bracket")
        assert table.cursor_id == older.dir.run_id
        await pilot.press("left_square_bracket")
        assert table.cursor_id == newer.dir.run_id


async def test_o_shows_the_log_alone_and_y_the_logarithmic_axis(ws: Workspace) -> None:
    app = H2QApp(ws)
    with live_run(ws):
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: "tok/s" in text_of(app))
            await pilot.press("Y")
            await until(pilot, lambda: "(log)" in text_of(app))
            await pilot.press("o")
            await until(pilot, lambda: "Learning rate" not in text_of(app))
            await pilot.press("o")
            await until(pilot, lambda: "Learning rate" in text_of(app))


async def test_the_legend_is_laid_out_again_when_the_curves_come_back(ws: Workspace) -> None:
    with live_run(ws):
        pass
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "step 60 of 200" in text_of(app))
        await pilot.press("o", "v", "o")
        await until(pilot, lambda: "smoothed" in text_of(app))


async def test_a_run_that_did_not_train_gives_its_room_to_the_log(ws: Workspace) -> None:
    run = LiveRun(ws)
    run.end(RunStatus.FAILED, "the file is empty")
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "the file is empty" in text_of(app))
        await until(pilot, lambda: "Learning rate" not in text_of(app))
        assert app.query_one("#log-panel").size.height > 10
