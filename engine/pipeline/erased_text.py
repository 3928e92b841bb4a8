"""Whether a text quotes erased conversations: also cut short, with redacted spans, and with other white space."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain

from engine.memory.search import fold

_GRAM = 24
"""Characters that are compared together."""
_STRIDE = 8
"""Every this many characters of the erased text a gram begins: a common passage of 31 characters holds one."""
_LONG = _GRAM + _STRIDE - 1
_EXCERPT = 8
"""Shortest excerpt and shortest erased text that are searched inside another text."""
_NO_TOKEN = re.compile(rb"[^\w:.-]+")
_REDACTED = re.compile("‹[A-Z_]+›")


class ErasedText:
    """The texts of erased conversations: turns, titles, alternatives, edits."""

    def __init__(self, ids: Iterable[str], texts: Iterable[str], *, match: str = "") -> None:
        """`match` is a text of which every occurrence is erased, compared as in `search`."""
        self._match = fold(match)
        self.ids = frozenset(ids)
        self._id_tokens = frozenset(id_.encode() for id_ in self.ids if not _NO_TOKEN.search(id_.encode()))
        self._other_ids = [id_.encode() for id_ in self.ids if id_.encode() not in self._id_tokens]
        self._short: set[str] = set()
        self._contained: list[str] = []
        self._whole: list[str] = []
        self._grams: set[int] = set()
        for text in dict.fromkeys(texts):
            one_line = _one_line(text)
            if not one_line:
                continue
            self._whole.append(one_line)
            for part in (text, *text.splitlines()):
                line = _one_line(part)
                if 0 < len(line) < _LONG:
                    self._short.add(line)
                    if len(line) >= _EXCERPT and part is text:
                        self._contained.append(line)
            self._grams.update(
                hash(one_line[start : start + _GRAM])
                for start in range(0, len(one_line) - _GRAM + 1, _STRIDE)
            )

    def names(self, data: bytes) -> bool:
        """Whether `data` contains one of the ids."""
        tokens = self._id_tokens.intersection(_NO_TOKEN.split(data))
        return bool(tokens) or any(id_ in data for id_ in self._other_ids)

    def quotes(self, text: str) -> bool:
        """Whether a passage of the erased texts stands in `text`, or `text` is an excerpt of them."""
        return self.contains_match(text) or any(self._quotes(piece) for piece in _pieces(text))

    def contains_match(self, text: str) -> bool:
        """Whether `match` stands in `text`."""
        return bool(self._match) and self._match in fold(text)

    def _quotes(self, piece: str) -> bool:
        if any(short in piece for short in self._contained):
            return True
        if len(piece) >= _LONG:
            return any(
                hash(piece[start : start + _GRAM]) in self._grams for start in range(len(piece) - _GRAM + 1)
            )
        return self._is_excerpt(piece)

    def _is_excerpt(self, piece: str) -> bool:
        return piece in self._short or (
            len(piece) >= _EXCERPT and any(piece in whole for whole in self._whole)
        )

    def share(self, texts: Iterable[str]) -> float:
        """Share of the characters of `texts`, redacted ones left out, that stand in the erased texts."""
        total = covered = 0
        for piece in chain.from_iterable(map(_pieces, texts)):
            total += len(piece)
            if len(piece) < _LONG:
                covered += len(piece) * self._is_excerpt(piece)
                continue
            end = 0
            for start in range(len(piece) - _GRAM + 1):
                if hash(piece[start : start + _GRAM]) in self._grams:
                    covered += start + _GRAM - max(start, end)
                    end = start + _GRAM
        return covered / total if total else 0.0


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _pieces(text: str) -> list[str]:
    return [piece for part in _REDACTED.split(text) if (piece := _one_line(part))]
