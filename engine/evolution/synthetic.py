"""What new material is: rows in the shape of a dataset, each with the way it was made and what it was made from."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from engine.core.chat import ChatMessage

PREFIX = "made:"
"""Begins the id of every row that nobody said, so that a batch knows it from the real ones."""
REAL_FLOOR = 0.5
"""Least share of real data, by trained bytes, in a dataset of evolution and in each of its batches."""


class Way(StrEnum):
    """How a row came about."""

    RECOMBINED = "recombined"
    """Parts of one document, put together anew."""
    RETRIEVED = "retrieved"
    """A conversation with the exchange before it that retrieval found nearest to it."""
    ANSWERED = "answered"
    """A real question with the champion's own answer, where the filter let it pass."""


class Fault(StrEnum):
    """Why an answer of the champion is not learnt from."""

    CUT = "cut"
    """It did not end by itself."""
    LENGTH = "length"
    """Shorter or longer than the person's real answers."""
    REPETITION = "repetition"
    """It repeats itself more than they do."""
    SOURCE = "source"
    """It has no more to do with its question than an answer to another one."""
    UNLIKELY = "unlikely"
    """It surprises the champion itself, or that gives no numbers."""
    COPY = "copy"
    """It says what was really answered."""
    LUCK = "luck"
    """It passed, in a cycle in which no more answers passed than by luck."""


class Made(msgspec.Struct, frozen=True):
    """One row. `made_from` are the ids of conversations and the names of texts; forgetting one forgets the row."""

    id: str
    cluster: str
    messages: list[ChatMessage]
    made_from: list[str]
    way: Way


class MaterialFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a cycle's material came to."""

    real: int
    """Real conversations of the dataset."""
    made: dict[str, int] = {}
    """New rows in the dataset, by way."""
    asked: int = 0
    """Answers that the champion gave; `sound` of them passed the filter."""
    questions: int = 0
    """Questions that it was asked, each several times until an answer was sound."""
    sound: int = 0
    """Answers that passed; `made["answered"]` of them found room and touch nothing that is kept back."""
    refused: dict[str, int] = {}
    """Answers left out, by `Fault`."""
    overlapping: int = 0
    """Rows left out because they share words with what is kept back."""
    real_share: float = 1.0
    """Share of real data, by trained bytes, in the whole dataset."""
    least_batch_share: float | None = None
    """The same in the batch that has the least of it; None before the training has drawn them."""
    overlap_exact: int = 0
    overlap_near: int = 0
    """Rows of the dataset that are, or are nearly, held-out text: asserted to be 0."""


def is_made(id_: str) -> bool:
    """Whether a row's id says that it was made."""
    return id_.startswith(PREFIX)
