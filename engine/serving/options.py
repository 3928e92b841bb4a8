"""The options of Ollama's requests as `Sampling`: names, types, defaults and the words of its refusals."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.http.refused import bad_request
from engine.inference.language_model import Sampling

UNLIMITED = 1 << 30
"""Bytes of an answer: tokens limit it, or the context."""
_FLOATS = {"temperature": 0.8, "top_p": 0.9, "min_p": 0.0, "repeat_penalty": 1.0, "presence_penalty": 0.0,
           "frequency_penalty": 0.0}  # fmt: skip
"""Ollama's defaults (docs/modelfile.mdx there): tokens are not penalised for having occurred."""
_INTEGERS = {"top_k": 40, "repeat_last_n": 64, "num_predict": -1, "num_ctx": 0, "seed": -1}
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|s|m|h)")
MAX_TOP_LOGPROBS = 20
JSON_OBJECT = '{"type":"object"}'


def sampling_of(
    options: Mapping[str, Any] | None,
    *,
    format_: Any = None,
    logprobs: bool = False,
    top_logprobs: int = 0,
    truncate: bool = True,
) -> Sampling:
    """The sampling of a request to /api/. Unknown options are ignored, as in Ollama. Raises RequestRefused."""
    given = options or {}
    floats = {name: _float(name, given.get(name), default) for name, default in _FLOATS.items()}
    integers = {name: _integer(name, given.get(name), default) for name, default in _INTEGERS.items()}
    predict, seed, context = integers.pop("num_predict"), integers.pop("seed"), integers.pop("num_ctx")
    return Sampling(
        temperature=floats["temperature"],
        top_p=floats["top_p"],
        min_p=floats["min_p"],
        repeat_penalty=floats["repeat_penalty"],
        presence_penalty=floats["presence_penalty"],
        frequency_penalty=floats["frequency_penalty"],
        top_k=max(integers["top_k"], 0),
        repeat_last_n=max(integers["repeat_last_n"], -1),
        max_bytes=UNLIMITED,
        max_tokens=predict if predict > 0 else None,
        seed=None if seed < 0 else seed,
        context=context if context > 0 else None,
        stop=_stops(given.get("stop")),
        json_schema=schema_of(format_),
        logprobs=top_of(top_logprobs) if logprobs else None,
        truncate=truncate,
    )


def top_of(number: int) -> int:
    """How many alternatives are given for each token. Raises RequestRefused."""
    if not 0 <= number <= MAX_TOP_LOGPROBS:
        raise bad_request(f"top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}")
    return number


def schema_of(format_: Any) -> str:
    """The JSON schema of `format`: absent, "json", or a schema. Raises RequestRefused."""
    if format_ is None or format_ == "":
        return ""
    if format_ == "json":
        return JSON_OBJECT
    if isinstance(format_, dict):
        return msgspec.json.encode(format_).decode()
    raise bad_request(f'invalid format: {format_!r}; expected "json" or a valid JSON Schema object')


def keep_seconds(value: Any) -> float | None:
    """`keep_alive` in seconds: a number, or a duration like `5m`; negative: for ever. Raises RequestRefused."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _kept(float(value))
    if isinstance(value, str):
        sign, text = (-1.0, value[1:]) if value.startswith("-") else (1.0, value)
        if re.fullmatch(r"\d+", text):
            return _kept(sign * float(text))
        if re.fullmatch(f"(?:{_DURATION.pattern})+", text):
            return _kept(sign * sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text)))
    raise bad_request(f"invalid keep_alive: {value!r} is no duration")


def _kept(seconds: float) -> float:
    return -1.0 if seconds < 0 else min(seconds, 1e9)


def _float(name: str, value: Any, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise bad_request(f'option "{name}" must be of type float32')
    if name == "repeat_penalty" and value <= 0:
        raise bad_request(f'option "{name}" must be above 0')
    return float(value)


def _integer(name: str, value: Any, default: int) -> int:
    if value is None:
        return default
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole:
        raise bad_request(f'option "{name}" must be of type integer')
    return int(value)


def _stops(value: Any) -> list[str]:
    if value is None:
        return []
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise bad_request('option "stop" must be of type array')
    return stops
