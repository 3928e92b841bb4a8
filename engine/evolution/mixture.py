"""Mixes real and synthetic data: a cycle's dataset, and batches in which real data keeps its share."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.core.i18n import _
from engine.corpus.contamination import ContaminationError
from engine.corpus.dataset import DatasetRow, read_dataset, write_lines
from engine.evolution import augmentation
from engine.evolution.held_out_guard import HeldOutText
from engine.evolution.self_answers import sample_self_answers
from engine.evolution.synthetic import (
    REAL_FLOOR,
    SyntheticExample,
    SyntheticMethod,
    SyntheticStats,
    is_synthetic,
)
from engine.inference.language_model import LanguageModel
from engine.models.card import Lineage
from engine.training.chat_batches import JITTER, NativeBatches

SHARES = {
    SyntheticMethod.ANSWERED: 0.4,
    SyntheticMethod.RETRIEVED: 0.35,
    SyntheticMethod.RECOMBINED: 0.25,
}
"""Shares of the budget for synthetic rows; what one method leaves is available to the next ones."""
MIN_BUDGET_BYTES = 48
"""Trained bytes below which no further row is searched for."""
GUARD_BATCH, MAX_TRIED = 128, 8192
"""Rows compared with held-out text at a time, and in total."""
PASSAGE_EVERY = 3
"""One passage of a text follows this many recombined conversations."""


@dataclass(frozen=True)
class MixedDataset:
    """A written dataset, as `train_native` reads it."""

    path: Path
    sha256: str
    lineage: Lineage
    stats: SyntheticStats

    @classmethod
    def of(cls, path: Path, sha256: str, lineage: Lineage, stats: SyntheticStats) -> MixedDataset:
        """`lineage` is that of the real conversations, the only sources of the synthetic rows."""
        named = msgspec.structs.replace(lineage, dataset=path.name, dataset_sha256=sha256)
        return cls(path, sha256, named, stats)


def write_mixed_dataset(
    real: Path,
    lineage: Lineage,
    texts: Sequence[Path],
    held_out: HeldOutText,
    champion: LanguageModel,
    out: Path,
    *,
    real_share: float,
    answers: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> MixedDataset:
    """Writes `out` from the real dataset at `real` and synthetic rows.

    `real_share`, at least `REAL_FLOOR`, is the real share of the trained bytes; `progress(done, total)` counts the
    questions to the champion and may raise to stop. Raises ContaminationError when a synthetic row overlaps held-out text
    after all, BadInput for a broken dataset, OSError.
    """
    rows = list(read_dataset(real))
    rng = random.Random(seed)
    trained = sum(augmentation.trained_bytes(row.messages) for row in rows)
    share = max(real_share, REAL_FLOOR)
    budget = int(trained * (1 - share) / share)
    own = sample_self_answers(champion, rows, answers if budget else 0, rng, progress=progress)
    sources: dict[SyntheticMethod, Iterator[SyntheticExample]] = {
        SyntheticMethod.ANSWERED: iter(own.examples),
        SyntheticMethod.RETRIEVED: augmentation.retrieve(rows, rng),
        SyntheticMethod.RECOMBINED: _interleaved(
            augmentation.recombine(rows, rng), augmentation.text_passages(texts, rng)
        ),
    }
    examples: list[SyntheticExample] = []
    left, overlapping = budget, 0
    for method, part in SHARES.items():
        kept, dropped = exclude_held_out(
            sources[method],
            held_out,
            int(left if method is SyntheticMethod.RECOMBINED else part * budget),
        )
        overlapping += dropped
        left -= sum(augmentation.trained_bytes(row.messages) for row in kept)
        examples += kept
    overlap = held_out.overlaps(examples)
    if overlap.rows:
        raise ContaminationError(
            _("synthetic data overlaps held-out text: {ids}").format(
                ids=_(", ").join(examples[number].id for number in sorted(overlap.rows)[:8])
            ),
            hint="h2q-tui evolve",
        )
    synthetic_bytes = sum(augmentation.trained_bytes(row.messages) for row in examples)
    sha256 = write_lines(
        out, chain(map(_real_line, rows), (msgspec.json.encode(row) + b"\n" for row in examples))
    )
    return MixedDataset.of(
        out,
        sha256,
        lineage,
        SyntheticStats(
            real=len(rows),
            synthetic={
                method.value: count
                for method in SyntheticMethod
                if (count := sum(row.method is method for row in examples))
            },
            answers=own.answers,
            questions=own.questions,
            accepted=len(own.examples),
            rejected=own.rejected,
            overlapping=overlapping,
            real_share=trained / (trained + synthetic_bytes) if trained else 1.0,
            overlap_exact=len(overlap.exact),
            overlap_near=len(overlap.near | overlap.quoting),
        ),
    )


def exclude_held_out(
    candidates: Iterator[SyntheticExample], held_out: HeldOutText, budget: int
) -> tuple[list[SyntheticExample], int]:
    """(distinct rows of `budget` trained bytes that overlap no held-out text, rows dropped for an overlap)."""
    kept: list[SyntheticExample] = []
    seen: set[str] = set()
    dropped = tried = 0
    while budget >= MIN_BUDGET_BYTES and tried < MAX_TRIED:
        batch = _next_within_budget(candidates, budget, seen)
        if not batch:
            break
        overlapping = held_out.overlaps(batch).rows
        clean = [row for number, row in enumerate(batch) if number not in overlapping]
        kept += clean
        budget -= sum(augmentation.trained_bytes(row.messages) for row in clean)
        dropped += len(overlapping)
        tried += len(batch)
    return kept, dropped


def _next_within_budget(
    candidates: Iterator[SyntheticExample], budget: int, seen: set[str]
) -> list[SyntheticExample]:
    """The next rows that fit into `budget` together, at most `GUARD_BATCH`; their keys go into `seen`."""
    batch: list[SyntheticExample] = []
    for row in candidates:
        size, key = augmentation.trained_bytes(row.messages), augmentation.dedup_key(row)
        if not 0 < size <= budget or key in seen:
            continue
        seen.add(key)
        batch.append(row)
        budget -= size
        if budget < MIN_BUDGET_BYTES or len(batch) == GUARD_BATCH:
            break
    return batch


def _interleaved(
    rows: Iterator[SyntheticExample], passages: Iterator[SyntheticExample]
) -> Iterator[SyntheticExample]:
    """Conversations with a passage after every `PASSAGE_EVERY` of them."""
    for number, row in enumerate(rows, start=1):
        yield row
        if number % PASSAGE_EVERY == 0:
            yield from islice(passages, 1)
    yield from passages


class MixedBatches(NativeBatches):
    """`NativeBatches` in which at least `REAL_FLOOR` of the trained bytes of every batch is real.

    A synthetic window joins real windows of about its length where they leave space; one that fits nowhere in
    an epoch waits for the next. Every real window occurs once per epoch.
    """

    def real_shares(self, epoch: int = 0) -> list[float]:
        """The real share of each batch of an epoch, by trained bytes."""
        trained, synthetic = self._trained, self._synthetic
        return [
            1 - float(trained[members[synthetic[members]]].sum()) / max(1.0, float(trained[members].sum()))
            for members in self._plan(epoch)
        ]

    def _make_plan(self, epoch: int) -> list[NDArray[np.int64]]:
        synthetic, trained = self._synthetic, self._trained
        if not synthetic.any():
            return super()._make_plan(epoch)
        rng = np.random.default_rng((self.recipe.seed, epoch, len(self.data)))
        jittered = self.data.lengths * (1 + JITTER * rng.random(len(self.data)))
        order = np.argsort(jittered, kind="stable")
        capacity = math.ceil(self.recipe.tokens_per_step * (1 - self.share))
        # Real windows fill their share of the batch only, so that synthetic ones fit next to them.
        real_capacity = capacity * max(
            REAL_FLOOR, 1 - float(trained[synthetic].sum()) / max(1.0, float(trained.sum()))
        )
        waiting = deque(int(member) for member in order if synthetic[member])
        batches: list[list[int]] = []
        batch: list[int] = []
        longest = 0
        # Trained synthetic bytes that the real ones of the batch still allow.
        allowance = 0.0
        for member in (int(member) for member in order if not synthetic[member]):
            length = int(self.data.lengths[member])
            if batch and max(longest, length) * (len(batch) + 1) > real_capacity:
                batches.append(batch)
                batch, longest, allowance = [], 0, 0.0
            batch.append(member)
            longest = max(longest, length)
            allowance += float(trained[member]) * (1 - REAL_FLOOR) / REAL_FLOOR
            while waiting:
                candidate = waiting[0]
                fits = int(self.data.lengths[candidate]) <= longest and longest * (len(batch) + 1) <= capacity
                if not fits or trained[candidate] > allowance:
                    break
                batch.append(waiting.popleft())
                allowance -= float(trained[candidate])
        if batch:
            batches.append(batch)
        arrays = [np.array(members, dtype=np.int64) for members in batches]
        return [arrays[int(place)] for place in rng.permutation(len(arrays))]

    @cached_property
    def _synthetic(self) -> NDArray[np.bool_]:
        return np.array([is_synthetic(name) for name in self.data.names], dtype=np.bool_)

    @cached_property
    def _trained(self) -> NDArray[np.float64]:
        """Trained bytes of each window."""
        return np.array([float(self.data[index][1][1:].sum()) for index in range(len(self.data))])


def _real_line(row: DatasetRow) -> bytes:
    """The line of a real row. Its key order is that of earlier versions, so that dataset hashes stay comparable."""
    return msgspec.json.encode({"id": row.id, "messages": row.messages, "cluster": row.cluster}) + b"\n"
