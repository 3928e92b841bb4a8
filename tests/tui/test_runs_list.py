"""The list of runs: which are shown, and what stands beside one that trained nothing."""

from __future__ import annotations

from pathlib import Path

from engine.core.paths import Workspace
from engine.runs.events import Funnel, Log
from engine.runs.kinds import CorpusParams
from engine.runs.spec import make_spec
from tests.tui.helpers import text_of, until
from tests.tui.live_run import LiveRun
from tui.app.app import H2QApp
from tui.tabs.train.tab import TrainTab

BEGAN = 1_793_000_000.0
FUNNEL = Funnel(
    collected=700, dropped={"near": 30}, redacted=0, duplicates=30, pending=0, accepted=670, rejected=0, train=570, test=100
)  # fmt: skip


async def test_z_hides_what_does_not_train_and_a_build_is_shown_by_its_counts(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    training = LiveRun(ws, now=BEGAN)
    training.step(1)
    training.end()
    build = LiveRun(ws, spec=make_spec(ws.root, CorpusParams(), now=BEGAN + 900))
    build.write(FUNNEL)
    build.end()
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "collected" in text_of(app))
        screen = text_of(app)
        assert "accepted" in screen and "670" in screen and "near" in screen
        assert "Loss" not in screen
        tab = app.tab
        assert isinstance(tab, TrainTab)
        await pilot.press("z")
        await until(pilot, lambda: list(tab.runs.ids) == [training.dir.run_id])
        await until(pilot, lambda: "z: 1 more" in text_of(app) and "Loss" in text_of(app))
        await pilot.press("ctrl+p", *build.dir.run_id, "enter")
        await until(pilot, lambda: tab.runs.cursor_id == build.dir.run_id)
        assert len(tab.runs.ids) == 2


async def test_d_shows_what_the_program_measured_for_itself(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    run = LiveRun(ws, now=BEGAN)
    run.write(Log(level="info", text="for a person"))
    run.write(Log(level="detail", text="kernels 0.57x"))
    run.step(1)
    app = H2QApp(ws)
    async with app.run_test(size=(100, 40)) as pilot:
        await until(pilot, lambda: "for a person" in text_of(app))
        assert "kernels" not in text_of(app)
        await pilot.press("d")
        await until(pilot, lambda: "kernels 0.57x" in text_of(app))
        run.write(Log(level="detail", text="threads 2"))
        await until(pilot, lambda: "threads 2" in text_of(app))
        await pilot.press("d")
        await until(pilot, lambda: "kernels" not in text_of(app) and "threads" not in text_of(app))
        run.write(Log(level="detail", text="threads 3"))
        run.write(Log(level="info", text="the end"))
        await until(pilot, lambda: "the end" in text_of(app))
        assert "threads 3" not in text_of(app)
    run.end()
