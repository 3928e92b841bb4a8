"""The windows of a dataset, without a Python object per token."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from engine.models.chatml import MaskedTokens

BYTE_TOKENS, WORD_TOKENS = "H", "i"
"""Array types of ids: two bytes for the built-in tokenizer, four for a vocabulary of any size."""


@dataclass
class TokenWindows:
    """Windows one after another: three bytes per token, or five with ids of four bytes."""

    ids: NDArray[np.integer]
    train: NDArray[np.bool_]
    """Whether the prediction of each token has a loss."""
    lengths: NDArray[np.int64]
    scored: NDArray[np.int64]
    """Bytes of the trained tokens of each window."""
    names: list[str]
    """The conversation of each window; empty when they have no names."""
    cut: int = 0
    """Bytes of answers truncated beyond the context."""
    refused: int = 0
    """Number of conversations that the chat template rejects."""

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum(self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
        """Ids and loss mask of one window."""
        end = int(self._ends[index])
        start = end - int(self.lengths[index])
        return self.ids[start:end], self.train[start:end]

    @property
    def trained(self) -> int:
        """Tokens with loss. The first token of a window is never predicted."""
        firsts = self.train[self._ends - self.lengths]
        return int(self.train.sum()) - int(firsts.sum())

    @classmethod
    def of(cls, windows: Iterable[MaskedTokens], names: Sequence[str] = ()) -> TokenWindows:
        """Rendered windows of the built-in tokenizer; `names` has one for each of them, or none."""
        builder = WindowBuilder(BYTE_TOKENS)
        for window in windows:
            builder.add([window], "")
        builder.names[:] = names
        return builder.build()


class WindowBuilder:
    """Collects windows in growing arrays, which take about a tenth more than the finished windows."""

    def __init__(self, type_: str) -> None:
        """`type_`: `BYTE_TOKENS` or `WORD_TOKENS`."""
        self._ids, self._train = array(type_), bytearray()
        self._lengths, self._scored = array("q"), array("q")
        self.names: list[str] = []
        self._cut = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, windows: Sequence[MaskedTokens], name: str, times: int = 1) -> None:
        """Adds the windows of a conversation that have a loss, `times` times."""
        trained = [window for window in windows if any(window.loss_mask[1:])]
        for window in trained * times:
            self._ids.extend(window.ids)
            self._train += bytes(window.loss_mask)
            self._lengths.append(len(window.ids))
            self._scored.append(window.trained_bytes)
            self._cut += window.truncated_bytes
            self.names.append(name)

    def build(self, refused: int = 0) -> TokenWindows:
        """The windows. They share the memory of the builder, which can add no more."""
        return TokenWindows(
            ids=np.frombuffer(self._ids, dtype=np.uint16 if self._ids.typecode == BYTE_TOKENS else np.int32),
            train=np.frombuffer(self._train, dtype=np.bool_),
            lengths=np.frombuffer(self._lengths, dtype=np.int64),
            scored=np.frombuffer(self._scored, dtype=np.int64),
            names=self.names,
            cut=self._cut,
            refused=refused,
        )
