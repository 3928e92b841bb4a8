"""A curve stays small and keeps what the eye looks for."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.runs.curve import LIMIT, MEANS, MeanSeries, Series

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


@settings(max_examples=40, deadline=None)
@given(st.lists(figures, min_size=1, max_size=60), st.integers(1, 60))
def test_means_are_bounded_and_keep_the_mean_of_all_points(some: list[float], times: int) -> None:
    ys = some * times
    means = MeanSeries()
    for x, y in enumerate(ys):
        means.append(x, y)
    assert len(means) <= MEANS
    samples, line = means.samples(), means.smoothed()
    assert [x for x, _y in samples] == [x for x, _y in line] == sorted({x for x, _y in line})
    assert samples[-1][0] == len(ys) - 1 and samples[-1][1] == ys[-1]
    assert {y for _x, y in samples} <= set(ys)
    slack = 1e-6 * max(1.0, max(map(abs, ys)))
    assert all(min(ys) - slack <= y <= max(ys) + slack for _x, y in line)
    total = sum(bucket.mean * bucket.count for bucket in means._buckets)
    assert sum(bucket.count for bucket in means._buckets) == len(ys)
    assert math.isclose(total, sum(ys), rel_tol=1e-6, abs_tol=slack * len(ys))


def test_a_line_follows_a_steep_fall_and_takes_the_noise_away() -> None:
    means, noise = MeanSeries(), Random(5)
    for x in range(2000):
        means.append(x, 2.0 + 4.0 * math.exp(-x / 20) + noise.uniform(-0.2, 0.2))
    line = means.smoothed()
    assert line[0][1] > 5.0, "the start of the fall is not blurred"
    late = [y for x, y in line if x > 400]
    assert max(abs(y - 2.0) for y in late) < 0.05


def test_going_back_drops_the_later_means() -> None:
    means = MeanSeries()
    for x in range(1000):
        means.append(x, 1.0)
    means.append(300, 5.0)
    assert means.samples()[-1][0] == 300 and means.samples()[-1][1] == 5.0
    assert all(x <= 300 for x, _y in means.samples())
