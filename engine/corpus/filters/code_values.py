"""Tells code from secrets: what stands behind `password =` in a program is most often an expression."""

from __future__ import annotations

import re

_PATH = re.compile(r"\A[A-Za-z_$][\w$]*+(?:(?:\.|->|::|\?\.)[A-Za-z_$][\w$]*+)+[;,]?\Z")
"""`user.password`, `settings.SECRET_KEY`, `$this->token`, `Config::KEY`."""
_CALL = re.compile(
    r"\A(?:[A-Za-z_$][\w$]*+(?:(?:\.|->|::|\?\.)[A-Za-z_$][\w$]*+)*+!?[(\[{<]|(?:new|await|async|lambda|func|fn)\b)"
)
"""`base64.b64decode(`, `data[`, `Optional[`, `Vec<`, `format!(`, `new Secret`."""
_CONSTANT = re.compile(r"\A[A-Z][A-Z0-9]*+(?:_[A-Z0-9]++)+[;,)]*\Z")
"""`DB_PASSWORD`."""
_NAME_OF_SECRET = re.compile(
    r"\A[A-Za-z_]{0,24}(?:password|passwd|passphrase|pwd|secret|token|key|credential|hash)[A-Za-z_]{0,24}[;,)]*\Z",
    re.IGNORECASE,
)
"""`userPassword`, `hashed_pw`: a variable, not its value."""
_SNAKE = re.compile(r"\A(?:[a-z]++(?:_[a-z]++)+[;,)]*|[\[({].*)\Z")
"""`saved_hooks`, `[listener.fileno()`."""
_CAMEL = re.compile(r"\A[a-z]{1,20}(?:Password|Passwd|Pwd|Secret|Token|Key)[A-Za-z]{0,20}[0-9]?[;,)]*\Z")
_VARIABLE = re.compile(
    r"\A(?:[$@%&#:]\{?[A-Za-z_][\w.]*+\}?|\{\{?[^{}]*+\}?\}?|<[^<>]*+>|%\(?\w*+\)?s?|\?|:\w++)[;,)]*\Z"
)
"""`$PASSWORD`, `${PASS}`, `{{ pass }}`, `%(pass)s`, `:password`, `?`."""
_STRING_PREFIX = re.compile(r"\A[rRbBuUfF]{1,2}[\"']")
_KEYWORD = re.compile(
    r"\A(?:return|raise|throw|pass|break|continue|print|yield|else|elif|null|none|nil|undefined|true|false|self|this|super|void|"
    r"str|string|text|int|integer|number|bool|boolean|bytes|char|varchar|any|object|required|optional|password|passwd|"
    r"must|should|minimum|maximum|between|length|at\s?least|please|enter|choose|select|confirm|contains?|compare|verify|validate|"
    r"against|before|after|without|through|cannot|could|would|invalid|incorrect|mismatch|reset|protected|authentication|policy|manager|"
    r"encrypted|stored|hashed|expired|changed?|forgotten|recovery|strength|generator|field|input|hidden|visible|unknown|anything|something|whatever)\b",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"(?:^|[\s(;{])(?:if|elif|while|for|def|fn|func|function|switch|case|when|unless|assert|and|or|not|&&|\|\|)[\s(!][^\n]{0,120}\Z"
)


def is_expression(value: str, after: str) -> bool:
    """Whether an unquoted value is code. `after`: the character that follows it."""
    return (
        after in ("(", "[")
        or _CALL.match(value) is not None
        or _CONSTANT.match(value) is not None
        or _SNAKE.match(value) is not None
        or _CAMEL.match(value) is not None
        or _VARIABLE.match(value) is not None
        or _NAME_OF_SECRET.match(value) is not None
        or _STRING_PREFIX.match(value) is not None
        or (_PATH.match(value) is not None and max(map(len, re.split(r"\W+", value))) <= 24)
    )


def is_keyword(value: str) -> bool:
    """Whether it begins with a word of a program or of a sentence about passwords."""
    return _KEYWORD.match(value) is not None


def in_condition(text: str, position: int) -> bool:
    """Whether the line up to `position` is a condition or the head of a function, whose colon begins a block."""
    line = text[max(text.rfind("\n", 0, position) + 1, position - 200) : position]
    return _CONDITION.search(line) is not None
