"""A training job with an adapter on a frozen base: counts tokens, not bytes, and computes the loss in chunks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from engine.core.i18n import _
from engine.models.adapters import AdapterModel
from engine.training.adapter_objective import LoraObjective
from engine.training.lora.data import LoraBatches, RowLayout
from engine.training.lora.measure import StepTime, fit_step, surely_fits, time_step
from engine.training.peak_memory import PeakMemory
from engine.training.text_files import general_tail
from engine.training.trainer import MeasuredWork, TrainingJob

if TYPE_CHECKING:
    from engine.models.chat_template import ChatTemplate

EVAL_LENGTH = 256
"""Tokens of a window of the general set."""
EVAL_SHARE = 0.05
"""Share of the steps' work that all evaluations of a run may take."""
FORWARD_SHARE = 0.45
"""Time of a forward pass as a share of a step."""

GeneralWindow = tuple[list[int], int]
"""Ids of a window of the general set, and its number of predicted bytes."""


@dataclass
class LoraJob(TrainingJob):
    """The job of the `lora` phase. A step depends on the batch number and the adapter alone."""

    OBJECTIVE = LoraObjective

    windows: list[GeneralWindow] = field(default_factory=list)
    """Windows of the general set; empty: no evaluation."""
    token_mb: float = 0.0
    """Estimated MB of a token's activations."""
    evaluations: int = 0
    """Evaluations after the first; 0: as many as the recipe says."""
    _time: StepTime | None = None
    _first_loss: float | None = None
    """The first evaluation, when it was made to time it."""

    @property
    def unit(self) -> str:
        return _("tokens")

    def fit_micro_batches(self, memory: PeakMemory, used_mb: float, room_mb: float) -> bool:
        assert isinstance(self.batches, LoraBatches)
        heaviest = self.batches.heaviest(self.state.max_steps)
        # Where the time decides the number of steps, a step is measured.
        if (
            self.recipe.time_budget_s is None
            and self.windows
            and self.batches.layout is RowLayout.JOINED
            and self.model_is_chunked
            and surely_fits(self, heaviest, self.token_mb, used_mb, room_mb)
        ):
            return True
        self._time = fit_step(self, heaviest, self.token_mb, memory, used_mb, room_mb)
        return True

    def measured_work(self) -> MeasuredWork:
        tokens = sum(len(ids) for ids, _size in self.windows)
        if self._time is None and self.state.step == 0 and self.recipe.time_budget_s is None and tokens:
            return self._timed_evaluation(tokens)
        taken = self._time or time_step(self)
        evaluation = taken.seconds * FORWARD_SHARE * tokens / max(1, taken.tokens)
        return MeasuredWork(taken.seconds, taken.tokens, evaluation)

    def _timed_evaluation(self, tokens: int) -> MeasuredWork:
        """The first evaluation, with the time of a step estimated from it: slower, since it fills caches."""
        begin = time.perf_counter()
        self._first_loss = self.evaluate(self.recipe.eval_bytes)
        seconds = time.perf_counter() - begin
        batch = self.batches.batch_at(self.state.batches_drawn, self.state.max_steps)
        passes = 1 / FORWARD_SHARE + (self.recipe.adapter.hold > 0)
        return MeasuredWork(seconds / tokens * batch.tokens * passes, batch.tokens, seconds)

    @property
    def model_is_chunked(self) -> bool:
        """Whether memory does not grow with tokens times vocabulary."""
        return isinstance(self.model, AdapterModel) and self.model.linear_head

    @property
    def eval_every(self) -> float:
        return 1 / self.evaluations if self.evaluations else super().eval_every

    @property
    def dropout_seed(self) -> int:
        # Of the batch, so that a resumed run drops the same units.
        return (self.recipe.seed % 2**32 << 32) + self.state.batches_drawn

    @torch.no_grad()
    def evaluate(self, limit: int) -> float | None:
        """Mean loss on about `limit` bytes of the general set, in nats per byte; None without a general set.

        A forward pass has at most `eval_tokens` tokens.
        """
        if not self.windows:
            return None
        if self._first_loss is not None:
            loss, self._first_loss = self._first_loss, None
            return loss
        assert isinstance(self.model, AdapterModel)
        self.model.eval()
        total = size = 0.0
        for rows, scored in _equal_lengths(_within(self.windows, limit), self.eval_tokens):
            tokens = torch.tensor(rows, device=self.device.name)
            mask = torch.ones_like(tokens[:, 1:], dtype=torch.bool)
            total += float(self.model.losses(tokens[:, :-1], tokens[:, 1:], mask).sum())
            size += scored
        self.model.train()
        return total / size if size and math.isfinite(total) else None


def _within(windows: Sequence[GeneralWindow], limit: int) -> list[GeneralWindow]:
    """The first windows that have `limit` bytes together; at least one."""
    chosen: list[GeneralWindow] = []
    size = 0
    for window in windows:
        if size >= limit:
            break
        chosen.append(window)
        size += window[1]
    return chosen


def _equal_lengths(windows: Sequence[GeneralWindow], most: int) -> Iterator[tuple[list[list[int]], int]]:
    """Windows of one length together, at most `most` tokens each, with their bytes."""
    for length, group in groupby(sorted(windows, key=lambda one: -len(one[0])), key=lambda one: len(one[0])):
        members = list(group)
        rows = max(1, most // length)
        for at in range(0, len(members), rows):
            part = members[at : at + rows]
            yield [ids for ids, _size in part], sum(size for _ids, size in part)


def tokenized_general_windows(
    chat: ChatTemplate, files: Sequence[Path], length: int, limit: int
) -> list[GeneralWindow]:
    """Tokenized windows of the general set, from each text in turn.

    Covers about `limit` bytes of the texts' tails, so that the tokenizer can be freed afterwards.
    """
    columns: list[list[GeneralWindow]] = []
    for file in files:
        tail = general_tail(file)
        text = tail.read(0, min(len(tail), limit // max(1, len(files)))).decode("utf-8", "ignore")
        ids = chat.encode(text)
        step = length - len(chat.opening)
        windows = [[*chat.opening, *ids[at : at + step]] for at in range(0, len(ids), step)]
        columns.append(
            [
                (window, max(1, len(chat.decode(window[1:]).encode("utf-8", "ignore"))))
                for window in windows
                if len(window) > 1
            ]
        )
    longest = max((len(column) for column in columns), default=0)
    return [column[row] for row in range(longest) for column in columns if row < len(column)]


def affordable_windows(
    windows: Sequence[GeneralWindow], texts: int, step_tokens: int, evaluations: float
) -> list[GeneralWindow]:
    """The first `windows` whose evaluations take about `EVAL_SHARE` of a run over `step_tokens` tokens; at least one
    of each of `texts` texts."""
    room = _evaluated_tokens(step_tokens) / max(1.0, evaluations)
    chosen: list[GeneralWindow] = []
    tokens = 0
    for number, window in enumerate(windows):
        tokens += len(window[0])
        if number >= texts and tokens > room:
            break
        chosen.append(window)
    return chosen


def affordable_evaluations(windows: Sequence[GeneralWindow], step_tokens: int, wanted: int) -> int:
    """Evaluations of all `windows` after the first one: 1 to `wanted`, together about `EVAL_SHARE` of the steps' work."""
    tokens = sum(len(ids) for ids, _size in windows)
    return max(1, min(wanted, int(_evaluated_tokens(step_tokens) / max(1, tokens)) - 1))


def _evaluated_tokens(step_tokens: int) -> float:
    """Tokens that all evaluations of a run over `step_tokens` may have together."""
    return EVAL_SHARE * step_tokens / FORWARD_SHARE
