"""Numbers of identity documents and accounts: found by check digit or by label."""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.corpus.filters import checksums

_SEPARATED = r"(?:[ \-–—.·]?[0-9])"
_NOT_DIGIT_BEFORE = r"(?<![0-9])(?<![0-9][.,])"
_NOT_DIGIT_AFTER = r"(?![0-9])(?![.,][0-9])"

_ID = re.compile(
    r"(?<![0-9A-Za-z])(?<![0-9][.,])[1-9]" + _SEPARATED + r"{16}[ \-–—.·]?[0-9Xx](?![0-9A-Za-z])"
)
_OLD_ID = re.compile(r"(?:身[份分]证|居民证)[^0-9\n]{0,10}([1-9][0-9]{14})(?![0-9])")
_LABELLED_ID = re.compile(
    r"(?:身[份分]证|居民证)(?:号码?|证号|号)?\s*+(?:是|为|[:：])?\s*+([1-9][0-9]{16}[0-9Xx])(?![0-9A-Za-z])"
)
_HK_ID = re.compile(r"(?<![A-Za-z0-9])[A-Z]{1,2}[0-9]{6}\([0-9A]\)(?![A-Za-z0-9])")
_CREDIT_CODE = re.compile(
    r"(?<![0-9A-Za-z])(?<![0-9]\.)[0-9A-HJ-NPQRTUWXY]{2}[ -]?[0-9]{2}[ -]?[0-9]{4}(?:[ -]?[0-9A-HJ-NPQRTUWXY]){10}(?![0-9A-Za-z])",
    re.IGNORECASE,
)
_CREDIT_LABEL = re.compile(r"信用代码|税号|纳税人|执照|USCC", re.IGNORECASE)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}(?![A-Za-z0-9])", re.IGNORECASE)
_IBAN_COUNTRIES = frozenset(
    [
        "AD",
        "AE",
        "AL",
        "AT",
        "AZ",
        "BA",
        "BE",
        "BG",
        "BH",
        "BI",
        "BR",
        "BY",
        "CH",
        "CR",
        "CY",
        "CZ",
        "DE",
        "DJ",
        "DK",
        "DO",
        "EE",
        "EG",
        "ES",
        "FI",
        "FK",
        "FO",
        "FR",
        "GB",
        "GE",
        "GI",
        "GL",
        "GR",
        "GT",
        "HN",
        "HR",
        "HU",
        "IE",
        "IL",
        "IQ",
        "IS",
        "IT",
        "JO",
        "KW",
        "KZ",
        "LB",
        "LC",
        "LI",
        "LT",
        "LU",
        "LV",
        "LY",
        "MC",
        "MD",
        "ME",
        "MK",
        "MN",
        "MR",
        "MT",
        "MU",
        "NI",
        "NL",
        "NO",
        "OM",
        "PK",
        "PL",
        "PS",
        "PT",
        "QA",
        "RO",
        "RS",
        "RU",
        "SA",
        "SC",
        "SD",
        "SE",
        "SI",
        "SK",
        "SM",
        "SO",
        "ST",
        "SV",
        "TL",
        "TN",
        "TR",
        "UA",
        "VA",
        "VG",
        "XK",
        "YE",
    ]
)
_CARD = re.compile(
    _NOT_DIGIT_BEFORE + r"(?<![A-Za-z])[0-9]" + _SEPARATED + r"{11,18}" + _NOT_DIGIT_AFTER + r"(?![A-Za-z])"
)
_DECIMAL = re.compile(r"\A[0-9]{1,4}\.[0-9]{5,}")
_CARD_BEFORE = re.compile(
    r"卡号|银行卡|信用卡|储蓄卡|借记卡|账号|帐号|账户|帐户|卡(?:是|为|[:：])|(?<![a-z])(?:credit|debit|bank|cards?|cc|visa|master|amex|account|acct|transaction)(?![a-z])",
    re.IGNORECASE,
)
_NOT_A_CARD = re.compile(
    r"订单|快递|运单|单号|流水|工单|ISBN|ISSN|序列号|编号|追踪|批次|条码|哈希|校验和|版本|圆周率|发票号|案号|时间戳|tracking|order|invoice|serial|timestamp|ticket|imei|barcode|hash|sku|version",
    re.IGNORECASE,
)
_ACCOUNT = re.compile(
    r"(?:银行卡号?|卡号|(?:工行|建行|农行|中行|招行|交行|邮储|储蓄|信用|借记|工资|社保)卡号?|(?:银行|收款)[账帐][号户]|(?:对公|银行|转账)?[账帐]户|(?:bank )?account (?:number|no\.?)|card (?:number|no\.?))\s*+(?:是|为|is|[:：#])?\s*+([0-9](?:[ \-]?[0-9]){11,20})(?![0-9])",
    re.IGNORECASE,
)
_DENIED = re.compile(r"^.{0,6}(?:不是|并非|而非|非).{0,4}(?:银行卡|信用卡|身[份分]证|卡号|电话|手机|号码)")
_SSN = re.compile(
    r"(?<![0-9A-Za-z-])(?!000|666)[0-9]{3}([- ])(?!00)[0-9]{2}\1(?!0000)[0-9]{4}(?![0-9A-Za-z]|-[0-9])"
)
_SSN_LABELLED = re.compile(
    r"(?:(?<![a-z])ssn(?![a-z])|social security)[^0-9\n]{0,24}((?!000|666)[0-9]{3}[ -]?[0-9]{2}[ -]?[0-9]{4})(?![0-9])",
    re.IGNORECASE,
)
PASSPORT = re.compile(
    r"(?:护照|通行证|passport)[^0-9A-Za-z\n]{0,8}(?:(?:number|no\.?|num|is|号码?|#)[^0-9A-Za-z\n]{0,6}){0,3}((?=[A-Z0-9]{0,11}[0-9]{5})[A-Z0-9]{6,11}|[A-Z]{1,2}[ -]?[0-9]{2,4}(?:[ -][0-9]{1,4}){1,3})(?![0-9A-Za-z])",
    re.IGNORECASE,
)
LICENCE = re.compile(
    r"(?:driv(?:er'?s?|ing)(?:'s?)? licen[cs]e|驾驶证|驾照|行驶证)[^0-9\n]{0,24}?(?<![0-9A-Za-z])((?=[A-Z0-9-]{0,40}[0-9]{4})[A-Z0-9](?:-?[A-Z0-9]){5,19})(?![0-9A-Za-z])",
    re.IGNORECASE,
)


def _digits(text: str) -> str:
    return re.sub(r"[^0-9Xx]", "", text)


def _denied(text: str, end: int) -> bool:
    """Whether the text denies that the number before `end` is one ("…，不是银行卡")."""
    return _DENIED.match(text[end : end + 24].lstrip("，,。. 、")) is not None


def resident_ids(text: str) -> Iterator[tuple[int, int]]:
    """Chinese resident identity numbers (18 digits with check, 15 with a label) and Hong Kong ones."""
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


def credit_codes(text: str) -> Iterator[tuple[int, int]]:
    """Unified social credit codes."""
    for match in _CREDIT_CODE.finditer(text):
        code = re.sub("[ -]", "", match.group())
        named = _CREDIT_LABEL.search(text[max(0, match.start() - 16) : match.start()]) is not None
        if checksums.credit_code(code) and (named or re.search(r"[A-Za-z]", code)):
            yield match.span()


def ibans(text: str) -> Iterator[tuple[int, int]]:
    """IBANs, spaced or not."""
    for match in _IBAN.finditer(text):
        # the match may include a following word
        end = match.end()
        while end - match.start() >= 15:
            code = re.sub(r"[ -]", "", text[match.start() : end])
            if (
                code[:2].upper() in _IBAN_COUNTRIES
                and checksums.iban(code)
                and sum(character.isdigit() for character in code) >= 8
            ):
                yield match.start(), end
                break
            cut = max(text.rfind(" ", match.start(), end), text.rfind("-", match.start(), end))
            if cut < 0:
                break
            end = cut


def cards(text: str) -> Iterator[tuple[int, int]]:
    """Payment cards by Luhn check with issuer or label, and account numbers by label."""
    for match in _CARD.finditer(text):
        digits = _digits(match.group())
        if (
            _DECIMAL.fullmatch(match.group())
            or not checksums.luhn(digits)
            or _denied(text, match.end())
            or len(set(digits)) < 2
        ):
            continue
        before = text[max(0, match.start() - 48) : match.start()]
        named = _CARD_BEFORE.search(before) is not None
        if named or (
            len(digits) >= 13
            and checksums.card_brand(digits)
            and _is_grouped(match.group())
            and not _NOT_A_CARD.search(before[-24:])
        ):
            yield match.span()
    for match in _ACCOUNT.finditer(text):
        if not _denied(text, match.end(1)):
            yield match.span(1)


def _is_grouped(number: str) -> bool:
    """Whether the digits stand together, one by one or in groups like those on a card, not as a row of small numbers."""
    lengths = [len(group) for group in re.split("[^0-9]", number)]
    return set(lengths) == {1} or min(lengths[:-1], default=4) >= 3


def ssns(text: str) -> Iterator[tuple[int, int]]:
    """US social security numbers."""
    for pattern, group in ((_SSN, 0), (_SSN_LABELLED, 1)):
        for match in pattern.finditer(text):
            yield match.span(group)
