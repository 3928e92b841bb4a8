"""Telephone numbers: by their format where it is unambiguous, else by the words around them."""

from __future__ import annotations

import itertools
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
_SERVICE_CN = re.compile(
    r"(?<![0-9])(?<![0-9][ .,-])[48]00[ -](?:[0-9]{3}[ -][0-9]{4}|[0-9]{4}[ -][0-9]{3})(?![0-9]| [0-9])"
)
_INTERNATIONAL = re.compile(
    r"(?<![0-9A-Za-z+])(?<![0-9] )(?:\+[1-9][0-9]{0,3}|(?<![A-Za-z)] )\+ [1-9][0-9]{0,3}|(?<![0-9.,/-])00[1-9][0-9]{0,2}(?=[ \-./(]))(?:[ \-./()]{0,2}[0-9]){6,13}"
    + _EXTENSION
    + _AFTER
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
_NATIONAL = re.compile(
    r"(?<![0-9A-Za-z+])(?<![0-9][ .,:/-])(?:"
    # with the 0 of a long-distance call: "030 1234567", "06 12 34 56 78", "07700 900123", "0161 496 0000", "079 123 45 67"
    r"\(?0[1-9][0-9]{1,4}\)?[ /][0-9]{6,8}"
    r"|\(?0[1-9][0-9]{0,4}\)?(?: ?[\-/] ?| )[0-9]{3,4}[ \-][0-9]{3,4}"
    r"|0[1-9](?:(?P<pair>[ .\-])[0-9]{2})(?:(?P=pair)[0-9]{2}){3}"
    r"|0[1-9][0-9]{1,2}[ \-/][0-9]{2,3}[ \-][0-9]{2}[ \-][0-9]{2}"
    # Brazil, Russia
    r"|\([1-9][0-9]\) ?9?[0-9]{4}-[0-9]{4}"
    r"|(?:8|7)[ \-]?\(?[3-9][0-9]{2}\)?[ \-]?[0-9]{3}-[0-9]{2}-[0-9]{2}"
    r")" + _EXTENSION + r"(?![0-9]|[.,:/-][0-9]| [0-9]{2,})",
)
_CALLING_CODE = re.compile(
    r"(?:1(?=[2-9][0-9]{9}$)|7(?=[3-9])|2(?:0|7|[1-69][0-9])|3(?:[0-469]|[578][0-9])|4(?:[013-9]|2[013])|5(?:[1-8]|[09][0-9])"
    r"|6(?:[0-6]|[789][0-9])|8(?:[1246]|[035][0-9]|[78][0-9]{2})|9(?:[0-58]|[679][0-9]))"
    # (0): the zero that is not dialled from abroad; Italy keeps it
    r"(?=0?[1-9])"
)
"""A country's code, and how the number after it begins."""

# Each with a cheap necessary condition.
_FORMATS = (
    # Before the forms of one country, which may be a part of it.
    (re.compile(r"\+ ?[1-9]|00[1-9]"), _INTERNATIONAL),
    (re.compile("1[3-9][0-9]"), _MOBILE_CN),
    (re.compile(r"1[3-9][0-9][ \-–—.·/]"), _GROUPED_CN),
    (re.compile(r"1[ \-.·][3-9][ \-.·]"), _SPACED_CN),
    (re.compile("0[0-9]{2,3}[) \\-–—]"), _LANDLINE_CN),
    (re.compile("[48]00[ -]"), _SERVICE_CN),
    (re.compile(r"[0-9]{3}[\-. ][0-9]{4}"), _NORTH_AMERICA),
    (
        re.compile(
            r"0[1-9][0-9]{0,4}[)]?[ \-/.]{1,3}[0-9]{2}|[0-9][ \-][0-9]{2}[ \-][0-9]{2}|\([0-9]{2}\) ?9?[0-9]{4}"
        ),
        _NATIONAL,
    ),
)

_DIGIT_RUN = re.compile(
    r"(?<![0-9A-Za-z$€£¥-])(?<![0-9][.,/:])\+?\(?[0-9]\)?(?:[ \-./()–]{0,3}[0-9]){5,14}"
    + _EXTENSION
    + r"(?![0-9A-WYZa-wyz%]|[.,:][0-9])",
    re.IGNORECASE,
)
SIX_DIGITS = re.compile(r"[0-9](?:[\s\-–—.·/()]{0,4}[0-9]){5}")
"""A necessary condition of all forms."""
_WORD_BEFORE = re.compile(
    r"(?:电话|手机|座机|传真|热线|联系方式|联系号码|联络|致电|拨打|来电|去电|短信|打给|打过来|呼叫|号码|固话|分机"
    r"|(?<![a-z])(?:tele)?phone(?:s| number| no\.?)?(?![a-z])|(?<![a-z])(?:mobile|cell(?:phone)?|fax|desk|office|home|work|tel|call(?:ing|ed)?(?: me| us| him| her| back)?|dial(?:ing|led)?|text(?:ed)? (?:me|us|him|her)|ring|reach(?: me| us)?|contact(?: me| us)?|whatsapp|hotline|answering|messages?|registered|sms|voicemail)(?![a-z])"
    r"|(?<![a-zà-ÿ])(?:t[ée]l[ée]?(?:phone|fono|fon|fone|fonnummer)?|(?:mobil|festnetz|handy|ruf)nummer|handy|mobil(?:telefon)?|rufnummer|ruf(?:en)?(?: sie)?(?: mich)?(?: unter)?|anruf(?:en)?|erreichbar|m[óo]vil|celular|cellulare|portable|chiama(?:mi)?|llámame|appelle|puhelin|telefoon|telefonnr|тел)(?![a-zà-ÿ])"
    r"|телефон|мобильн|電話|携帯|전화|휴대폰|연락처|핸드폰|โทร|điện thoại|هاتف|جوال)"
    r"(?:[^0-9。！？!?\n;；]|\n(?=\s*[+(0-9])){0,28}$",
    re.IGNORECASE,
)
_WORD_AFTER = re.compile(
    r"^\s?[-–—(,]?\s?(?:office|fax|mobile|cell|home|work|desk|tel|phone)(?![a-z])|^\s?[)）]?(?:这个)?(?:电话|手机|打不通|打得通|无人接)",
    re.IGNORECASE,
)
_NUMBER_BEFORE = re.compile(
    r"(?:(?P<own>(?<![a-z])(?:my|his|her|your|our|their|the \w{1,12}['’]s|[a-z]{1,12}['’]s) (?:new |old |private )?number"
    r"|(?<![a-z])(?:mein|dein|ihr|sein)e? nummer|(?<![a-z])(?:mon|ton|son|mi|tu|su|mio|meu) n[uú]m[eé]ro|мой номер)"
    r"|(?<![a-zà-ÿа-я])(?:(?<!part )number(?= (?:is|was)(?![a-z]))|nummer|n[uú]m[eé]ro|номер)(?![a-zà-ÿа-я]))"
    r"(?:\s(?:is|was|changed to|now|ist|lautet|est|es|è|é))*\W{0,4}\Z",
    re.IGNORECASE,
)
"""A word for any number: beside it a telephone number is one by its form, or because it is somebody's."""
_LIKE_A_PHONE = re.compile(r"\A[+(0]|[0-9][-/()][0-9 ]|\A(?:[^0-9]*[0-9]){9}|[0-9]{3} [0-9]{2,4} [0-9]{2,4}")
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?: [0-9]{3})*(?: 000){2}")
"""A count in groups of thousands."""
_MINUEND = re.compile(r"[0-9] [-−–] \Z")
_NOT_A_PHONE = re.compile(
    r"[0-9]{4}[-./][0-9]{1,2}[-./][0-9]{1,2}|[0-9]{1,2}[-./][0-9]{1,2}[-./][0-9]{2,4}|(?:19|20)[0-9]{2}\s?[-–]\s?(?:19|20)[0-9]{2}|[0-9]{1,15}\.[0-9]{1,15}|[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
)
_OTHER_NUMBER = re.compile(
    r"(?:limit|offset|发票|彩票|中奖|开奖|股票|基金|合同|批号|案号|订单|快递|运单|单号|流水|工单|编号|身[份分]证|卡号|邮编|验证码|zip|order|invoice|card|account|ticket|id|code|isbn|ssn|licen[cs]e number|sku|part no\.?|serial|uid|编码|版本|isbn|doi|tracking)\s*+(?:号码?|number|no\.?|#|is|是|为|:|：|=)*+\s*+$",
    re.IGNORECASE,
)


_OPERATION_AFTER = re.compile(
    r"\A[ ]?(?:除以|乘以|mod [0-9]|\)[ ]?[\^*/]|乘上|加上|减去|的平方|的立方|开平方)|\A[ ]?(?:[×✕÷*%^=<>]|[/+][ ]?[0-9]{1,6}(?![0-9])|-[ ]|\+[ ]|>>|<<|\*\*)[ ]?(?:[0-9A-Za-z(=<>]|\Z)"
)
_OPERATION_BEFORE = re.compile(
    r"(?:[0-9A-Za-z)][ ]?(?:[×✕÷*%^]|[<>]=?|[+/][ ])|[0-9)][ ]?=|[A-Za-z_]\(|(?<![A-Za-z])[a-z][ ]?=|计算|求)[ ]?\Z"
)
_LIST_OF_KEYS = re.compile(
    r"(?<![A-Za-z])(?P<column>[A-Za-z_.]{0,40})[`\"]?\s{1,3}(?:not\s{1,3})?in\s{0,3}\([0-9,'\"\s]{0,200}\Z",
    re.IGNORECASE,
)
_PHONE_COLUMN = re.compile(r"phone|mobile|tel|cell|fax|contact|number", re.IGNORECASE)


def _is_calculation(text: str, start: int, end: int) -> bool:
    """Whether the number is a part of a calculation or of a list of keys in SQL."""
    before = text[max(0, start - 240) : start]
    if _OPERATION_AFTER.match(text[end : end + 10]) or _OPERATION_BEFORE.search(before[-8:]):
        return True
    if _MINUEND.search(before) and not _WORD_BEFORE.search(before[-72:].rstrip("0123456789 -−–")):
        return True
    if "(" not in before:
        return False
    listed = _LIST_OF_KEYS.search(before)
    return listed is not None and not _PHONE_COLUMN.search(listed["column"])


def _is_international(number: str) -> bool:
    """Whether a number with + or 00 begins with a country's code and is none that counts ("+100 000 000")."""
    digits = re.sub(r"[^0-9]", "", re.split(r"[x转e]|分机", number, maxsplit=1)[0])
    digits = digits[2:] if digits.startswith("00") else digits
    return _CALLING_CODE.match(digits) is not None and not digits.endswith("00000")


def _is_series(number: str) -> bool:
    """Whether pairs of digits count: "01 02 03 04 05"."""
    pairs = [int(pair) for pair in re.findall("[0-9]+", number)]
    return len(pairs) > 3 and len({second - first for first, second in itertools.pairwise(pairs)}) == 1


def find_phones(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of telephone numbers, unambiguous formats first."""
    first = SIX_DIGITS.search(text)
    if first is None:
        return
    # What stands before the first digits of a number: "(", "+ ".
    begin = max(0, first.start() - 3)
    for condition, pattern in _FORMATS:
        for match in pattern.finditer(text, begin) if condition.search(text, begin) else ():
            if (
                not _OTHER_NUMBER.search(text[max(0, match.start() - 20) : match.start()])
                and not _is_calculation(text, match.start(), match.end())
                and not _THOUSANDS.fullmatch(match.group())
                and (pattern is not _INTERNATIONAL or _is_international(match.group()))
                and (pattern is not _NATIONAL or not _is_series(match.group()))
            ):
                yield match.span()
    for match in _DIGIT_RUN.finditer(text, begin):
        number = match.group()
        digits = sum(character.isdigit() for character in re.split(r"[x转e]|分机", number, maxsplit=1)[0])
        if (
            not 6 <= digits <= 15
            or _NOT_A_PHONE.fullmatch(number.strip())
            or _THOUSANDS.fullmatch(number.strip())
        ):
            continue
        before = text[max(0, match.start() - 44) : match.start()]
        if _OTHER_NUMBER.search(before) or _is_calculation(text, match.start(), match.end()):
            continue
        if number.startswith("+") and not _is_international(number):
            continue
        if (
            _WORD_BEFORE.search(before)
            or _WORD_AFTER.search(text[match.end() : match.end() + 12])
            or ((word := _NUMBER_BEFORE.search(before)) and (word["own"] or _LIKE_A_PHONE.search(number)))
        ):
            yield match.span()
