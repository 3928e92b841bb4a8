"""Keeps synthetic data apart from everything held out: no row equals, nearly equals or quotes held-out text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.core.chat import ChatMessage
from engine.corpus.dataset import DatasetRow
from engine.corpus.dedup.near import similar_pairs
from engine.corpus.enums import DataSplit
from engine.corpus.filters.normalise import letters
from engine.corpus.ledger import Database
from engine.corpus.training_set import corpus_rows
from engine.evolution.synthetic import SyntheticExample
from engine.training.text_files import general_tail
from engine.validation.cases import GENERAL_BLOCK, TextSource, cut_general
from engine.validation.validate import shipped_texts

QUOTE_BYTES = 60
"""Bytes of folded text that count as a quotation: 20 Chinese or 60 Latin characters in a row."""
MIN_TURN_BYTES = 30
"""Bytes of folded text from which a single turn is compared too; shorter ones are small talk, alike everywhere."""
NEAR_SIMILARITY = 0.8
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 1 << 16


@dataclass(frozen=True)
class HeldOutOverlap:
    """Indices of the rows that overlap held-out text, by kind."""

    exact: frozenset[int]
    near: frozenset[int]
    quoting: frozenset[int]

    @property
    def rows(self) -> frozenset[int]:
        return self.exact | self.near | self.quoting


class HeldOutText:
    """Held-out conversations and texts, folded: whole units, and a hash of every run of `QUOTE_BYTES` bytes."""

    def __init__(self, conversations: Iterable[Sequence[ChatMessage]], texts: Iterable[str] = ()) -> None:
        """`texts` are general texts, which are matched by quotation only."""
        self.units: set[str] = set()
        quotable: list[bytes] = []
        for messages in conversations:
            self.units.update(_units(messages))
            quotable += [letters(message.content).encode("utf-8", "replace") for message in messages]
        quotable += [letters(text).encode("utf-8", "replace") for text in texts]
        hashes = [_run_hashes(text) for text in quotable]
        self._runs = np.unique(np.concatenate(hashes)) if hashes else np.empty(0, dtype=np.uint64)

    def is_quoted_in(self, text: str) -> bool:
        """Whether `text` contains a run of `QUOTE_BYTES` folded bytes of held-out text."""
        runs = _run_hashes(letters(text).encode("utf-8", "replace"))
        if not len(runs) or not len(self._runs):
            return False
        places = np.searchsorted(self._runs, runs)
        return bool((self._runs[np.minimum(places, len(self._runs) - 1)] == runs).any())

    def overlaps(self, rows: Sequence[SyntheticExample]) -> HeldOutOverlap:
        """Which rows overlap held-out text."""
        units = [_units(row.messages) for row in rows]
        exact = frozenset(n for n, own in enumerate(units) if own & self.units)
        quoting = frozenset(
            n for n, row in enumerate(rows) if any(self.is_quoted_in(m.content) for m in row.messages)
        )
        own_texts = set().union(*units) - self.units if units else set()
        texts = [*sorted(self.units), *sorted(own_texts)]
        border = len(self.units)
        pairs = similar_pairs(texts, NEAR_SIMILARITY, may_compare=lambda one, other: one < border <= other)
        close = {texts[pair.second] for pair in pairs}
        near = frozenset(n for n, own in enumerate(units) if own & close)
        return HeldOutOverlap(exact=exact, near=near, quoting=quoting)


def load_held_out_text(
    store: Database, test_set: Sequence[DatasetRow], files: Sequence[Path], fixed: Sequence[str]
) -> HeldOutText:
    """All text that no synthetic row may overlap.

    Every conversation that is not in training (the open test window, those waiting for the next one, those at
    its border), the blocks of general text that a verdict reads (shipped texts and the tails of `files`), and
    the `fixed` texts of the canary. Raises OSError when a text cannot be read.
    """
    conversations = [
        item.messages
        for part in (DataSplit.TEST, DataSplit.WAITING, DataSplit.BORDER)
        for item in corpus_rows(store, part)
    ]
    conversations += [list(item.messages) for item in test_set]
    # With the keys of a verdict; only the blocks of a text are read, however long it is.
    texts: dict[str, TextSource] = {**shipped_texts(), **{file.name: general_tail(file) for file in files}}
    blocks = cut_general(texts, GENERAL_BLOCK)
    return HeldOutText(conversations, [*(block.text.decode("utf-8", "ignore") for block in blocks), *fixed])


def _units(messages: Sequence[ChatMessage]) -> set[str]:
    """Folded: the whole conversation, and each turn that is long enough to be distinctive."""
    turns = [letters(message.content) for message in messages]
    return {letters(" ".join(message.content for message in messages))} | {
        turn for turn in turns if len(turn.encode("utf-8", "replace")) >= MIN_TURN_BYTES
    }


def _run_hashes(data: bytes) -> NDArray[np.uint64]:
    """The distinct hashes of all runs of `QUOTE_BYTES` bytes."""
    if len(data) < QUOTE_BYTES:
        return np.empty(0, dtype=np.uint64)
    powers = _FACTOR ** np.arange(QUOTE_BYTES, dtype=np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, dtype=np.uint8), QUOTE_BYTES)
    hashes = [
        (windows[start : start + _BLOCK].astype(np.uint64) * powers).sum(axis=1, dtype=np.uint64)
        for start in range(0, len(windows), _BLOCK)
    ]
    return np.unique(np.concatenate(hashes))
