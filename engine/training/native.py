"""The `native` phase: continued training of a model on the user's conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from engine.core.errors import BadInput
from engine.core.files import file_sha256
from engine.core.i18n import _
from engine.machine.cgroup import cgroup_memory_limit
from engine.models.card import Lineage, ModelCard
from engine.models.native_format import load_model
from engine.training.chat_batches import NativeBatches, read_windows
from engine.training.loop import train
from engine.training.recipe import CurriculumStage, Recipe, as_begun
from engine.training.replay import replay_counts_for
from engine.training.samples import native_samples
from engine.training.scratch import combined_sha256
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
from engine.training.text_files import languages_of
from engine.training.text_stream import TextStream

if TYPE_CHECKING:
    from engine.runs.context import RunContext

SHORTEST_REPLAY = 64
"""Minimum bytes of a text for replay."""


class TrainingDataset(Protocol):
    """The part of `corpus.write_dataset`'s result that training reads."""

    @property
    def path(self) -> Path: ...

    @property
    def lineage(self) -> Lineage: ...


def train_native(
    ctx: RunContext,
    recipe: Recipe,
    base: Path,
    dataset: TrainingDataset,
    replay_files: Sequence[Path],
    *,
    name: str,
    out: Path,
    resume: Path | None = None,
    free_memory: FreeMemory | None = None,
    batches: Callable[..., NativeBatches] = NativeBatches,
    question: str = "",
) -> ModelCard:
    """Continues the model in `base` on a dataset, with loss on the assistant's turns and their stop token
    only.

    `batches` builds the batches from the arguments of `NativeBatches`, e.g. with a minimum share of real
    data. `question` is a held-out one that the model answers now and then (`ModelSamples`). A share of each batch (`recipe.replay`) is text of `replay_files`, whose tails are the general set.

    Raises BadInput for a broken base or dataset or an empty loss mask, NotEnoughData without rows,
    Interrupted after a checkpoint when the run is stopped, RunFailed.
    """
    budget = memory_budget(ctx, recipe, free_memory)
    resumed = find_resume_checkpoint(ctx, recipe, resume)
    model, card = load_model(base)
    context = min(recipe.curriculum[-1].context, card.context)
    recipe = msgspec.structs.replace(
        recipe, curriculum=(CurriculumStage(until=1.0, context=context, batch=recipe.curriculum[-1].batch),)
    )
    if resumed is not None:
        recipe = as_begun(recipe, resumed.state.settings_sha256)
    repeats = replay_counts_for(ctx, dataset.path, card.lineage.conversations)
    data = read_windows(dataset.path, context, repeats)
    log_model_size(ctx, model.config, model.parameters_count())
    ctx.log(
        _(
            "{count} windows with {trained} bytes of answers to train on, {cut} bytes truncated beyond the "
            "context"
        ).format(count=len(data), trained=data.trained, cut=data.cut)
    )
    texts = {str(file): _digest(file) for file in replay_files}
    lineage = merge_lineage(card.lineage, dataset.lineage, texts, recipe.digest())
    with ExitStack() as stack:
        replay = _replay(ctx, recipe, replay_files, context)
        if replay is not None:
            stack.enter_context(replay)
        max_tokens = micro_batch_tokens(recipe, model, budget, resumed)
        job = make_job(
            ctx,
            recipe,
            model,
            stack.enter_context(prefetch(ctx, batches(data, replay, recipe, context, max_tokens))),
            general=replay_files,
            data_sha256=combined_sha256(
                {"base": card.weights_sha256, "data": file_sha256(dataset.path)} | texts
            ),
            max_tokens=max_tokens,
            budget=budget,
            resumed=resumed,
        )
        if replay is not None:
            replay.on_retry = job.log_retry
        job.samples = native_samples(
            ctx, recipe.phase, languages_of([dataset.path]), question, model.config.context
        )
        with cgroup_memory_limit(budget.mb, ctx.log):
            train(job)
    languages = languages_of([dataset.path])
    languages += [language for language in card.languages if language not in languages]
    return save_trained_model(job, name=name, out=out, base=card, languages=languages, lineage=lineage)


def _replay(ctx: RunContext, recipe: Recipe, files: Sequence[Path], context: int) -> TextStream | None:
    if recipe.replay <= 0:
        return None
    if not files:
        ctx.log(
            _("there is no text to replay, so the model may forget its training text: {hint}").format(
                hint="h2q-tui sample"
            ),
            "warning",
        )
        return None
    return open_text_stream(ctx, recipe, files, min(SHORTEST_REPLAY, context))


def _digest(file: Path) -> str:
    try:
        return file_sha256(file)
    except OSError as problem:
        raise BadInput(
            _("the training text of the base cannot be read: {reason}").format(reason=problem.strerror),
            path=file,
            hint="h2q-tui sample",
        ) from problem


def merge_lineage(base: Lineage, dataset: Lineage, texts: dict[str, str], settings_sha256: str) -> Lineage:
    """The lineage of a continued model: those of its base and of the dataset, and the replayed texts."""
    newest = [lineage.newest_conversation for lineage in (base, dataset)]
    return Lineage(
        conversations=list(dict.fromkeys([*base.conversations, *dataset.conversations])),
        clusters=list(dict.fromkeys([*base.clusters, *dataset.clusters])),
        texts=base.texts | dataset.texts | texts,
        dataset=dataset.dataset,
        dataset_sha256=dataset.dataset_sha256,
        settings_sha256=settings_sha256,
        newest_conversation=max((time for time in newest if time is not None), default=None),
    )
