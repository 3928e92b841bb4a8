"""Credentials: vendor keys and tokens, private keys, passwords and tokens by the words before them."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

_START = r"(?<![A-Za-z0-9_])"
_END = r"(?![A-Za-z0-9_])"

VENDOR_KEY = re.compile(
    _START
    + r"(?:"
    + "|".join(
        (
            r"sk-(?:proj-|ant-|or-|svcacct-|admin-|lf-)?[A-Za-z0-9][A-Za-z0-9_-]{18,}",
            r"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|AROA)[A-Z0-9]{16}",
            r"gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}|gl(?:pat|dt|rt|soat|ptt)-[A-Za-z0-9_-]{20,}",
            r"xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{10,}",
            r"AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{20,}",
            r"hf_[A-Za-z0-9]{30,}|r8_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_-]{50,}",
            r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{20,}|sq0(?:atp|csp)-[A-Za-z0-9_-]{22,}",
            r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|key-[a-f0-9]{32}",
            r"LTAI[A-Za-z0-9]{12,24}|AKID[A-Za-z0-9]{16,36}|AKLT[A-Za-z0-9]{20,}",
            r"gsk_[A-Za-z0-9]{30,}|xai-[A-Za-z0-9]{30,}|tvly-[A-Za-z0-9-]{20,}|pplx-[A-Za-z0-9]{30,}|nvapi-[A-Za-z0-9_-]{30,}|fw_[A-Za-z0-9]{20,}",
            r"dop_v1_[a-f0-9]{64}|dapi[a-f0-9]{32}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}|lin_api_[A-Za-z0-9]{30,}|ntn_[A-Za-z0-9]{30,}|secret_[A-Za-z0-9]{40,}",
            r"AGE-SECRET-KEY-1[0-9A-Z]{50,}|[0-9]{8,10}:AA[A-Za-z0-9_-]{33}|hvs\.[A-Za-z0-9_-]{20,}|tskey-[A-Za-z0-9-]{16,}",
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

URL_PASSWORD = re.compile(
    r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,64}:([^\s/@]{3,128})@[A-Za-z0-9.\[-]", re.IGNORECASE
)

_LABEL = r"(?:密\s{0,4}码|口令|passwords?|passwd|pass\s?code|pass\s?phrase|passwort|contraseña|(?<![a-z])(?:pwd|psw|pass|pin)(?![a-z])|pin码)"
_VALUE = r"([\x21-\x7e]{4,128})"
_PASSWORD = (
    # with a separator or a verb between label and value
    re.compile(_LABEL + r"[\"']?\s*+(?:[:=：]|=>|->|→)\s*+[\"'`「『“]?" + _VALUE, re.IGNORECASE),
    re.compile(
        _LABEL
        + r"\s*+(?:就是|是|为|叫做?|改成了?|改为了?|设成了?|设为了?|设置成了?|设置为了?|换成了?|重置为|重置成|用的?是|填|输入?|(?<=\s)(?:is|was|are|to(?:\s{1,4}be)?|as)(?=\s|:))\s*+[:：]?\s*+[\"'`「『“]?"
        + _VALUE,
        re.IGNORECASE,
    ),
    re.compile(_LABEL + r"[ \t]?[\"'`「『“]?" + _VALUE, re.IGNORECASE),
)
_ACCOUNT_AND_PASSWORD = re.compile(
    r"(?:账号|帐号|用户名?|login)\s*+(?:/|和|、|及|&)?\s*+密\s{0,4}码\s*+(?:[:=：是为]|分别是)*+\s*+([\x21-\x7e]{2,64})\s*+[/，,、和]\s*+"
    + _VALUE,
    re.IGNORECASE,
)

COMMAND_PASSWORD = re.compile(
    # short options with a password; a separate `-p` prompts for it
    r"(?<![A-Za-z])(?:"
    r"(?:mysql|mariadb)[a-z-]{0,20}(?: [^\n|;&`]{0,160})?? -p(?!ort|assw|rotocol)|sshpass -p {0,8}|redis-cli(?: [^\n|;&`]{0,160})?? -a {0,8}"
    r"|docker login(?: [^\n|;&`]{0,160})?? -p {0,8}|curl(?: [^\n|;&`]{0,160})?? (?:-u|--user) {0,8}[\"']?[^\s:\"'$]{1,64}:"
    r")[\"']?([^\s\"'`<>$%{\[(\u0080-\uffff][^\s\"'`\u0080-\uffff]{3,127})"
)

_NOT_A_VALUE = re.compile(
    r"\A(?:str(?:ing)?|int|bool|none|null|nil|undefined|true|false|required|optional|invalid|incorrect|wrong|correct|expired|empty|missing|hash(?:ed)?|field|input|text|varchar.*|admin_?password|default|"
    r"protected|encrypted|strength|manager|reset|change|forgot(?:ten)?|policy|generator|and|the|your|my|for|not|too|very|with|that|this|from|used|stored|secure|safe|weak|strong|needed|here|"
    r"y?our[_-]?(?:secure[_-]?)?(?:password|key|token|secret)s?(?:[_-]?here)?|(?:my|new|old|user|db|the)?[_-]?pass(?:word|wd)?s?|pwd|x{3,}|\*{3,}|\.{3,}|[•●]+|-{3,}|_{3,}|<[^<>]*>?|\$\{.*|\$[A-Za-z_]\w*|\{\{?\w*\}?\}?|%\(?\w*\)?s?|\[\w*\]?|"
    r"changeme|example|placeholder|redacted|example.*|self\..*|this\..*|os\..*|process\.env.*|getenv.*|input\(.*|getpass.*|request\..*|req\..*|config.*|settings\..*|args\..*|params.*|data\[.*)",
    re.IGNORECASE,
)
_CODE = re.compile(r"\A(?:[A-Za-z_][\w.]*[.(\[].*|[\w.]+\(.*|.*[({]$|(?:https?|ftp)://.*)", re.IGNORECASE)
_QUOTES = {'"': '"', "'": "'", "`": "`", "「": "」", "『": "』", "“": "”"}
_TRAILING = "\"'`,.;:!?)]}>、。，；：！？）」』”"


def _unquoted(text: str, match: re.Match[str]) -> str:
    """The value up to its closing quotation mark, if it is quoted."""
    value: str = match.group(1)
    close = _QUOTES.get(text[match.start(1) - 1])
    return value.partition(close)[0] if close else value


_WORD_AND_STOP = re.compile(r"[A-Za-z]{4}[.?!]\Z")


def _strip(value: str) -> str:
    """The value without the punctuation of its sentence; a symbol after letters may belong to a password."""
    if stripped := value.rstrip("\"'`,;:)]}>"):
        value = value[:-1] if stripped == value and _WORD_AND_STOP.search(value) else stripped
        return value
    return ""


def _looks_random(value: str) -> bool:
    """Whether it looks like a password rather than a word: two of digits, letters, symbols, or mixed case."""
    digit = any(character.isdigit() for character in value)
    letter = any(character.isalpha() for character in value)
    symbol = any(not character.isalnum() for character in value.strip(".,;:!?-_/'\""))
    camel = (
        re.search(r"[a-z][A-Z]", value) is not None
        and re.search(r"[A-Z][a-z]+[A-Z]|[a-z]{1,3}[A-Z]{2}", value) is not None
    )
    return (
        (digit and letter)
        or (digit and symbol)
        or (letter and symbol)
        or (symbol and not letter and len(value) >= 6)
        or camel
    )


_PLACEHOLDER = re.compile(
    r"x{8}|(?:^|[-_.])(?:your|example|placeholder|replace|insert|dummy|fake|sample|changeme|here|x{3,})(?=[-_.]|$)",
    re.IGNORECASE,
)
_WORDS_ONLY = re.compile(r"[a-z]{1,14}(?:[-_](?:[a-z]{1,14}|[0-9]{1,3}))+")
"""Words joined by hyphens, like a package name: "sk-learn-contrib-lightning"."""


def vendor_keys(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of vendor keys and webhooks; placeholders of manuals are excluded."""
    for pattern in (WEBHOOK, VENDOR_KEY) if "hook" in text else (VENDOR_KEY,):
        for match in pattern.finditer(text):
            key = match.group()
            if not _PLACEHOLDER.search(key) and not _WORDS_ONLY.fullmatch(key):
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


def passwords(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of passwords next to a label; text about passwords gives none."""
    for strength, pattern in enumerate(_PASSWORD):
        for match in pattern.finditer(text):
            label = match.group(0)[: match.start(1) - match.start()].rstrip()
            value = _strip(_unquoted(text, match))
            end = match.start(1) + len(value)
            if (
                len(value) < 4
                or _NOT_A_VALUE.fullmatch(value)
                or (
                    _CODE.fullmatch(value)
                    and not (re.search(r"\d", value) and re.search(r"[^\w.(\[]", value))
                )
            ):
                continue
            digits = value.isdigit()
            quoted = _quoted(text, match.start(1), end)
            if strength == 0:
                plausible = quoted or not (value.isalpha() and value.islower() and len(value) < 6)
            elif strength == 1:
                plausible = _looks_random(value) or (digits and len(value) >= 4)
                plausible = quoted or (plausible and not _is_prose(value))
            else:
                # without separator only a Chinese label counts
                chinese = re.search(r"[\u7801\u4ee4]$", label.rstrip("\"'`「『“ ")) is not None
                plausible = chinese and (
                    (_looks_random(value) and not _is_prose(value)) or (digits and len(value) >= 6)
                )
            if plausible:
                yield match.start(1), end
    for match in COMMAND_PASSWORD.finditer(text):
        value = _strip(match.group(1))
        if len(value) >= 4 and not _NOT_A_VALUE.fullmatch(value):
            yield match.start(1), match.start(1) + len(value)
    for match in _ACCOUNT_AND_PASSWORD.finditer(text):
        value = _strip(match.group(2))
        if not _NOT_A_VALUE.fullmatch(value):
            yield match.start(2), match.start(2) + len(value)


def _quoted(text: str, start: int, end: int) -> bool:
    """Whether the value is quoted."""
    close = _QUOTES.get(text[start - 1 : start])
    return close is not None and text[end : end + 1] == close


def _is_prose(value: str) -> bool:
    """Whether the value is words joined by punctuation ("case-sensitive", "user's", "and/or") or a range ("8-16")."""
    return (
        re.fullmatch(r"\A(?:[A-Za-z]+(?:[-'/][A-Za-z]+)+|\d+[-~]\d+|[A-Za-z]+\.?|\d+(?:st|nd|rd|th))", value)
        is not None
    )


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
            plain = _NOT_A_VALUE.fullmatch(value) or (_CODE.fullmatch(value) and not re.search(r"\d", value))
            if (
                not plain
                and re.search(r"\d", value)
                and kinds >= 2
                and not re.fullmatch(r"\A[a-z]+(?:[_-][a-z0-9]+)+", value)
            ):
                yield match.start(1), match.start(1) + len(value)
