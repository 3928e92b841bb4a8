"""Sensitive text: numbers and credentials that point at a person or open a door, as typed spans.

Everything is sought in the NFKC form of the text, in simplified characters, digits in words included, and told in code points of the
text as given. `\\b` is not used beside digits: between 汉字 and a digit there is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import StrEnum

import msgspec

from engine.corpus.filters import checksums, id_numbers, phones, secrets
from engine.corpus.filters.normalise import fold_with_map
from engine.corpus.filters.prefilter import Sign, signs, worth_a_look
from engine.corpus.filters.simplified_chinese import simplified


class SensitiveType(StrEnum):
    """What a span is; its placeholder is the name in angle quotes, e.g. ‹PHONE›."""

    PRIVATE_KEY = "PRIVATE_KEY"
    API_KEY = "API_KEY"
    PASSWORD = "PASSWORD"  # noqa: S105 - a name, not a password
    EMAIL = "EMAIL"
    ID_CARD = "ID_CARD"
    CREDIT_CODE = "CREDIT_CODE"
    IBAN = "IBAN"
    BANK_CARD = "BANK_CARD"
    SSN = "SSN"
    PASSPORT = "PASSPORT"
    DRIVER_LICENSE = "DRIVER_LICENSE"
    IP = "IP"
    PHONE = "PHONE"
    PLATE = "PLATE"
    WECHAT = "WECHAT"
    QQ = "QQ"
    ADDRESS = "ADDRESS"


class Span(msgspec.Struct, frozen=True):
    """A half-open range in code points of the original text."""

    type: SensitiveType
    start: int
    end: int


_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+@-])[A-Za-z0-9À-ɏ_](?:[A-Za-z0-9À-ɏ._%+-]{0,63})\s?(?:@|\(at\)|\[at\]|\{at\})\s?(?:[A-Za-z0-9À-ɏ](?:[A-Za-z0-9À-ɏ-]{0,62})(?:\.|\s?[\[({]dot[\])}]\s?)){1,5}[A-Za-z]{2,24}(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_IPV4 = re.compile(r"(?<![0-9A-Za-z.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z]|\.[0-9])")
_IPV6 = re.compile(
    r"(?<![0-9A-Za-z:.])(?=[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:)(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z:])"
)
_VERSION = re.compile(
    r"(?:版本号?|固件|(?<![a-z])v(?:ersion|er)?\.?|release|build|firmware)\s*[:：]?\s*$", re.IGNORECASE
)
_PLATE = re.compile(
    r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼使领][A-HJ-NP-Z][ ·•・-]?(?=[A-Z0-9]*[0-9])[A-HJ-NP-Z0-9]{4,5}[A-HJ-NP-Z0-9挂学警港澳](?![A-Za-z0-9])"
)
_PLATE_LABEL = re.compile(r"车牌|牌照|违章|号牌|车号|plate", re.IGNORECASE)
_WECHAT = re.compile(
    r"(?:微信|威信|薇信|(?<![a-z])(?:wechat|weixin|vx|wx|v信|(?<=加)v(?=\s|:)|(?<=加我)v(?=\s|:))(?![a-z]))\s*((?:号码?|id|账号)?\s*(?:是|为|叫|[:：]|is)?)\s*([A-Za-z][A-Za-z0-9_-]{5,19})(?![A-Za-z0-9_-]|\.)",
    re.IGNORECASE,
)
_WXID = re.compile(r"(?<![A-Za-z0-9_])(wxid_[A-Za-z0-9]{6,20})(?![A-Za-z0-9_])")
_QQ = re.compile(
    r"(?:(?<![A-Za-z])QQ|扣扣|企鹅)(?:群|号|号码|群号|id)*\s*(?:是|为|is|[:：])?\s*([1-9][0-9]{4,11}|[1-9][0-9]{2,3}(?:[ -][0-9]{2,4}){1,3})(?![0-9A-Za-z]|[ -][0-9])",
    re.IGNORECASE,
)
_ADDRESS = re.compile(
    r"(?:[\u4e00-\u9fff]{2,12}?(?:省|市|自治区))?(?:[\u4e00-\u9fff]{1,8}?(?:市|区|县|镇|乡|旗))?[\u4e00-\u9fff0-9]{1,14}?(?:路|街|道|巷|弄|里|村|苑|园|小区|花园|大厦)[0-9A-Za-z甲乙丙丁-]{0,8}(?:号|弄)?(?:院)?"
    r"[\u4e00-\u9fff]{0,8}?[0-9A-Za-z]{1,5}(?:号楼|栋|幢|座|楼|单元)(?:[0-9A-Za-z]{1,4}单元)?(?:[0-9]{1,3}[层楼])?[0-9A-Za-z-]{1,6}(?:室|号房?|房|户)"
)
_ADDRESS_LEAD = re.compile(
    r"^.*?(?:(?:我?家?住|住址|地址|寄|送|发票|搬|快递|收货).{0,6}?(?:在|到|至|是|为|[:：])|位于|在)(?=[\u4e00-\u9fff]{2})"
)

_CN_DIGITS = {
    **{c: str(i) for i, c in enumerate("零一二三四五六七八九")},
    **{c: str(i) for i, c in enumerate("零壹贰叁肆伍陆柒捌玖")},
    "〇": "0",
    "幺": "1",
    "两": "2",
    "O": "0",
    "o": "0",
}
_CN_RUN = re.compile(
    r"[0-9零〇一二三四五六七八九幺壹贰叁肆伍陆柒捌玖两](?:[ \-、,，]?[0-9零〇一二三四五六七八九幺壹贰叁肆伍陆柒捌玖两]){6,}"
)
_CN_ANY = re.compile(r"[零〇一二三四五六七八九幺壹贰叁肆伍陆柒捌玖]")


def find(text: str) -> list[Span]:
    """Sensitive spans of `text`, in order and without overlap; the more certain and longer one wins."""
    if not worth_a_look(text):
        return []
    folded = fold_with_map(text)
    read = _words_to_digits(simplified(folded.text))
    taken: list[tuple[int, int, SensitiveType]] = []
    before = -1
    while len(taken) > before:
        before = len(taken)
        shown = signs(read)
        for type_, sign, finder in _FINDERS:
            if not shown[sign]:
                continue
            for start, end in finder(read):
                if end > start and not any(
                    start < other_end and other_start < end for other_start, other_end, _ in taken
                ):
                    taken.append((start, end, type_))
        if not taken:
            break
        # A number beside another one is seen once the other is covered: "010-67028866,010-67028867".
        for start, end, _type in taken[before:]:
            read = read[:start] + "‹" * (end - start) + read[end:]
    taken.sort()
    return [Span(type_, *folded.span(start, end)) for start, end, type_ in taken]


def redact(text: str, spans: list[Span] | tuple[Span, ...]) -> str:
    """`text` with each span replaced by its placeholder."""
    pieces: list[str] = []
    position = 0
    for span in spans:
        pieces += (text[position : span.start], placeholder(span.type))
        position = span.end
    return "".join((*pieces, text[position:]))


def placeholder(type_: str) -> str:
    """What stands for a redacted span."""
    return f"‹{type_}›"


def _words_to_digits(text: str) -> str:
    """Long runs of digits in words (幺三八…) as figures; the length stays the same."""
    if not _CN_ANY.search(text):
        return text
    return _CN_RUN.sub(
        lambda match: (
            "".join(_CN_DIGITS.get(c, " " if c in "、，," else c) for c in match.group())
            if _CN_ANY.search(match.group())
            else match.group()
        ),
        text,
    )


def _emails(text: str) -> Iterator[tuple[int, int]]:
    for match in _EMAIL.finditer(text):
        # `git@host` is how a repository is reached, whoever does it.
        if not match.group().startswith("git@"):
            yield match.span()


def _ips(text: str) -> Iterator[tuple[int, int]]:
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            before = text[max(0, match.start() - 12) : match.start()]
            # Four single figures are a section or a version more often than a machine.
            section = pattern is _IPV4 and len(match.group()) == 7
            if not section and checksums.names_a_machine(match.group()) and not _VERSION.search(before):
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


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    for match in _ADDRESS.finditer(text):
        lead = _ADDRESS_LEAD.match(match.group())
        yield match.start() + (lead.end() if lead else 0), match.end()


def _each(pattern: re.Pattern[str], group: int = 0) -> Callable[[str], Iterator[tuple[int, int]]]:
    def finder(text: str) -> Iterator[tuple[int, int]]:
        return (match.span(group) for match in pattern.finditer(text))

    return finder


_FINDERS: tuple[tuple[SensitiveType, Sign, Callable[[str], Iterator[tuple[int, int]]]], ...] = (
    (SensitiveType.PRIVATE_KEY, Sign.DASHES, _each(secrets.PRIVATE_KEY)),
    (SensitiveType.API_KEY, Sign.LONG_WORD, secrets.vendor_keys),
    (SensitiveType.EMAIL, Sign.AT, _emails),
    (SensitiveType.PASSWORD, Sign.AT, _each(secrets.URL_PASSWORD, 1)),
    (SensitiveType.API_KEY, Sign.LONG_WORD, secrets.named_keys),
    (SensitiveType.PASSWORD, Sign.PASSWORD, secrets.passwords),
    (SensitiveType.ID_CARD, Sign.FIVE_DIGITS, id_numbers.resident_ids),
    (SensitiveType.CREDIT_CODE, Sign.SIX_DIGITS, id_numbers.credit_codes),
    (SensitiveType.IBAN, Sign.FIVE_DIGITS, id_numbers.ibans),
    (SensitiveType.BANK_CARD, Sign.NINE_DIGITS, id_numbers.cards),
    (SensitiveType.SSN, Sign.NINE_DIGITS, id_numbers.ssns),
    (SensitiveType.PASSPORT, Sign.FIVE_DIGITS, _each(id_numbers.PASSPORT, 1)),
    (SensitiveType.DRIVER_LICENSE, Sign.FIVE_DIGITS, _each(id_numbers.LICENCE, 1)),
    (SensitiveType.IP, Sign.MACHINE, _ips),
    (SensitiveType.QQ, Sign.FIVE_DIGITS, _each(_QQ, 1)),
    (SensitiveType.PHONE, Sign.FIVE_DIGITS, phones.phones),
    (SensitiveType.PLATE, Sign.PLATE, _plates),
    (SensitiveType.WECHAT, Sign.WECHAT, _wechats),
    (SensitiveType.ADDRESS, Sign.ROOM, _addresses),
)
"""In order of certainty: an identity number is tried before Luhn, which would take it for a card."""
