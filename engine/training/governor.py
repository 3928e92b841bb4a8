"""Keeps a run within its memory budget: sizes its passes by measurement, then acts step by step (DESIGN §9)."""

from __future__ import annotations

import math
import time
from enum import StrEnum

import torch

from engine.errors import RunFailed, UsageProblem
from engine.i18n import _
from engine.runs import events
from engine.training.batches import Batch, Pass
from engine.training.budget import Budget
from engine.training.footprint import Footprint, pressure
from engine.training.job import Job
from engine.training.saver import Saver

BUFFER_SHARE, BUFFER_MB = 1 / 8, 512.0
"""The governor acts when less than the smaller of these is left of the budget."""
CACHES_EVERY = 500
"""Steps between two times that caches are dropped."""
PRESSURE_EVERY_S = 2.0
PRESSURE_PERCENT = 10.0
"""Waiting for memory on the whole machine from which on caches are given back."""
ROWS = 4
"""Windows of the larger measured pass."""
STATE_BYTES = 24
"""Bytes per parameter that a measured pass does not show: moments, and the copies that measure the speed."""


class Remedy(StrEnum):
    CACHES = "caches"
    SMALLER = "smaller"
    """Half the windows in a pass, twice the passes of a step: the same batch."""
    RECOMPUTE = "recompute"
    """Activation checkpointing: layers are computed again in the backward pass."""
    STOP = "stop"
    """A checkpoint, and the end with a clear error."""


def buffer_mb(budget_mb: float) -> float:
    """What is to stay free of a budget."""
    return min(BUFFER_MB, BUFFER_SHARE * budget_mb)


def remedy(
    used_mb: float, budget_mb: float, *, dropped: bool, halvable: bool, recomputes: bool
) -> Remedy | None:
    """The mildest remedy not yet taken when the buffer is touched; STOP only above the budget itself.

    `dropped`: caches have just been dropped. `halvable`: a pass has more than one window. `recomputes`:
    activation checkpointing is on. An infinite `used_mb` stands for an allocation that failed.
    """
    if used_mb <= budget_mb - buffer_mb(budget_mb):
        return None
    if not dropped:
        return Remedy.CACHES
    if halvable:
        return Remedy.SMALLER
    if not recomputes:
        return Remedy.RECOMPUTE
    return Remedy.STOP if used_mb > budget_mb else None


def rows_that_fit(room_mb: float, one_mb: float, more_mb: float, rows: int) -> int:
    """Windows of a pass that fit into `room_mb`, when one takes `one_mb` and `rows` take `more_mb` together.

    A power of two, so that two measurements of one machine agree; 1 at least.
    """
    each = max((more_mb - one_mb) / max(1, rows - 1), 1e-3)
    fits = 1 + max(0.0, room_mb - one_mb) / each
    return int(2 ** math.floor(math.log2(fits)))


def out_of_memory(problem: BaseException) -> bool:
    """Whether an exception says that memory could not be had."""
    if isinstance(problem, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(problem).lower()
    return isinstance(problem, RuntimeError) and any(
        words in text for words in ("out of memory", "not enough memory", "can't allocate memory")
    )


class Governor:
    """Measures a job against its budget and acts."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.budget = job.budget or Budget(math.inf, "")
        self.footprint = Footprint(job.device.name)
        self._dropped_at = -CACHES_EVERY
        self._pressure_at = time.monotonic()
        self._biggest = (1, 0)
        """Windows and tokens of the largest pass of the last batch."""

    def fit(self) -> None:
        """Before the first step: the largest pass that fits, from two measured ones, said in the log.

        A resumed phase keeps its passes. Raises UsageProblem when the program alone exceeds the budget.
        """
        job, state, limit = self.job, self.job.state, self.budget.mb
        used = self.footprint.peak_mb()
        if used > limit:
            raise UsageProblem(
                _("the memory budget of {budget} MB is less than the {used} MB of the program alone").format(
                    budget=round(limit), used=round(used)
                ),
                mend=_mend(used + 512),
            )
        if state.draw > 0 or math.isinf(limit) or not self.footprint.exact:
            return
        stretch = max(job.recipe.stretches, key=lambda one: one.context)
        room = limit - buffer_mb(limit) - STATE_BYTES * job.model.parameters_count() / 2**20
        try:
            one, more = self._measured(1, stretch.context), 0.0
            if one > room:
                self._recompute()
                one = self._measured(1, stretch.context)
            rows = min(ROWS, max(1, room_rows(room, one, used)))
            more = self._measured(rows, stretch.context) if rows > 1 else one
        except (MemoryError, RuntimeError) as problem:
            if not out_of_memory(problem):
                raise
            # The estimate stands; what does not fit is caught at the first step.
            job.optimizer.zero_grad()
            return
        fits = rows_that_fit(room, one, more, rows) if rows > 1 else 1
        state.tokens_per_pass = job.batches.tokens_per_pass = fits * stretch.context
        job.ctx.log(
            _(
                "memory: {used} MB before the first step, {one} MB with a window of {context} bytes, measured; "
                "up to {rows} windows in a pass fit into {room} MB"
            ).format(used=round(used), one=round(one), context=stretch.context, rows=fits, room=round(room))
        )

    def accumulate(self, batch: Batch) -> float:
        """`Job.accumulate`; where memory cannot be had a remedy is taken and the same batch tried again."""
        job, state = self.job, self.job.state
        while True:
            self._biggest = max((part.ids.shape[0], part.ids.numel()) for part in batch.passes)
            try:
                return job.accumulate(batch)
            except (MemoryError, RuntimeError) as problem:
                if not out_of_memory(problem):
                    raise
            # Beyond the handler, so that the traceback no longer holds the tensors.
            job.optimizer.zero_grad()
            found = self._find(math.inf) or Remedy.STOP
            if found is Remedy.STOP:
                state.draw -= 1
            self._take(found, "allocation", self.footprint.peak_mb())
            if found is Remedy.STOP:
                raise self._failure(self.budget.mb)
            batch = job.batches.draw(state.draw - 1, state.max_steps)

    def look(self, saver: Saver) -> None:
        """After a step: measures, and takes one remedy if the budget asks for it.

        Raises RunFailed after a checkpoint when nothing more can be done.
        """
        used = self.footprint.peak_mb()
        found = self._find(used)
        if found is None:
            self._heed_pressure(used)
            return
        self._take(found, "budget", used)
        if found is not Remedy.CACHES:
            # Sums are added up in another order from here on: a resumed run must do so from the same step.
            saver.save()
        if found is Remedy.STOP:
            raise self._failure(used)

    def _find(self, used: float) -> Remedy | None:
        return remedy(
            used,
            self.budget.mb,
            dropped=self.job.state.step - self._dropped_at < CACHES_EVERY,
            halvable=self._biggest[0] > 1,
            recomputes=self.job.state.recompute,
        )

    def _take(self, found: Remedy, cause: str, used: float) -> None:
        job, state = self.job, self.job.state
        if found is Remedy.SMALLER:
            state.tokens_per_pass = job.batches.tokens_per_pass = self._biggest[1] // 2
        elif found is Remedy.RECOMPUTE:
            self._recompute()
        self.footprint.drop_caches()
        self._dropped_at = state.step
        job.ctx.emit(
            events.Governor(
                phase=state.phase,
                step=state.step,
                cause=cause,
                action=found.value,
                used_mb=round(used, 1),
                budget_mb=round(self.budget.mb, 1),
                buffer_mb=round(buffer_mb(self.budget.mb), 1),
                pass_tokens=state.tokens_per_pass,
            )
        )

    def _heed_pressure(self, used: float) -> None:
        """Gives caches back when other programs of the machine wait for memory."""
        now = time.monotonic()
        if now - self._pressure_at < PRESSURE_EVERY_S:
            return
        self._pressure_at = now
        if pressure() > PRESSURE_PERCENT and self.job.state.step - self._dropped_at >= CACHES_EVERY:
            self._take(Remedy.CACHES, "pressure", used)

    def _recompute(self) -> None:
        self.job.state.recompute = self.job.model.model.recompute = True

    def _measured(self, rows: int, length: int) -> float:
        """MB at the highest of a pass of `rows` windows; the model stays as it is."""
        ids = torch.zeros(rows, length, dtype=torch.long)
        weights = torch.full(ids.shape, 1.0 / ids.numel())
        self.footprint.drop_caches()
        self.footprint.peak_mb()
        self.job.accumulate(Batch([Pass(ids, ids, weights, weights)], ids.numel()))
        peak = self.footprint.peak_mb()
        self.job.optimizer.zero_grad()
        return peak

    def _failure(self, used: float) -> RunFailed:
        return RunFailed(
            _(
                "training needs more memory than its budget: {used} MB of {budget} MB at step {step}, although "
                "passes are as small as they can be; a checkpoint is kept"
            ).format(used=round(used), budget=round(self.budget.mb), step=self.job.state.step),
            mend=_mend(used + 512),
        )


def room_rows(room_mb: float, one_mb: float, idle_mb: float) -> int:
    """Windows that may be measured at once without passing `room_mb`, when one takes `one_mb` with the program."""
    return int(1 + max(0.0, room_mb - one_mb) / max(one_mb - idle_mb, 1.0))


def _mend(mb: float) -> str:
    return f"h2q-tui train --max-memory-gb {math.ceil(mb / 102.4) / 10:.1f}"
