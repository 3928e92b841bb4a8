"""The rules about a run: pure functions of one reading."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from engine.alerts import rules
from engine.alerts.faults import Fault
from engine.alerts.machine_rules import is_slower
from engine.alerts.readings import AlertLevel, Observation, ObservationState, RunReading
from engine.runs.events import RunStatus

SILENT_AFTER_S = 60.0
"""Without any record, although the engine writes one every `update_interval` seconds."""
SILENT_BEATS = 5
"""Missed records of memory before silence counts, where they are further apart."""
STALLED_AFTER_S = 30 * 60.0
STALLED_STEPS = 3
"""Usual steps that must have had time, where a step takes long."""
MANY_ROLLBACKS = 3
"""Returns to a checkpoint within an hour that show a training which does not get further."""
MANY_NOT_FINITE = 2
"""In a row; a single such step is skipped and forgotten."""
RISEN = 1.5
"""Times the best loss."""
RISEN_BY = 0.3
"""Nats per byte above the best loss, at least."""
SLOW_BELOW, SLOW_UNTIL = 0.6, 0.75
"""Share of the usual tokens/s that raises the alert, and the one that ends it."""
BUDGET_OVER = 1.02
"""Times the budget: the governor corrects less within a few steps."""
_MORTAL = frozenset({Fault.MEMORY, Fault.DEVICE, Fault.DISK})


WORK_RULES = (
    rules.RUN_SILENT,
    rules.RUN_STALLED,
    rules.RUN_DIVERGED,
    rules.RUN_NOT_FINITE,
    rules.RUN_LOSS_RISES,
    rules.RUN_CHECKPOINT,
    rules.RUN_BUDGET,
    rules.RUN_PAUSED,
    rules.RUN_SLOW,
)
"""They are about a run at work."""


def observe_run(run: RunReading, now: float, firing: Collection[str] = ()) -> Iterator[Observation]:
    """What the rules find about `run` at `now`, in seconds since the epoch. `firing`: as in `observe_machine`."""
    yield from _end(run)
    if run.over or not run.alive:
        # What was said of it at work ends without a word: its end is reported.
        for rule in WORK_RULES:
            yield Observation(rule=rule.id, subject=run.run_id, state=ObservationState.MOOT)
    else:
        for rule, bad, figures in _at_work(run, now, firing):
            state = ObservationState.BAD if bad else ObservationState.GOOD
            since = _since(run, rule) if bad else None
            yield Observation(rule=rule.id, subject=run.run_id, state=state, since=since, figures=figures)
    yield from _happened(run)


def observe_gone(runs: Collection[RunReading], firing: Collection[str]) -> Iterator[Observation]:
    """What becomes of alerts about runs that are not watched any more, as after their folder was deleted.

    A failure ends when another run is at work or done; all else says nothing any more.
    """
    known = {run.run_id for run in runs}
    followed = any((run.alive and not run.over) or run.status is RunStatus.DONE for run in runs)
    ends = {rules.RUN_FAILED.id, rules.RUN_DIED.id}
    for fingerprint in firing:
        rule, _colon, subject = fingerprint.partition(":")
        if not subject or subject in known or rule not in rules.RULES:
            continue
        if rule not in ends:
            yield Observation(rule=rule, subject=subject, state=ObservationState.MOOT)
        elif followed:
            yield Observation(rule=rule, subject=subject, state=ObservationState.GOOD)


def _end(run: RunReading) -> Iterator[Observation]:
    """Failed, or gone without a word. Both end when the run is resumed or another one has taken its place."""
    again = run.resumed or (run.alive and not run.over)
    failed, died = run.status is RunStatus.FAILED, not run.alive and not run.over
    for rule, bad in ((rules.RUN_FAILED, failed), (rules.RUN_DIED, died)):
        state = ObservationState.BAD if bad and not run.resumed else ObservationState.GOOD
        if not bad and not again:
            state = ObservationState.MOOT
        level = AlertLevel.CRITICAL if rule is rules.RUN_FAILED and run.fault in _MORTAL else None
        since = run.finished_at if failed else run.updated_at
        figures: dict[str, float | str] = {"error": run.error, "hint": run.hint, "fault": run.fault}
        figures |= {"step": run.step, "max_steps": run.max_steps}
        yield Observation(
            rule=rule.id, subject=run.run_id, state=state, level=level, since=since, figures=figures
        )


def _at_work(
    run: RunReading, now: float, firing: Collection[str]
) -> Iterator[tuple[rules.AlertRule, bool, dict[str, float | str]]]:
    """The rules about a run at work, each with whether it is broken and its figures."""
    running = run.status is RunStatus.RUNNING
    silent = now - max(run.updated_at or 0.0, run.awake_since)
    limit = max(SILENT_AFTER_S, SILENT_BEATS * run.heartbeat_s)
    yield rules.RUN_SILENT, silent > limit, {"silent": silent}
    idle = now - max(run.progressed_at or 0.0, run.status_at or 0.0, run.awake_since)
    patience = max(STALLED_AFTER_S, STALLED_STEPS * (run.usual_step_s or 0.0))
    steps: dict[str, float | str] = {"step": run.step, "max_steps": run.max_steps}
    yield rules.RUN_STALLED, running and idle > patience, {"idle": idle, "stage": run.stage, **steps}
    losses: dict[str, float | str] = {"loss": run.loss or 0.0, "best": run.best_loss or 0.0, **steps}
    lost = bool(run.divergence) or run.rollbacks >= MANY_ROLLBACKS
    yield rules.RUN_DIVERGED, lost, {**losses, "rollbacks": run.rollbacks}
    yield rules.RUN_NOT_FINITE, run.not_finite >= MANY_NOT_FINITE, {"count": run.not_finite, **steps}
    yield rules.RUN_LOSS_RISES, _has_risen(run), losses
    yield rules.RUN_CHECKPOINT, bool(run.checkpoint_error), {"error": run.checkpoint_error, **steps}
    over_budget = run.used_mb is not None and run.used_mb > BUDGET_OVER * (run.budget_mb or float("inf"))
    yield rules.RUN_BUDGET, over_budget, {"used_mb": run.used_mb or 0.0, "budget_mb": run.budget_mb or 0.0}
    # A person who pauses a run gives no reason.
    by_itself = run.status is RunStatus.PAUSED and run.reason != ""
    yield rules.RUN_PAUSED, by_itself and not run.checkpoint_error, {"reason": run.reason}
    speed, usual = run.tokens_per_s, run.usual_tokens_per_s
    if speed is not None and usual:
        below = SLOW_UNTIL if f"{rules.RUN_SLOW.id}:{run.run_id}" in firing else SLOW_BELOW
        slow = running and is_slower(run) and speed < below * usual
        yield rules.RUN_SLOW, slow, {"tokens_per_s": speed, "usual": usual}


def _has_risen(run: RunReading) -> bool:
    if run.loss is None or run.best_loss is None:
        return False
    return run.loss > RISEN * run.best_loss and run.loss > run.best_loss + RISEN_BY


def _since(run: RunReading, rule: rules.AlertRule) -> float | None:
    """When it began, where the run knows it. Never used where the rule must hold for a while first."""
    return {rules.RUN_SILENT.id: run.updated_at, rules.RUN_STALLED.id: run.progressed_at}.get(rule.id)


def _happened(run: RunReading) -> Iterator[Observation]:
    """What is sent once: the end of a training, and a verdict."""
    if run.verdict_at is not None:
        yield Observation(
            rule=rules.RUN_VERDICT.id,
            subject=f"{run.run_id}@{run.verdict_at:.0f}",
            state=ObservationState.HAPPENED,
            since=run.verdict_at,
            figures={"decision": run.decision, "sentence": run.verdict_text, "promoted": run.promoted},
        )
    if run.finished_at is not None and run.status in (RunStatus.DONE, RunStatus.SKIPPED):
        yield Observation(
            rule=rules.RUN_FINISHED.id,
            subject=f"{run.run_id}@{run.finished_at:.0f}",
            state=ObservationState.HAPPENED,
            since=run.finished_at,
            figures={
                "status": run.status.value,
                "step": run.step,
                "max_steps": run.max_steps,
                "loss": run.loss or 0.0,
                "best": run.best_loss or 0.0,
                "error": run.error,
                "promoted": run.promoted,
            },
        )
