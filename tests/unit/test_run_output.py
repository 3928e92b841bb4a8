"""What a person reads of a run on the terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from engine.runs.event_text import format_duration
from engine.runs.events import (
    EpochDone,
    Event,
    Finished,
    JournalRecord,
    Log,
    MemoryUsage,
    Progress,
    RunStatus,
    StageChanged,
    Started,
    Step,
)
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.spec import make_spec
from tui.cli import session
from tui.cli.run_output import RunPrinter, error_fields, totals


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TZ", "UTC")


def step(number: int) -> Step:
    return Step(
        phase="native",
        step=number,
        max_steps=100,
        loss=2.0,
        lr=0.01,
        tokens=9,
        tokens_per_s=28400.0,
        eta_s=134.0,
    )


def printed(*events: Event, live: bool) -> tuple[str, RunPrinter]:
    stream = io.StringIO()
    printer = RunPrinter(make_spec(Path("/ws"), TrainParams(mode=TrainMode.NATIVE)), stream=stream, live=live)
    for seq, event in enumerate(events):
        printer.show(JournalRecord(seq, float(seq), event))
    printer.close()
    return stream.getvalue(), printer


TRAINING = (
    Started(pid=1, program="0"),
    StageChanged(name="native", state="started", index=1, total=2),
    *(step(n) for n in range(1, 101)),
    EpochDone(phase="native", epoch=1, epochs=1, train_loss=2.0, eval_loss=1.0, seconds=1.0, lr=0.01),
    StageChanged(name="native", state="done", index=1, total=2),
    MemoryUsage(used_mb=500.0, peak_mb=812.0, budget_mb=4096.0),
    Finished(status=RunStatus.DONE, exit_code=0),
)


def test_plain_output_is_one_line_for_each_event_and_few_for_the_steps() -> None:
    text, _printer = printed(*TRAINING, live=False)
    assert "\r" not in text
    assert "\x1b" not in text
    steps = [line for line in text.splitlines() if line.startswith("step ")]
    assert 1 <= len(steps) <= 3
    assert steps[-1].startswith("step 100 of 100  loss 2.000 (best 2.000)  02:14 left  28.4k tok/s  lr 0.01")
    assert "epoch 1 of 1: loss 2.000, perplexity 7.39, learning rate 0.01, general text 1.000" in text


def test_on_a_terminal_the_metrics_are_redrawn_on_one_line_within_its_width() -> None:
    text, _printer = printed(*TRAINING, live=True)
    drawn = [piece for piece in text.split("\r") if piece.startswith("step ")]
    assert drawn
    assert all(len(piece.splitlines()[0]) < 100 for piece in drawn)
    assert "step 100 of 100" in drawn[-1]


def test_a_log_line_clears_the_metrics_line() -> None:
    text, _printer = printed(step(1), Log(level="info", text="hello"), live=True)
    last = text.rstrip("\n").rsplit("\r", 1)[-1]
    assert last.endswith("hello")


def test_text_from_data_cannot_control_the_terminal() -> None:
    text, _printer = printed(Log(level="info", text="\x1b[31mred\x9b2J \u202eback\r\n"), live=False)
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "\u202e" not in text
    assert "red" in text


def test_progress_shows_share_and_time_left() -> None:
    event = Progress(stage="corpus", done=250, total=1000, unit="conversations", eta_s=30.0)
    text, _printer = printed(event, live=False)
    assert "corpus  250/1,000 conversations  25 %  00:30 left" in text


def test_quiet_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.options, "quiet", True)
    assert printed(*TRAINING, live=False)[0] == ""


def test_totals_show_loss_time_and_memory() -> None:
    _text, printer = printed(*TRAINING, live=False)
    phase, machine = totals(printer.view)
    assert phase == "training on the corpus: 100 steps, loss 2.000 (best 2.000), perplexity 7.39"
    assert machine == "time 01:45, peak memory 812 of 4,096 MB"


def test_printed_commands_name_the_workspace_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.options, "data_dir", "my data")
    assert session.own_command("runs", "list") == "h2q-tui runs list --data-dir 'my data'"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "00:00"),
        (59.6, "01:00"),
        (3725, "1:02:05"),
        (2 * 86400 + 3600, "2 d 01:00"),
        (None, "–"),
        (-1, "–"),
    ],
)
def test_times_are_short(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("error", "hint", "fields"),
    [
        ("It failed → h2q-tui check", "h2q-tui check", ("It failed", "h2q-tui check")),
        ("It failed", "", ("It failed", "")),
        ("a → b is missing → less x.log", "less x.log", ("a → b is missing", "less x.log")),
        # Written by an older version, without the hint.
        ("It failed → h2q-tui check", "", ("It failed", "h2q-tui check")),
        ("a → b is missing", "", ("a → b is missing", "")),
        ("", "", ("", "")),
    ],
)
def test_the_hint_of_a_failed_run_is_a_field_of_its_own(
    error: str, hint: str, fields: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session.options, "data_dir", None)
    assert error_fields(error, hint) == fields
