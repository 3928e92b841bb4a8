"""Keeps new material apart from everything that is kept back: no row that is, nearly is, or quotes held-out text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.core.chat import ChatMessage
from engine.corpus.dedup.near import near_pairs
from engine.corpus.filters.normalise import fold
from engine.evolution.synthetic import Made

QUOTE = 60
"""Bytes of folded text that count as a quotation: 20 Chinese or 60 Latin characters in a row."""
TURN = 30
"""Bytes of folded text from which a single turn is compared too: below, courtesies are alike everywhere."""
NEAR = 0.8
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Touching:
    """Numbers of the rows that touch held-out text, by how."""

    exact: frozenset[int]
    near: frozenset[int]
    quoting: frozenset[int]

    @property
    def rows(self) -> frozenset[int]:
        return self.exact | self.near | self.quoting


class HeldText:
    """What is kept back, folded: whole conversations and their turns, and every run of `QUOTE` bytes in them."""

    def __init__(self, conversations: Iterable[Sequence[ChatMessage]], texts: Iterable[str] = ()) -> None:
        """`texts` are pieces of general text: only quotations of them are looked for."""
        self.wholes: set[str] = set()
        quoted: list[bytes] = []
        for messages in conversations:
            self.wholes.update(_units(messages))
            quoted += [fold(message.content).encode("utf-8", "replace") for message in messages]
        quoted += [fold(text).encode("utf-8", "replace") for text in texts]
        found = [_runs(text) for text in quoted]
        self._runs = np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.uint64)

    def quotes(self, text: str) -> bool:
        """Whether `text` has a run of `QUOTE` folded bytes that stands in what is kept back."""
        runs = _runs(fold(text).encode("utf-8", "replace"))
        if not len(runs) or not len(self._runs):
            return False
        places = np.searchsorted(self._runs, runs)
        return bool((self._runs[np.minimum(places, len(self._runs) - 1)] == runs).any())

    def touching(self, rows: Sequence[Made]) -> Touching:
        """Which rows share words with what is kept back."""
        units = [_units(row.messages) for row in rows]
        exact = frozenset(n for n, own in enumerate(units) if own & self.wholes)
        quoting = frozenset(
            n for n, row in enumerate(rows) if any(self.quotes(m.content) for m in row.messages)
        )
        own_texts = set().union(*units) - self.wholes if units else set()
        texts = [*sorted(self.wholes), *sorted(own_texts)]
        border = len(self.wholes)
        pairs = near_pairs(texts, NEAR, compared=lambda one, other: one < border <= other)
        close = {texts[pair.second] for pair in pairs}
        near = frozenset(n for n, own in enumerate(units) if own & close)
        return Touching(exact=exact, near=near, quoting=quoting)


def _units(messages: Sequence[ChatMessage]) -> set[str]:
    """Folded: the whole row, and each turn that is long enough to be somebody's own words."""
    turns = [fold(message.content) for message in messages]
    return {fold(" ".join(message.content for message in messages))} | {
        turn for turn in turns if len(turn.encode("utf-8", "replace")) >= TURN
    }


def _runs(data: bytes) -> NDArray[np.uint64]:
    """A hash of each run of `QUOTE` bytes, unique."""
    if len(data) < QUOTE:
        return np.empty(0, dtype=np.uint64)
    powers = _FACTOR ** np.arange(QUOTE, dtype=np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, dtype=np.uint8), QUOTE)
    found = [
        (windows[start : start + _BLOCK].astype(np.uint64) * powers).sum(axis=1, dtype=np.uint64)
        for start in range(0, len(windows), _BLOCK)
    ]
    return np.unique(np.concatenate(found))
