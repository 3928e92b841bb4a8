"""The training loop, from top to bottom; the parts it calls are in the modules of the same names."""

from __future__ import annotations

from engine.core.errors import Interrupted
from engine.core.i18n import _
from engine.runs.kinds import KINDS
from engine.training.checkpoint import LoopState
from engine.training.checkpoint_saver import CheckpointSaver
from engine.training.control import handle_commands
from engine.training.eta import plan_steps, replan_steps
from engine.training.governor import ResourceGovernor
from engine.training.lr_schedule import lr_factor, momentum
from engine.training.metrics import TrainingMetrics
from engine.training.recovery import StepRecovery
from engine.training.rng_state import RngStates
from engine.training.trainer import TrainingJob


def train(job: TrainingJob) -> LoopState:
    """Trains a phase from `job.state` to its end; returns the final state.

    Raises Interrupted after a checkpoint when the run has to stop, RunFailed when it cannot recover.
    """
    with job.replicas:
        return _train(job)


def _train(job: TrainingJob) -> LoopState:
    recipe, state = job.recipe, job.state
    governor = ResourceGovernor(job)
    retry_on_oom = governor.retry_on_oom  # retries with less memory
    governor.fit_micro_batches()
    job.replicas.start(job)
    eta = retry_on_oom(plan_steps, job, shrink=governor.shrink_evaluation)
    metrics = TrainingMetrics(job, eta)
    saver = CheckpointSaver(job, metrics)
    recovery = StepRecovery(job, metrics, saver, retry_on_oom)
    if job.resumed is None:
        governor.evaluate(metrics, recipe.eval_bytes)
    metrics.sample()
    # Restored last: the measurements above have drawn random numbers.
    if job.rng is not None:
        job.rng.restore()
    else:
        RngStates.seed_all(recipe.seed)
        # Keeps the measured choices: a killed run resumes with the same ones.
        recovery.checkpoint_saved(retry_on_oom(saver.save))
    while state.step < state.max_steps:
        if handle_commands(job, saver) or governor.throttle(saver):
            saver.save()
            spec = job.ctx.spec
            raise Interrupted(
                _("stopped at step {step}; its checkpoint is kept").format(step=state.step),
                hint=f"h2q-tui runs resume {spec.run_id}" if KINDS[spec.kind].resumable else "",
            )

        batch = retry_on_oom(metrics.next_batch)
        loss = governor.accumulate(batch)
        norm = float(retry_on_oom(job.optimizer.grad_norm, recipe.clip))
        share = recovery.judge(loss, norm)
        if share is None:
            # Weights and optimizer are unchanged, or rolled back; the next step uses the next batch.
            continue

        factor = share * lr_factor(recipe.schedule, state.step, state.max_steps, recipe.warmup)
        lr = retry_on_oom(job.optimizer.step, factor, momentum(state.step))
        job.optimizer.zero_grad()
        state.loss = loss
        state.step, state.tokens = state.step + 1, state.tokens + batch.tokens
        state.epoch_loss, state.epoch_steps = state.epoch_loss + loss, state.epoch_steps + 1
        metrics.step_done(loss, lr, norm)

        governor.check_budget(saver)
        replan_steps(job, eta, metrics.seconds)
        last = state.step >= state.max_steps
        if last or state.step % max(1, round(job.eval_every * state.max_steps)) == 0:
            governor.evaluate(metrics, recipe.eval_bytes)
        metrics.sample(last=last)
        if last or metrics.is_epoch_complete:
            metrics.epoch_done(lr)
        recovery.checkpoint_saved(retry_on_oom(saver.save_if_due, last))
    return state
