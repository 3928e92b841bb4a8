"""The reducer: what records come to."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.runs.events import (
    CheckpointWritten,
    CommandHandled,
    EpochDone,
    Evaluated,
    Event,
    Finished,
    JournalRecord,
    Log,
    MemoryUsage,
    Progress,
    RunStatus,
    StageChanged,
    Started,
    StatusChanged,
    Step,
)
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.spec import make_spec
from engine.runs.view import LOG_LINES, RunView


def step(number: int, loss: float | None, phase: str = "native", finite: bool = True) -> Step:
    return Step(
        phase=phase,
        step=number,
        max_steps=100,
        loss=loss,
        finite=finite,
        lr=0.1,
        tokens=number * 10,
        tokens_per_s=50.0,
        eta_s=7.0,
    )


def view_of(*events: Event, spec: bool = False) -> RunView:
    view = RunView(make_spec(Path("/ws"), TrainParams(mode=TrainMode.NATIVE), now=1.0) if spec else None)
    for seq, event in enumerate(events):
        view.apply(JournalRecord(seq, 100.0 + seq, event))
    return view


STARTED = Started(pid=7, program="0")


def test_a_run_before_its_start_is_queued_and_without_its_lock_dead() -> None:
    assert RunView().status is RunStatus.QUEUED
    assert RunView().summary(alive=True).status is RunStatus.QUEUED
    assert RunView().summary(alive=False).status is RunStatus.DEAD


def test_a_killed_engine_is_dead_since_its_last_record() -> None:
    view = view_of(STARTED, step(1, 2.0), step(2, 1.0))
    assert view.summary(alive=True).status is RunStatus.RUNNING
    summary = view.summary(alive=False)
    assert summary.status is RunStatus.DEAD
    assert summary.finished_at == 102.0


def test_a_finished_run_has_its_final_status_with_or_without_its_lock() -> None:
    view = view_of(STARTED, Finished(status=RunStatus.FAILED, exit_code=5, error="the disk is full"))
    assert view.summary(alive=True).status is RunStatus.FAILED
    assert view.summary(alive=False).error == "the disk is full"


def test_the_view_has_the_last_step_and_the_best_loss() -> None:
    view = view_of(STARTED, step(1, 2.0), step(2, 1.0), step(3, 1.5))
    assert (view.step, view.max_steps, view.loss, view.best_loss) == (3, 100, 1.5, 1.0)
    assert view.series("native", "loss").y == [2.0, 1.0, 1.5]
    assert view.series("native", "tokens_per_s").x == [1, 2, 3]


def test_each_phase_has_its_own_curve_and_its_own_best_loss() -> None:
    view = view_of(STARTED, step(1, 0.5, "scratch"), step(1, 3.0), step(2, 2.5))
    assert view.phases == ["scratch", "native"]
    assert view.best_loss == 2.5
    assert view.series("scratch", "loss").y == [0.5]


def test_a_non_finite_loss_is_not_plotted_and_not_the_best() -> None:
    view = view_of(STARTED, step(1, 2.0), step(2, None, finite=False))
    assert view.loss is None
    assert view.best_loss == 2.0
    assert view.series("native", "loss").x == [1]
    assert view.series("native", "lr").x == [1, 2]


def test_stages_change_state_in_order() -> None:
    view = view_of(
        STARTED,
        StageChanged(name="corpus", state="started", index=1, total=2),
        Progress(stage="corpus", done=5, total=10, eta_s=3.0),
        StageChanged(name="corpus", state="done", detail="1,539 conversations"),
        StageChanged(name="native", state="started", index=2, total=2),
    )
    corpus, native = view.stages
    assert (corpus.state, corpus.index, corpus.total, corpus.detail) == ("done", 1, 2, "1,539 conversations")
    assert (corpus.started_at, corpus.ended_at) == (101.0, 103.0)
    assert native.state == "started"
    assert view.stage == "native"
    assert view.progress is None


def test_evaluations_epochs_and_checkpoints_are_kept() -> None:
    view = view_of(
        STARTED,
        Evaluated(phase="native", step=5, name="held out", loss=1.25),
        EpochDone(phase="native", epoch=1, epochs=2, train_loss=1.0, seconds=3.0, lr=0.1),
        CheckpointWritten(phase="native", step=5, path="checkpoints/5", seconds=0.034, bytes=9),
    )
    assert view.eval_names("native") == ["held out"]
    assert view.series("native", "eval:held out").points() == [(5, 1.25)]
    assert len(view.epochs) == 1
    assert view.summary(alive=True).checkpoint == "checkpoints/5"


def test_a_resumed_run_stopped_before_its_first_step_is_at_its_checkpoint() -> None:
    written = CheckpointWritten(phase="native", step=40, path="checkpoints/40", seconds=0.03, bytes=9)
    view = view_of(STARTED, StageChanged(name="native", state="started"), written)
    assert view.step == 40
    assert view_of(STARTED, StageChanged(name="native", state="started"), step(41, 2.0), written).step == 41


def test_memory_is_a_curve_over_seconds_with_its_peak() -> None:
    view = view_of(
        STARTED,
        MemoryUsage(used_mb=900.0, peak_mb=1000.0, budget_mb=4096.0),
        MemoryUsage(used_mb=500.0, peak_mb=1000.0, budget_mb=4096.0),
    )
    assert view.series("native", "memory").points() == [(1.0, 900.0), (2.0, 500.0)]
    assert view.peak_memory_mb == 1000.0


def test_set_commands_and_pauses_annotate_the_curve() -> None:
    view = view_of(
        STARTED,
        step(1, 1.0),
        step(4, 1.0),
        CommandHandled(name="set", value="lr=0.01", accepted=True),
        CommandHandled(name="set", value="lr=x", accepted=False),
        StatusChanged(status=RunStatus.PAUSED),
    )
    assert [(mark.step, mark.text) for mark in view.annotations] == [(4, "lr=0.01"), (4, "paused")]
    assert view.status is RunStatus.PAUSED


def test_the_log_is_bounded_and_counts_all_lines() -> None:
    view = view_of(*(Log(level="info", text=str(n)) for n in range(LOG_LINES + 10)))
    assert len(view.log) == LOG_LINES
    assert view.log_total == LOG_LINES + 10
    assert view.log[-1].text == str(LOG_LINES + 9)


def test_a_restarted_run_is_running() -> None:
    view = view_of(STARTED, Finished(status=RunStatus.STOPPED, exit_code=130), STARTED)
    assert view.status is RunStatus.RUNNING
    assert view.finished is None
    assert view.started_at == 100.0


def test_gaps_in_the_sequence_are_counted() -> None:
    view = RunView()
    for seq in (0, 1, 5):
        view.apply(JournalRecord(seq, 0.0, Log(level="info", text="")))
    assert view.dropped_records == 3


def test_the_summary_names_the_run() -> None:
    summary = view_of(STARTED, spec=True).summary(alive=True)
    assert (summary.kind, summary.label, summary.created_at) == ("train", "native", 1.0)
    assert summary.id


_maybe = st.none() | st.floats(allow_nan=False, allow_infinity=False)
_figure = st.floats(allow_nan=False, allow_infinity=False)
_words = st.text(max_size=8)
_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        Step,
        phase=_words,
        step=st.integers(),
        max_steps=st.integers(),
        loss=_maybe,
        lr=_figure,
        tokens=st.integers(),
        tokens_per_s=_figure,
        eta_s=_maybe,
    ),
    st.builds(
        StageChanged, name=_words, state=_words, index=st.integers(), total=st.integers(), detail=_words
    ),
    st.builds(Progress, stage=_words, done=_figure, total=_maybe, eta_s=_maybe),
    st.builds(Evaluated, phase=_words, step=st.integers(), name=_words, loss=_maybe),
    st.builds(
        EpochDone,
        phase=_words,
        epoch=st.integers(),
        epochs=st.integers(),
        train_loss=_maybe,
        seconds=_figure,
        lr=_figure,
    ),
    st.builds(MemoryUsage, used_mb=_figure, peak_mb=_figure, budget_mb=_figure),
    st.builds(
        CheckpointWritten, phase=_words, step=st.integers(), path=_words, seconds=_figure, bytes=st.integers()
    ),
    st.builds(CommandHandled, name=_words, value=_words, accepted=st.booleans()),
    st.builds(StatusChanged, status=st.sampled_from(RunStatus)),
    st.builds(Finished, status=st.sampled_from(RunStatus), exit_code=st.integers()),
    st.just(STARTED),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), _figure, _events), max_size=30), st.booleans())
def test_no_sequence_of_records_raises(records: list[tuple[int, float, Event]], alive: bool) -> None:
    view = RunView()
    for seq, t, event in records:
        view.apply(JournalRecord(seq, t, event))
    view.summary(alive)
    for phase in view.phases:
        assert view.series(phase, "loss").x == sorted(view.series(phase, "loss").x)
