"""Times as Google Takeout writes them on its pages: in the language of the account, with a zone."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta

_CLOCK = re.compile(r"(?<!\d)(\d{1,2})[:.](\d{2})[:.](\d{2})(?!\d)")
_YEAR = re.compile(r"(?<!\d)(20\d\d|25[5-9]\d)(?!\d)")
"""Thailand counts from the year -543."""
_BUDDHIST = 2500
_NUMBER = re.compile(r"(?<!\d)\d{1,2}(?!\d)")
_WORD = re.compile(r"[^\W\d_]+")
_OFFSET = re.compile(r"(?:GMT|UTC|غرينتش)\s*([+-]\d{1,2})(?::?(\d{2}))?")
_AFTERNOON = re.compile(r"(?i)(?<![^\W\d_])(?:p\.?\s?m|下午|晚上|오후|午後|μ\.?μ|م(?!\w)|अपराह्न|หลังเที่ยง|אחה)")
_MORNING = re.compile(
    r"(?i)(?<![^\W\d_])(?:a\.?\s?m|上午|凌晨|早上|오전|午前|π\.?μ|ص(?!\w)|पूर्वाह्न|ก่อนเที่ยง|לפנה)"
)

_MONTH_STEMS = (
    "jan ene gen sty led oca янв січ ian tam",
    "feb fev lut uno sub şub фев лют hel",
    "mar mrt maa maer бер мар",
    "apr avr abr kwi dub nis апр кві huh",
    "may mai maj mei mag kve мая май тра tou",
    "jun juin giu cze haz июн чер kes iun",
    "jul juil lug lip tem июл лип hei iul",
    "aug aou ago sie srp agu авг сер elo",
    "sep set wrz zar eyl сен вер syy",
    "oct okt out ott paz rij eki окт жов lok",
    "nov lis kas ноя marras noi",
    "dec dic dez gru pro ara дек гру jou",
)
"""Beginnings of the names of each month in the languages of Europe, without accents."""
_MONTHS = {stem: month for month, stems in enumerate(_MONTH_STEMS, 1) for stem in stems.split()}
_LONGEST_STEM = max(map(len, _MONTHS))

_OTHER_MONTHS = (
    "يناير كانون_الثاني Ιαν जन ม.ค. ינו",
    "فبراير شباط Φεβ फ़र फर ก.พ. פבר",
    "مارس آذار Μαρ मार्च มี.ค. מרץ במרץ",
    "أبريل إبريل نيسان Απρ अप्रैल เม.ย. אפר",
    "مايو أيار Μαΐ Μαϊ मई พ.ค. מאי",
    "يونيو حزيران Ιουν जून มิ.ย. יונ",
    "يوليو تموز Ιουλ जुल ก.ค. יול",
    "أغسطس آب Αυγ अग ส.ค. אוג",
    "سبتمبر أيلول Σεπ सित ก.ย. ספט",
    "أكتوبر تشرين_الأول Οκτ अक्टू ต.ค. אוק",
    "نوفمبر تشرين_الثاني Νοε नव พ.ย. נוב",
    "ديسمبر كانون_الأول Δεκ दिस ธ.ค. דצמ",
)
"""Names of each month in other scripts; all of it must stand in the date."""
_OF_OTHER_SCRIPT = {
    name.replace("_", " "): month for month, names in enumerate(_OTHER_MONTHS, 1) for name in names.split()
}
_NUMBERED_MONTH = re.compile(r"(?i)\b(?:thg|tháng)\.?\s?(\d{1,2})")
_MARKS = re.compile("[\u061c\u200e\u200f]")

_ZONE_HOURS = {
    **{
        "UTC": 0.0,
        "GMT": 0,
        "Z": 0,
        "WET": 0,
        "BST": 1,
        "WEST": 1,
        "CET": 1,
        "MEZ": 1,
        "SEČ": 1,
        "CEST": 2,
        "MESZ": 2,
        "SELČ": 2,
    },
    **{
        "EET": 2,
        "SAST": 2,
        "EEST": 3,
        "MSK": 3,
        "TRT": 3,
        "IST": 5.5,
        "WIB": 7,
        "ICT": 7,
        "HKT": 8,
        "SGT": 8,
    },
    **{"JST": 9, "KST": 9, "AEST": 10, "AEDT": 11, "NZST": 12, "NZDT": 13, "BRT": -3, "ART": -3, "AST": -4},
    **{"EDT": -4, "EST": -5, "CDT": -5, "MDT": -6, "MST": -7, "PDT": -7, "PST": -8, "AKST": -9, "HST": -10},
}
"""Hours east of Greenwich. CST is China's in a date with Chinese signs, else that of North America."""


def is_time_line(text: str) -> bool:
    """Whether a line is a date with a time of day to the second, and nothing else."""
    if len(text) > 80 or len(text.split()) > 9:
        return False
    plain = _plain(text)
    return bool(_YEAR.search(plain)) and bool(_CLOCK.search(plain))


def parse_localized_time(text: str) -> float | None:
    """Seconds since the epoch; None when the month is in a language that is not known. An unknown zone is UTC."""
    text = _plain(text)
    clock, year = _CLOCK.search(text), _YEAR.search(text)
    if not clock or not year:
        return None
    # The date stands before the time, but in Vietnamese.
    date = text[: clock.start()] if year.start() < clock.start() else text[clock.end() :]
    numbered = _NUMBERED_MONTH.search(date)
    month_name = int(numbered[1]) if numbered else _named_month(date)
    rest = date.replace(numbered[0], " ", 1) if numbered else date
    numbers = [int(number) for number in _NUMBER.findall(rest.replace(year[0], " ", 1))]
    if month_name and numbers:
        month, day = month_name, numbers[0]
    elif len(numbers) >= 2:
        # A year in front is followed by the month; only their size tells day and month apart.
        month, day = (
            (numbers[0], numbers[1])
            if text.index(year[0]) < 4 or numbers[1] > 12
            else (numbers[1], numbers[0])
        )
    else:
        return None
    hour = int(clock[1])
    if _AFTERNOON.search(text) and hour < 12:
        hour += 12
    elif _MORNING.search(text) and hour == 12:
        hour = 0
    of_christ = int(year[0]) - 543 if int(year[0]) > _BUDDHIST else int(year[0])
    try:
        moment = datetime(of_christ, month, day, hour, int(clock[2]), int(clock[3]), tzinfo=UTC)
    except ValueError:
        return None
    return (moment - timedelta(hours=zone_hours(text[clock.end() :], date))).timestamp()


def _plain(text: str) -> str:
    """With the digits of ASCII and without marks of direction."""
    if text.isascii():
        return text
    return "".join(
        str(unicodedata.decimal(sign)) if sign.isdecimal() else sign for sign in _MARKS.sub("", text)
    )


def _named_month(date: str) -> int:
    if month := next((month for word in _WORD.findall(date) if (month := month_of_name(word))), 0):
        return month
    return next((month for name, month in _OF_OTHER_SCRIPT.items() if name in date), 0)


def month_of_name(word: str) -> int:
    """The month of a word that begins like its name; 0 for other words."""
    plain = "".join(
        sign for sign in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(sign)
    )
    # Decomposing takes the breve from й; the stems have it.
    for form in (word.casefold(), plain):
        for length in range(_LONGEST_STEM, 2, -1):
            if form[:length] in _MONTHS and len(form) >= length:
                return _MONTHS[form[:length]]
    return 0


def zone_hours(text: str, date: str) -> float:
    """Hours east of Greenwich of the zone in a text; the date tells which CST it is. An unknown zone is UTC."""
    if offset := _OFFSET.search(text):
        hours = int(offset[1])
        return hours + (int(offset[2] or 0) / 60) * (-1 if offset[1].startswith("-") else 1)
    for word in re.findall(r"[A-ZČ]{1,5}", text):
        if word == "CST":
            return 8 if "年" in date else -6
        if word in _ZONE_HOURS:
            return _ZONE_HOURS[word]
    return 0
