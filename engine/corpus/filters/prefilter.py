"""Cheap necessary conditions for the PII patterns; most texts meet none or one of them.

Words are searched in the lower-case text, which is some thirty times as fast as a case-insensitive pattern.
"""

from __future__ import annotations

import re
from enum import IntEnum

from engine.corpus.filters.emails import may_be_spelt
from engine.corpus.filters.national_ids import holds_number
from engine.corpus.filters.phones import SIX_DIGITS
from engine.corpus.filters.western_addresses import may_hold_western

_ODD_CASE = re.compile("[\u0130\u0131\u017f\u212a]")
"""İ, ı, ſ and the Kelvin sign: `re.IGNORECASE` matches them with i, s and k, `str.lower` does not map them."""

_CHARACTERS = re.compile(r"[\d²³¹\u2070-\u2089\u2460-\u249b@＠Ａ-Ｚａ-ｚ\u0130\u0131\u017f\u212a]")
_DIGIT_WORDS = re.compile(r"[零〇一二三四五六七八九幺两兩壹贰貳叁參肆伍陆陸柒捌玖]{3}")
_PHRASE_WORDS = ("mnemonic", "ed phrase", "y phrase", "up phrase", "ed words", "y words", "助记词", "恢复短语")  # fmt: skip
_CODE_WORDS = ("验证码", "校验码", "动态", "短信码", "取件码", "otp", "code")
_PASSWORD_WORDS = (
    "口令",
    "pass",
    "pwd",
    "psw",
    "contrase",
    "kennwort",
    "senha",
    "hasło",
    "пароль",
    "パスワード",
    "비밀번호",
    "wachtwoord",
    "lösenord",
)
_COMMANDS = ("mysql", "mariadb", "redis-cli", "docker", "curl")
"""Commands with a password option; `sshpass` is covered by "pass"."""
_WECHAT_WORDS = ("威信", "微信", "薇信", "wech", "weix", "wx", "vx", "v信", "加v", "加我v")
_WORDS = (
    "密码", "密碼", "(at", "[at", "{at", "（at", " dot ", "艾特", "小老鼠", "://", *_PASSWORD_WORDS, *_WECHAT_WORDS, *_PHRASE_WORDS,
)  # fmt: skip
_PLAIN_KEYS = (
    "AKIA", "ASIA", "ABIA", "ACCA", "AGPA", "AIDA", "AROA", "LTAI", "AKID", "AKLT", "AIza", "eyJ", "dapi",
)  # fmt: skip
_DOTTED_KEYS = ("SG.", "hvs.", ".slack.", ".feishu.", ".larksuite.")
_DASHED_KEYS = (
    "sk-", "glpat-", "gldt-", "glrt-", "glsoat-", "glptt-", "xoxa-", "xoxb-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-",
    "pypi-", "GOCSPX-", "key-", "xai-", "tvly-", "pplx-", "nvapi-", "tskey-", "-----", "PMAK-", "xkeysib-",
)  # fmt: skip
_LOW_KEYS = (
    "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "_pat_", "hf_", "npm_", "sk_", "rk_", "pk_", "whsec_", "gsk_", "fw_",
    "shpat_", "shpca_", "shppa_", "shpss_", "lin_api_", "ntn_", "secret_", "_oat_", "glsa_", "sbp_", "figd_",
)  # fmt: skip
"""Case-sensitive prefixes of vendor keys, by the separator that they contain. Prefixes with a digit (r8_, xapp-1-,
sq0atp-, ya29., dop_v1_, AGE-SECRET-KEY-1) are covered by _CHARACTERS."""


_LATIN = re.compile("[a-z]")


class _Words:
    """Words of which a text may contain one; those of a script that the text lacks are not searched."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self._latin = tuple(word for word in words if word.isascii() and _LATIN.search(word))
        self._signs = tuple(word for word in words if word.isascii() and not _LATIN.search(word))
        self._others = tuple(word for word in words if not word.isascii())

    def any_in(self, lower: str, latin: bool) -> bool:
        """Whether the lower-case text contains one; `latin`: whether it has a letter from a to z."""
        has = lower.__contains__
        return (
            (latin and any(map(has, self._latin)))
            or any(map(has, self._signs))
            or (not lower.isascii() and any(map(has, self._others)))
        )


_EVERY = _Words(_WORDS)
_SECRETS = _Words((*_PASSWORD_WORDS, *_PHRASE_WORDS, "pin"))
_CODES = _Words(_CODE_WORDS)
_KEYS = _Words(("key", "toke", "secr", "cred", "bear", "auth", "twilio", "钥", "令牌", "授权码", "接口密码"))
_WECHAT = _Words(_WECHAT_WORDS)
_PASSPORTS = _Words(("护照", "通行证", "passport"))
_LICENCES = _Words(("licen", "驾驶证", "驾照", "行驶证"))
_QQ = _Words(("qq", "扣扣", "企鹅"))


class PiiHint(IntEnum):
    """The condition of a PII pattern, as a bit of `pii_hints`."""

    DASHES = 1 << 0
    URL_PASSWORD = 1 << 1
    EMAIL = 1 << 2
    VENDOR_KEY = 1 << 3
    NAMED_KEY = 1 << 4
    WALLET = 1 << 5
    PASSWORD = 1 << 6
    CODE = 1 << 7
    NATIONAL_NUMBER = 1 << 8
    RESIDENT_ID = 1 << 9
    CARD = 1 << 10
    CREDIT_CODE = 1 << 11
    IBAN = 1 << 12
    SSN = 1 << 13
    PASSPORT = 1 << 14
    LICENCE = 1 << 15
    QQ = 1 << 16
    PHONE = 1 << 17
    IP_ADDRESS = 1 << 18
    PLATE = 1 << 19
    WECHAT = 1 << 20
    ADDRESS = 1 << 21
    WESTERN_ADDRESS = 1 << 22


# `re` skips fast to a character of the set that a pattern begins with: most of these begin with a digit.
_DIGIT = re.compile("[0-9]")
_FOUR = re.compile(r"[0-9](?:[^0-9]{0,6}[0-9]){3}")
"""Of every number but that of a house."""
_FIVE = re.compile(r"[0-9](?:[^0-9\n]{0,2}[0-9]){2}(?:(?:[^0-9\n]{0,2}[0-9]){2}|[ \-–—.·/]{3}[0-9]{4})")
_NINE = re.compile(r"[0-9](?:[^0-9\n]?[0-9]){8}")
_TWELVE = re.compile(r"[0-9](?:[ \-–—.·]?[0-9]){11}")
_FIFTEEN = re.compile(r"[0-9](?:[ \-–—.·]?[0-9]){14}")
_CHECK_IN_BRACKETS = re.compile(r"[0-9]{6}\([0-9A]\)")
_CREDIT_CODE = re.compile(r"[0-9]{2}[ -]?[0-9]{4}(?:[ -]?[0-9A-HJ-NPQRTUWXYa-hj-npqrtuwxy]){10}")
_IBAN = re.compile("[0-9]{2}(?<=[A-Za-z\u0131\u017f\u212a]{2}..)")
_SSN = re.compile("[0-9]{3}[ -][0-9]{2}[ -][0-9]{4}")
_LONG_WORD = re.compile(r"(?<![A-Za-z0-9_\-+/=.])[A-Za-z0-9_\-+/=.]{12}")
_LONGER_WORD = re.compile(r"[A-Za-z0-9_\-+/=.]{15}")
_LONGEST_WORD = re.compile("[A-Za-z0-9]{26}")
_IPV4 = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]")
_IPV6 = re.compile(":[0-9A-Fa-f]{0,4}:")
_PLATE = re.compile(
    r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼使领][A-HJ-NP-Za-hj-np-z\u017f]"
)
_ADDRESS = re.compile(
    "[号弄栋幢座单](?:(?<=[0-9A-Za-z一二三四五六七八九十甲乙丙丁].)|(?<=[0-9A-Za-z一二三四五六七八九十甲乙丙丁] .))"
)


def may_contain_pii(text: str) -> bool:
    """Whether the text, not normalised yet, may contain PII."""
    if _CHARACTERS.search(text) or _DIGIT_WORDS.search(text):
        return True
    lower = text.lower()
    if _EVERY.any_in(lower, _LATIN.search(lower) is not None) or (
        " -" in lower and any(map(lower.__contains__, _COMMANDS))
    ):
        return True
    has = text.__contains__
    return (
        any(map(has, _PLAIN_KEYS))
        or ("_" in text and any(map(has, _LOW_KEYS)))
        or ("-" in text and any(map(has, _DASHED_KEYS)))
        or ("." in text and any(map(has, _DOTTED_KEYS)))
    )


def pii_hints(text: str) -> int:
    """The bits of the `PiiHint`s that the normalised text meets."""
    lower = text.lower()
    has = lower.__contains__
    latin = _LATIN.search(lower) is not None
    other = not text.isascii()
    # letters that match others without their case, but are not written so in lower case
    odd = other and _ODD_CASE.search(text) is not None
    digits = _DIGIT.search(text) is not None
    hints = 0
    if "-----BEGIN" in text:
        hints |= PiiHint.DASHES
    if has("@"):
        hints |= PiiHint.EMAIL | PiiHint.URL_PASSWORD if has("://") else PiiHint.EMAIL
    elif may_be_spelt(lower):
        hints |= PiiHint.EMAIL
    if odd or (
        _SECRETS.any_in(lower, latin)
        or (has(" -") and any(map(has, _COMMANDS)))
        or (other and has("密") and has("码"))
    ):
        hints |= PiiHint.PASSWORD
    if odd or _WECHAT.any_in(lower, latin):
        hints |= PiiHint.WECHAT
    if text.count(":") > 1 and _IPV6.search(text):
        hints |= PiiHint.IP_ADDRESS
    if other:
        if _PLATE.search(text):
            hints |= PiiHint.PLATE
        if _ADDRESS.search(text):
            hints |= PiiHint.ADDRESS
    if (latin or digits) and (word := _LONG_WORD.search(text)):
        hints |= _of_long_words(text, lower, word.start(), digits)
    if digits:
        hints |= _of_digits(text, lower, latin, odd)
    return hints


def _of_long_words(text: str, lower: str, start: int, digits: bool) -> int:
    """The hints of a text with a long word from `start`."""
    hints = 0
    if digits and (_KEYS.any_in(lower, latin=True) or "AC" in text):
        hints |= PiiHint.NAMED_KEY
    if _LONGER_WORD.search(text, start):
        hints |= PiiHint.VENDOR_KEY
        if _LONGEST_WORD.search(text, start):
            hints |= PiiHint.WALLET
    return hints


def _of_digits(text: str, lower: str, latin: bool, odd: bool) -> int:
    """The hints of a text with digits."""
    hints = PiiHint.WESTERN_ADDRESS if may_hold_western(text) else 0
    first = _FOUR.search(text)
    if first is None:
        return hints
    start = first.start()
    if _CODES.any_in(lower, latin):
        hints |= PiiHint.CODE
    if text.count(".") > 1 and _IPV4.search(text, start):
        hints |= PiiHint.IP_ADDRESS
    if holds_number(text):
        hints |= PiiHint.NATIONAL_NUMBER
    if not _FIVE.search(text, start):
        return hints
    if SIX_DIGITS.search(text, start):
        hints |= PiiHint.PHONE
        if _TWELVE.search(text, start):
            hints |= PiiHint.CARD
            if _FIFTEEN.search(text, start):
                hints |= PiiHint.RESIDENT_ID
        if _CREDIT_CODE.search(text, start):
            hints |= PiiHint.CREDIT_CODE
    if "(" in text and _CHECK_IN_BRACKETS.search(text, start):
        hints |= PiiHint.RESIDENT_ID
    if _IBAN.search(text):
        hints |= PiiHint.IBAN
    if odd or _PASSPORTS.any_in(lower, latin):
        hints |= PiiHint.PASSPORT
    if odd or _LICENCES.any_in(lower, latin):
        hints |= PiiHint.LICENCE
    if _QQ.any_in(lower, latin):
        hints |= PiiHint.QQ
    if (odd or "ssn" in lower or "social security" in lower or _SSN.search(text, start)) and _NINE.search(
        text, start
    ):
        hints |= PiiHint.SSN
    return hints
