"""User commands between two steps: checkpoint, stop, set."""

from __future__ import annotations

import math

from engine.core.i18n import _
from engine.machine.budget import Budget
from engine.training.checkpoint_saver import CheckpointSaver
from engine.training.trainer import TrainingJob

MIN_BUDGET_GB = 0.25


def handle_commands(job: TrainingJob, saver: CheckpointSaver) -> bool:
    """Handles pending commands; blocks while the run is paused. True when the run has to stop."""
    stop = False
    if job.ctx.commands.pausing:
        saver.save()  # the machine may be switched off during a pause
    for command in job.ctx.poll():
        if command.name == "stop":
            stop = True
            command.accept(_("writes a checkpoint and stops"))
        elif command.name == "checkpoint":
            path = saver.save()
            if path is None:
                command.refuse(
                    _("the checkpoint could not be written: {reason}").format(reason=saver.problem)
                )
            else:
                command.accept(str(path))
        elif command.name == "set":
            accepted, text = apply_setting(job, command.value)
            (command.accept if accepted else command.refuse)(text)
        else:
            command.refuse(_("training accepts checkpoint, stop, lr=, max_steps= and max_memory_gb="))
    saver.metrics.exclude_pause()
    return stop or job.ctx.stop_requested


def apply_setting(job: TrainingJob, assignment: str) -> tuple[bool, str]:
    """Applies "lr=0.01", "max_steps=500" or "max_memory_gb=1.5" to a running job; returns whether it was
    accepted, and the answer."""
    name, _equals, text = assignment.partition("=")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if name.strip() == "lr":
        if not 0 < value <= 10:
            return False, _("lr must be more than 0 and at most 10")
        job.state.peak_lr = job.optimizer.peak = value
        return True, _("the peak learning rate is {value:g} from the next step").format(value=value)
    if name.strip() == "max_memory_gb":
        if not MIN_BUDGET_GB <= value <= 1024:
            return False, _("max_memory_gb must be {least} to 1024").format(least=MIN_BUDGET_GB)
        job.budget = Budget(value * 1024, "max_memory_gb")
        return True, _(
            "the memory budget is {mb} MB from the next step; the micro-batch size is reduced if needed"
        ).format(mb=round(job.budget.mb))
    if name.strip() == "max_steps":
        if not (math.isfinite(value) and value == int(value) and value > job.state.step):
            return False, _("max_steps must be a whole number above the current step {step}").format(
                step=job.state.step
            )
        job.state.max_steps, job.state.max_steps_fixed = int(value), True
        return True, _("the phase ends at step {step}").format(step=job.state.max_steps)
    return False, _("training accepts checkpoint, stop, lr=, max_steps= and max_memory_gb=")
