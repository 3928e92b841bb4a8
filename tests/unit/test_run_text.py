"""A run in three lines, at any width, in any state."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.runs.event_text import format_figure
from engine.runs.events import (
    Evaluated,
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
)
from engine.runs.view import RunView
from tui.tabs.train.loss_chart import legend_line
from tui.tabs.train.run_text import figures, learning_rate, loss_title, no_curve
from tui.terminal.glyphs import ASCII, UNICODE


def view_of(*events: Event) -> RunView:
    view = RunView(None)
    for seq, event in enumerate(events):
        view.apply(JournalRecord(seq, 1000.0 + seq, event))
    return view


BEGUN = (Started(pid=1, program="t"), StageChanged(name="native", state="started", index=2, total=3))
STEP = Step(
    phase="native",
    step=50,
    max_steps=200,
    loss=1.5,
    lr=0.0143,
    tokens=1,
    tokens_per_s=28_400.0,
    waited_s=0.5,
    wall_s=100.0,
    eta_s=134.0,
)
MEMORY = MemoryUsage(used_mb=2150.0, peak_mb=2200.0, budget_mb=4096.0, reason="max_memory_gb")


def lines(view: RunView, width: int = 57, *, alive: bool = True) -> list[str]:
    return [line.plain for line in figures(view, UNICODE, width, alive=alive, now=1100.0)]


def test_figures_have_units_and_a_reference() -> None:
    first, second, third = lines(view_of(*BEGUN, STEP, MEMORY))
    assert first == " loss 1.500 (best 1.500)  lr 0.0143  28.4k tok/s  01:40"
    assert second == " memory ██████░░░░░░ 2.1 of 4.0 GB  (as set)  peak 54 %"
    assert third == " ● training on the corpus 2/3 25 %  02:14 left"


def test_a_wide_line_has_room_for_the_rest() -> None:
    assert lines(view_of(*BEGUN, STEP, MEMORY), 100)[1].endswith("  (as set)  streaming 99.5 %  peak 54 %")


def test_the_efficiency_counts_the_time_of_all_phases_that_was_not_spent_waiting() -> None:
    view = view_of(
        msgspec.structs.replace(STEP, phase="scratch", waited_s=9.5, wall_s=100.0),
        msgspec.structs.replace(STEP, waited_s=0.2, wall_s=50.0),
        msgspec.structs.replace(STEP, waited_s=0.5, wall_s=100.0),
    )
    assert view.streaming_efficiency == pytest.approx(0.95)
    assert view.summary(True).streaming_efficiency == pytest.approx(0.95)
    assert view_of(*BEGUN).streaming_efficiency is None


@given(
    st.integers(40, 200),
    st.lists(
        st.sampled_from(
            [
                STEP,
                MEMORY,
                StatusChanged(status=RunStatus.PAUSED),
                StatusChanged(status=RunStatus.QUEUED, reason="run\x1b[2J waits"),
                StageChanged(name="x\u202e", state="done"),
                Progress(stage="native", done=1, total=2),
            ]
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_any_state_gives_three_lines_of_text(width: int, more: list[Event], alive: bool) -> None:
    found = figures(view_of(*BEGUN, *more), UNICODE, width, alive=alive, now=2000.0)
    assert len(found) == 3
    assert all(line.plain.isprintable() for line in found)


def test_the_ending_of_a_run_is_shown() -> None:
    failed = view_of(*BEGUN, STEP, Finished(status=RunStatus.FAILED, exit_code=5, error="no \x1b room"))
    assert lines(failed)[2] == " ✗ failed: no ␛ room"
    assert "dead" in lines(view_of(*BEGUN, STEP), alive=False)[2]


def test_ascii_lines_are_ascii() -> None:
    found = figures(view_of(*BEGUN, STEP, MEMORY), ASCII, 80, alive=True, now=1100.0)
    assert all(line.plain.isascii() for line in found)


def test_a_run_without_a_curve_shows_the_reason() -> None:
    waits = view_of(StatusChanged(status=RunStatus.QUEUED, reason="run 1 trains"))
    assert no_curve(waits) == "run 1 trains"
    assert "first training step" in no_curve(view_of(*BEGUN))


def test_small_learning_rates_are_not_zero() -> None:
    assert learning_rate(1e-5) == "1.0e-05"
    assert learning_rate(0.0143) == "0.0143"


def test_the_title_names_the_phase_and_the_scale() -> None:
    assert loss_title(view_of(*BEGUN, STEP), True) == "Loss — training on the corpus (log)"


def test_the_time_is_shown_at_any_width_of_a_terminal_with_pauses_apart() -> None:
    small = msgspec.structs.replace(STEP, lr=7.9e-4)
    view = view_of(*BEGUN, small, MEMORY, StatusChanged(status=RunStatus.PAUSED))
    view.apply(JournalRecord(60, 1030.0, StatusChanged(status=RunStatus.RUNNING)))
    first, second, _third = lines(view, 53)
    assert first == " loss 1.500 (best 1.500)  lr 7.9e-04  28.4k tok/s"
    assert second.startswith(" memory ██████░░░░░░ 2.1 of 4.0 GB  01:14  ‖ 00:26")
    assert lines(view, 90)[0].endswith("28.4k tok/s  01:14  ‖ 00:26")


def held_out(step: int, loss: float) -> Evaluated:
    return Evaluated(phase="native", step=step, name="held out", loss=loss)


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (
            90,
            " ⠒⠒ smoothed 1.500  o held out 1.700 (best 1.600)  ▴ up to 1.800" + " " * 11 + "step 50 of 200",
        ),
        (66, " ⠒⠒ smoothed 1.500  o held out 1.700 (best 1.600)  step 50 of 200"),
        (58, " ⠒⠒ smoothed 1.500  o held out 1.700 (best 1.600)  50/200"),
        (53, " ⠒⠒ smoothed 1.500  o held out 1.700 (best 1.600)"),
        (45, " ⠒⠒ smoothed 1.500  o held out 1.700  50/200"),
        (38, " ⠒⠒ smoothed 1.500  o held out 1.700"),
        (20, " ⠒⠒ smoothed 1.500"),
    ],
)
def test_the_legend_names_a_held_out_loss_that_rises_and_drops_whole_parts(width: int, line: str) -> None:
    view = view_of(*BEGUN, held_out(0, 1.8), held_out(20, 1.6), STEP, held_out(50, 1.7))
    assert legend_line(view, width, ascii_only=False, log_scale=False).plain == line


def test_a_figure_out_of_all_bounds_stays_short() -> None:
    assert format_figure(1.23456) == "1.235"
    assert format_figure(2.5e9) == "2.50e+09"
