"""BatchSource of conversations for `lora`: a few conversations per step, packed into rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from engine.core.errors import BadInput, NotEnoughData
from engine.core.i18n import _
from engine.training.batches import Batch, MicroBatch, pad_multiple, padded_length, windows_per_micro_batch
from engine.training.recipe import CurriculumStage, Recipe
from engine.training.token_windows import WORD_TOKENS, TokenWindows, WindowBuilder

if TYPE_CHECKING:
    from engine.corpus.dataset import DatasetRow
    from engine.models.chat_template import ChatTemplate


def render_windows(
    rows: Iterable[DatasetRow], chat: ChatTemplate, context: int, repeats: dict[str, int] | None = None
) -> TokenWindows:
    """Windows of at most `context` tokens of every row; `repeats` maps row ids to their number of
    repetitions.

    Raises NotEnoughData without rows, BadInput when no token has a loss or the template rejects every row.
    """
    builder = WindowBuilder(WORD_TOKENS)
    count = refused = 0
    reason = ""
    for row in rows:
        count += 1
        try:
            windows = chat.windows(row.messages, context)
        except BadInput as problem:
            refused, reason = refused + 1, problem.message
            continue
        builder.add(windows, row.id, (repeats or {}).get(row.id, 1))
    if count == 0:
        raise NotEnoughData(_("the dataset has no conversation"), hint="h2q-tui corpus build")
    if not len(builder):
        raise BadInput(
            reason
            or _(
                "the {count} conversations of the dataset have no assistant turn to train on, so the loss "
                "mask is empty"
            ).format(count=count),
            hint="h2q-tui corpus stats",
        )
    return builder.build(refused)


PAD_MULTIPLE = 32
"""Finer than `engine.training.batches.PAD_MULTIPLE`: for a large base a padded token costs more than another
kernel."""


class RowLayout(StrEnum):
    """How the windows of a micro-batch lie in its rows; the losses are the same."""

    APART = "apart"
    """One window per row, padded."""
    PACKED = "packed"
    """Several short windows per row, padded; the model's own mask keeps them apart."""
    JOINED = "joined"
    """All windows in one row, padded at its end only; attention is computed window by window."""


@dataclass(frozen=True)
class StepWeights:
    """Weights of one prediction in the sums of a step."""

    answer: float
    """Of an answer's token in the loss."""
    report: float
    """Of an answer's token in the reported loss."""
    hold: float
    """Of any other token's divergence from the base."""


class LoraBatches:
    """Each window once per epoch, `batch` of them per step, in an order determined by the seed.

    Where rows hold several windows, positions restart with each window and windows do not attend to each other,
    so the result is the same with less padding.
    """

    def __init__(
        self,
        data: TokenWindows,
        recipe: Recipe,
        tokens_per_micro_batch: int,
        pad: int,
        layout: RowLayout | None = None,
    ) -> None:
        """`layout` None: `PACKED` if the recipe packs, else `APART`."""
        self.data, self.recipe, self.pad = data, recipe, pad
        self.layout = layout or (RowLayout.PACKED if recipe.adapter.packing else RowLayout.APART)
        self.tokens_per_micro_batch = tokens_per_micro_batch
        self.batch = recipe.curriculum[0].batch * recipe.accumulation
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, dtype=np.int64))

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.data) // self.batch)

    def steps(self) -> int:
        return self.per_epoch * self.recipe.epochs

    def epoch_after(self, batches: int, tokens: int) -> float:
        return batches / self.per_epoch

    def sample_names(self, number: int, max_steps: int) -> list[str]:
        return list(dict.fromkeys(self.data.names[int(member)] for member in self._members(number)))

    def heaviest(self, max_steps: int) -> int:
        """Number of the batch with the most tokens among those of the first epoch."""
        sizes = [
            int(self.data.lengths[self._members(number)].sum())
            for number in range(max(1, min(self.per_epoch, max_steps)))
        ]
        return int(np.argmax(sizes))

    def batch_at(self, number: int, max_steps: int, stage: CurriculumStage | None = None) -> Batch:
        members = self._members(number)
        # The first token of a window is never predicted.
        trained = sum(int(self.data[int(member)][1][1:].sum()) for member in members)
        predicted = int(self.data.lengths[members].sum()) - len(members)
        weights = StepWeights(
            1 / trained,
            1 / float(self.data.scored[members].sum()),
            self.recipe.adapter.hold / max(1, predicted - trained),
        )
        order = sorted((int(member) for member in members), key=lambda member: -self.data.lengths[member])
        micro_batches = (
            [self._joined(group, weights) for group in self._groups(order)]
            if self.layout is RowLayout.JOINED
            else self._padded(order, weights)
        )
        return Batch(micro_batches, int(self.data.lengths[members].sum()))

    def _groups(self, order: Sequence[int]) -> list[list[int]]:
        """Windows of each joined row, by first fit: at most `tokens_per_micro_batch` tokens, at least one window."""
        most = self.recipe.micro_batch or len(order)
        groups: list[list[int]] = []
        room: list[int] = []
        for member in order:
            length = int(self.data.lengths[member])
            fitting = (at for at, free in enumerate(room) if free >= length and len(groups[at]) < most)
            place = next(fitting, len(groups))
            if place == len(groups):
                groups.append([])
                room.append(self.tokens_per_micro_batch)
            groups[place].append(member)
            room[place] -= length
        return groups

    def _joined(self, group: Sequence[int], weights: StepWeights) -> MicroBatch:
        total = sum(int(self.data.lengths[member]) for member in group)
        multiple = pad_multiple(total, PAD_MULTIPLE)
        return self._micro_batch([group], -(-total // multiple) * multiple, weights, joined=len(group))

    def _padded(self, order: Sequence[int], weights: StepWeights) -> list[MicroBatch]:
        rows = self._rows(order)
        longest = max(sum(int(self.data.lengths[member]) for member in row) for row in rows)
        length = padded_length(longest, self.recipe.curriculum[0].context, PAD_MULTIPLE)
        many = windows_per_micro_batch(self.recipe, self.tokens_per_micro_batch, length)
        return [self._micro_batch(rows[at : at + many], length, weights) for at in range(0, len(rows), many)]

    def _rows(self, order: Sequence[int]) -> list[list[int]]:
        """Windows of each row: first-fit decreasing, as wide as the longest with its padding."""
        if self.layout is RowLayout.APART:
            return [[member] for member in order]
        width = padded_length(
            int(self.data.lengths[order[0]]), self.recipe.curriculum[0].context, PAD_MULTIPLE
        )
        rows: list[list[int]] = []
        room: list[int] = []
        for member in order:
            length = int(self.data.lengths[member])
            place = next((at for at, free in enumerate(room) if free >= length), len(rows))
            if place == len(rows):
                rows.append([])
                room.append(width)
            rows[place].append(member)
            room[place] -= length
        return rows

    def _micro_batch(
        self, rows: Sequence[Sequence[int]], length: int, weights: StepWeights, joined: int = 0
    ) -> MicroBatch:
        ids = np.full((len(rows), length), self.pad, dtype=np.int64)
        targets = np.full((len(rows), length), self.pad, dtype=np.int64)
        positions = np.zeros((len(rows), length), dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.float32)
        asked = np.zeros((len(rows), length), dtype=np.float32)
        for row, members in enumerate(rows):
            at = 0
            for member in members:
                tokens, train = self.data[member]
                end = at + len(tokens)
                ids[row, at:end] = tokens
                targets[row, at : end - 1] = tokens[1:]
                mask[row, at : end - 1] = train[1:]
                asked[row, at : end - 1] = ~train[1:]
                positions[row, at:end] = np.arange(len(tokens))
                at = end
            # Padding has positions of its own, like a separate conversation.
            positions[row, at:] = np.arange(length - at)
        mask_ = torch.from_numpy(mask)
        return MicroBatch(
            torch.from_numpy(ids),
            torch.from_numpy(targets),
            mask_ * weights.answer,
            mask_ * weights.report,
            positions=torch.from_numpy(positions),
            joined=joined,
            hold_weights=torch.from_numpy(asked) * weights.hold if weights.hold > 0 else None,
        )

    def _members(self, number: int) -> NDArray[np.int64]:
        epoch, place = divmod(number, self.per_epoch)
        if self._order[0] != epoch:
            rng = np.random.default_rng((self.recipe.seed, epoch, len(self.data)))
            self._order = epoch, rng.permutation(len(self.data))
        return self._order[1][place * self.batch : (place + 1) * self.batch]
