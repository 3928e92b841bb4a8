"""Secrets removed from text that leaves the machine: log lines, errors and addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable

from engine.corpus.filters.passwords import passwords, url_passwords
from engine.corpus.filters.secrets import WEBHOOK, named_keys, private_keys, vendor_keys

HIDDEN = "•••"
_LONG = 2000
_MIN_SECRET = 4
"""A shorter one is a word that stands everywhere."""
_ADDRESS_SECRET = re.compile(
    r"(?i)((?:[?&;]|\b)(?:key|token|access_token|sign|signature|secret|password|passwd|pwd|apikey|api_key|sendkey|auth)=)[^\s&#;'\")]+"
)
_CODE = re.compile(
    r"(?i)(授权码|密码|口令|authori[sz]ation code|auth code|app password)(\s*(?:[:：=]|是|为|is)\s*)\S{4,}"
)
_AUTH_HEADER = re.compile(r"(?i)\b(authorization|cookie|set-cookie|x-api-key)(['\"]?\s*[:=]\s*)[^\r\n]+")


def redact(text: str, known: Iterable[str] = ()) -> str:
    """`text` without credentials: those `known`, keys and tokens by their form, and what is called a password.

    Errs on the side of hiding: a line of a log without a figure is still a line of a log.
    """
    if not text:
        return ""
    for secret in sorted(set(known), key=len, reverse=True):
        if len(secret) >= _MIN_SECRET:
            text = text.replace(secret, HIDDEN)
    text = _ADDRESS_SECRET.sub(rf"\1{HIDDEN}", text)
    text = _CODE.sub(rf"\1\2{HIDDEN}", text)
    text = _AUTH_HEADER.sub(rf"\1\2{HIDDEN}", text)
    spans = [match.span() for match in WEBHOOK.finditer(text)]
    for find in (private_keys, vendor_keys, named_keys, url_passwords, passwords):
        spans += find(text)
    parts, at = [], 0
    for start, end in sorted(spans):
        if start > at:
            parts.append(text[at:start])
        if end > at:
            parts.append("" if start < at else HIDDEN)
            at = end
    return "".join([*parts, text[at:]])


def redact_lines(lines: Iterable[str], known: Iterable[str] = ()) -> tuple[str, ...]:
    """Lines of a log, each cut to a readable length. A key of several lines is hidden as a whole."""
    joined = "\n".join(line[:_LONG] for line in lines)
    return tuple(redact(joined, known).splitlines())
