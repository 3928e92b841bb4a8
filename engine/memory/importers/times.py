"""Times as programs and people write them: timestamps in any unit, RFC 3339 and 2822, Go, JavaScript, 12 hours, Chinese.

A time without a zone counts as UTC. A date with an ambiguous order of day and month has no time: `3/7/2026`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from engine.memory.importers.localized_time import month_of_name, zone_hours

_LATEST = datetime(2200, 1, 1, tzinfo=UTC).timestamp()
_SERIALS = range(20_000, 80_000)
"""Days since 1900 as spreadsheets count them, for the years 1954 to 2119; as seconds they would be a day of 1970."""
_LONGEST = 100
_EXCESS_DIGITS = re.compile(r"([.,]\d{6})\d+")
_TIMESTAMP = re.compile(r"[0-9]{10,19}(?:\.[0-9]{1,9})?")
_SPACES = re.compile(r"[\s\u00a0\u2009\u202f,，]+")
_AFTERNOON = r"[Pp]\.?\s?[Mm]\.?|下午|晚上|午後|오후"
_MORNING = r"[Aa]\.?\s?[Mm]\.?|上午|早上|凌晨|午前|오전|中午"
_CLOCK = (
    rf"(?P<half>{_AFTERNOON}|{_MORNING})?\s?(?P<hour>\d{{1,2}})(?:[:：h]|[时時点點시]\s?)(?P<minute>\d{{1,2}})[分분]?"
    rf"(?:(?:[:：]|\s?)(?P<second>(?<=[:：])\d{{2}}|\d{{1,2}}(?=\s?[秒초]))\s?[秒초]?(?:[.,](?P<fraction>\d{{1,9}}))?)?"
    rf"\s?(?P<half_after>{_AFTERNOON}|{_MORNING})?"
)
_ZONE = r"\s?(?P<zone>Z|(?:UTC|GMT)?\s?[+-]\d{1,2}:?(?:\d{2})?|[A-Z]{2,5})?(?:\s[A-Z]{2,5})?(?:\s?\([^()]{1,60}\))?(?:\sm=[+-][\d.]{1,20})?"
_WEEKDAY = r"(?:\s?[（(]?(?:星期|周|週)?[一二三四五六日天月火水木金土일월화수목금토](?:曜日|요일)?[）)]?)?"
_YEAR_FIRST = re.compile(
    rf"(?P<year>\d{{4}})\s?(?:[-/.年]|년)\s?(?P<month>\d{{1,2}})\s?(?:[-/.月]|월)\s?(?P<day>\d{{1,2}})[日号號일]?\.?{_WEEKDAY}"
    rf"(?:(?:\s|T|(?<=[日号號일]))\s?{_CLOCK}{_ZONE})?"
)
_YEAR_LAST = re.compile(
    rf"(?P<first>\d{{1,2}})(?P<sign>[./-])\s?(?P<second_>\d{{1,2}})(?P=sign)\s?(?P<year>\d{{4}}|\d{{2}})(?:\s{_CLOCK}{_ZONE})?"
)
_ANY_CLOCK = re.compile(rf"(?<!\d){_CLOCK}(?!\d)")
_ANY_ZONE = re.compile(_ZONE)
_OFFSET = re.compile(r"(?:UTC|GMT)?\s?([+-])(\d{1,2}):?(\d{2})?")
_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\d+")
_MOST_WORDS = 5


def parse_time(value: Any, *, day_first: bool | None = None) -> float | None:
    """Seconds since the epoch; None for what is no time, and for anything outside the years 1970 to 2200.

    A number, or its digits, is a timestamp in seconds, milli-, micro- or nanoseconds. MongoDB's `{"$date": …}` and
    Firestore's `{"_seconds": …}` are times too. `day_first` says how to read `3/7/2026`; see `day_order`.
    """
    for _depth in range(3):
        if not isinstance(value, dict):
            break
        keys = (
            "$date",
            "$numberLong",
            "$numberInt",
            "$numberDouble",
            "$timestamp",
            "_seconds",
            "seconds",
            "t",
        )
        value = next((value[key] for key in keys if key in value), None)
    if isinstance(value, str) and _TIMESTAMP.fullmatch(value):
        value = float(value)
    if isinstance(value, str):
        value = _from_text(value, day_first)
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _SERIALS.stop:
        value = None if _SERIALS.start <= abs(value) else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if (isinstance(value, int) and abs(value) > 10**19) or not math.isfinite(value):
        return None
    # The unit follows from the magnitude: 10^11 seconds is the year 5138.
    seconds = float(value)
    for _unit in ("milli", "micro", "nano"):
        seconds = seconds / 1000 if seconds > 10**11 else seconds
    return seconds if 0 < seconds < _LATEST else None


def day_order(texts: Iterable[str]) -> bool | None:
    """Whether the day stands before the month in dates such as `3/7/2026`; None where none of them decides it.

    A date with a number over 12 does; where dates of both orders do, nothing is decided.
    """
    orders = set()
    for text in texts:
        if len(text) <= _LONGEST and (match := _YEAR_LAST.fullmatch(_SPACES.sub(" ", text.strip()))):
            first, second = int(match["first"]), int(match["second_"])
            if max(first, second) > 12:
                orders.add(first > 12)
    return orders.pop() if len(orders) == 1 else None


def _from_text(text: str, day_first: bool | None) -> float | None:
    text = text.strip()
    if len(text) > _LONGEST:
        return None
    try:
        moment = datetime.fromisoformat(_EXCESS_DIGITS.sub(r"\1", text))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        pass
    text = _SPACES.sub(" ", text)
    if match := _YEAR_FIRST.fullmatch(text):
        return _moment(int(match["year"]), int(match["month"]), int(match["day"]), match, match["zone"])
    if match := _YEAR_LAST.fullmatch(text):
        first, second = int(match["first"]), int(match["second_"])
        if match["sign"] == "." or first > 12 or first == second:
            is_day_first: bool | None = True
        else:
            is_day_first = False if second > 12 else day_first
        if is_day_first is None:
            return None
        day, month = (first, second) if is_day_first else (second, first)
        year = int(match["year"])
        return _moment(year + 2000 if year < 100 else year, month, day, match, match["zone"])
    return _from_words(text)


def _from_words(text: str) -> float | None:
    """A time whose month has a name in a language of Europe: `Sat, 07 Mar 2026 02:19:26 +0000`."""
    clock = _ANY_CLOCK.search(text)
    date, zone = text, ""
    if clock:
        found = _ANY_ZONE.match(text, clock.end())
        zone = (found["zone"] if found else "") or ""
        end = found.end() if found else clock.end()
        date = f"{text[: clock.start()]} {text[end:]}"
    words = _WORD.findall(date)
    numbers = _NUMBER.findall(date)
    months = [month for word in words if (month := month_of_name(word))]
    years = [number for number in numbers if len(number) == 4]
    days = [number for number in numbers if len(number) <= 2]
    if len(months) != 1 or len(years) != 1 or len(days) != 1 or len(numbers) != 2 or len(words) > _MOST_WORDS:
        return None
    return _moment(int(years[0]), months[0], int(days[0]), clock, zone)


def _moment(year: int, month: int, day: int, clock: re.Match[str] | None, zone: str | None) -> float | None:
    hour = minute = second = 0
    fraction = 0.0
    if clock and clock["hour"]:
        hour, minute, second = int(clock["hour"]), int(clock["minute"]), int(clock["second"] or 0)
        fraction = float(f"0.{clock['fraction'] or 0}")
        half = clock["half"] or clock["half_after"] or ""
        if re.fullmatch(_AFTERNOON, half) and hour < 12:
            hour += 12
        elif re.fullmatch(_MORNING, half) and hour == 12 and half != "中午":
            hour = 0
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC) - timedelta(hours=_offset(zone))
    except (ValueError, OverflowError):
        return None
    return moment.timestamp() + fraction


def _offset(zone: str | None) -> float:
    """Hours east of Greenwich; an unknown zone is UTC."""
    if offset := _OFFSET.fullmatch(zone or ""):
        hours = int(offset[2]) + int(offset[3] or 0) / 60
        return -hours if offset[1] == "-" else hours
    return zone_hours(zone or "", "")
