"""A curve stays small and keeps what the eye looks for."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.runs.curve import LIMIT, Series

figures = st.floats(-1e6, 1e6)


def filled(values: list[float]) -> Series:
    series = Series()
    for x, y in enumerate(values):
        series.append(x, y)
    return series


def test_a_short_series_keeps_all_points() -> None:
    values = [float(n % 7) for n in range(200)]
    series = filled(values)
    assert series.x == [float(n) for n in range(200)]
    assert series.y == values


@settings(max_examples=60, deadline=None)
@given(st.lists(figures, min_size=1, max_size=40), st.integers(1, 100))
def test_first_last_and_extreme_points_are_always_kept(values: list[float], times: int) -> None:
    values = values * times
    series = filled(values)
    assert len(series) <= LIMIT
    assert (series.x[0], series.y[0]) == (0, values[0])
    assert (series.x[-1], series.y[-1]) == (len(values) - 1, values[-1])
    assert min(series.y) == min(values)
    assert max(series.y) == max(values)
    assert series.x == sorted(set(series.x))
    assert all(values[int(x)] == y for x, y in series.points())


def test_points_are_spread_evenly_over_a_long_run() -> None:
    series = filled([float(n % 13) for n in range(50_000)])
    left = sum(x < 25_000 for x in series.x)
    assert 0.35 < left / len(series) < 0.65


def test_going_back_to_a_checkpoint_drops_the_later_points() -> None:
    series = filled([float(n) for n in range(100)])
    series.append(50, -1.0)
    assert series.x == [*range(50), 50]
    assert series.y[-1] == -1.0


def test_going_back_to_the_start_drops_all_points() -> None:
    series = filled([1.0, 2.0, 3.0])
    series.append(0, 9.0)
    assert series.points() == [(0, 9.0)]
