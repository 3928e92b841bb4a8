"""Common parts of all phases: memory budget, a new or resumed job, and the finished model with its card."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from engine.core.errors import BadInput
from engine.core.i18n import _, n_
from engine.core.settings import Settings
from engine.machine.budget import Budget, resolve_budget
from engine.machine.cpu import set_cpu_affinity
from engine.models.card import Lineage, ModelCard
from engine.models.native_format import save_model
from engine.models.ollama.running import running_models, unload_models
from engine.models.transformer import ModelConfig, Transformer
from engine.runs.event_text import budget_reason_text
from engine.runs.shared_memory import TRAINING_SHARE
from engine.runs.torchrun import processes_here, started_by_torchrun
from engine.training import checkpoint
from engine.training.batches import BatchSource
from engine.training.checkpoint import Checkpoint, ComputeEnvironment, LoopState
from engine.training.devices import Device, choose_device
from engine.training.microbatch import estimated_tokens
from engine.training.objective import TrainableModel
from engine.training.optim import Optimizer
from engine.training.prefetch import Prefetcher
from engine.training.recipe import Phase, Recipe
from engine.training.text_stream import TextStream
from engine.training.trainer import OneProcess, Replicas, TrainingJob

if TYPE_CHECKING:
    from engine.runs.context import RunContext
    from engine.training.adapter_source import LoraSetup

FreeMemory: TypeAlias = Callable[[float, float], bool]
"""Frees memory of the program's other processes, given the MB that a run needs and the MB of its budget;
returns whether it freed any."""


def find_resume_checkpoint(ctx: RunContext, recipe: Recipe, resume: Path | None) -> Checkpoint | None:
    """The newest valid checkpoint of the phase: in `resume` (a run or its checkpoints), else of this run
    itself.

    Damaged ones are logged and skipped. None when the run has not reached this phase, or has no checkpoint
    at all: the phase starts from the beginning. Raises BadInput when every checkpoint of `resume` is damaged,
    or `resume` does not exist.
    """
    folder = ctx.run_dir.checkpoints if resume is None else resume
    if (folder / "checkpoints").is_dir():
        folder = folder / "checkpoints"
    search = checkpoint.find_newest(folder, recipe.phase)
    for problem in search.damaged:
        ctx.log(_("skipping a damaged checkpoint: {problem}").format(problem=problem), "warning")
    if resume is None or search.checkpoint is not None:
        return search.checkpoint
    if folder.is_dir() and not any(checkpoint.list_checkpoints(folder, phase) for phase in Phase):
        ctx.log(_("the run has no checkpoint to resume from: training starts from the beginning"))
    elif all(checkpoint.find_newest(folder, phase).checkpoint is None for phase in Phase):
        raise BadInput(
            _("there is no valid checkpoint to resume from"),
            path=folder,
            hint="h2q-tui runs list",
        )
    return None


def memory_budget(ctx: RunContext, recipe: Recipe, free_memory: FreeMemory | None = None) -> Budget:
    """The effective budget, logged and shown in the run's status, after memory is freed for the run."""
    free_ollama_memory(ctx)
    budget = resolve_budget(ctx.settings.max_memory_gb, recipe.max_memory_gb)
    if free_memory is not None and free_memory(TRAINING_SHARE * budget.mb, budget.mb):
        ctx.log(_("the models loaded for chat were unloaded to free memory for the run"))
        budget = resolve_budget(ctx.settings.max_memory_gb, recipe.max_memory_gb)
    if started_by_torchrun():
        # Its processes on this machine are no children of this one, so each has a budget of its own.
        budget = Budget(budget.mb / processes_here(recipe.nproc), budget.reason)
    ctx.set_budget(budget.mb, budget.reason)
    ctx.log(
        _("memory budget {mb:.0f} MB ({bound})").format(mb=budget.mb, bound=budget_reason_text(budget.reason))
    )
    return budget


def free_ollama_memory(ctx: RunContext) -> None:
    """Logs the models that Ollama has loaded, and unloads them if the user has allowed it."""
    loaded = running_models()
    if not loaded:
        return
    names, mb = _(", ").join(model.name for model in loaded), round(sum(model.mb for model in loaded))
    if not ctx.settings.unload_ollama:
        ctx.log(
            _(
                "Ollama uses {mb} MB of memory for {names}; h2q-tui train --unload-ollama frees it first"
            ).format(names=names, mb=mb)
        )
    elif remaining := unload_models(loaded):
        still = _(", ").join(model.name for model in remaining)
        ctx.log(_("Ollama still has {names} in memory").format(names=still), "warning")
    else:
        ctx.log(_("Ollama has freed {mb} MB: {names}").format(mb=mb, names=names))


def micro_batch_tokens(recipe: Recipe, model: Transformer, budget: Budget, resumed: Checkpoint | None) -> int:
    """Upper bound on the tokens of a micro-batch."""
    if resumed is not None:
        return resumed.state.tokens_per_micro_batch
    return estimated_tokens(recipe, model.config, model.parameters_count(), budget_of_one(budget, recipe))


def budget_of_one(budget: Budget, recipe: Recipe) -> Budget:
    """The part of a run's budget that one of its processes may use."""
    return budget if started_by_torchrun() else Budget(budget.mb / recipe.nproc, budget.reason)


def device_for(width: int, old: LoopState | None, recipe: Recipe) -> Device:
    """The device of a phase for a model of `width`; a phase resumed at `old` computes as it began, with as many
    threads if it has as many processes."""
    here = processes_here(recipe.nproc)
    if old is None:
        return choose_device(width, processes=here)
    threads = old.threads if old.processes == recipe.nproc else None
    return choose_device(width, threads=threads, bf16=old.bf16, fused=old.fused, processes=here)


def open_text_stream(ctx: RunContext, recipe: Recipe, files: Sequence[Path], shortest: int) -> TextStream:
    """The training part of `files`, with the chunk cache of the settings; raises as `TextStream.training`."""
    kb, chunks = ctx.settings.data_chunk_size, ctx.settings.max_cached_chunks
    stream = TextStream.training(
        files, seed=recipe.seed, shortest=shortest, chunk_bytes=1024 * kb, cached_chunks=chunks
    )
    if (kb, chunks) != (Settings().data_chunk_size, Settings().max_cached_chunks):
        words = (
            _("text is read in chunks of {kb} KB; {chunks} are cached")
            if stream.chunked
            else _("each window of text is read separately: {chunks} chunks of {kb} KB hold too little of it")
        )
        ctx.log(words.format(kb=kb, chunks=chunks))
    return stream


def prefetch(ctx: RunContext, batches: BatchSource) -> Prefetcher:
    """Prepares `batches` ahead with the number of threads from the settings."""
    settings = ctx.settings
    return Prefetcher(batches, threads=settings.num_worker_threads, ahead=settings.prefetch_buffer_size)


def make_job(
    ctx: RunContext,
    recipe: Recipe,
    model: TrainableModel,
    batches: BatchSource,
    *,
    general: Sequence[Path],
    data_sha256: str,
    max_tokens: int,
    budget: Budget,
    resumed: Checkpoint | None,
    device: Device | None = None,
    kind: type[TrainingJob] = TrainingJob,
    lora: LoraSetup | None = None,
) -> TrainingJob:
    """The job of a phase, of class `kind`: new, or resumed exactly at `resumed`.

    `device` is the one the model was loaded for; None: chosen here. `lora` is how another process loads an adapter.
    Raises BadInput when `resumed` belongs to
    other data, other settings or another model.
    """
    old = resumed.state if resumed is not None else None
    if note := set_cpu_affinity(ctx.settings.cpu_affinity):
        ctx.log(note)
    if device is None:
        device = device_for(model.config.dim, old, recipe)
    model.to(device.name).train()
    if isinstance(model, Transformer):
        model.model.fused = device.fused
    model.model.activation_checkpointing = old is not None and old.activation_checkpointing
    optimizer = Optimizer(model, recipe, bf16=device.bf16)
    planned = batches.steps()
    state = old or LoopState(
        phase=recipe.phase.value,
        max_steps=min(planned, recipe.max_steps or planned),
        peak_lr=recipe.lr,
        threads=device.threads,
        processes=recipe.nproc,
        bf16=device.bf16,
        fused=device.fused,
        tokens_per_micro_batch=max_tokens,
        dataset_sha256=data_sha256,
        settings_sha256=recipe.digest(),
    )
    if resumed is not None:
        _check_unchanged(state, data_sha256, recipe.digest(), resumed.path)
        if recipe.max_steps is not None and not state.max_steps_fixed and recipe.time_budget_s is None:
            state.max_steps = max(state.step, min(planned, recipe.max_steps))
        try:
            checkpoint.load_trainable_state(model, resumed.weights)
            optimizer.restore(resumed.optimizer)
        except (RuntimeError, KeyError) as problem:
            raise BadInput(_("the checkpoint belongs to another model"), path=resumed.path) from problem
        optimizer.peak = state.peak_lr
        if state.processes != recipe.nproc:
            ctx.log(
                _(
                    "the checkpoint was computed by {old} processes, these are {new}: further steps may differ in "
                    "their last digits"
                ).format(old=state.processes, new=recipe.nproc)
            )
            state.processes, state.threads = recipe.nproc, device.threads
        ctx.log(_("resuming from step {step}: {path}").format(step=state.step, path=resumed.path))
        if resumed.origin not in (ComputeEnvironment(), ComputeEnvironment.here()):
            ctx.log(
                _(
                    "the checkpoint was computed by {old}, this is {new}: further steps may differ in "
                    "their last digits"
                ).format(old=resumed.origin, new=ComputeEnvironment.here()),
                "warning",
            )
    ctx.log(
        n_(
            "computes on {device} with {n} thread in {format} ({reason})",
            "computes on {device} with {n} threads in {format} ({reason})",
            device.threads,
        ).format(
            device=device.name,
            n=device.threads,
            format="bfloat16" if device.bf16 else "float32",
            reason=device.reason,
        ),
        "detail",
    )
    ctx.run_dir.checkpoints.mkdir(parents=True, exist_ok=True)
    return kind(
        ctx=ctx,
        recipe=recipe,
        model=model,
        optimizer=optimizer,
        batches=batches,
        device=device,
        replicas=_replicas(ctx, recipe, device, model, lora),
        general=list(general),
        checkpoints=ctx.run_dir.checkpoints,
        state=state,
        training_log=ctx.workspace.root / "training_log.json",
        budget=budget,
        resumed=resumed.path if resumed is not None else None,
        rng=resumed.rng if resumed is not None else None,
    )


def _replicas(
    ctx: RunContext, recipe: Recipe, device: Device, model: TrainableModel, lora: LoraSetup | None
) -> Replicas:
    if recipe.nproc == 1:
        return OneProcess()
    # torch.distributed takes as long to import as a small phase to train.
    from engine.training.distributed.open import open_ranks

    return open_ranks(ctx.run_dir, recipe.nproc, device, model, lora)


def _check_unchanged(state: LoopState, data_sha256: str, settings_sha256: str, path: Path) -> None:
    """Raises BadInput if the recipe or the data differs from the checkpoint's."""
    if state.settings_sha256 != settings_sha256:
        raise BadInput(
            _(
                "the checkpoint was made with another recipe or with other settings of batch, accumulation "
                "or rate, so it cannot be resumed exactly"
            ),
            path=path,
            # This command reuses all settings of that run.
            hint=f"h2q-tui runs resume {path.parent.parent.name}",
        )
    if state.dataset_sha256 != data_sha256:
        raise BadInput(
            _(
                "the training data or the base has changed since the checkpoint was made, so it cannot be "
                "resumed exactly; a new run trains on all current data"
            ),
            path=path,
            hint="h2q-tui train",
        )


def log_model_size(ctx: RunContext, config: ModelConfig, parameters: int) -> None:
    """Logs the model's size and how many characters its context holds."""
    ctx.log(
        _(
            "model of {parameters:.2f} M parameters; its context of {context} bytes holds about {zh} Chinese "
            "or {en} English characters"
        ).format(
            parameters=parameters / 1e6, context=config.context, zh=config.context // 3, en=config.context
        )
    )


def save_trained_model(
    job: TrainingJob, *, name: str, out: Path, base: ModelCard | None, languages: list[str], lineage: Lineage
) -> ModelCard:
    """Saves the trained model under `out`. Raises OSError when the disk is full."""
    state, model = job.state, job.model
    assert isinstance(model, Transformer)
    card = ModelCard(
        name=name,
        mode=state.phase,
        base=base.name if base is not None else "",
        first=(base.first or base.name) if base is not None else "",
        run_id=job.ctx.spec.run_id,
        created_at=time.time(),
        parameters=model.parameters_count(),
        context=model.config.context,
        languages=languages,
        train_bytes=state.tokens + (base.train_bytes if base is not None else 0),
        loss=state.loss,
        lineage=lineage,
    )
    return save_model(out, model.to("cpu").eval(), card)
