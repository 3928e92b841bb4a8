"""Replay against forgetting: at least half of an incremental run's answers come from conversations the base
was trained on."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.i18n import _
from engine.corpus.dataset import DatasetRow, read_dataset

if TYPE_CHECKING:
    from engine.runs.context import RunContext

MAX_SAMPLE = 40
"""Maximum number of older conversations for the forgetting test."""


def replay_counts(rows: Iterable[DatasetRow], older: Collection[str]) -> dict[str, int]:
    """Repetitions of each older conversation per epoch, so that older ones are half of the answers' bytes.

    Each appears at least once, more often where the new ones have more bytes. Empty when no row is older, or
    none is new.
    """
    known = frozenset(older)
    sizes = {True: 0, False: 0}
    names = []
    for row in rows:
        is_older = row.id in known
        sizes[is_older] += sum(
            len(message.content.encode("utf-8", "replace"))
            for message in row.messages
            if message.role == "assistant" and message.train
        )
        if is_older:
            names.append(row.id)
    if not sizes[True] or sizes[False] <= sizes[True]:
        return {}
    times = -(-sizes[False] // sizes[True])
    return dict.fromkeys(names, times)


def replay_counts_for(ctx: RunContext, dataset: Path, older: Collection[str]) -> dict[str, int]:
    """The `replay_counts` of a dataset; logs them. Raises BadInput for a broken dataset."""
    if not older:
        return {}
    known = frozenset(older)
    counts = replay_counts(read_dataset(dataset), known)
    ids = [row.id for row in read_dataset(dataset)]
    count = sum(id_ in known for id_ in ids)
    if count:
        ctx.log(
            _("replay: {older} older conversations, {times} times per epoch, with {new} new ones").format(
                older=count, times=max(counts.values(), default=1), new=len(ids) - count
            )
        )
    return counts


def sample_of_older(dataset: Path, older: Collection[str]) -> list[DatasetRow]:
    """Up to `MAX_SAMPLE` conversations of a dataset that its base was trained on; the selection is
    deterministic."""
    known = frozenset(older)
    rows = (row for row in read_dataset(dataset) if row.id in known)
    return heapq.nsmallest(MAX_SAMPLE, rows, key=lambda row: sha256(row.id.encode()).digest())
