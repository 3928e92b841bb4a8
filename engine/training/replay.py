"""Replay: half of what an incremental run trains on, at least, are conversations that its base has learnt already."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.i18n import _
from engine.corpus.dataset import HeldOut
from engine.training.chat_batches import DatasetRow, read_dataset

if TYPE_CHECKING:
    from engine.runs.context import RunContext

MAX_SAMPLE = 40
"""Older conversations that forgetting is measured on, at most."""


def replay_counts(rows: Iterable[DatasetRow], older: Collection[str]) -> dict[str, int]:
    """How often each older conversation stands in an epoch, so that they are half of it by bytes of answers.

    All of them stand in it once; where the new ones are more, the older ones come several times. Empty when
    nothing is older, or nothing is new.
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
    """`replay_counts` a dataset, said in the log. Raises BadInput for a broken one."""
    if not older:
        return {}
    known, rows = frozenset(older), list(read_dataset(dataset))
    found = replay_counts(rows, known)
    count = sum(row.id in known for row in rows)
    if count:
        ctx.log(
            _("replay: {older} older conversations, {times} times an epoch, beside {new} new ones").format(
                older=count, times=max(found.values(), default=1), new=len(rows) - count
            )
        )
    return found


def sample_of_older(dataset: Path, older: Collection[str]) -> list[HeldOut]:
    """Up to `MAX_SAMPLE` conversations of a dataset that its base has learnt: always the same ones of the same."""
    known = frozenset(older)
    rows = [HeldOut(row.id, row.cluster, row.messages) for row in read_dataset(dataset) if row.id in known]
    return sorted(rows, key=lambda row: sha256(row.conversation.encode()).digest())[:MAX_SAMPLE]
