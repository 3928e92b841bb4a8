"""Synthetic examples: rows of a dataset with their method and provenance."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from engine.core.chat import ChatMessage

ID_PREFIX = "made:"
"""Begins the id of every synthetic row, so that a batch can tell it from a real one."""
REAL_FLOOR = 0.5
"""Minimum share of real data, by trained bytes, in a dataset of evolution and in each of its batches."""


class SyntheticMethod(StrEnum):
    """How an example was generated."""

    RECOMBINED = "recombined"
    """Parts of one document in a new order."""
    RETRIEVED = "retrieved"
    """A conversation preceded by the exchange that retrieval ranks nearest to it."""
    ANSWERED = "answered"
    """A real question with the champion's own answer, accepted by rejection sampling."""


class RejectReason(StrEnum):
    """Why an answer of the champion is not used for training."""

    CUT = "cut"
    """The model did not end it."""
    LENGTH = "length"
    """Shorter or longer than the user's real answers."""
    REPETITION = "repetition"
    """More repetitive than they are."""
    SOURCE = "source"
    """As far from its question as an answer to another one."""
    UNLIKELY = "unlikely"
    """A high NLL under the champion itself, or no finite one."""
    COPY = "copy"
    """The same as the original answer."""
    LUCK = "luck"
    """It passed, but the pass rate of the cycle was no better than chance."""


class SyntheticExample(msgspec.Struct, frozen=True, rename={"sources": "made_from", "method": "way"}):
    """One row of a dataset. Forgetting one of its sources forgets the row."""

    id: str
    cluster: str
    messages: list[ChatMessage]
    sources: list[str]
    """Ids of conversations and paths of texts."""
    method: SyntheticMethod


class SyntheticStats(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={"synthetic": "made", "answers": "asked", "accepted": "sound", "rejected": "refused"},
):
    """Statistics of a cycle's dataset."""

    real: int
    """Real conversations in the dataset."""
    synthetic: dict[str, int] = {}
    """Synthetic rows in the dataset, by method."""
    answers: int = 0
    """Answers sampled from the champion."""
    questions: int = 0
    """Questions they were sampled for, several per question until one was accepted."""
    accepted: int = 0
    """Accepted answers; `synthetic["answered"]` counts those that also fit and overlap no held-out text."""
    rejected: dict[str, int] = {}
    """Rejected answers, by `RejectReason`."""
    overlapping: int = 0
    """Rows dropped for an overlap with held-out text."""
    real_share: float = 1.0
    """Share of real data in the dataset, by trained bytes."""
    least_batch_share: float | None = None
    """Minimum of that share over the batches; None before the training has drawn them."""
    overlap_exact: int = 0
    overlap_near: int = 0
    """Rows of the dataset that equal, or nearly equal, held-out text: asserted to be 0."""


def is_synthetic(id_: str) -> bool:
    """Whether a row's id marks it as synthetic."""
    return id_.startswith(ID_PREFIX)
