"""The machine's history: bins of time, the file of a day, and what is made of two samples."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.machine.core_groups import CoreGroup
from engine.machine.history import (
    DAY_S,
    HOUR_S,
    SERIES,
    BinnedHistory,
    HistoryPoint,
    MachineHistory,
    make_point,
    thin_out,
)
from engine.machine.history_file import FILE_SIZE, RECORD_S, SLOTS, HistoryFile, decode, encode
from engine.machine.probes import MachineSample
from engine.machine.recording import RunFigures, group_shares, record

NOON = 1_800_000_000.0
NOON_PLACE = int(NOON // RECORD_S) % SLOTS * ((FILE_SIZE - 16) // SLOTS)
"""Bytes before the record of NOON, without the header."""
TIMES = st.floats(min_value=NOON, max_value=NOON + 600)


def point(t: float, cpu: float | None = None, **values: float) -> HistoryPoint:
    return make_point(t, {"cpu_1": cpu, **values})


@given(
    st.lists(st.tuples(TIMES, st.floats(min_value=0, max_value=100)), max_size=30),
    st.sampled_from([1.0, 2.5, 7.0]),
    st.integers(min_value=1, max_value=40),
    st.sampled_from([0.0, 9.0]),
)
def test_a_column_is_the_mean_of_its_bin_or_the_value_before_it(
    readings: list[tuple[float, float]], step: float, width: int, hold: float
) -> None:
    end = NOON + 600
    binned = BinnedHistory(step, [point(t, value) for t, value in readings])
    means: dict[int, list[float]] = {}
    for t, value in readings:
        means.setdefault(math.floor(t / step), []).append(float(make_point(t, {"cpu_1": value}).values[0]))
    expected: list[float | None] = []
    for number in range(math.floor(end / step) - width + 1, math.floor(end / step) + 1):
        near = [one for one in range(number - math.ceil(hold / step), number + 1) if one in means]
        expected.append(sum(means[near[-1]]) / len(means[near[-1]]) if near else None)
    found = binned.columns("cpu_1", end, width, hold)
    assert found == [None if value is None else pytest.approx(value) for value in expected]


def test_a_full_column_does_not_change_when_time_passes() -> None:
    history = MachineHistory()
    drawn: dict[int, float] = {}
    for second in range(0, 600, 2):
        history.add(point(NOON + second, second % 50))
        shown = history.columns("cpu_1", end=NOON + second, span=300, width=60)
        for place, value in enumerate(shown[:-1]):
            column = (int(NOON + second) // 5) - 59 + place
            if value is not None:
                assert drawn.setdefault(column, value) == value


@given(st.lists(st.tuples(TIMES, st.floats(min_value=0, max_value=1)), min_size=1, max_size=40), st.randoms())
def test_points_added_one_by_one_and_all_together_give_the_same_columns(readings, random) -> None:  # type: ignore[no-untyped-def]
    readings = sorted(readings)
    first, second = MachineHistory(), MachineHistory()
    end = readings[-1][0]
    for t, value in readings:
        first.add(point(t, value))
        if random.random() < 0.3:
            first.columns("cpu_1", end=t, span=120, width=31)
    for t, value in readings:
        second.add(point(t, value))
    assert first.columns("cpu_1", end=end, span=120, width=31) == second.columns(
        "cpu_1", end=end, span=120, width=31
    )


def test_an_hour_is_kept_at_the_full_rate_and_what_is_older_at_a_lower_one() -> None:
    history = MachineHistory()
    for number in range(int(3 * HOUR_S)):
        history.add(point(NOON + number, 1.0))
    assert len(history) == HOUR_S + 1
    assert len(list(history.points())) < 4 * HOUR_S
    day = history.columns("cpu_1", end=NOON + 3 * HOUR_S - 1, span=DAY_S, width=24)
    assert [value for value in day if value is not None] == [1.0] * len([v for v in day if v is not None])
    assert len([value for value in day if value is not None]) in (3, 4)


def test_a_clock_that_was_set_back_drops_the_future() -> None:
    history = MachineHistory()
    for second in (0, 10, 20):
        history.add(point(NOON + second, second))
    history.add(point(NOON + 5, 7.0))
    assert [one.t - NOON for one in history.points()] == [0, 5]
    assert history.last is not None and history.last.value("cpu_1") == 7.0


def test_growth_is_over_the_lowest_of_the_window() -> None:
    history = MachineHistory()
    for t, swap in ((0, 9.0), (700, 2.0), (800, 3.0), (900, 5.0)):
        history.add(point(NOON + t, swap_used=swap))
    assert history.growth("swap_used", 600.0) == 3.0
    assert history.growth("gpu_busy", 600.0) is None
    assert MachineHistory().growth("swap_used", 600.0) is None


def test_points_are_thinned_out_to_a_distance() -> None:
    points = [point(NOON + second) for second in range(0, 200, 10)]
    assert [one.t - NOON for one in thin_out(points, 60.0)] == [0, 60, 120, 180]


# The file


def written(path: Path, times: list[float]) -> HistoryFile:
    file = HistoryFile(path)
    for number, t in enumerate(times):
        file.write(point(t, float(number % 100)))
    return file


def test_a_day_on_disk_survives_a_restart_in_a_file_of_fixed_size(tmp_path: Path) -> None:
    path = tmp_path / "history"
    times = [NOON + RECORD_S * number for number in range(3000)]
    written(path, times)
    assert path.stat().st_size <= FILE_SIZE
    found = HistoryFile(path).read(times[-1])
    assert [one.t for one in found] == [t for t in times if times[-1] - t <= DAY_S][-len(found) :]
    assert len(found) == DAY_S / RECORD_S
    assert found[-1].value("cpu_1") == 99.0 and found[-1].value("loss") is None


def test_a_record_is_written_once_in_its_time(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "history")
    assert [file.write(point(NOON + second, 1.0)) for second in (0, 2, 28, 30, 31)] == [
        True, False, False, True, False,
    ]  # fmt: skip


def test_two_programs_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "history"
    first, second = HistoryFile(path), HistoryFile(path)
    for number in range(10):
        first.write(point(NOON + 60 * number, 10.0))
        second.write(point(NOON + 60 * number + 30, 20.0))
        second.write(point(NOON + 60 * number + 31, 20.0))
    assert [one.value("cpu_1") for one in HistoryFile(path).read(NOON + 600)] == [10.0, 20.0] * 10


@pytest.mark.parametrize("size", [0, 1, 7, 16, 17, 200, 5000])
@pytest.mark.parametrize("damage", ["cut", "zeros", "noise", "text"])
@pytest.mark.parametrize("place", ["header", "records"])
def test_a_damaged_file_gives_what_is_whole_and_is_written_again(
    size: int, damage: str, place: str, tmp_path: Path
) -> None:
    path = tmp_path / "history"
    times = [NOON + RECORD_S * number for number in range(100)]
    written(path, times)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:size]
    else:
        filler = {"zeros": bytes(size), "noise": os.urandom(size), "text": (b"not a history\n" * 999)[:size]}
        first = 0 if place == "header" else 20 + NOON_PLACE
        data[first : first + size] = filler[damage]
    path.write_bytes(bytes(data))
    good = {t: float(number % 100) for number, t in enumerate(times)}
    assert all(good[one.t] == one.value("cpu_1") for one in HistoryFile(path).read(times[-1]))
    assert HistoryFile(path).write(point(times[-1] + 60, 5.0))
    assert HistoryFile(path).read(times[-1] + 60)[-1].value("cpu_1") == 5.0


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_no_changed_byte_of_a_record_goes_unseen(place: int, change: int) -> None:
    record_ = bytearray(encode(point(NOON, 50.0, loss=1.25)))
    record_[place % len(record_)] ^= change
    assert decode(bytes(record_)) is None


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "no folder", "read-only"])
def test_a_place_that_cannot_be_written_is_left_alone(kind: str, tmp_path: Path) -> None:
    path, target = tmp_path / "history", tmp_path / "target"
    target.write_bytes(b"kept")
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "no folder":
        path = tmp_path / "none" / "history"
    elif os.getuid() == 0:
        pytest.skip("root writes everywhere")
    else:
        tmp_path.chmod(0o500)
    file = HistoryFile(path)
    assert not file.write(point(NOON)) and target.read_bytes() == b"kept"
    assert file.read(NOON) == []
    tmp_path.chmod(0o700)


# From samples to points


def sample(**values: object) -> MachineSample:
    blank: dict[str, object] = dict.fromkeys(MachineSample.__struct_fields__[:11])
    return MachineSample(**{**blank, "time": NOON, **values})  # type: ignore[arg-type]


def test_the_share_of_a_group_is_the_mean_of_its_cores() -> None:
    groups = (CoreGroup("performance", (2, 3)), CoreGroup("efficiency", (0, 1)))
    busy = sample(cpu_percent=[10.0, 30.0, 90.0, 100.0], core_groups=groups)
    assert group_shares(busy) == [95.0, 20.0]
    found = record(busy, RunFigures(memory=2e9, loss=1.5))
    assert (found.value("cpu_1"), found.value("cpu_2"), found.value("cpu_3")) == (95.0, 20.0, None)
    assert found.value("memory_run") == 2e9 and found.value("loss") == 1.5


def test_a_sample_without_readings_is_a_point_without_values() -> None:
    found = record(sample())
    assert [found.value(name) for name in SERIES] == [None] * len(SERIES)
