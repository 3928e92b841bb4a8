"""Retention of checkpoints, and checks of the disk space."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.training.checkpoint import (
    HOUR_S,
    CheckpointInfo,
    RetentionPolicy,
    check_disk_space,
    disk_reserve,
    retained,
)


def row(name: str, hour: float | None = None, loss: float | None = None) -> CheckpointInfo:
    return CheckpointInfo(Path(name), None if hour is None else hour * HOUR_S, loss)


def test_the_newest_the_good_the_best_and_one_per_hour_are_kept() -> None:
    found = [
        row("i", 9.9, 2.0),
        row("h", 9.5, 2.1),
        row("g", 9.1, 1.9),
        row("f", 8.8, 2.5),
        row("e", 8.2, 1.0),
        row("d", 7.9),
        row("c", 7.1),
        row("b", 6.5),
        row("a", 5.0),
    ]
    kept = retained(found, RetentionPolicy(last=2, hourly=3), good="c")
    assert [path.name for path in kept] == ["i", "h", "c", "e", "f", "d"]
    assert [path.name for path in retained(found, RetentionPolicy(last=1, hourly=0), "")] == ["i", "e"]


@given(
    st.lists(
        st.tuples(st.none() | st.floats(0, 1e6), st.none() | st.floats(0, 9, allow_nan=False)), max_size=30
    ),
    st.integers(1, 5),
    st.integers(0, 5),
)
def test_the_newest_is_always_kept_and_the_number_is_bounded(
    figures: list[tuple[float | None, float | None]], last: int, hourly: int
) -> None:
    found = [CheckpointInfo(Path(str(place)), hour, loss) for place, (hour, loss) in enumerate(figures)]
    kept = retained(found, RetentionPolicy(last=last, hourly=hourly), good="3")
    assert [one.path for one in found[:last]] == kept[:last][: len(found)]
    assert len(kept) <= last + 2 + hourly
    assert len(set(kept)) == len(kept)


def test_a_checkpoint_that_would_fill_the_disk_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage(tmp_path))
    total = 1 << 40
    room = usage(total, total - (300 << 20), 300 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: room)
    check_disk_space(tmp_path, 40 << 20)
    with pytest.raises(OSError, match="300 MB are free, a checkpoint needs 306 MB"):
        check_disk_space(tmp_path, 50 << 20)
    assert disk_reserve(1 << 30) < 32 << 20
