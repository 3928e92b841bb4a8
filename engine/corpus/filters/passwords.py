"""Passwords: next to a label, in addresses with a user, in options of commands; also one-time codes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.corpus.filters.code_values import in_condition, is_expression, is_keyword
from engine.corpus.filters.lazy_pattern import lazy_pattern

URL_PASSWORD = lazy_pattern(
    r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]{0,64}:([^\s/\"'<>]{1,128})@(?=[A-Za-z0-9.\[\u0080-\uffff-])",
    re.IGNORECASE,
)
"""The password of `scheme://user:password@host`, whatever the scheme."""
_URL_PLACEHOLDER = lazy_pattern(
    r"\A(?:[\[({<$%].*|p(?:ass)?w(?:or)?d|pass(?:word)?|x+|\*+|\.+)\Z", re.IGNORECASE
)

ONE_TIME_CODE = lazy_pattern(
    r"(?:验证码|校验码|动态码|动态口令|短信码|取件码|(?<![a-z])(?:otp|(?:verification|security|one-time|login|confirmation|auth(?:entication)?|2fa|sms) (?:pass)?code|passcode|bestätigungscode)(?![a-z]))"
    r"\s{0,3}(?:就是|是|为|is|ist)?\s{0,3}[:：=]?\s{0,3}[\"'“]?([0-9]{4,8}|[0-9]{3}[ -][0-9]{3}|[A-Z]-[0-9]{6})(?![0-9A-Za-z]|\s?[位个年次条分秒元%])",
    re.IGNORECASE,
)
"""A code that was sent to somebody."""

PHRASE = lazy_pattern(
    r"(?:pass\s?phrase|(?:seed|recovery|mnemonic|backup) (?:phrase|words)|mnemonic|助记词|恢复短语)"
    r"\s{0,3}(?:is|are|是|为)?\s{0,3}[:：=]?\s{0,3}(?:\"([^\"\n]{8,200})\"|'([^'\n]{8,200})'|((?:[a-z]{3,8} ){11,23}[a-z]{3,8})(?![a-z]))",
    re.IGNORECASE,
)
"""A secret of several words."""

_LABEL = r"(?:密\s{0,4}码|口令|passwords?|passwd|pass\s?code|pass\s?phrase|passwort|kennwort|contraseña|mot de passe|senha|hasło|пароль|パスワード|비밀번호|wachtwoord|lösenord|(?<![a-z])(?:pwd|psw|pass|pin)(?![a-z])|pin码)"
_VALUE = r"([\x21-\x7e]{4,128})"
_PASSWORD = (
    # with a separator or a verb between label and value
    lazy_pattern(
        _LABEL
        + r"[\"']?\s*+(?::=|[:：](?!:)|={1,3}(?![=>])|=>|->|→|(?<=[\"']),(?=\s?[\"']))\s*+[\"'`「『“]?"
        + _VALUE,
        re.IGNORECASE,
    ),
    lazy_pattern(
        _LABEL
        + r"\s*+(?:就是|是|为|叫做?|改成了?|改为了?|设成了?|设为了?|设置成了?|设置为了?|换成了?|重置为|重置成|用的?是|填|输入?|(?<=\s)(?:is|was|are|ist|lautet|est|es|è|to(?:\s{1,4}be)?|as)(?=\s|:))\s*+[:：]?\s*+[\"'`「『“]?"
        + _VALUE,
        re.IGNORECASE,
    ),
    lazy_pattern(_LABEL + r"[ \t]?[\"'`「『“]?" + _VALUE, re.IGNORECASE),
)
_ACCOUNT_AND_PASSWORD = lazy_pattern(
    r"(?:账号|帐号|用户名?|login)\s*+(?:/|和|、|及|&)?\s*+密\s{0,4}码\s*+(?:[:=：是为]|分别是)*+\s*+([\x21-\x7e]{2,64})\s*+[/，,、和]\s*+"
    + _VALUE,
    re.IGNORECASE,
)

COMMAND_PASSWORD = lazy_pattern(
    # short options with a password; a separate `-p` prompts for it
    r"(?<![A-Za-z])(?:"
    r"(?:mysql|mariadb)[a-z-]{0,20}(?: [^\n|;&`]{0,160})?? -p(?!ort|assw|rotocol)|sshpass -p {0,8}|redis-cli(?: [^\n|;&`]{0,160})?? -a {0,8}"
    r"|docker login(?: [^\n|;&`]{0,160})?? -p {0,8}|curl(?: [^\n|;&`]{0,160})?? (?:-u|--user) {0,8}[\"']?[^\s:\"'$]{1,64}:"
    r")[\"']?([^\s\"'`<>$%{\[(\u0080-\uffff][^\s\"'`\u0080-\uffff]{3,127})"
)

NOT_A_VALUE = lazy_pattern(
    r"\A(?:str(?:ing)?|int|bool|none|null|nil|undefined|true|false|required|optional|invalid|incorrect|wrong|correct|expired|empty|missing|hash(?:ed)?|field|input|text|varchar.*|admin_?password|default|"
    r"protected|encrypted|strength|manager|reset|change|forgot(?:ten)?|policy|generator|and|the|your|my|for|not|too|very|with|that|this|from|used|stored|secure|safe|weak|strong|needed|here|"
    r"y?our[_-]?(?:secure[_-]?)?(?:password|key|token|secret)s?(?:[_-]?here)?|(?:my|new|old|user|db|the)?[_-]?pass(?:word|wd)?s?|pwd|x{3,}|\*{3,}|\.{3,}|[•●]+|-{3,}|_{3,}|<[^<>]*>?|\$\{.*|\$[A-Za-z_]\w*|\{\{?\w*\}?\}?|%\(?\w*\)?s?|\[\w*\]?|"
    r"required\|.*|changeme|example|placeholder|redacted|example.*|self\..*|this\..*|os\..*|process\.env.*|getenv.*|input\(.*|getpass.*|request\..*|req\..*|config.*|settings\..*|args\..*|params.*|data\[.*)",
    re.IGNORECASE,
)
_SYMBOL = re.compile(r"[!@#%^&*~|+?]")
_QUOTES = {'"': '"', "'": "'", "`": "`", "「": "」", "『": "』", "“": "”"}


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


_ODD_I = re.compile("[\u0130\u0131]")
"""Letters that match an i without its case and are none in lower case."""
_LABELS = ("口令", "pass", "kennwort", "contraseña", "senha", "hasło", "пароль", "パスワード", "비밀번호", "wachtwoord", "lösenord")  # fmt: skip
_SHORT_LABEL = lazy_pattern(r"(?:(?<![a-z])p(?:wd|sw|in)(?![a-z])|密\s{0,4}码|pin码)")


def _may_be_labelled(lower: str) -> bool:
    """A necessary condition of a password next to a label, in lower case."""
    if any(map(lower.__contains__, _LABELS)):
        return True
    return (
        "pin" in lower or "pwd" in lower or "psw" in lower or ("密" in lower and "码" in lower)
    ) and _SHORT_LABEL.search(lower) is not None


def _may_be_phrase(lower: str) -> bool:
    """A necessary condition of a secret of several words, in lower case."""
    has = lower.__contains__
    return has("phrase") or has("mnemonic") or has(" words") or has("助记词") or has("恢复短语")


def passwords(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of passwords next to a label; text about passwords gives none."""
    lower = text.lower()
    odd = not text.isascii() and _ODD_I.search(text) is not None
    if odd or _may_be_labelled(lower):
        yield from _labelled(text)
    if odd or _may_be_phrase(lower):
        for match in PHRASE.finditer(text):
            group = match.lastindex or 0
            if " " in match.group(group):
                yield match.span(group)
    if " -" in text:
        for match in COMMAND_PASSWORD.finditer(text):
            value = _strip(match.group(1))
            if len(value) >= 4 and not NOT_A_VALUE.fullmatch(value):
                yield match.start(1), match.start(1) + len(value)
    if odd or ("密" in text and "码" in text):
        for match in _ACCOUNT_AND_PASSWORD.finditer(text):
            value = _strip(match.group(2))
            if not NOT_A_VALUE.fullmatch(value):
                yield match.start(2), match.start(2) + len(value)


def _labelled(text: str) -> Iterator[tuple[int, int]]:
    for strength, pattern in enumerate(_PASSWORD):
        for match in pattern.finditer(text):
            label = match.group(0)[: match.start(1) - match.start()].rstrip()
            value = _unquoted(text, match)
            end = match.start(1) + len(value)
            if not _quoted(text, match.start(1), end):
                value = _strip(value)
                end = match.start(1) + len(value)
            if len(value) < 4 or NOT_A_VALUE.fullmatch(value):
                continue
            quoted = _quoted(text, match.start(1), end)
            if (not quoted or text[match.start(1) - 1] == "`") and _is_code(text, match, value, end):
                continue
            digits = value.isdigit()
            if "," in match.group()[: match.start(1) - match.start()]:
                # `define("PASSWORD", "…")`, but also a list of names
                plausible = (
                    quoted
                    and digits is False
                    and _looks_random(value)
                    and re.search("[0-9]", value) is not None
                )
            elif strength == 0:
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


def url_passwords(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of the passwords of addresses with a user; placeholders of manuals are excluded."""
    for match in URL_PASSWORD.finditer(text):
        if not _URL_PLACEHOLDER.match(match.group(1)) and not NOT_A_VALUE.fullmatch(match.group(1)):
            yield match.span(1)


def _is_code(text: str, match: re.Match[str], value: str, end: int) -> bool:
    """Whether the value next to a label is an expression or a word of a program."""
    if is_keyword(value):
        return not re.search(r"[0-9]", value)
    separator = match.group()[: match.start(1) - match.start()]
    if "\n" in separator and in_condition(text, match.start()):
        return True
    # Digits and signs that no expression has are of a password.
    strange = re.search(r"[0-9]", value) is not None and _SYMBOL.search(value) is not None
    return not strange and is_expression(value, text[end : end + 1])


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
