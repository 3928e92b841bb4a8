"""The `scratch` phase: a new model from plain text."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.files import file_sha256
from engine.core.i18n import n_
from engine.machine.cgroup import cgroup_memory_limit
from engine.models.card import Lineage, ModelCard
from engine.models.transformer import ModelConfig, Transformer
from engine.training.batches import ScratchBatches
from engine.training.loop import train
from engine.training.recipe import ModelSize, Recipe
from engine.training.samples import text_samples
from engine.training.setup import (
    FreeMemory,
    find_resume_checkpoint,
    log_model_size,
    make_job,
    memory_budget,
    micro_batch_tokens,
    open_text_stream,
    prefetch,
    save_trained_model,
)
from engine.training.text_files import chinese_share, held_out_opening, languages_of

if TYPE_CHECKING:
    from engine.runs.context import RunContext


def train_scratch(
    ctx: RunContext,
    recipe: Recipe,
    files: Sequence[Path],
    *,
    name: str,
    out: Path,
    resume: Path | None = None,
    free_memory: FreeMemory | None = None,
) -> ModelCard:
    """Trains a new model on the first 90 % of each of `files` and saves it in `out`.

    `resume` is a run's folder whose newest valid checkpoint is resumed; None: this run's own. Raises
    NotEnoughData when the text is shorter than a batch, BadInput for unreadable text or a checkpoint of other
    data, Interrupted after a checkpoint when the run is stopped, RunFailed.
    """
    budget = memory_budget(ctx, recipe, free_memory)
    resumed = find_resume_checkpoint(ctx, recipe, resume)
    model = Transformer(model_config(recipe.size))
    model.initialise(recipe.seed)
    with ExitStack() as stack:
        stream = stack.enter_context(open_text_stream(ctx, recipe, files, recipe.curriculum[0].context))
        texts = {str(file): file_sha256(file) for file in files}
        lineage = Lineage(texts=texts, settings_sha256=recipe.digest())
        log_model_size(ctx, model.config, model.parameters_count())
        ctx.log(
            n_(
                "text: {size} bytes in {n} file, about {characters} characters",
                "text: {size} bytes in {n} files, about {characters} characters",
                len(files),
            ).format(
                size=stream.size,
                n=len(files),
                characters=round(stream.size * (1 - chinese_share(files) * 2 / 3)),
            )
        )
        max_tokens = micro_batch_tokens(recipe, model, budget, resumed)
        job = make_job(
            ctx,
            recipe,
            model,
            stack.enter_context(prefetch(ctx, ScratchBatches(stream, recipe, max_tokens))),
            general=files,
            data_sha256=combined_sha256(texts),
            max_tokens=max_tokens,
            budget=budget,
            resumed=resumed,
        )
        stream.on_retry = job.log_retry
        job.samples = text_samples(
            ctx, recipe.phase, languages_of(files), held_out_opening(files), model.config.context
        )
        with cgroup_memory_limit(budget.mb, ctx.log):
            train(job)
    return save_trained_model(
        job, name=name, out=out, base=None, languages=languages_of(files), lineage=lineage
    )


def model_config(size: ModelSize) -> ModelConfig:
    """The configuration of a new model."""
    return ModelConfig(
        dim=size.dim,
        layers=size.layers,
        heads=size.heads,
        kv_heads=size.heads,
        head_dim=size.head_dim,
        ffn=size.ffn,
        context=size.context,
    )


def combined_sha256(texts: dict[str, str]) -> str:
    """One hash of the contents of all texts, in their order."""
    return sha256("\n".join(texts.values()).encode()).hexdigest()
