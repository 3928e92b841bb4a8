"""The training loop. It reads from top to bottom; what it calls stands in the modules of the same names."""

from __future__ import annotations

from engine.core.errors import Interrupted
from engine.core.i18n import _
from engine.runs.resume import KINDS as CONTINUED
from engine.training.checkpoint import LoopState
from engine.training.checkpoint_saver import Saver
from engine.training.control import obey
from engine.training.eta import plan, replan
from engine.training.governor import Governor
from engine.training.lr_schedule import lr_factor, momentum
from engine.training.metrics import Meter
from engine.training.recovery import Recovery
from engine.training.rng_state import RandomStates
from engine.training.trainer import Job


def train(job: Job) -> LoopState:
    """Runs a phase from where `job.state` stands to its end; returns the final state.

    Raises Interrupted after a checkpoint when the run is to stop, RunFailed when it does not recover.
    """
    recipe, state = job.recipe, job.state
    governor = Governor(job)
    tried = governor.tried  # whatever runs out of memory is done again with less
    governor.fit()
    pace = tried(plan, job, less=governor.evaluate_less)
    meter = Meter(job, pace)
    saver = Saver(job, meter)
    recovery = Recovery(job, meter, saver)
    if state.draw == 0:
        governor.evaluate(meter, recipe.eval_bytes)
    # The last thing before the first step: what was measured meanwhile has drawn numbers.
    if job.random is not None:
        job.random.restore()
    else:
        RandomStates.begin(recipe.seed)
        # What was chosen by measurement is kept from here on: a run that is killed computes on as it began.
        recovery.saved(tried(saver.save))
    while state.step < state.max_steps:
        if obey(job, saver) or governor.hold(saver):
            saver.save()
            spec = job.ctx.spec
            raise Interrupted(
                _("stopped at step {step}; its checkpoint is kept").format(step=state.step),
                hint=f"h2q-tui runs resume {spec.run_id}" if spec.kind in CONTINUED else "",
            )

        batch = tried(meter.draw)
        loss = governor.accumulate(batch)
        norm = float(tried(job.optimizer.grad_norm, recipe.clip))
        if tried(recovery.refuses, loss, norm):
            # Nothing of the step has reached weights or optimizer; the next batch is another one.
            continue

        factor = recovery.factor * lr_factor(recipe.schedule, state.step, state.max_steps, recipe.warmup)
        lr = tried(job.optimizer.step, factor, momentum(state.step))
        job.optimizer.zero_grad()
        state.loss = loss
        state.step, state.tokens = state.step + 1, state.tokens + batch.tokens
        state.epoch_loss, state.epoch_steps = state.epoch_loss + loss, state.epoch_steps + 1
        meter.step(loss, lr, norm)

        governor.look(saver)
        replan(job, pace, meter.seconds)
        last = state.step >= state.max_steps
        if last or state.step % max(1, round(recipe.eval_every * state.max_steps)) == 0:
            governor.evaluate(meter, recipe.eval_bytes * (4 if last else 1))
        if last or meter.epoch >= state.epoch + 1:
            meter.epoch_done(lr)
        recovery.saved(tried(saver.keep, last))
    return state
