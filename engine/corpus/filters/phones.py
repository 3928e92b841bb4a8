"""Telephone numbers: by their format where it is unambiguous, else by the words around them."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SEP = r"[ \-–—.·]?"
_BEFORE = r"(?<![0-9A-Za-z])(?<![0-9][.,/-])(?<![0-9]\.)"
_AFTER = r"(?![0-9])(?![.,][0-9])"
_EXTENSION = r"(?:\s?(?:x|ext\.?|extension|转|分机)\s?[0-9]{1,6})?"

_MOBILE_CN = re.compile(
    r"(?<![0-9])(?<![0-9][.,])(?:(?:\+|00)?86" + _SEP + r")?1[3-9][0-9](?:" + _SEP + r"[0-9]){8}" + _AFTER
)
# In groups with one to three equal separators: "138  1234  5678", "138/1234/5678", "138 - 1234 - 5678".
_GROUPED_CN = re.compile(
    r"(?<![0-9])(?<![0-9][.,/])(?:(?:\+|00)?86[ \-–—.·/]{0,3})?1[3-9][0-9]([ \-–—.·/]{1,3})[0-9]{4}\1[0-9]{4}(?!/?[0-9])(?![.,][0-9])"
)
# Digit by digit with equal separators.
_SPACED_CN = re.compile(r"(?<![0-9])(?<![0-9][ .,-])1([ \-.·])[3-9](?:\1[0-9]){9}(?!\1?[0-9])")
_LANDLINE_CN = re.compile(
    r"(?<![0-9])(?<![0-9][.,-])(?:(?:\+|00)86[ -]?)?(?:\(0(?:10|2[0-9]|[3-9][0-9]{2})\)\s?|0(?:10|2[0-9]|[3-9][0-9]{2})[ \-–—])[2-9][0-9]{2,3}[ -]?[0-9]{4}"
    + _EXTENSION
    + r"(?![0-9])"
)
_SERVICE_CN = re.compile(r"(?<![0-9])(?<![0-9][.,-])[48]00[ -][0-9]{3,4}[ -][0-9]{3,4}(?![0-9])")
_INTERNATIONAL = re.compile(
    r"(?<![0-9A-Za-z+])\+[1-9][0-9]{0,3}(?:[ \-.()]{0,2}[0-9]){6,13}" + _EXTENSION + _AFTER
)
_NORTH_AMERICA = re.compile(
    _BEFORE
    + r"(?:(?:\+|00)?1[ \-.])?(?:\([2-9][0-9]{2}\)\s?|[2-9][0-9]{2}[\-.])[2-9][0-9]{2}[\-.][0-9]{4}"
    + _EXTENSION
    + r"(?![0-9]|[-.][0-9])"
    r"|" + _BEFORE + r"001[\-. ][0-9]{3}[\-. ][0-9]{3}[\-. ][0-9]{4}" + _EXTENSION + r"(?![0-9])"
    r"|" + _BEFORE + r"\([0-9]{3}\)\s?[0-9]{3}[\-. ][0-9]{4}" + _EXTENSION + r"(?![0-9])",
    re.IGNORECASE,
)
# Each with a cheap necessary condition.
_FORMATS = (
    (re.compile("1[3-9][0-9]"), _MOBILE_CN),
    (re.compile(r"1[3-9][0-9][ \-–—.·/]"), _GROUPED_CN),
    (re.compile(r"1[ \-.·][3-9][ \-.·]"), _SPACED_CN),
    (re.compile("0[0-9]{2,3}[) \\-–—]"), _LANDLINE_CN),
    (re.compile("[48]00[ -]"), _SERVICE_CN),
    (re.compile(r"\+[1-9]"), _INTERNATIONAL),
    (re.compile(r"[0-9]{3}[\-. ][0-9]{4}"), _NORTH_AMERICA),
)

_DIGIT_RUN = re.compile(
    r"(?<![0-9A-Za-z$€£¥-])(?<![0-9][.,/:])\+?\(?[0-9]\)?(?:[ \-./()–]{0,2}[0-9]){5,14}"
    + _EXTENSION
    + r"(?![0-9A-WYZa-wyz%]|[.,:][0-9])",
    re.IGNORECASE,
)
_SIX_DIGITS = re.compile(r"[0-9]\)?(?:[ \-./()–]{0,2}[0-9]){5}")
"""A necessary condition of `_DIGIT_RUN`."""
_WORD_BEFORE = re.compile(
    r"(?:电话|手机|座机|传真|热线|联系方式|联系号码|联络|致电|拨打|来电|去电|短信|打给|打过来|呼叫|号码|固话|分机"
    r"|(?<![a-z])(?:tele)?phone(?:s| number| no\.?)?(?![a-z])|(?<![a-z])(?:mobile|cell(?:phone)?|fax|desk|office|home|work|tel|call(?:ing|ed)?(?: me| us| him| her| back)?|dial(?:ing|led)?|text(?:ed)? (?:me|us|him|her)|ring|reach(?: me| us)?|contact(?: me| us)?|whatsapp|hotline|answering|messages?|registered|my number|number is|sms|voicemail)(?![a-z]))"
    r"(?:[^0-9。！？!?\n;；]|\n(?=\s*[+(0-9])){0,28}$",
    re.IGNORECASE,
)
_WORD_AFTER = re.compile(
    r"^\s?[-–—(,]?\s?(?:office|fax|mobile|cell|home|work|desk|tel|phone)(?![a-z])|^\s?[)）]?(?:这个)?(?:电话|手机|打不通|打得通|无人接)",
    re.IGNORECASE,
)
_NOT_A_PHONE = re.compile(
    r"[0-9]{4}[-./][0-9]{1,2}[-./][0-9]{1,2}|[0-9]{1,2}[-./][0-9]{1,2}[-./][0-9]{2,4}|(?:19|20)[0-9]{2}\s?[-–]\s?(?:19|20)[0-9]{2}|[0-9]{1,15}\.[0-9]{1,15}|[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
)
_OTHER_NUMBER = re.compile(
    r"(?:订单|快递|运单|单号|流水|工单|编号|身[份分]证|卡号|邮编|验证码|zip|order|invoice|card|account|ticket|id|code|isbn|ssn|licen[cs]e number)\s*+(?:号码?|number|no\.?|#|is|是|为|:|：)*+\s*+$",
    re.IGNORECASE,
)


def find_phones(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of telephone numbers, unambiguous formats first."""
    for condition, pattern in _FORMATS:
        for match in pattern.finditer(text) if condition.search(text) else ():
            if not _OTHER_NUMBER.search(text[max(0, match.start() - 20) : match.start()]):
                yield match.span()
    for match in _DIGIT_RUN.finditer(text) if _SIX_DIGITS.search(text) else ():
        number = match.group()
        digits = sum(character.isdigit() for character in re.split(r"[x转e]|分机", number, maxsplit=1)[0])
        if not 6 <= digits <= 15 or _NOT_A_PHONE.fullmatch(number.strip()):
            continue
        before = text[max(0, match.start() - 44) : match.start()]
        if _OTHER_NUMBER.search(before):
            continue
        if _WORD_BEFORE.search(before) or _WORD_AFTER.search(text[match.end() : match.end() + 12]):
            yield match.span()
