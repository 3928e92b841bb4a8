"""JSON of values that may hold file names which are not UTF-8."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
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
        return msgspec.json.encode(_printable(value), enc_hook=enc_hook)


def _printable(value: Any) -> Any:
    """The value with each text as it can be encoded; raw JSON in it stays."""
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", printable_name(value))
    if isinstance(value, dict):
        return {_printable(key): _printable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(one) for one in value]
    if isinstance(value, msgspec.Struct):
        fields = {name: _printable(getattr(value, name)) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **fields)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _printable(getattr(value, field.name)) for field in dataclass_fields(value)}
    return value
