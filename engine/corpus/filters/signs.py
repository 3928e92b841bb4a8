"""Cheap signs without which a finder of sensitive text has nothing to find: most texts have none or one of them.

Each is a necessary condition, never a sufficient one. Words are looked for in the lower-case text, which is some
thirty times as fast as a pattern with both cases.
"""

from __future__ import annotations

import re
from enum import IntEnum

_ODD_CASE = re.compile("[\u0130\u0131\u017f\u212a]")
"""İ, ı, ſ and the Kelvin sign: `re` takes them for i, s and k without case, `str.lower` does not."""

_MARKS = re.compile(r"[\d²³¹\u2070-\u2089\u2460-\u249b@＠Ａ-Ｚ\u0130\u0131\u017f\u212a]")
_SPELT = re.compile(r"[零〇一二三四五六七八九幺壹贰叁肆伍陆柒捌玖]{3}")
_WORDS = (
    "密码", "口令", "微信", "pass", "pwd", "private", "bearer", "secret", "token", "weixin", "wechat",
    "(at", "[at", "{at", "（at", "-----",
)  # fmt: skip
_KEYS = (
    "AKIA", "ASIA", "LTAI", "AKID", "AIza", "gho_", "ghp_", "ghs_", "ghu_", "eyJ", "xoxa", "xoxb", "xoxp", "sk-",
)  # fmt: skip
"""How the keys of vendors begin, in their case."""


class Sign(IntEnum):
    """What a finder needs; the number is its place in what `signs` returns."""

    DASHES = 0
    AT = 1
    LONG_WORD = 2
    PASSWORD = 3
    FIVE_DIGITS = 4
    SIX_DIGITS = 5
    NINE_DIGITS = 6
    MACHINE = 7
    PLATE = 8
    WECHAT = 9
    ROOM = 10


_DIGIT = re.compile("[0-9]")
_FIVE = re.compile(r"[0-9](?:[^0-9\n]{0,2}[0-9]){4}")
_SIX = re.compile("[0-9]{2}[ -]?[0-9]{4}")
_NINE = re.compile(r"[0-9](?:[^0-9\n]?[0-9]){8}")
_LONG_WORD = re.compile(r"[A-Za-z0-9_\-+/=.]{12}")
_MACHINE = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]|:[0-9A-Fa-f]{0,4}:")
_PLATE = re.compile(
    r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼使领][A-HJ-NP-Za-hj-np-z\u017f]"
)
_ROOM = re.compile("[室号房户](?<=[0-9A-Za-z层楼-].)")
_AT_WORDS = ("@", "at)", "at]", "at}")
_PASSWORD_WORDS = ("口令", "pass", "pwd", "psw", "pin", "contrase")
_WECHAT_WORDS = ("威信", "微信", "薇信", "wech", "weix", "wx", "vx", "v信", "加v", "加我v")


def worth_a_look(text: str) -> bool:
    """Whether anything in the text as given, not folded yet, could be sensitive."""
    if _MARKS.search(text) or _SPELT.search(text):
        return True
    return any(map(text.lower().__contains__, _WORDS)) or any(map(text.__contains__, _KEYS))


def signs(text: str) -> tuple[bool, ...]:
    """For each `Sign` whether the folded text shows it."""
    has = text.lower().__contains__
    odd = not text.isascii() and _ODD_CASE.search(text) is not None
    digits = _DIGIT.search(text) is not None
    five = digits and _FIVE.search(text) is not None
    return (
        "-----BEGIN" in text,
        any(map(has, _AT_WORDS)),
        _LONG_WORD.search(text) is not None,
        odd or any(map(has, _PASSWORD_WORDS)) or (has("密") and has("码")),
        five,
        digits and _SIX.search(text) is not None,
        five and _NINE.search(text) is not None,
        (has(":") or (digits and has("."))) and _MACHINE.search(text) is not None,
        _PLATE.search(text) is not None,
        odd or any(map(has, _WECHAT_WORDS)),
        _ROOM.search(text) is not None,
    )
