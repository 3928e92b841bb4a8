"""Keeps a run within its memory budget and the machine usable: measures, and acts step by step (DESIGN 9)."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from engine.core.errors import RunFailed, UsageProblem, is_out_of_memory
from engine.core.i18n import _
from engine.machine import cgroup
from engine.machine.budget import Budget, cgroup_limit_bytes
from engine.machine.cpu_affinity import Throttle
from engine.machine.pressure import Advice, PressureFinding, PressureMonitor
from engine.runs import events
from engine.runs.event_text import budget_reason_text, governor_cause_text
from engine.runs.events import RunStatus, StatusChanged
from engine.runs.resume import KINDS as CONTINUED
from engine.runs.spec import RunSpec
from engine.training.batches import Batch
from engine.training.checkpoint_saver import Saver
from engine.training.control import obey
from engine.training.metrics import Meter
from engine.training.microbatch import STATE_BYTES, fit
from engine.training.peak_memory import Footprint
from engine.training.trainer import Job

T = TypeVar("T")

BUFFER_SHARE = 1 / 4
"""Of the budget that `memory_buffer_gb` may be at most: a small budget is still of use."""


class Remedy(StrEnum):
    CACHES = "caches"
    SMALLER = "smaller"
    """Half the windows in a pass, twice the passes of a step: the same batch."""
    RECOMPUTE = "recompute"
    """Activation checkpointing: layers are computed again in the backward pass."""
    STOP = "stop"
    """A checkpoint, and the end with a clear error."""


def buffer_mb(budget_mb: float, wanted_mb: float = 512.0) -> float:
    """What is to stay free of a budget when the settings want `wanted_mb`."""
    return min(wanted_mb, BUFFER_SHARE * budget_mb)


def remedy(
    used_mb: float, budget_mb: float, free_mb: float, *, dropped: bool, halvable: bool, recomputes: bool
) -> Remedy | None:
    """The mildest remedy not yet taken when less than `free_mb` is left; STOP only above the budget itself.

    `dropped`: caches have just been dropped. `halvable`: a pass has more than one window. `recomputes`:
    activation checkpointing is on. An infinite `used_mb` stands for an allocation that failed.
    """
    if used_mb <= budget_mb - free_mb:
        return None
    if not dropped:
        return Remedy.CACHES
    if halvable:
        return Remedy.SMALLER
    if not recomputes:
        return Remedy.RECOMPUTE
    return Remedy.STOP if used_mb > budget_mb else None


CACHES_EVERY = 500
"""Steps between two times that caches are dropped."""
LASTING = (Remedy.SMALLER, Remedy.RECOMPUTE)
"""Remedies that slow every step from then on."""
LEAST_GAIN = 0.01
"""Share of the budget that halving the passes must have given back for it, or more than it, to be worth it again
while only the buffer is touched: the rest is the program itself."""
LAST_TRY = 10
"""Steps after dropping caches from which they are dropped once more rather than the run stopped."""
REST_S = 10.0
"""Between two remedies for the machine's sake: what it tells is a mean over this long."""
EVAL_LEAST = 256
"""Tokens of a forward pass of an evaluation that are no longer made less."""
WAIT_S = 0.5
"""Between two looks for commands while it waits for the machine."""


class Governor:
    """Measures a job against its budget and acts."""

    def __init__(self, job: Job, outside: PressureMonitor | None = None) -> None:
        self.job = job
        if job.budget is None:
            job.budget = Budget(math.inf, "")
        settings = job.ctx.settings
        self.footprint = Footprint(job.device.name, tree_every_s=settings.resource_check_interval)
        self.outside = outside or PressureMonitor(
            interval_s=settings.resource_check_interval,
            battery=settings.pause_on_battery,
            celsius=settings.pause_above_c,
        )
        self._throttle = Throttle(settings.max_cpu_percent)
        self._asked = self._known = job.budget
        """The budget without and with the limit of the system."""
        self._kernel_mb = job.budget.mb
        """What stands behind it."""
        self._limit_looked = time.monotonic()
        self._dropped_at = -CACHES_EVERY
        self._acted_at = -math.inf
        self._before_halving = math.inf
        """MB in use before passes were halved last."""
        self._biggest = (1, 0)
        """Windows and tokens of the largest pass of the last batch."""
        self._saver: Saver | None = None
        self._drawn = job.state.draw
        """Batches drawn before the step that is being taken."""

    @property
    def budget(self) -> Budget:
        assert self.job.budget is not None
        return self.job.budget

    @property
    def buffer(self) -> float:
        """MB of the budget that are to stay free."""
        return buffer_mb(self.budget.mb, 1024 * self.job.ctx.settings.memory_buffer_gb)

    def fit(self) -> None:
        """Before the first step: the largest pass that fits, by measurement. A resumed phase keeps its passes.

        Raises UsageProblem when the program alone exceeds the budget.
        """
        job, limit = self.job, self.budget.mb
        used = self.footprint.peak_mb()
        if used > limit:
            raise UsageProblem(
                _(
                    "the memory budget of {budget} MB ({bound}) is less than the {used} MB of the program alone"
                ).format(budget=round(limit), bound=budget_reason_text(self.budget.reason), used=round(used)),
                hint=_mend(used + 512, self.budget),
            )
        if job.state.draw == 0 and not math.isinf(limit):
            trained = sum(parameter.numel() for parameter in job.optimizer.parameters)
            fit(job, self.footprint, used, limit - self.buffer - STATE_BYTES * trained / 2**20)

    # Within a step: whatever runs out of memory is tried again with less

    def tried(
        self,
        work: Callable[..., T],
        *arguments: object,
        again: Callable[[], None] | None = None,
        less: Callable[[], bool] | None = None,
    ) -> T:
        """What `work(*arguments)` gives; where memory cannot be had a remedy is taken, and it is done once more.

        `work` must change nothing before it has all its memory. `less` makes it smaller by itself, True when that
        was possible; `again` comes between two tries. Raises RunFailed when nothing helps.
        """
        while True:
            try:
                return work(*arguments)
            except (MemoryError, RuntimeError) as problem:
                if not is_out_of_memory(problem):
                    raise
            # Beyond the handler, so that the traceback no longer holds the tensors.
            self._allocation_failed(less is not None and less())
            if again is not None:
                again()

    def evaluate(self, meter: Meter, limit: int) -> None:
        """`Meter.evaluate`, in smaller pieces where memory cannot be had."""
        self.tried(meter.evaluate, limit, less=self.evaluate_less)

    def evaluate_less(self) -> bool:
        """Evaluations in smaller pieces from here on; False when they are as small as they can be."""
        if self.job.eval_tokens <= EVAL_LEAST:
            return False
        self.job.eval_tokens //= 2
        return True

    def accumulate(self, batch: Batch) -> float:
        """`Job.accumulate` of a batch; after a remedy the same batch comes in other passes."""
        job, tries = self.job, [batch]

        def gradients() -> float:
            self._biggest = max((part.ids.shape[0], part.ids.numel()) for part in tries[-1].passes)
            return job.accumulate(tries[-1])

        def other_passes() -> None:
            job.optimizer.zero_grad()
            tries[:] = [job.batches.draw(job.state.draw - 1, job.state.max_steps)]

        return self.tried(gradients, again=other_passes)

    def _allocation_failed(self, smaller: bool) -> None:
        found = self._find(math.inf) or Remedy.STOP
        if found is Remedy.STOP and smaller:
            found = Remedy.CACHES
        self._take(found, "allocation", self.footprint.peak_mb())
        if found is not Remedy.STOP:
            return
        self.job.optimizer.zero_grad()
        self.footprint.drop_caches()
        state = self.job.state
        if self._saver is not None:
            # A batch that was drawn and not learnt from is the first one of whoever goes on from here.
            state.draw = self._drawn
            with contextlib.suppress(MemoryError):
                self._saver.save()
        raise self._failure(self.budget.mb)

    # Between two steps

    def look(self, saver: Saver) -> None:
        """After a step: measures, and takes one remedy if the budget asks for it.

        Raises RunFailed after a checkpoint when nothing more can be done.
        """
        used = self.footprint.peak_mb()
        self._follow_limit(used)
        found = self._find(used)
        if found is Remedy.STOP and self.job.state.step - self._dropped_at >= LAST_TRY:
            # Nothing makes it smaller for good, but what libraries have held back since then can be given back.
            found = Remedy.CACHES
        if found is None or (found in LASTING and used <= self.budget.mb and self._brings_little(used)):
            return
        self._take(found, "budget", used)
        if found is not Remedy.CACHES:
            # Sums are added up in another order from here on: a resumed run must do so from the same step.
            self.tried(saver.save)
        if found is Remedy.STOP:
            raise self._failure(used)

    def hold(self, saver: Saver) -> bool:
        """Before a step: rests as `max_cpu_percent` says, gives memory back or waits where the machine asks for it.

        True: the run is to stop, as `obey` says.
        """
        job = self.job
        self._saver, self._drawn = saver, job.state.draw
        if self._throttle.rest(lambda: job.ctx.stop_requested):
            saver.meter.resume()
        found = self.outside.look()
        if found is None or found.advice is Advice.GO:
            return False
        if found.advice is Advice.SHRINK:
            self._shrink(found, saver)
            return False
        self.tried(saver.save)
        self.footprint.drop_caches()
        self._tell("pause", found.cause, self.footprint.peak_mb(), found)
        last, stop = found, False
        job.ctx.commands.resting = StatusChanged(
            status=RunStatus.PAUSED, reason=governor_cause_text(self._event("pause", found.cause, 0.0, found))
        )
        job.ctx.emit(job.ctx.commands.resting)
        while last.advice is Advice.PAUSE and not stop:
            time.sleep(min(WAIT_S, self.outside.interval_s))
            stop = obey(job, saver)
            last = self.outside.look(paused=found.cause) or last
        self._tell("resume", found.cause, self.footprint.peak_mb(), found)
        job.ctx.commands.resting = StatusChanged(status=RunStatus.RUNNING)
        job.ctx.emit(job.ctx.commands.resting)
        saver.meter.resume()
        return stop

    def _shrink(self, asked: PressureFinding, saver: Saver) -> None:
        """One remedy for the machine's sake, the mildest not yet taken; training goes on whatever comes."""
        if time.monotonic() - self._acted_at < REST_S:
            return
        self._acted_at = time.monotonic()
        found = self._find(math.inf)
        if found is None or found is Remedy.STOP:
            return
        self._take(found, asked.cause, self.footprint.peak_mb(), asked)
        if found is not Remedy.CACHES:
            self.tried(saver.save)

    def _follow_limit(self, used: float) -> None:
        """Takes over a budget that was set by a command, and a limit of the system that has changed."""
        job, now = self.job, time.monotonic()
        if self.budget is not self._known:
            self._asked = self._known = self.budget
            self._before_halving = math.inf
            self._tell("limit", "set", used)
        if now - self._limit_looked >= job.ctx.settings.resource_check_interval:
            self._limit_looked = now
            limit = cgroup_limit_bytes(beside=cgroup.group_name())
            bounds = [self._asked, *([Budget(limit / 2**20, "cgroup")] if limit is not None else [])]
            smallest = min(bounds, key=lambda bound: bound.mb)
            if smallest.mb != self.budget.mb:
                job.budget = self._known = smallest
                self._before_halving = math.inf
                self._tell("limit", "cgroup", used)
        # A kernel that is told less than what is held ends the run: only what is given back is taken away. One that
        # refuses, because pages of files are charged too, is asked again after the next step.
        bounds_too_much = used > self.budget.mb and self.budget.mb < self._kernel_mb
        if self._kernel_mb != self.budget.mb and not bounds_too_much and cgroup.resize(self.budget.mb):
            self._kernel_mb = self.budget.mb

    def _brings_little(self, used: float) -> bool:
        """Whether the last halving of the passes gave back next to nothing."""
        return self._before_halving - used < LEAST_GAIN * self.budget.mb

    def _find(self, used: float) -> Remedy | None:
        return remedy(
            used,
            self.budget.mb,
            self.buffer,
            dropped=self.job.state.step - self._dropped_at < CACHES_EVERY,
            halvable=self._biggest[0] > 1,
            recomputes=self.job.state.recompute,
        )

    def _take(self, found: Remedy, cause: str, used: float, asked: PressureFinding | None = None) -> None:
        job, state = self.job, self.job.state
        if found is Remedy.SMALLER:
            self._before_halving = used
            state.tokens_per_pass = job.batches.tokens_per_pass = self._biggest[1] // 2
            self._biggest = (self._biggest[0] // 2, self._biggest[1] // 2)
        elif found is Remedy.RECOMPUTE:
            state.recompute = job.model.model.activation_checkpointing = True
        self.footprint.drop_caches()
        self._dropped_at = state.step
        self._tell(found.value, cause, used, asked)

    def _tell(self, action: str, cause: str, used: float, asked: PressureFinding | None = None) -> None:
        self.job.ctx.set_budget(self.budget.mb, self.budget.reason)
        self.job.ctx.emit(self._event(action, cause, used, asked))

    def _event(
        self, action: str, cause: str, used: float, asked: PressureFinding | None
    ) -> events.GovernorAction:
        return events.GovernorAction(
            phase=self.job.state.phase,
            step=self.job.state.step,
            cause=cause,
            action=action,
            value=asked.value if asked else None,
            bound=asked.bound if asked else None,
            used_mb=round(used, 1),
            budget_mb=round(self.budget.mb, 1),
            buffer_mb=round(self.buffer, 1),
            pass_tokens=self.job.state.tokens_per_pass,
        )

    def _failure(self, used: float) -> RunFailed:
        return RunFailed(
            _(
                "training needs more memory than its budget: {used} MB of {budget} MB ({bound}) at step {step}, "
                "although passes are as small as they can be; a checkpoint is kept"
            ).format(
                used=round(used),
                budget=round(self.budget.mb),
                bound=budget_reason_text(self.budget.reason),
                step=self.job.state.step,
            ),
            hint=_mend(used + 512, self.budget, self.job.ctx.spec),
        )


def _mend(mb: float, budget: Budget, begun: RunSpec | None = None) -> str:
    """What gives the run more, one that has `begun` from its checkpoint; where the system is the bound a larger
    setting would change nothing."""
    if budget.reason != "max_memory_gb":
        return "h2q-tui check"
    command = f"runs resume {begun.run_id}" if begun is not None and begun.kind in CONTINUED else "train"
    return f"h2q-tui {command} --max-memory-gb {math.ceil(mb / 102.4) / 10:.1f}"
