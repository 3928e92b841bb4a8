"""How much of a run is done, and how long it still takes."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.paths import Workspace
from engine.runs.estimates import MeasuredRun, RunHistory, Workload, estimate, estimate_evolution, stages_of
from engine.runs.event_text import format_about, work_text
from engine.runs.events import (
    Event,
    Finished,
    JournalRecord,
    MemoryUsage,
    Progress,
    RunStatus,
    StageChanged,
    Started,
    StatusChanged,
    Step,
    TrainingPlan,
    WorkPlan,
)
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.spec import make_spec
from engine.runs.view import RunView
from engine.runs.work import work_done
from tests.tui.live_run import LiveRun
from tests.unit.test_run_text import BEGUN, STEP, view_of
from tui.tabs.train.run_estimate import estimate_line, evolution_line

PLAN = WorkPlan(seconds={"corpus": 10.0, "native": 100.0, "validate": 50.0, "promote": 1.0})


def at_times(*events: tuple[float, Event]) -> RunView:
    view = RunView(None)
    for seq, (t, event) in enumerate(events):
        view.apply(JournalRecord(seq, t, event))
    return view


@pytest.mark.parametrize(
    ("events", "share"),
    [
        ((), None),
        (BEGUN, 1 / 3),
        ((*BEGUN, STEP), (1 + 0.25) / 3),
        ((*BEGUN, Progress(stage="native", done=1, total=2)), 0.5),
        ((*BEGUN, StageChanged(name="native", state="done", index=2, total=3)), 2 / 3),
        ((Started(pid=1, program="t"), StageChanged(name="native", state="started"), STEP), 0.25),
    ],
)
def test_the_share_done_counts_stages_alike(events: tuple[Event, ...], share: float | None) -> None:
    found = work_done(view_of(*events), 1010.0).share
    assert found == (None if share is None else pytest.approx(share))


def stage(name: str, state: str = "started") -> StageChanged:
    return StageChanged(name=name, state=state)


def step(eta_s: float) -> Step:
    return msgspec.structs.replace(STEP, eta_s=eta_s)


def test_the_share_is_the_time_done_of_the_time_of_the_whole_run() -> None:
    view = at_times((0.0, Started(pid=1, program="t")), (0.0, PLAN), (0.0, stage("corpus")))
    begin = work_done(view, 6.0)
    assert begin.share is not None and begin.share < 0.05, "not a third after six seconds"
    assert begin.left_s == pytest.approx(4 + 100 + 50 + 1)
    view = at_times(
        (0.0, Started(pid=1, program="t")), (0.0, PLAN), (0.0, stage("corpus")), (20.0, stage("corpus", "done")),
        (20.0, stage("native")), (60.0, step(80.0)),
    )  # fmt: skip
    work = work_done(view, 70.0)
    assert work.left_s == pytest.approx(70 + 50 + 1), "the measured time of the phase replaces its estimate"
    assert work.share == pytest.approx(70 / (70 + 121))
    assert work_text(work) == "36 %, 02:01 left"


def test_a_pause_is_no_work_and_takes_no_time_left() -> None:
    events: list[tuple[float, Event]] = [
        (0.0, Started(pid=1, program="t")), (0.0, PLAN), (0.0, stage("native")), (40.0, step(60.0)),
        (40.0, StatusChanged(status=RunStatus.PAUSED)),
    ]  # fmt: skip
    early, late = (work_done(at_times(*events), now) for now in (41.0, 500.0))
    assert (early.share, early.left_s, early.active_s) == (late.share, late.left_s, late.active_s)
    assert late.paused_s == pytest.approx(460)
    events += [(505.0, StatusChanged(status=RunStatus.RUNNING)), (505.0, step(60.0))]
    work = work_done(at_times(*events), 515.0)
    assert work.active_s == pytest.approx(50) and work.paused_s == pytest.approx(465)
    events += [(605.0, stage("native", "done"))]
    assert at_times(*events).summary(alive=True).stage_seconds == {"native": 140.0}
    assert at_times(*events).summary(alive=True).paused_s == 465.0


def test_waiting_for_another_run_is_no_work() -> None:
    view = at_times(
        (0.0, Started(pid=1, program="t")), (0.0, StatusChanged(status=RunStatus.QUEUED)),
        (300.0, StatusChanged(status=RunStatus.RUNNING)), (300.0, PLAN), (300.0, stage("corpus")),
    )  # fmt: skip
    work = work_done(view, 302.0)
    assert (work.active_s, work.paused_s) == (2.0, 0.0)


def test_a_stage_that_takes_longer_than_expected_is_not_done() -> None:
    view = at_times((0.0, Started(pid=1, program="t")), (0.0, PLAN), (0.0, stage("validate")))
    work = work_done(view, 1000.0)
    assert work.left_s is not None and work.left_s >= 2.5
    assert work.share is not None and work.share < 1


_events = st.sampled_from(
    [
        PLAN,
        STEP,
        MemoryUsage(used_mb=1.0, peak_mb=1.0, budget_mb=2.0),
        *(stage(name, state) for name in PLAN.seconds for state in ("started", "done", "failed")),
        *(StatusChanged(status=status) for status in (RunStatus.PAUSED, RunStatus.RUNNING, RunStatus.QUEUED)),
        Progress(stage="corpus", done=5, total=10, eta_s=3.0),
        Finished(status=RunStatus.DONE, exit_code=0),
        Started(pid=1, program="t"),
    ]
)


@given(st.lists(st.tuples(st.floats(0, 50), _events), max_size=25), st.floats(0, 100))
def test_any_run_has_figures_within_their_bounds(gaps: list[tuple[float, Event]], later: float) -> None:
    times = list(itertools.accumulate(gap for gap, _event in gaps))
    view = at_times(*zip(times, (event for _gap, event in gaps), strict=True))
    work = work_done(view, (times[-1] if times else 0.0) + later)
    assert work.share is None or 0 <= work.share <= 1
    assert work.left_s is None or work.left_s >= 0
    assert work.paused_s >= 0
    assert work.active_s >= 0
    assert work_text(work).isprintable()


def finished_run(ws: Workspace, conversations: int, seconds: dict[str, float], params: TrainParams) -> str:
    """A run that took `seconds` for its stages."""
    now = [1000.0]
    run = LiveRun(ws, spec=make_spec(ws.root, params), clock=lambda: now[0])
    run.write(
        TrainingPlan(
            text="t", pairs=conversations, train_conversations=conversations, test_conversations=20,
            test_clusters=20, verdict_possible=True,
        )
    )  # fmt: skip
    for name, taken in seconds.items():
        run.write(stage(name))
        now[0] += taken
        run.write(msgspec.structs.replace(STEP, phase=name, step=60, max_steps=60))
        run.write(stage(name, "done"))
    run.write(MemoryUsage(used_mb=640.0, peak_mb=812.0, budget_mb=4096.0))
    run.end()
    return run.dir.run_id


def history(tmp_path: Path, params: TrainParams) -> list[MeasuredRun]:
    ws = Workspace(tmp_path)
    finished_run(ws, 200, {"corpus": 8.0, "native": 60.0, "validate": 30.0, "promote": 1.0}, params)
    return RunHistory(ws).runs()


def test_an_estimate_is_that_of_an_earlier_run_scaled_to_the_data(tmp_path: Path) -> None:
    runs = history(tmp_path, TrainParams(mode=TrainMode.NATIVE))
    found = estimate(Workload(TrainMode.NATIVE, conversations=400), runs)
    assert found.run == runs[0].run
    assert found.seconds == {"corpus": 16.0, "native": 120.0, "validate": 60.0, "promote": 2.0}
    assert found.steps == 120
    assert found.memory_mb == 812.0


@pytest.mark.parametrize(
    "load",
    [
        Workload(TrainMode.NATIVE, conversations=5000),
        Workload(TrainMode.LORA, conversations=200, base="x", base_parameters=135e6),
        Workload(TrainMode.SCRATCH, text_bytes=1_000_000),
    ],
    ids=["of another size", "of another mode", "from text"],
)
def test_what_no_earlier_run_is_like_is_a_rough_estimate(tmp_path: Path, load: Workload) -> None:
    found = estimate(load, history(tmp_path, TrainParams(mode=TrainMode.NATIVE)))
    assert found.run == ""
    assert tuple(found.seconds) == stages_of(load)
    assert all(seconds > 0 for seconds in found.seconds.values())


def test_a_time_limit_is_kept_and_a_limited_run_tells_nothing_of_a_whole_one(tmp_path: Path) -> None:
    budget = estimate(Workload(TrainMode.NATIVE, conversations=200, text_bytes=9, time_budget_s=100.0))
    assert (budget.seconds["scratch"], budget.seconds["native"]) == (60.0, 40.0)
    runs = history(tmp_path, TrainParams(mode=TrainMode.NATIVE, max_steps=60))
    rough = estimate(Workload(TrainMode.NATIVE, conversations=200))
    found = estimate(Workload(TrainMode.NATIVE, conversations=200), runs)
    assert (found.run, found.seconds["native"]) == ("", rough.seconds["native"])
    assert found.seconds["corpus"] == 8.0
    limited = estimate(Workload(TrainMode.NATIVE, conversations=200, max_steps=120), runs)
    assert limited.seconds["native"] == 120.0, "two seconds a step, as measured"


def test_an_adapter_on_another_base_is_another_work(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    finished_run(ws, 100, {"lora": 50.0}, TrainParams(mode=TrainMode.LORA, model="a"))
    runs = RunHistory(ws).runs()
    assert estimate(Workload(TrainMode.LORA, conversations=100, base="a"), runs).seconds["lora"] == 50.0
    assert estimate(Workload(TrainMode.LORA, conversations=100, base="b"), runs).run == ""


def test_the_sheet_says_where_its_figures_are_from(tmp_path: Path) -> None:
    runs = history(tmp_path, TrainParams(mode=TrainMode.NATIVE))
    measured = estimate_line(Workload(TrainMode.NATIVE, conversations=200), runs)
    assert measured == f"about 2 min, 60 steps, 0.8 GB (measured in run {runs[0].run[:9]})"
    assert "rough" in estimate_line(Workload(TrainMode.NATIVE, conversations=200), [])
    unknown = estimate_line(Workload(TrainMode.LORA, conversations=200, base="x"), runs)
    assert "not measured yet" in unknown and not any(character.isdigit() for character in unknown)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3, "5 s"),
        (42, "40 s"),
        (89, "90 s"),
        (91, "2 min"),
        (240, "4 min"),
        (7100, "118 min"),
        (12_000, "3 h 20 min"),
    ],
)
def test_an_estimate_is_rounded_and_names_its_unit(seconds: float, text: str) -> None:
    assert format_about(seconds) == text


# 20 steps with 640 tokens each took 38 s in bfloat16 on two cores, and 1.9 GB (`bench lora`). Of a whole run of 111
# steps with 26 conversations in the test set, the validation took twice as long as the training, on a busy machine.
def test_a_rough_estimate_of_an_adapter_follows_from_its_base_and_the_text() -> None:
    load = Workload(
        TrainMode.LORA, conversations=147, base="x", base_parameters=134.5e6, characters=460, max_steps=20
    )
    found = estimate(load)
    step_s = (found.seconds["lora"] - 15) / 20 * (os.cpu_count() or 2) / 2
    assert 2.5 / 1.5 <= step_s <= 2.5 * 1.5
    whole = estimate(replace(load, max_steps=None, test=26)).seconds
    assert 1 / 2 <= whole["validate"] / whole["lora"] <= 2
    assert found.memory_mb is not None
    assert 1900 / 1.5 <= found.memory_mb <= 1900 * 1.5
    assert "rough" in estimate_line(load, [])


def test_an_evolution_takes_its_cycles_times_a_training_of_one_epoch(tmp_path: Path) -> None:
    runs = history(tmp_path, TrainParams(mode=TrainMode.NATIVE))
    found = estimate_evolution(Workload(TrainMode.NATIVE, conversations=200), 3, runs)
    assert found.run == runs[0].run
    assert found.seconds == {"corpus": 8.0, "native": 60.0, "validate": 90.0, "promote": 3.0, "measure": 90.0}
    assert "about 4 min" in evolution_line(Workload(TrainMode.NATIVE, conversations=200), 3, runs)


@pytest.mark.parametrize("now", [6.0, 100.0, 10_000.0])
def test_a_stage_whose_measured_time_is_over_is_not_done(now: float) -> None:
    view = at_times(
        (0.0, Started(pid=1, program="t")),
        (0.0, PLAN),
        (0.0, stage("promote")),
        (1.0, Progress(stage="promote", done=1, total=2, eta_s=3.0)),
    )
    view.work = {"promote": 2.0}
    work = work_done(view, now)
    assert work.left_s is not None and work.left_s > 0
    assert work.share is not None and 0.5 < work.share < 1
