"""Sensitive text: numbers and credentials that point at a person or open a door, as typed spans.

Everything is sought in the NFKC form of the text, digits in words included, and told in code points of the
text as given. `\\b` is not used beside digits: between 汉字 and a digit there is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import StrEnum

import msgspec

from engine.corpus.filters import checksums, phones, secrets
from engine.corpus.filters.normalise import fold_with_map


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


_SEPARATED = r"(?:[ \-–—.·]?[0-9])"
_NOT_DIGIT_BEFORE = r"(?<![0-9])(?<![0-9][.,])"
_NOT_DIGIT_AFTER = r"(?![0-9])(?![.,][0-9])"

_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+@-])[A-Za-z0-9À-ɏ_](?:[A-Za-z0-9À-ɏ._%+-]{0,63})\s?(?:@|\(at\)|\[at\]|\{at\})\s?(?:[A-Za-z0-9À-ɏ](?:[A-Za-z0-9À-ɏ-]{0,62})(?:\.|\s?[\[({]dot[\])}]\s?)){1,5}[A-Za-z]{2,24}(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_ID = re.compile(
    r"(?<![0-9A-Za-z])(?<![0-9][.,])[1-9]" + _SEPARATED + r"{16}[ \-–—.·]?[0-9Xx](?![0-9A-Za-z])"
)
_OLD_ID = re.compile(r"(?:身份证|居民证)[^0-9\n]{0,10}([1-9][0-9]{14})(?![0-9])")
_LABELLED_ID = re.compile(
    r"(?:身份证|居民证)(?:号码?|证号|号)?\s*(?:是|为|[:：])?\s*([1-9][0-9]{16}[0-9Xx])(?![0-9A-Za-z])"
)
_HK_ID = re.compile(r"(?<![A-Za-z0-9])[A-Z]{1,2}[0-9]{6}\([0-9A]\)(?![A-Za-z0-9])")
_CREDIT_CODE = re.compile(
    r"(?<![0-9A-Za-z])[0-9A-HJ-NPQRTUWXY]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}(?![0-9A-Za-z])", re.IGNORECASE
)
_CREDIT_LABEL = re.compile(r"信用代码|税号|纳税人|执照|USCC", re.IGNORECASE)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}(?![A-Za-z0-9])", re.IGNORECASE)
_CARD = re.compile(
    _NOT_DIGIT_BEFORE + r"(?<![A-Za-z])[0-9]" + _SEPARATED + r"{11,18}" + _NOT_DIGIT_AFTER + r"(?![A-Za-z])"
)
_CARD_BEFORE = re.compile(
    r"卡号|银行卡|信用卡|储蓄卡|借记卡|账号|帐号|账户|帐户|卡(?:是|为|[:：])|(?<![a-z])(?:credit|debit|bank|cards?|cc|visa|master|amex|account|acct|transaction)(?![a-z])",
    re.IGNORECASE,
)
_NOT_A_CARD = re.compile(
    r"订单|快递|运单|单号|流水|工单|ISBN|ISSN|序列号|编号|追踪|批次|条码|哈希|校验和|版本|圆周率|发票号|案号|时间戳|tracking|order|invoice|serial|timestamp|ticket|imei|barcode|hash|sku|version",
    re.IGNORECASE,
)
_ACCOUNT = re.compile(
    r"(?:银行卡号?|卡号|银行账[号户]|收款账[号户]|(?:对公|银行|转账)?账户|(?:bank )?account (?:number|no\.?)|card (?:number|no\.?))\s*(?:是|为|is|[:：#])?\s*([0-9](?:[ \-]?[0-9]){11,20})(?![0-9])",
    re.IGNORECASE,
)
_DENIED = re.compile(r"^.{0,6}(?:不是|并非|而非|非).{0,4}(?:银行卡|信用卡|身份证|卡号|电话|手机|号码)")
_SSN = re.compile(
    r"(?<![0-9A-Za-z-])(?!000|666)[0-9]{3}([- ])(?!00)[0-9]{2}\1(?!0000)[0-9]{4}(?![0-9A-Za-z]|-[0-9])"
)
_SSN_LABELLED = re.compile(
    r"(?:(?<![a-z])ssn(?![a-z])|social security)[^0-9\n]{0,24}((?!000|666)[0-9]{3}[ -]?[0-9]{2}[ -]?[0-9]{4})(?![0-9])",
    re.IGNORECASE,
)
_PASSPORT = re.compile(
    r"(?:护照|通行证|passport)[^0-9A-Za-z\n]{0,8}(?:(?:number|no\.?|num|is|号码?|#)[^0-9A-Za-z\n]{0,6}){0,3}((?=[A-Z0-9]*[0-9]{5})[A-Z0-9]{6,11})(?![0-9A-Za-z])",
    re.IGNORECASE,
)
_LICENCE = re.compile(
    r"(?:driv(?:er'?s?|ing)(?:'s?)? licen[cs]e|驾驶证|驾照|行驶证)[^0-9\n]{0,24}?(?<![0-9A-Za-z])((?=[A-Z0-9-]*[0-9]{4})[A-Z0-9](?:-?[A-Z0-9]){5,19})(?![0-9A-Za-z])",
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
    r"(?:微信|威信|薇信|(?<![a-z])(?:wechat|weixin|vx|wx|v信)(?![a-z]))\s*((?:号码?|id|账号)?\s*(?:是|为|叫|[:：]|is)?)\s*([A-Za-z][A-Za-z0-9_-]{5,19})(?![A-Za-z0-9_-]|\.)",
    re.IGNORECASE,
)
_WXID = re.compile(r"(?<![A-Za-z0-9_])(wxid_[A-Za-z0-9]{6,20})(?![A-Za-z0-9_])")
_QQ = re.compile(
    r"(?:(?<![A-Za-z])QQ|扣扣|企鹅)(?:群|号|号码|群号|id)*\s*(?:是|为|is|[:：])?\s*([1-9][0-9]{4,11})(?![0-9A-Za-z])",
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

_WORTH_A_LOOK = re.compile(
    r"\d|[@＠]|[零〇一二三四五六七八九幺壹贰叁肆伍陆柒捌玖]{5}|密码|口令|pass|pwd|PRIVATE|bearer|secret|token|微信|weixin|wechat|[(\[{（]at|-----",
    re.IGNORECASE,
)


def find(text: str) -> list[Span]:
    """Sensitive spans of `text`, in order and without overlap; the more certain and longer one wins."""
    if not _WORTH_A_LOOK.search(text):
        return []
    folded = fold_with_map(text)
    read = _words_to_digits(folded.text)
    taken: list[tuple[int, int, SensitiveType]] = []
    for type_, finder in _FINDERS:
        for start, end in finder(read):
            if end > start and not any(
                start < other_end and other_start < end for other_start, other_end, _ in taken
            ):
                taken.append((start, end, type_))
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
            "".join(_CN_DIGITS.get(c, c) for c in match.group())
            if _CN_ANY.search(match.group())
            else match.group()
        ),
        text,
    )


def _digits(text: str) -> str:
    return re.sub(r"[^0-9Xx]", "", text)


def _denied(text: str, end: int) -> bool:
    """Whether the text itself says that the number before `end` is no such number ("…，不是银行卡")."""
    return _DENIED.match(text[end : end + 24].lstrip("，,。. 、")) is not None


def _ids(text: str) -> Iterator[tuple[int, int]]:
    for match in _ID.finditer(text):
        if checksums.resident_id(_digits(match.group())) and not _denied(text, match.end()):
            yield match.span()
    for match in _LABELLED_ID.finditer(text):
        if checksums.resident_id_date(match.group(1)):
            yield match.span(1)
    for match in _OLD_ID.finditer(text):
        if checksums.old_resident_id(match.group(1)):
            yield match.span(1)
    for match in _HK_ID.finditer(text):
        if checksums.hong_kong_id(re.sub(r"[()]", "", match.group())):
            yield match.span()


def _credit_codes(text: str) -> Iterator[tuple[int, int]]:
    for match in _CREDIT_CODE.finditer(text):
        code = match.group()
        named = _CREDIT_LABEL.search(text[max(0, match.start() - 16) : match.start()]) is not None
        if checksums.credit_code(code) and (named or re.search(r"[A-Za-z]", code)):
            yield match.span()


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    for match in _IBAN.finditer(text):
        # a following word may have been taken for a part of the number
        end = match.end()
        while end - match.start() >= 15:
            code = re.sub(r"[ -]", "", text[match.start() : end])
            if checksums.iban(code) and sum(character.isdigit() for character in code) >= 8:
                yield match.start(), end
                break
            cut = max(text.rfind(" ", match.start(), end), text.rfind("-", match.start(), end))
            if cut < 0:
                break
            end = cut


def _cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _CARD.finditer(text):
        digits = _digits(match.group())
        if not checksums.luhn(digits) or _denied(text, match.end()) or len(set(digits)) < 2:
            continue
        before = text[max(0, match.start() - 48) : match.start()]
        named = _CARD_BEFORE.search(before) is not None
        if named or (
            len(digits) >= 13 and checksums.card_brand(digits) and not _NOT_A_CARD.search(before[-24:])
        ):
            yield match.span()
    for match in _ACCOUNT.finditer(text):
        if not _denied(text, match.end(1)):
            yield match.span(1)


def _ssns(text: str) -> Iterator[tuple[int, int]]:
    for pattern, group in ((_SSN, 0), (_SSN_LABELLED, 1)):
        for match in pattern.finditer(text):
            yield match.span(group)


def _ips(text: str) -> Iterator[tuple[int, int]]:
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            if checksums.names_a_machine(match.group()) and not _VERSION.search(
                text[max(0, match.start() - 12) : match.start()]
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


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    for match in _ADDRESS.finditer(text):
        lead = _ADDRESS_LEAD.match(match.group())
        yield match.start() + (lead.end() if lead else 0), match.end()


def _each(pattern: re.Pattern[str], group: int = 0) -> Callable[[str], Iterator[tuple[int, int]]]:
    def finder(text: str) -> Iterator[tuple[int, int]]:
        return (match.span(group) for match in pattern.finditer(text))

    return finder


_FINDERS: tuple[tuple[SensitiveType, Callable[[str], Iterator[tuple[int, int]]]], ...] = (
    (SensitiveType.PRIVATE_KEY, _each(secrets.PRIVATE_KEY)),
    (SensitiveType.API_KEY, _each(secrets.VENDOR_KEY)),
    (SensitiveType.EMAIL, _each(_EMAIL)),
    (SensitiveType.PASSWORD, _each(secrets.URL_PASSWORD, 1)),
    (SensitiveType.API_KEY, secrets.named_keys),
    (SensitiveType.PASSWORD, secrets.passwords),
    (SensitiveType.ID_CARD, _ids),
    (SensitiveType.CREDIT_CODE, _credit_codes),
    (SensitiveType.IBAN, _ibans),
    (SensitiveType.BANK_CARD, _cards),
    (SensitiveType.SSN, _ssns),
    (SensitiveType.PASSPORT, _each(_PASSPORT, 1)),
    (SensitiveType.DRIVER_LICENSE, _each(_LICENCE, 1)),
    (SensitiveType.IP, _ips),
    (SensitiveType.QQ, _each(_QQ, 1)),
    (SensitiveType.PHONE, phones.phones),
    (SensitiveType.PLATE, _plates),
    (SensitiveType.WECHAT, _wechats),
    (SensitiveType.ADDRESS, _addresses),
)
"""In order of certainty: an identity number is tried before Luhn, which would take it for a card."""
