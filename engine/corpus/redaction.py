"""Typed placeholders for private spans. Pure and light: training, review and the command line share it."""

from __future__ import annotations

from collections.abc import Iterable


def placeholder(type_: str) -> str:
    """What stands for a redacted span, e.g. ‹PHONE›."""
    return f"‹{type_}›"


def redact(text: str, spans: Iterable[tuple[str, int, int]]) -> str:
    """`text` with each (type, start, end) replaced; spans in code points, in order, without overlap."""
    pieces: list[str] = []
    position = 0
    for type_, start, end in spans:
        pieces += (text[position:start], placeholder(type_))
        position = end
    return "".join((*pieces, text[position:]))
