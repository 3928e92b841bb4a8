"""How much of a run is done, and how long it still takes: one pure function for header, tabs and commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.runs.events import Progress, RunStatus

_LEAST = 0.05
"""Share of its estimate that a stage which takes longer than that is still expected to take."""
_MOST = 0.99
"""Share of a run that is not done, at most."""


@dataclass
class StageView:
    """Current state of one stage."""

    name: str
    state: str
    index: int
    total: int
    detail: str
    started_at: float
    ended_at: float | None = None
    idle_before_s: float = 0.0
    """Seconds that the run had been idle when the stage started."""
    idle_s: float = 0.0
    """Seconds that it was idle during the stage; known when the stage has ended."""


class IdleTime:
    """Seconds in which a run does not work: paused by the person, or waiting for another run."""

    def __init__(self) -> None:
        self._seconds = {RunStatus.PAUSED: 0.0, RunStatus.QUEUED: 0.0}
        self._now: tuple[RunStatus, float] | None = None
        """The status that the run idles in, and since when."""

    def status(self, status: RunStatus, t: float) -> None:
        """The run has `status` from `t` on."""
        if self._now is not None:
            before, since = self._now
            self._seconds[before] += max(0.0, t - since)
        self._now = (status, t) if status in self._seconds else None

    @property
    def idles(self) -> bool:
        """Whether the run is idle at present."""
        return self._now is not None

    def seconds(self, now: float) -> float:
        """All of them up to `now`."""
        return sum(self._until(status, now) for status in self._seconds)

    def paused_s(self, now: float) -> float:
        """Those in pauses."""
        return self._until(RunStatus.PAUSED, now)

    def _until(self, status: RunStatus, now: float) -> float:
        open_s = 0.0
        if self._now is not None and self._now[0] is status:
            open_s = max(0.0, now - self._now[1])
        return self._seconds[status] + open_s


class TimedRun(Protocol):
    """The part of a run's view that tells its progress."""

    status: RunStatus
    idle: IdleTime
    started_at: float | None
    finished_at: float | None
    stages: list[StageView]
    stage: str
    progress: Progress | None
    phase: str
    step: int
    max_steps: int
    eta_s: float | None
    eta_at: float | None
    work: dict[str, float]


@dataclass(frozen=True)
class WorkDone:
    """A run in time."""

    share: float | None
    """Share of the whole run that is done, 0 to 1; None before anything is known."""
    left_s: float | None
    """Seconds to the end of the whole run; None when that is not known."""
    active_s: float
    """Seconds that the run has worked: without pauses, and without waiting for another run."""
    paused_s: float
    """Seconds in pauses."""


def work_done(view: TimedRun, now: float) -> WorkDone:
    """The progress of `view` at `now`, in seconds since the epoch.

    Work is counted in the time that it takes: what is done in the time it took, the stage in progress by its own
    measurement, the others by the estimate of the run's `WorkPlan`. Without a plan, stages count alike.
    """
    paused = view.idle.paused_s(now)
    end = view.finished_at if view.finished_at is not None else now
    begin = view.started_at if view.started_at is not None else end
    active = max(0.0, end - begin - view.idle.seconds(now))
    if view.status is RunStatus.DONE:
        return WorkDone(1.0, 0.0, active, paused)
    if not view.work:
        return WorkDone(_share_of_stages(view), None, active, paused)
    left = _seconds_left(view, now)
    total = active + left
    return WorkDone(min(_MOST, active / total) if total > 0 else None, left, active, paused)


def _seconds_left(view: TimedRun, now: float) -> float:
    stages = {stage.name: stage for stage in view.stages}
    left = 0.0
    for name, seconds in view.work.items():
        stage = stages.get(name)
        if stage is None:
            left += seconds
        elif stage.ended_at is None:
            left += _left_of_stage(view, stage, seconds, now)
    return left


def _left_of_stage(view: TimedRun, stage: StageView, seconds: float, now: float) -> float:
    """Seconds left of the stage in progress: as measured, else by its estimate and the time it has taken."""
    if view.eta_s is not None:
        passed = 0.0 if view.idle.idles or view.eta_at is None else max(0.0, now - view.eta_at)
        return max(view.eta_s - passed, _LEAST * passed)
    taken = max(0.0, now - stage.started_at - (view.idle.seconds(now) - stage.idle_before_s))
    return max(seconds - taken, _LEAST * seconds)


def _share_of_stages(view: TimedRun) -> float | None:
    inside: float | None = None
    if view.progress is not None and view.progress.total:
        inside = view.progress.done / view.progress.total
    elif view.stage and view.stage == view.phase and view.max_steps:
        inside = view.step / view.max_steps
    present = next((stage for stage in view.stages if stage.name == view.stage), None)
    if present is None or not present.total:
        return inside
    before = present.index - 1 if present.ended_at is None else present.index
    return min(1.0, (before + (min(1.0, inside or 0.0) if present.ended_at is None else 0.0)) / present.total)


def stage_seconds(stages: Sequence[StageView]) -> dict[str, float]:
    """Working seconds of each stage that has ended by itself, by its name."""
    return {
        stage.name: round(max(0.0, stage.ended_at - stage.started_at - stage.idle_s), 1)
        for stage in stages
        if stage.ended_at is not None and stage.state == "done"
    }
