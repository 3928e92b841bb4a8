"""JSON of values that may hold file names which are not UTF-8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from engine.core.filenames import printable_name


def encode_json(value: Any, *, enc_hook: Callable[[Any], Any] | None = None) -> bytes:
    """JSON of a value as msgspec encodes it, with the bytes of file names that are not UTF-8 as `\\xb6`."""
    try:
        return msgspec.json.encode(value, enc_hook=enc_hook)
    except UnicodeEncodeError:
        return msgspec.json.encode(_printable(msgspec.to_builtins(value, enc_hook=enc_hook)))


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable_name(value)
    if isinstance(value, dict):
        return {_printable(key): _printable(one) for key, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list | tuple) else value
