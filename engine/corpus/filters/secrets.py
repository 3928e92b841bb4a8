"""Credentials: vendor keys and tokens, private keys, and tokens by the words before them."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

from engine.corpus.filters.code_values import is_expression
from engine.corpus.filters.passwords import NOT_A_VALUE

_START = r"(?<![A-Za-z0-9_])"

VENDOR_KEY = re.compile(
    _START
    + r"(?:"
    + "|".join(
        (
            r"sk-(?:proj-|ant-|or-|svcacct-|admin-|lf-)?[A-Za-z0-9][A-Za-z0-9_-]{18,}",
            r"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|AROA)[A-Z0-9]{16}",
            r"gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}|gl(?:pat|dt|rt|soat|ptt)-[A-Za-z0-9_-]{20,}",
            r"xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{10,}",
            r"AIza[A-Za-z0-9_-]{30,40}|ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{20,}",
            r"hf_[A-Za-z0-9]{30,}|r8_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_-]{50,}",
            r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{20,}|sq0(?:atp|csp)-[A-Za-z0-9_-]{22,}",
            r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|key-[a-f0-9]{32}",
            r"LTAI[A-Za-z0-9]{12,24}|AKID[A-Za-z0-9]{16,36}|AKLT[A-Za-z0-9]{20,}",
            r"gsk_[A-Za-z0-9]{30,}|xai-[A-Za-z0-9]{30,}|tvly-[A-Za-z0-9-]{20,}|pplx-[A-Za-z0-9]{30,}|nvapi-[A-Za-z0-9_-]{30,}|fw_[A-Za-z0-9]{20,}",
            r"dop_v1_[a-f0-9]{64}|dapi[a-f0-9]{32}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}|lin_api_[A-Za-z0-9]{30,}|ntn_[A-Za-z0-9]{30,}|secret_[A-Za-z0-9]{40,}",
            r"AGE-SECRET-KEY-1[0-9A-Z]{50,}|[0-9]{8,10}:AA[A-Za-z0-9_-]{30,36}|hvs\.[A-Za-z0-9_-]{20,}|tskey-[A-Za-z0-9-]{16,}",
            r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{24,}|glsa_[A-Za-z0-9_]{30,}|sbp_[a-f0-9]{40}|figd_[A-Za-z0-9_-]{30,}|PMAK-[A-Za-z0-9-]{30,}|xkeysib-[A-Za-z0-9-]{40,}",
            r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
            # Twilio: an API key; an account with its token
            r"SK(?=[a-f]*[0-9])[0-9a-f]{32}|AC(?=[a-f:]*[0-9])[0-9a-f]{32}:[0-9a-f]{32}",
        )
    )
    + r")"
)

WEBHOOK = re.compile(
    r"(?:https://)?(?:hooks\.slack\.com/(?:services|workflows|triggers)/[TE][A-Za-z0-9]{6,}/[A-Za-z0-9]{6,}/[A-Za-z0-9/]{16,}"
    r"|(?:discord|discordapp)\.com/api/webhooks/[0-9]{15,21}/[A-Za-z0-9_-]{40,}"
    r"|open\.(?:feishu\.cn|larksuite\.com)/open-apis/bot/v2/hook/[0-9a-f-]{30,}"
    r"|qyapi\.weixin\.qq\.com/cgi-bin/webhook/send\?key=[0-9a-f-]{30,})"
)
"""Webhook addresses of Slack, Discord, Feishu and WeCom. All contain "hook"."""

_NAMED_KEY = re.compile(
    r"(?:(?<![A-Za-z])(?:api[_ -]?key|apikey|(?:shared[_ -]?)?access[_ -]?key(?:[_ -]?(?:id|secret))?|account[_ -]?key|secret[_ -]?(?:access[_ -]?)?key|app[_ -]?(?:secret|key)|client[_ -]?secret|"
    r"(?:auth|access|refresh|bearer|api|bot)[_ -]?token|token|secret|credentials?)(?![A-Za-z])|密钥|秘钥|令牌|授权码|接口密码|私钥)"
    r"[\"']?\s*+(?:[:=]|是|为|is|=>|：)\s*+[\"'`]?([A-Za-z0-9_\-./+=~]{12,256})",
    re.IGNORECASE,
)
_KEY_WORD = re.compile(
    r"[Kk][Ee][Yy]|[Tt][Oo][Kk][Ee]|[Ss][Ee][Cc][Rr]|[Cc][Rr][Ee][Dd]|[Bb][Ee][Aa][Rr]|[Aa][Uu][Tt][Hh]|[密秘私]钥|令牌|授权码|接口密码"
)
"""A necessary condition of the named keys. Both cases are spelled out, which `re` searches faster."""
_TWILIO = re.compile(
    r"(?:[Tt]wilio|TWILIO|(?<![A-Za-z0-9])AC[0-9a-f]{32}(?![0-9a-z]))[^\n]{0,80}?(?<![0-9A-Za-z])([0-9a-f]{32})(?![0-9A-Za-z])"
)
"""An account token looks like a hash (32 hexadecimal digits): only the words before it identify it."""
_BEARER = re.compile(r"(?i:\bbearer|authorization:\s*(?:basic|token))\s++([A-Za-z0-9_\-./+=~]{16,})")

_KEY_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,16} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END (?:[A-Z0-9]{1,16} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_KEY_BODY = re.compile(r"[A-Za-z0-9+/=\s:,-]*+")
_MAX_KEY = 20_000

_TRAILING = "\"'`,.;:!?)]}>、。，；：！？）」』”"


_PLACEHOLDER = re.compile(
    r"x{8}|(?:^|[-_.])(?:your|example|placeholder|replace|insert|dummy|fake|sample|changeme|here|x{3,})(?=[-_.]|$)",
    re.IGNORECASE,
)
_COVERED = re.compile(r"[xX]{3,}+")
_MIN_REST = 24
_WORDS_ONLY = re.compile(r"[a-z]{1,14}(?:[-_]{1,2}(?:[a-z]{1,14}|[0-9]{1,3}))+")
"""Words joined by hyphens, like a package name: "sk-learn-contrib-lightning"."""


def _is_placeholder(key: str) -> bool:
    """Whether it is an example of a manual; a real key may be covered in part with x."""
    rest = _COVERED.sub("", key.rpartition("/")[2])
    return _PLACEHOLDER.search(key) is not None and (
        _PLACEHOLDER.search(rest) is not None or len(rest) < _MIN_REST or not re.search("[0-9]", rest)
    )


def vendor_keys(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of vendor keys and webhooks; placeholders of manuals are excluded."""
    for pattern in (WEBHOOK, VENDOR_KEY) if "hook" in text else (VENDOR_KEY,):
        for match in pattern.finditer(text):
            key = match.group()
            if not _is_placeholder(key) and not _WORDS_ONLY.fullmatch(key):
                yield match.span()


def private_keys(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of private keys in PEM, also of those that are cut off."""
    ends = [match.end() for match in _KEY_END.finditer(text)]
    last = 0
    for begin in _KEY_BEGIN.finditer(text):
        if begin.start() < last:
            continue
        following = bisect_left(ends, begin.end())
        if following < len(ends) and ends[following] - begin.end() <= _MAX_KEY:
            last = ends[following]
        else:
            body = _KEY_BODY.match(text, begin.end())
            last = body.end() if body else begin.end()
        yield begin.start(), last


def named_keys(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of long random-looking values next to a word for a key, token or secret."""
    if "AC" in text or "wilio" in text or "WILIO" in text:
        yield from (match.span(1) for match in _TWILIO.finditer(text) if re.search("[0-9]", match.group(1)))
    if not _KEY_WORD.search(text):
        return
    for pattern in (_NAMED_KEY, _BEARER):
        for match in pattern.finditer(text):
            value = match.group(1).rstrip(_TRAILING)
            kinds = sum(bool(re.search(kind, value)) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
            end = match.start(1) + len(value)
            quoted = text[match.start(1) - 1] in "\"'`"
            if (
                not NOT_A_VALUE.fullmatch(value)
                and (quoted or not is_expression(value, text[end : end + 1]))
                and re.search(r"\d", value)
                and kinds >= 2
                and not re.fullmatch(r"\A[a-z]+(?:[_-][a-z0-9]+)+", value)
            ):
                yield match.start(1), end
