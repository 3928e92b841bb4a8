"""Benchmarks: the ratio means the same for all, and what measured nothing has none."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import harness
from bench.harness import SavedResult, choose, discover, save
from bench.result import compare

FIGURES = st.floats(1e-3, 1e6)


@given(FIGURES, FIGURES, st.booleans())
def test_a_ratio_above_one_means_that_ours_is_better(
    ours: float, baseline: float, lower_is_better: bool
) -> None:
    result = compare("x", ours=ours, baseline=baseline, target=1.0, unit="s", lower_is_better=lower_is_better)
    better = ours < baseline if lower_is_better else ours > baseline
    assert (result.ratio > 1) == better or math.isclose(ours, baseline)
    assert result.met == (result.ratio >= 1.0)


@pytest.mark.parametrize(("ours", "baseline"), [(0.0, 1.0), (math.nan, 1.0), (1.0, math.inf), (-1.0, 1.0)])
def test_what_measured_nothing_has_no_ratio(ours: float, baseline: float) -> None:
    with pytest.raises(ValueError, match="cannot compare"):
        compare("x", ours=ours, baseline=baseline, target=1, unit="s", lower_is_better=True)


def test_every_benchmark_is_found_by_its_name_and_by_its_beginning() -> None:
    names = [benchmark.name for benchmark in discover()]
    assert {"app.first_frame", "app.help", "app.idle"} <= set(names)
    assert [one.name for one in choose(["app.help"])] == ["app.help"]
    assert [one.name for one in choose(["app"])] == [name for name in names if name.startswith("app")]
    with pytest.raises(KeyError):
        choose(["nonsense"])


def test_a_saved_result_says_when_and_on_what_machine_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results.jsonl")
    result = compare("x", ours=1, baseline=2, target=1, unit="s", lower_is_better=True)
    for full in (False, True):
        save(result, full=full, load=1.234)
    rows = [msgspec.json.decode(line, type=SavedResult) for line in harness.RESULTS.read_bytes().splitlines()]
    assert [row.full for row in rows] == [False, True]
    assert rows[0].result == result
    assert rows[0].date.endswith("Z")
    assert rows[0].cores >= 1
    assert rows[0].memory_gb > 0.5
    assert all((rows[0].machine, rows[0].system, rows[0].torch))
