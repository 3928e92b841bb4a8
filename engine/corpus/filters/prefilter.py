"""Cheap necessary conditions for the PII patterns; most texts meet none or one of them.

Words are searched in the lower-case text, which is some thirty times as fast as a case-insensitive pattern.
"""

from __future__ import annotations

import re
from enum import IntEnum

from engine.corpus.filters.national_ids import may_hold_number

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
    "pypi-", "GOCSPX-", "key-", "xai-", "tvly-", "pplx-", "nvapi-", "tskey-", "-----",
)  # fmt: skip
_LOW_KEYS = (
    "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "_pat_", "hf_", "npm_", "sk_", "rk_", "pk_", "whsec_", "gsk_", "fw_",
    "shpat_", "shpca_", "shppa_", "shpss_", "lin_api_", "ntn_", "secret_",
)  # fmt: skip
"""Case-sensitive prefixes of vendor keys, by the separator that they contain. Prefixes with a digit (r8_, xapp-1-,
sq0atp-, ya29., dop_v1_, AGE-SECRET-KEY-1) are covered by _CHARACTERS."""


_LATIN = re.compile("[a-z]")
_AT_WORDS = ("@", "at)", "at]", "at}", " at ", "艾特", "圈a", "小老鼠")


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
_AT = _Words(_AT_WORDS)
_WECHAT = _Words(_WECHAT_WORDS)


class PiiHint(IntEnum):
    """The condition of a PII pattern, by its index in `pii_hints`."""

    DASHES = 0
    AT = 1
    LONG_WORD = 2
    PASSWORD = 3
    FIVE_DIGITS = 4
    SIX_DIGITS = 5
    NINE_DIGITS = 6
    IP_ADDRESS = 7
    PLATE = 8
    WECHAT = 9
    ADDRESS = 10
    DIGIT = 11
    CODE = 12
    NATIONAL_NUMBER = 13


_DIGIT = re.compile("[0-9]")
_FIVE = re.compile(r"[0-9](?:[^0-9\n]{0,2}[0-9]){2}(?:(?:[^0-9\n]{0,2}[0-9]){2}|[ \-–—.·/]{3}[0-9]{4})")
_SIX = re.compile("[0-9]{2}[ -]?[0-9]{4}")
_NINE = re.compile(r"[0-9](?:[^0-9\n]?[0-9]){8}")
_LONG_WORD = re.compile(r"[A-Za-z0-9_\-+/=.]{12}")
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


def pii_hints(text: str) -> tuple[bool, ...]:
    """For each `PiiHint` whether the normalised text meets it."""
    lower = text.lower()
    latin = _LATIN.search(lower) is not None
    has = lower.__contains__
    other = not text.isascii()
    odd = other and _ODD_CASE.search(text) is not None
    digits = _DIGIT.search(text) is not None
    five = digits and _FIVE.search(text) is not None
    return (
        "-----BEGIN" in text,
        _AT.any_in(lower, latin),
        _LONG_WORD.search(text) is not None,
        odd
        or _SECRETS.any_in(lower, latin)
        or (has(" -") and any(map(has, _COMMANDS)))
        or (has("密") and has("码")),
        five,
        five and _SIX.search(text) is not None,
        five and _NINE.search(text) is not None,
        (digits and text.count(".") > 1 and _IPV4.search(text) is not None)
        or (text.count(":") > 1 and _IPV6.search(text) is not None),
        other and _PLATE.search(text) is not None,
        odd or _WECHAT.any_in(lower, latin),
        other and _ADDRESS.search(text) is not None,
        digits,
        digits and _CODES.any_in(lower, latin),
        digits and may_hold_number(text),
    )
