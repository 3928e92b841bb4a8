"""Text in sentences and passages, in Chinese (no spaces) as in English."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SENTENCE = re.compile(r".+?(?:[。！？；…]+[”’」』）]*|[.!?;]+[\"')\]]*(?=\s|$)|\n+|$)", re.DOTALL)
_SHORTEST = 6
"""Characters below which a sentence joins the one before it."""


def sentences(text: str) -> list[str]:
    """The sentences of `text` in order; joined they are the text again."""
    found: list[str] = []
    for match in _SENTENCE.finditer(text):
        piece = match[0]
        if not piece:
            continue
        if found and (len(piece.strip()) < _SHORTEST or len(found[-1].strip()) < _SHORTEST):
            found[-1] += piece
        else:
            found.append(piece)
    return found


def halves(text: str) -> tuple[str, str] | None:
    """`text` cut at the sentence end nearest to its middle; None when it is one sentence."""
    parts = sentences(text)
    if len(parts) < 2:
        return None
    size, middle, cut = 0, len(text) / 2, 1
    best = float("inf")
    for number, part in enumerate(parts[:-1], start=1):
        size += len(part)
        if abs(size - middle) < best:
            best, cut = abs(size - middle), number
    return "".join(parts[:cut]).strip(), "".join(parts[cut:]).strip()


def passages(text: str, most: int) -> Iterator[str]:
    """Neighbouring sentences together, up to about `most` UTF-8 bytes each; a longer sentence stands alone."""
    held, size = "", 0
    for sentence in sentences(text):
        length = len(sentence.encode("utf-8", "replace"))
        if held and size + length > most:
            yield held
            held, size = "", 0
        held, size = held + sentence, size + length
    if held.strip():
        yield held


def chinese(text: str) -> bool:
    """Whether Chinese characters carry the text."""
    count = sum("\u4e00" <= character <= "\u9fff" for character in text)
    return count * 3 >= len(text) > 0
