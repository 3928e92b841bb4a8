"""JSON of values that may hold file names which are not UTF-8."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from engine.core.filenames import printable_name

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def encode_json(value: Any, *, enc_hook: Callable[[Any], Any] | None = None) -> bytes:
    """JSON of a value as msgspec encodes it, with the bytes of file names that are not UTF-8 as `\\xb6`, other lone surrogates
    as U+FFFD."""
    try:
        return msgspec.json.encode(value, enc_hook=enc_hook)
    except UnicodeEncodeError:
        return msgspec.json.encode(_printable(msgspec.to_builtins(value, enc_hook=enc_hook)))


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", printable_name(value))
    if isinstance(value, dict):
        return {_printable(key): _printable(one) for key, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list | tuple) else value
