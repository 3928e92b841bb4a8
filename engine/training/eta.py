"""How long a phase takes: measured on real batches before its first step, corrected while it runs."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field

from engine.core.i18n import _
from engine.training.optim import Optimizer
from engine.training.recipe import Recipe, Stretch
from engine.training.trainer import Job

ROUNDS = 3
REPLAN_AT = (0.25, 0.5, 0.75)
"""Shares of the steps at which a phase bounded by time looks at its speed again."""
REPLAN_LEAST = 10
"""Steps before which the speed is not known better than by the measurement."""
REPLAN_FROM = 0.08
"""How far off the time must be, as a share of the budget, for the steps to change."""


@dataclass
class Pace:
    """Seconds of a step in each stretch, and of what comes beside the steps."""

    recipe: Recipe
    seconds: list[float]
    beside: float
    """Seconds of all evaluations of the phase together."""
    rate: float = 0.0
    """Tokens per second of the first stretch, without what only fills windows up."""
    correction: float = field(default=1.0)
    """How much slower steps are now than when they were measured."""

    def left(self, step: int, max_steps: int) -> float:
        """Seconds from `step` to the end of a phase of `max_steps`."""
        total = 0.0
        begin = 0
        for stretch, seconds in zip(self.recipe.stretches, self.seconds, strict=True):
            end = round(stretch.until * max_steps)
            total += max(0, end - max(begin, step)) * seconds
            begin = end
        return total * self.correction + self.beside * (1 - step / max(1, max_steps))

    def fitting(self, seconds: float, step: int, most: int) -> int:
        """The most steps, up to `most`, of a phase at `step` that end within `seconds` from now; one more at least."""
        low, high = step + 1, max(step + 1, most)
        while low < high:
            middle = (low + high + 1) // 2
            if self.left(step, middle) <= seconds:
                low = middle
            else:
                high = middle - 1
        return low

    def observe(self, stretch: Stretch, seconds: float) -> None:
        """Takes the time of a step into the correction."""
        measured = self.seconds[self.recipe.stretches.index(stretch)]
        self.correction += 0.05 * (min(10.0, seconds / max(measured, 1e-9)) - self.correction)


def plan(job: Job) -> Pace:
    """Measures the speed and says how long the phase will take; fixes the steps of one that is bounded by time.

    Only a phase that has not begun is fixed: a resumed one keeps the steps it was to take.
    """
    begin = time.perf_counter()
    pace = measure(job)
    state, budget = job.state, job.recipe.time_budget_s
    if budget is not None and state.draw == 0:
        room = budget - (time.perf_counter() - begin)
        state.max_steps = pace.fitting(room, 0, state.max_steps)
    job.ctx.log(
        _("{phase}: {steps} steps, about {seconds:.0f} s ({rate:.0f} {unit} per second)").format(
            unit=job.unit,
            phase=state.phase,
            steps=state.max_steps - state.step,
            seconds=pace.left(state.step, state.max_steps),
            rate=pace.rate,
        )
    )
    return pace


def replan(job: Job, pace: Pace, seconds: float) -> None:
    """At a few fixed steps of a phase bounded by time: other steps, when it would miss its time clearly.

    `seconds` were spent so far. The change is told and becomes part of the state.
    """
    state, budget = job.state, job.recipe.time_budget_s
    if budget is None or state.fixed_steps or not REPLAN_LEAST <= state.step < state.max_steps:
        return
    if state.step not in [round(share * state.max_steps) for share in REPLAN_AT]:
        return
    if abs(seconds + pace.left(state.step, state.max_steps) - budget) <= REPLAN_FROM * budget:
        return
    most = min(job.batches.steps(), job.recipe.max_steps or job.batches.steps())
    steps = pace.fitting(budget - seconds, state.step, most)
    if steps != state.max_steps:
        job.ctx.log(
            _("{phase}: the steps change from {old} to {new} to end in time").format(
                phase=state.phase, old=state.max_steps, new=steps
            )
        )
        state.max_steps = steps


def measure(job: Job) -> Pace:
    """Times a few steps of each stretch on copies; model, optimizer and data stay as they are."""
    kept = job.model
    job.model = copy.deepcopy(kept)
    try:
        optimizer = Optimizer(job.model, job.recipe, bf16=job.device.bf16)
        steps = [_step(job, optimizer, stretch) for stretch in job.recipe.stretches]
        begin = time.perf_counter()
        job.evaluate(job.recipe.eval_bytes)
        evaluation = time.perf_counter() - begin
    finally:
        job.model = kept
    evaluations = 1 / job.recipe.eval_every + 4 if job.general else 0.0
    seconds, tokens = steps[0]
    return Pace(job.recipe, [one for one, _tokens in steps], evaluation * evaluations, rate=tokens / seconds)


def _step(job: Job, optimizer: Optimizer, stretch: Stretch) -> tuple[float, int]:
    """Seconds and tokens of a step."""
    times = []
    for number in range(ROUNDS):
        begin = time.perf_counter()
        batch = job.batches.draw(number, job.state.max_steps, stretch)
        job.accumulate(batch)
        optimizer.grad_norm(job.recipe.clip)
        optimizer.step(1e-3, 0.9)
        optimizer.zero_grad()
        times.append((time.perf_counter() - begin, batch.tokens))
    # The first step also warms caches and kernels up.
    return sorted(times)[ROUNDS // 2]
