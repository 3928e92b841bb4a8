"""Times in the spellings in which programs and people write them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.memory.importers.datasets.openai import read
from engine.memory.importers.fields import ImportOptions
from engine.memory.importers.times import day_order, parse_time
from engine.memory.records import Conversation

MOMENT = datetime(2026, 3, 7, 2, 19, 26, tzinfo=UTC).timestamp()

SAME = [
    "2026-03-07T02:19:26Z", "2026-03-07 02:19:26", "2026-03-07 02:19:26 UTC", "2026-03-07 02:19:26Z", "2026-03-07T10:19:26+08:00",
    "2026-03-07 10:19:26 +0800", "2026-03-07 10:19:26 +0800 CST", "2026-03-07 02:19:26 +0000 UTC",
    "2026-03-07 02:19:26 +0000 UTC m=+0.012345", "2026-03-07T02:19:26.000000000Z", "2026/03/07 02:19:26", "2026/3/7 2:19:26", "2026.03.07 02:19:26",
    "2026年3月7日 02:19:26", "2026年03月07日02:19:26", "2026年3月7日 星期六 上午2:19:26", "2026年3月7日 凌晨2点19分26秒",
    "2026년 3월 7일 오전 2:19:26", "2026年3月7日(土) 2時19分26秒", "Sat, 07 Mar 2026 02:19:26 +0000", "Sat, 07 Mar 2026 02:19:26 GMT",
    "Sat, 7 Mar 2026 10:19:26 +0800", "Sat Mar  7 02:19:26 2026", "Sat Mar 07 2026 10:19:26 GMT+0800 (China Standard Time)",
    "Sat Mar  7 02:19:26 UTC 2026", "Mar 7, 2026, 2:19:26 AM", "Mar 7, 2026, 2:19:26\u202fAM", "March 7, 2026 at 2:19:26 AM", "7 March 2026 02:19:26",
    "7. März 2026 um 02:19:26", "7 mars 2026 à 02:19:26", "07.03.2026, 02:19:26", "7.3.26, 02:19:26", "1772849966", "1772849966000",
    {"$date": "2026-03-07T02:19:26Z"}, {"$date": {"$numberLong": "1772849966000"}}, {"$date": 1772849966000},
    {"_seconds": 1772849966, "_nanoseconds": 0}, {"$timestamp": {"t": 1772849966, "i": 1}},
]  # fmt: skip

NONE = [
    "", "yesterday", "10:01", "3/7/2026, 2:19:26 AM", "03-07-2026", "2026", "March", "March 2026", "2026-13-40", "2026/02/30",
    "13/13/2026", "version 2.3.4", "0001-01-01T00:00:00Z", "May the 4 be with 2026 of you and all of us", "1" * 30, "9" * 200, "2026-03-07 25:00",
    0, -5, True, 46088.5, 46088, float("nan"), float("inf"), 41024448000, {}, {"$date": {}}, {"$date": None}, [], ["2026-03-07"], None,
]  # fmt: skip


@pytest.mark.parametrize("value", SAME, ids=str)
def test_the_same_moment_in_any_spelling(value: object) -> None:
    assert parse_time(value) == MOMENT


@pytest.mark.parametrize("value", NONE, ids=str)
def test_what_is_no_time_or_an_uncertain_one_has_none(value: object) -> None:
    assert parse_time(value) is None


@pytest.mark.parametrize(
    ("text", "day_first", "expected"),
    [
        ("3/27/2026, 2:19:26\u202fPM", None, datetime(2026, 3, 27, 14, 19, 26, tzinfo=UTC)),
        ("27/3/2026 14:19", None, datetime(2026, 3, 27, 14, 19, tzinfo=UTC)),
        ("3/3/2026", None, datetime(2026, 3, 3, tzinfo=UTC)),
        ("3/7/2026, 12:05 AM", False, datetime(2026, 3, 7, 0, 5, tzinfo=UTC)),
        ("3/7/2026, 12:05 PM", True, datetime(2026, 7, 3, 12, 5, tzinfo=UTC)),
        ("2026年3月7日 下午2:19", None, datetime(2026, 3, 7, 14, 19, tzinfo=UTC)),
        ("2026/03/07 02:19", None, datetime(2026, 3, 7, 2, 19, tzinfo=UTC)),
        ("2026-03-07", None, datetime(2026, 3, 7, tzinfo=UTC)),
        ("2026-03-07 02:19:26 EST", None, datetime(2026, 3, 7, 7, 19, 26, tzinfo=UTC)),
    ],
)
def test_dates_in_numbers(text: str, day_first: bool | None, expected: datetime) -> None:
    assert parse_time(text, day_first=day_first) == expected.timestamp()


def test_one_date_decides_the_order_of_the_others() -> None:
    assert day_order(["3/7/2026", "4/27/2026, 2:19 AM"]) is False
    assert day_order(["3/7/2026", "27/4/2026"]) is True
    assert day_order(["3/7/2026", "2026-03-27"]) is None
    assert day_order(["27/4/2026", "4/27/2026"]) is None


def test_fractions_of_seconds_stay() -> None:
    assert parse_time("2026-03-07 02:19:26.125 +0000 UTC") == MOMENT + 0.125
    assert parse_time("2026/03/07 02:19:26.125") == MOMENT + 0.125


@given(st.datetimes(datetime(1990, 1, 1), datetime(2150, 1, 1)), st.integers(-11, 13))
def test_what_python_writes_is_read(naive: datetime, hours: int) -> None:
    moment = naive.replace(microsecond=0, tzinfo=UTC)
    sign = "-" if hours < 0 else "+"
    assert parse_time(format_datetime(moment)) == moment.timestamp()
    assert parse_time(moment.strftime("%a %b %d %H:%M:%S %Y")) == moment.timestamp()
    assert parse_time(moment.strftime("%Y/%m/%d %I:%M:%S %p")) == moment.timestamp()
    shifted = parse_time(f"{moment:%Y-%m-%d %H:%M:%S} {sign}{abs(hours):02}00")
    assert shifted == moment.timestamp() - hours * 3600


@given(st.text(alphabet="0123456789/-.: ,年月日APMZ+gmtarch上下午", max_size=60))
def test_any_text_is_a_time_of_these_centuries_or_none(text: str) -> None:
    time = parse_time(text)
    assert time is None or 0 < time < 7_300_000_000


def test_dates_of_rows_are_read(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"messages": messages, "created_at": value}) + "\n" for value in SAME))
    times = {item.started_at for item in read(path, ImportOptions()) if isinstance(item, Conversation)}
    assert times == {MOMENT}
