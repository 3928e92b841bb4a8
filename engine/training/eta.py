"""Duration of a phase: measured on real batches before the first step, corrected during training."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field

from engine.core.i18n import _
from engine.training.optim import Optimizer
from engine.training.recipe import CurriculumStage, Recipe
from engine.training.trainer import TrainingJob

ROUNDS = 3
"""Steps of each stage that are timed; fewer in a phase that is short itself."""
REPLAN_AT = (0.25, 0.5, 0.75)
"""Shares of the steps at which a phase with a time budget adjusts its number of steps."""
REPLAN_MIN_STEPS = 10
"""Steps before which the running correction is less accurate than the measurement."""
FEW_STEPS = 20
"""A plan of fewer steps is adjusted after each of them: a busy moment at the measurement may have made it so short."""
REPLAN_TOLERANCE = 0.08
"""Deviation from the time budget, as a share of it, from which the steps are adjusted."""


@dataclass
class EtaEstimator:
    """Seconds per step in each stage, and the time of everything else."""

    recipe: Recipe
    step_seconds: list[float]
    eval_seconds: float
    """Seconds of all evaluations of the phase together."""
    tokens_per_s: float = 0.0
    """Tokens per second of the first stage, without padding."""
    correction: float = field(default=1.0)
    """Ratio of the current step time to the measured one."""
    observed: int = 0
    """Steps in `correction`."""

    def remaining_s(self, step: int, max_steps: int) -> float:
        """Seconds from `step` to the end of a phase of `max_steps`."""
        total = 0.0
        begin = 0
        for stage, seconds in zip(self.recipe.curriculum, self.step_seconds, strict=True):
            end = round(stage.until * max_steps)
            total += max(0, end - max(begin, step)) * seconds
            begin = end
        return total * self.correction + self.eval_seconds * (1 - step / max(1, max_steps))

    def steps_within(self, seconds: float, step: int, limit: int) -> int:
        """The largest number of steps, at most `limit`, of a phase at `step` that end within `seconds` from
        now; at least one more."""
        low, high = step + 1, max(step + 1, limit)
        while low < high:
            middle = (low + high + 1) // 2
            if self.remaining_s(step, middle) <= seconds:
                low = middle
            else:
                high = middle - 1
        return low

    def observe_step(self, stage: CurriculumStage, seconds: float) -> None:
        """Updates the correction with a measured step time."""
        measured = self.step_seconds[self.recipe.curriculum.index(stage)]
        self.observed += 1
        # The mean of the first steps, then a moving average: the measurement counts as one step.
        weight = max(0.05, 1 / (self.observed + 1))
        self.correction += weight * (min(10.0, seconds / max(measured, 1e-9)) - self.correction)


def plan_steps(job: TrainingJob) -> EtaEstimator:
    """Measures the speed and logs the expected duration; sets the number of steps of a phase with a time
    budget.

    A resumed phase keeps its number of steps.
    """
    begin = time.perf_counter()
    eta = measure_step_times(job)
    state, budget = job.state, job.recipe.time_budget_s
    if budget is not None and job.resumed is None:
        room = budget - (time.perf_counter() - begin)
        state.max_steps = eta.steps_within(room, 0, state.max_steps)
    job.ctx.log(
        _("{phase}: {steps} steps, about {seconds:.0f} s ({rate:.0f} {unit} per second)").format(
            unit=job.unit,
            phase=state.phase,
            steps=state.max_steps - state.step,
            seconds=eta.remaining_s(state.step, state.max_steps),
            rate=eta.tokens_per_s,
        )
    )
    return eta


def replan_steps(job: TrainingJob, eta: EtaEstimator, seconds: float) -> None:
    """At a few fixed steps of a phase with a time budget, after each one of a short plan: changes the number of steps
    when it would clearly miss its time.

    `seconds` were spent so far. The change is logged and becomes part of the state.
    """
    state, budget = job.state, job.recipe.time_budget_s
    if budget is None or state.max_steps_fixed or not _is_replanned(state.step, state.max_steps):
        return
    if state.step >= state.max_steps and seconds + eta.remaining_s(state.step, state.step + 1) > budget:
        return
    if abs(seconds + eta.remaining_s(state.step, state.max_steps) - budget) <= REPLAN_TOLERANCE * budget:
        return
    limit = min(job.batches.steps(), job.recipe.max_steps or job.batches.steps())
    steps = eta.steps_within(budget - seconds, state.step, limit)
    if steps != state.max_steps:
        job.ctx.log(
            _("{phase}: the number of steps changes from {old} to {new} to end in time").format(
                phase=state.phase, old=state.max_steps, new=steps
            ),
            "detail",
        )
        state.max_steps = steps


def _is_replanned(step: int, planned: int) -> bool:
    if planned < FEW_STEPS:
        return True
    return REPLAN_MIN_STEPS <= step < planned and step in [round(share * planned) for share in REPLAN_AT]


def measure_step_times(job: TrainingJob) -> EtaEstimator:
    """The measured times of a job, else a few timed steps of each stage on copies; model, optimizer and data are
    unchanged."""
    evaluations = 1 / job.eval_every + 1 if job.general else 0.0
    known = job.measured_work()
    if known is not None:
        return EtaEstimator(
            job.recipe,
            [known.step_seconds] * len(job.recipe.curriculum),
            known.eval_seconds * evaluations,
            tokens_per_s=known.tokens / max(known.step_seconds, 1e-9),
        )
    original = job.model
    job.model = copy.deepcopy(original)
    try:
        optimizer = Optimizer(job.model, job.recipe, bf16=job.device.bf16)
        rounds = timed_rounds(job.state.max_steps - job.state.step, len(job.recipe.curriculum))
        if job.recipe.time_budget_s is not None:
            rounds = ROUNDS  # they decide the number of steps
        steps = [_time_step(job, optimizer, stage, rounds) for stage in job.recipe.curriculum]
        begin = time.perf_counter()
        job.evaluate(job.recipe.eval_bytes)
        evaluation = time.perf_counter() - begin
    finally:
        job.model = original
    seconds, tokens = steps[0]
    return EtaEstimator(
        job.recipe, [one for one, _tokens in steps], evaluation * evaluations, tokens_per_s=tokens / seconds
    )


def timed_rounds(steps: int, stages: int) -> int:
    """How often a step of each stage is timed before a phase of `steps` steps: together at most a third as many steps,
    but one of each stage."""
    return max(1, min(ROUNDS, steps // (3 * stages)))


def _time_step(
    job: TrainingJob, optimizer: Optimizer, stage: CurriculumStage, rounds: int = ROUNDS
) -> tuple[float, int]:
    """Seconds and tokens of a step."""
    times = []
    for number in range(rounds):
        begin = time.perf_counter()
        batch = job.batches.batch_at(number, job.state.max_steps, stage)
        job.accumulate(batch)
        optimizer.grad_norm(job.recipe.clip)
        optimizer.step(1e-3, 0.9)
        optimizer.zero_grad()
        times.append((time.perf_counter() - begin, batch.tokens))
    # Median: the first step also warms up caches and kernels.
    return sorted(times)[rounds // 2]
