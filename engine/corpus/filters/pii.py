"""Finds PII and credentials as typed spans.

Patterns run on the NFKC form of the text in simplified Chinese characters, with digit words as digits; spans are in
code points of the given text. Patterns do not use `\\b` next to digits: there is no word boundary between a Chinese
character and a digit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import lru_cache, partial
from typing import NamedTuple

from engine.corpus.filters import checksums, id_numbers, national_ids, passwords, phones, secrets
from engine.corpus.filters.addresses import find_addresses
from engine.corpus.filters.emails import find_emails
from engine.corpus.filters.normalise import normalise_with_map
from engine.corpus.filters.prefilter import PiiHint, may_contain_pii, pii_hints
from engine.corpus.filters.simplified_chinese import simplified
from engine.corpus.filters.western_addresses import find_western


class PiiType(StrEnum):
    """The type of a span; its placeholder is the name in angle quotes, e.g. ‹PHONE›."""

    PRIVATE_KEY = "PRIVATE_KEY"
    API_KEY = "API_KEY"
    PASSWORD = "PASSWORD"  # noqa: S105 - a name, not a password
    EMAIL = "EMAIL"
    ID_CARD = "ID_CARD"
    TAX_NUMBER = "TAX_NUMBER"
    HEALTH_NUMBER = "HEALTH_NUMBER"
    PERSONAL_NUMBER = "PERSONAL_NUMBER"
    CREDIT_CODE = "CREDIT_CODE"
    IBAN = "IBAN"
    BANK_CARD = "BANK_CARD"
    WALLET = "WALLET"
    SSN = "SSN"
    PASSPORT = "PASSPORT"
    DRIVER_LICENSE = "DRIVER_LICENSE"
    IP = "IP"
    PHONE = "PHONE"
    PLATE = "PLATE"
    WECHAT = "WECHAT"
    QQ = "QQ"
    ADDRESS = "ADDRESS"


class PiiSpan(NamedTuple):
    """A half-open range in code points of the original text."""

    type: PiiType
    start: int
    end: int


_IPV4 = re.compile(r"(?<![0-9A-Za-z.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z]|\.[0-9])")
_IPV6 = re.compile(
    r"(?<![0-9A-Za-z:.])(?=[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:)(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z:])"
)
_VERSION = re.compile(
    r"(?:版本号?|固件|(?<![a-z])v(?:ersion|er)?\.?|release|build|firmware)\s*+[:：]?\s*+$", re.IGNORECASE
)
_PLATE = re.compile(
    r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼使领][A-HJ-NP-Z][ ·•・-]?(?=[A-Z0-9]*[0-9])[A-HJ-NP-Z0-9]{4,5}[A-HJ-NP-Z0-9挂学警港澳](?![A-Za-z0-9])"
)
_PLATE_LABEL = re.compile(r"车牌|牌照|违章|号牌|车号|plate", re.IGNORECASE)
_WECHAT = re.compile(
    r"(?:微信|威信|薇信|(?<![a-z])(?:wechat|weixin|vx|wx|v信|(?<=加)v(?=\s|:)|(?<=加我)v(?=\s|:))(?![a-z]))\s*+((?:号码?|id|账号)?\s*+(?:是|为|叫|[:：]|is)?)\s*+([A-Za-z][A-Za-z0-9_-]{5,19})(?![A-Za-z0-9_-]|\.)",
    re.IGNORECASE,
)
_WXID = re.compile(r"(?<![A-Za-z0-9_])(wxid_[A-Za-z0-9]{6,20})(?![A-Za-z0-9_])")
_QQ = re.compile(
    r"(?:(?<![A-Za-z])QQ|扣扣|企鹅)(?:群|号码?|id)*+\s*+(?:是|为|is|[:：])?\s*+([1-9][0-9]{4,11}|[1-9][0-9]{2,3}(?:[ -][0-9]{2,4}){1,3})(?![0-9A-Za-z]|[ -][0-9])",
    re.IGNORECASE,
)
_ZH_DIGITS = {
    **{c: str(i) for i, c in enumerate("零一二三四五六七八九")},
    **{c: str(i) for i, c in enumerate("零壹贰叁肆伍陆柒捌玖")},
    "〇": "0",
    "幺": "1",
    "两": "2",
    "O": "0",
    "o": "0",
}
_ZH_RUN = re.compile(
    r"[0-9零〇一二三四五六七八九幺壹贰叁肆伍陆柒捌玖两](?:[ \-、,，]?[0-9零〇一二三四五六七八九幺壹贰叁肆伍陆柒捌玖两]){6,}"
)
_ZH_ANY = re.compile(r"[零〇一二三四五六七八九幺壹贰叁肆伍陆柒捌玖]")


_MAX_ROUNDS = 6
"""A row of numbers of which each hides the next one has at most so many rounds."""


def find_pii(text: str) -> list[PiiSpan]:
    """PII in `text`, in order and without overlap; the more certain pattern wins."""
    if not may_contain_pii(text):
        return []
    mapped = normalise_with_map(text)
    normalised = _words_to_digits(simplified(mapped.text))
    found: list[tuple[int, int, PiiType]] = []
    covered = bytearray(len(normalised))
    for _round in range(_MAX_ROUNDS):
        before = len(found)
        for type_, finder in _finders_for(pii_hints(normalised)):
            for start, end in finder(normalised):
                if end > start and not covered.count(1, start, end):
                    covered[start:end] = b"\1" * (end - start)
                    found.append((start, end, type_))
        if len(found) == before:
            break
        # A number next to another is found once the other is covered: "010-67028866,010-67028867".
        normalised = _cover(normalised, sorted(found[before:]))
    found.sort()
    return [PiiSpan(type_, *mapped.span(start, end)) for start, end, type_ in found]


@lru_cache(maxsize=512)
def _finders_for(
    hints: int,
) -> tuple[tuple[PiiType, Callable[[str], Iterator[tuple[int, int]]]], ...]:
    """The finders whose condition is met, in order."""
    return tuple((type_, finder) for type_, hint, finder in _FINDERS if hints & hint)


def _cover(text: str, spans: list[tuple[int, int, PiiType]]) -> str:
    """`text` of the same length with the spans, which are in order, covered."""
    parts: list[str] = []
    last = 0
    for start, end, _type in spans:
        parts += (text[last:start], "‹" * (end - start))
        last = end
    return "".join((*parts, text[last:]))


def _words_to_digits(text: str) -> str:
    """Replaces long runs of Chinese digit words (幺三八…) by digits; the length stays the same."""
    if not _ZH_ANY.search(text):
        return text
    return _ZH_RUN.sub(
        lambda match: (
            "".join(_ZH_DIGITS.get(c, " " if c in "、，," else c) for c in match.group())
            if _ZH_ANY.search(match.group())
            else match.group()
        ),
        text,
    )


def _ips(text: str) -> Iterator[tuple[int, int]]:
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            before = text[max(0, match.start() - 12) : match.start()]
            # Four single digits are a section or version number more often than an address.
            section = pattern is _IPV4 and len(match.group()) == 7
            # `a[10::2]` is a slice.
            section |= pattern is _IPV6 and sum(map(bool, match.group().split(":"))) < 3
            if (
                not section
                and checksums.is_identifying_address(match.group())
                and not _VERSION.search(before)
            ):
                yield match.span()


def _plates(text: str) -> Iterator[tuple[int, int]]:
    for match in _PLATE.finditer(text):
        yield match.span()
    if _PLATE_LABEL.search(text):
        for match in _PLATE.finditer(text.upper()):
            yield match.span()


def _wechats(text: str) -> Iterator[tuple[int, int]]:
    for match in _WECHAT.finditer(text):
        if match.group(1).strip() or re.search(r"[0-9_-]", match.group(2)):
            yield match.span(2)
    for match in _WXID.finditer(text):
        yield match.span(1)


def _each(pattern: re.Pattern[str], group: int = 0) -> Callable[[str], Iterator[tuple[int, int]]]:
    def finder(text: str) -> Iterator[tuple[int, int]]:
        return (match.span(group) for match in pattern.finditer(text))

    return finder


_FINDERS: tuple[tuple[PiiType, PiiHint, Callable[[str], Iterator[tuple[int, int]]]], ...] = (
    (PiiType.PRIVATE_KEY, PiiHint.DASHES, secrets.private_keys),
    (PiiType.API_KEY, PiiHint.VENDOR_KEY, secrets.vendor_keys),
    # A password before the address that it may look like a part of.
    (PiiType.PASSWORD, PiiHint.URL_PASSWORD, passwords.url_passwords),
    (PiiType.EMAIL, PiiHint.EMAIL, find_emails),
    (PiiType.API_KEY, PiiHint.NAMED_KEY, secrets.named_keys),
    (PiiType.PASSWORD, PiiHint.PASSWORD, passwords.passwords),
    (PiiType.PASSWORD, PiiHint.CODE, _each(passwords.ONE_TIME_CODE, 1)),
    (PiiType.ID_CARD, PiiHint.RESIDENT_ID, id_numbers.resident_ids),
    *(
        (PiiType(type_), PiiHint.NATIONAL_NUMBER, partial(national_ids.find_numbers, type_=type_))
        for type_ in national_ids.TYPES
    ),
    (PiiType.WALLET, PiiHint.WALLET, national_ids.wallets),
    (PiiType.CREDIT_CODE, PiiHint.CREDIT_CODE, id_numbers.credit_codes),
    (PiiType.IBAN, PiiHint.IBAN, id_numbers.ibans),
    (PiiType.BANK_CARD, PiiHint.CARD, id_numbers.cards),
    (PiiType.SSN, PiiHint.SSN, id_numbers.ssns),
    (PiiType.PASSPORT, PiiHint.PASSPORT, _each(id_numbers.PASSPORT, 1)),
    (PiiType.DRIVER_LICENSE, PiiHint.LICENCE, _each(id_numbers.LICENCE, 1)),
    (PiiType.IP, PiiHint.IP_ADDRESS, _ips),
    (PiiType.QQ, PiiHint.QQ, _each(_QQ, 1)),
    (PiiType.PHONE, PiiHint.PHONE, phones.find_phones),
    (PiiType.PLATE, PiiHint.PLATE, _plates),
    (PiiType.WECHAT, PiiHint.WECHAT, _wechats),
    (PiiType.ADDRESS, PiiHint.ADDRESS, find_addresses),
    (PiiType.ADDRESS, PiiHint.WESTERN_ADDRESS, find_western),
)
"""In order of certainty: ID numbers are tried before payment cards, whose Luhn check they may pass."""
