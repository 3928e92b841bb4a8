"""Rules that find a difference in meaning that embedders hardly see: numbers, negation, "on" for "off", word order."""

from __future__ import annotations

import re
from collections import Counter

from engine.corpus.filters.normalise import letters

_NUMBER = re.compile(
    r"[0-9]+|(?<![零〇一二三四五六七八九十百千万两])[零〇一二三四五六七八九十百千万两]+(?=[年月日个岁元块点号次天时分秒倍])"
)
_NEGATION = re.compile(
    r"不|没|无|非|未|勿|别|\b(?:not?|never|without|none|nor|cannot)\b|n['’]t\b", re.IGNORECASE
)
_LATIN_WORD = re.compile(r"[A-Za-z][A-Za-z0-9+#.]*")
_CJK = re.compile(r"[\u3400-\u9fff]")
_WORD = re.compile(r"[a-z]+")
_OPPOSITES_ZH = tuple(
    (pair[0], pair[1])
    for pair in (
    "开关", "上下", "左右", "前后", "高低", "大小", "多少", "买卖", "加减", "增减", "涨跌", "升降", "好坏",
    "长短", "快慢", "冷热", "进出", "借还", "读写", "南北", "东西", "早晚", "新旧", "男女", "胖瘦", "赢输",
    )
)  # fmt: skip
_OPPOSITES_EN = tuple(
    (pair.partition("/")[0], pair.partition("/")[2])
    for pair in (
        "on/off", "open/close", "opened/closed", "enable/disable", "increase/decrease", "more/less", "before/after",
        "buy/sell", "gain/lose", "rise/fall", "up/down", "left/right", "north/south", "east/west", "first/last",
        "good/bad", "best/worst", "add/remove", "create/delete", "install/uninstall", "install/remove", "read/write",
        "import/export", "encode/decode", "start/stop", "win/lose", "high/low", "hot/cold", "push/pull", "min/max",
        "allow/deny", "true/false", "male/female", "backup/restore",
    )
)  # fmt: skip


def may_mean_the_same(one: str, other: str) -> bool:
    """False where numbers, negation, opposites or names differ, or the same words occur in another order."""
    if Counter(_NUMBER.findall(one)) != Counter(_NUMBER.findall(other)):
        return False
    if len(_NEGATION.findall(one)) % 2 != len(_NEGATION.findall(other)) % 2:
        return False
    if _are_opposites(one, other):
        return False
    chinese = _CJK.search(one) is not None
    if chinese != (_CJK.search(other) is not None):
        return False
    if chinese and _latin_names(one) != _latin_names(other):
        return False
    left, right = letters(one), letters(other)
    return left == right or not _is_reordered(left, right, one, other, chinese=chinese)


def _latin_names(text: str) -> frozenset[str]:
    """Words in Latin letters of a Chinese text, e.g. Linux, Python."""
    return frozenset(word.lower() for word in _LATIN_WORD.findall(text))


def _is_reordered(left: str, right: str, one: str, other: str, *, chinese: bool) -> bool:
    """Whether both consist of the same characters (Chinese) or words, in another order."""
    if chinese:
        return Counter(left) == Counter(right)
    return Counter(_WORD.findall(one.lower())) == Counter(_WORD.findall(other.lower()))


def _are_opposites(one: str, other: str) -> bool:
    """Whether one text has a word where the other has its opposite."""
    for a, b in _OPPOSITES_ZH:
        here, there = (a in one, b in one), (a in other, b in other)
        if here != there and here == there[::-1]:
            return True
    first, second = set(_WORD.findall(one.lower())), set(_WORD.findall(other.lower()))
    return any(
        (a in first and b not in first and b in second and a not in second)
        or (b in first and a not in first and a in second and b not in second)
        for a, b in _OPPOSITES_EN
    )
