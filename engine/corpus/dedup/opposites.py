"""Pairs of words that say the opposite, or another thing of the same kind."""

from __future__ import annotations

from collections.abc import Sequence

_ZH = tuple(
    (pair[0], pair[1])
    for pair in (
    "开关", "上下", "左右", "前后", "高低", "大小", "多少", "买卖", "加减", "增减", "涨跌", "升降", "好坏",
    "长短", "快慢", "冷热", "进出", "借还", "读写", "南北", "东西", "早晚", "新旧", "男女", "胖瘦", "赢输",
    "老幼", "内外", "轻重", "远近", "深浅", "干湿", "生死", "存取", "收发", "攻守", "乘除", "父母", "儿女", "春秋", "夏冬",
    )
)  # fmt: skip
_EN = tuple(
    frozenset(group.split("/"))
    for group in (
        "on/off", "open/close", "opened/closed", "enable/disable", "increase/decrease", "more/less/fewer", "before/after",
        "buy/sell/rent", "gain/lose", "rise/fall", "up/down", "left/right", "north/south/east/west",
        "northern/southern/eastern/western", "first/last", "good/bad", "best/worst",
        "add/remove/subtract/multiply/divide", "create/delete", "install/uninstall", "install/remove", "read/write",
        "import/export", "encode/decode", "encrypt/decrypt", "start/stop", "begin/end", "win/lose", "high/low", "higher/lower",
        "highest/lowest", "hot/cold", "warm/cool", "warmer/cooler", "push/pull", "min/max", "minimum/maximum", "allow/deny",
        "true/false", "male/female", "backup/restore", "ascending/descending", "oldest/youngest/newest", "older/younger/newer",
        "old/young", "big/small", "large/small", "long/short", "longer/shorter", "fast/slow", "faster/slower", "early/late",
        "earlier/later", "inside/outside", "internal/external", "upload/download", "lock/unlock", "attach/detach",
        "connect/disconnect", "love/hate", "help/cause", "cause/cure/prevent", "safe/dangerous/unsafe", "legal/illegal",
        "possible/impossible", "include/exclude", "accept/reject/refuse/decline", "arrive/depart/leave", "lend/borrow",
        "always/never/sometimes", "all/some/none", "husband/wife", "father/mother", "brother/sister",
        "son/daughter", "king/queen", "he/she", "his/her", "him/her", "day/night", "today/tomorrow/yesterday",
        "monday/tuesday/wednesday/thursday/friday/saturday/sunday", "morning/afternoon/evening",
        "mondays/tuesdays/wednesdays/thursdays/fridays/saturdays/sundays", "spring/summer/autumn/winter",
        "january/february/march/april/may/june/july/august/september/october/november/december",
        "seconds/minutes/hours/days/weeks/months/years", "second/minute/hour/day/week/month/year",
        "dollars/euros/pounds/yen", "metres/kilometres/miles/feet/inches", "meters/kilometers/miles/feet/inches",
        "grams/kilograms/pounds/ounces", "celsius/fahrenheit/kelvin", "red/green/blue/yellow/black/white",
        "daily/weekly/monthly/yearly",
    )
)  # fmt: skip


def are_opposites(here: Sequence[str], there: Sequence[str], one: str, other: str) -> bool:
    """Whether one text, given by its words and itself, has a word where the other has its opposite."""
    for a, b in _ZH:
        left, right = (a in one, b in one), (a in other, b in other)
        if left != right and left == right[::-1]:
            return True
    only_here, only_there = set(here) - set(there), set(there) - set(here)
    return any(group & only_here and group & only_there for group in _EN)
