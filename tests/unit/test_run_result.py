"""Imports and corpus builds are shown by their counts."""

from __future__ import annotations

import msgspec
import pytest

from engine.runs.events import Event, Finished, Funnel, JournalRecord, RunStatus, Step
from engine.runs.view import RunView
from tui.tabs.train.run_result import bar_lines, result_bars
from tui.terminal.glyphs import ASCII, UNICODE

FUNNEL = Funnel(
    collected=705,
    dropped={"low_value": 3, "near": 16, "injection": 0},
    redacted=193,
    duplicates=16,
    pending=0,
    accepted=667,
    rejected=19,
    train=567,
    test=100,
)


def view_of(*events: Event) -> RunView:
    view = RunView()
    for number, event in enumerate(events, 1):
        view.apply(JournalRecord(seq=number, t=float(number), event=event))
    return view


def finished(result: object) -> Finished:
    return Finished(status=RunStatus.DONE, exit_code=0, result=msgspec.Raw(msgspec.json.encode(result)))


def test_a_build_is_shown_from_what_it_read_to_what_is_left() -> None:
    counts = [(bar.label, bar.count) for bar in result_bars(view_of(FUNNEL))]
    assert counts[0] == ("collected", 705)
    assert ("− low value", 3) in counts
    assert ("− rejected", 19) in counts
    assert not any(label == "− pending" for label, _count in counts)
    left = 705 - sum(count for label, count in counts if label.startswith("−"))
    assert dict(counts)["accepted"] == left == 667
    assert dict(counts)["  training set"] + dict(counts)["  test set"] == 667


def test_an_import_is_shown_by_its_files_the_largest_first() -> None:
    files = [{"path": f"/tmp/{n}.json", "conversations": n} for n in range(12)]
    view = view_of(finished({"taken": 60, "unchanged": 6, "files": files, "skipped": {"empty": 2}}))
    bars = [(bar.label.strip(), bar.count) for bar in result_bars(view)]
    assert bars[:3] == [("new conversations", 60), ("known already", 6), ("skipped", 2)]
    assert bars[3:5] == [("11.json", 11), ("10.json", 10)]
    assert len(bars) == 11


@pytest.mark.parametrize("result", [None, {}, {"taken": "many"}, [], {"base": "a", "new": "b"}])
def test_other_results_have_no_bars(result: object) -> None:
    assert result_bars(view_of(finished(result))) == []


def test_a_run_that_trains_keeps_its_curves() -> None:
    step = Step(phase="native", step=1, max_steps=9, loss=2.0, lr=0.1, tokens=1, tokens_per_s=1.0, eta_s=1.0)
    assert result_bars(view_of(FUNNEL, step)) == []


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
@pytest.mark.parametrize(("width", "height"), [(52, 12), (30, 4), (110, 30)])
def test_bars_fit_and_are_as_long_as_their_counts(glyphs, width: int, height: int) -> None:  # type: ignore[no-untyped-def]
    lines = bar_lines(result_bars(view_of(FUNNEL)), glyphs, width, height)
    assert len(lines) <= height
    assert all(line.cell_length <= width for line in lines)
    lengths = [line.plain.count(glyphs.full) for line in lines]
    assert lengths[0] == max(lengths)
    assert all(length >= 1 for length in lengths)
