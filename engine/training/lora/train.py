"""The `lora` phase: trains an adapter on a frozen Hugging Face model with the user's conversations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch

from engine.core.errors import UsageProblem
from engine.core.filenames import shell_word
from engine.core.files import file_sha256
from engine.core.i18n import _
from engine.corpus.dataset import read_dataset
from engine.machine.budget import Budget
from engine.machine.cgroup import cgroup_memory_limit
from engine.models.adapters import AdapterModel, save_adapter
from engine.models.base_models import BaseModel, adapter_card
from engine.models.card import Lineage, ModelCard
from engine.models.hf import check_four_bit, load_chat_template
from engine.models.token_bytes import token_bytes
from engine.training.adapter_source import LoraSetup, LoraSource
from engine.training.checkpoint import Checkpoint
from engine.training.devices import Device
from engine.training.loop import train
from engine.training.lora.data import LoraBatches, RowLayout, render_windows
from engine.training.lora.fit import LoraFit, fit_to_budget, token_mb, weights_mb
from engine.training.lora.job import (
    EVAL_LENGTH,
    GeneralWindow,
    LoraJob,
    affordable_evaluations,
    affordable_windows,
    tokenized_general_windows,
)
from engine.training.native import TrainingDataset, merge_lineage
from engine.training.peak_memory import PeakMemory
from engine.training.recipe import CurriculumStage, Recipe, as_begun
from engine.training.replay import replay_counts_for
from engine.training.samples import ModelSamples, adapter_samples, expected_seconds
from engine.training.scratch import combined_sha256
from engine.training.setup import (
    FreeMemory,
    budget_of_one,
    device_for,
    find_resume_checkpoint,
    make_job,
    memory_budget,
)
from engine.training.text_files import languages_of
from engine.training.token_windows import TokenWindows

if TYPE_CHECKING:
    from engine.models.chat_template import ChatTemplate
    from engine.runs.context import RunContext


@dataclass(frozen=True)
class _LoraInputs:
    """Everything that is prepared before the base is loaded."""

    device: Device
    fit: LoraFit
    data: TokenWindows
    general: list[GeneralWindow]
    evaluations: int
    """Evaluations of the general set after the first."""
    pad: int
    """Id of the padding token."""
    data_sha256: str
    recipe: Recipe
    samples: ModelSamples


def train_lora(
    ctx: RunContext,
    recipe: Recipe,
    base: BaseModel,
    dataset: TrainingDataset,
    *,
    general: Sequence[Path] = (),
    name: str,
    out: Path,
    resume: Path | None = None,
    free_memory: FreeMemory | None = None,
    add_files: Callable[[Path], None] | None = None,
    question: str = "",
) -> ModelCard:
    """Trains an adapter on `base` (or continues `base.adapter`) and writes it as a PEFT directory to `out`.

    The loss is on the assistant's turns and their end tokens. `add_files` may add files to the directory
    before it is renamed, so that they appear atomically with the adapter. `question` is a held-out one that
    the model answers now and then (`ModelSamples`).

    Raises UsageProblem for a base that does not fit the memory budget (before it is loaded), BadInput for
    broken files or an empty loss mask, NotEnoughData without rows, Interrupted after a checkpoint when the
    run is stopped, RunFailed.
    """
    budget = memory_budget(ctx, recipe, free_memory)
    resumed = find_resume_checkpoint(ctx, recipe, resume)
    try:
        inputs = _prepare_inputs(
            ctx, recipe, base, dataset, general, budget_of_one(budget, recipe), resumed, question
        )
    except UsageProblem as problem:
        if recipe.nproc == 1:
            raise
        # Every process loads the base.
        raise UsageProblem(
            _("for each of {nproc} processes: {problem}").format(nproc=recipe.nproc, problem=problem.message),
            hint=f"h2q-tui train --mode lora --model {shell_word(base.source)} --nproc 1",
        ) from problem
    # Frees the tokenizer: one of 150,000 entries takes 240 MB and is not needed any more.
    PeakMemory(inputs.device.name).drop_caches()
    recipe, fit = inputs.recipe, inputs.fit
    source = LoraSource(
        base,
        format=str(fit.dtype).removeprefix("torch."),
        four_bit=fit.four_bit,
        context=fit.context,
        adapter=recipe.adapter,
        seed=recipe.seed,
    )
    adapter_model, peft = source.open(inputs.device.name)
    ctx.log(
        _("adapter of {parameters:.2f} M parameters on {base} with {size:.0f} M").format(
            parameters=adapter_model.parameters_count() / 1e6, base=base.name, size=base.parameters / 1e6
        )
    )
    layout = _choose_layout(ctx, adapter_model, inputs)
    max_tokens = resumed.state.tokens_per_micro_batch if resumed is not None else fit.context
    job = make_job(
        ctx,
        recipe,
        adapter_model,
        LoraBatches(inputs.data, recipe, max_tokens, inputs.pad, layout),
        general=general,
        data_sha256=inputs.data_sha256,
        max_tokens=max_tokens,
        budget=budget,
        resumed=resumed,
        device=inputs.device,
        kind=LoraJob,
        lora=LoraSetup(source, layout is RowLayout.JOINED, int(inputs.data.lengths.max())),
    )
    assert isinstance(job, LoraJob)
    job.windows, job.evaluations = inputs.general, inputs.evaluations
    job.token_mb = token_mb(base.dimensions, fit.dtype, checkpointing=fit.activation_checkpointing)
    job.samples = inputs.samples
    inputs.samples.expected_s = expected_seconds(
        weights_mb(base, fit.dtype, four_bit=fit.four_bit) * 2**20, base.dimensions.layers
    )
    if fit.activation_checkpointing and resumed is None:
        job.state.activation_checkpointing = adapter_model.activation_checkpointing = True
    with cgroup_memory_limit(budget.mb, ctx.log):
        train(job)
    old = adapter_card(base.adapter) if base.adapter is not None else None
    card = ModelCard(
        name=name,
        mode=job.state.phase,
        base=base.adapter.name if base.adapter is not None else base.name,
        base_path=base.source,
        base_sha256=base.sha256,
        base_format=fit.format,
        run_id=ctx.spec.run_id,
        created_at=time.time(),
        parameters=adapter_model.parameters_count(),
        context=fit.context,
        languages=languages_of([dataset.path]),
        train_bytes=job.state.tokens + (old.train_bytes if old is not None else 0),
        loss=job.state.loss,
        lineage=merge_lineage(base_lineage(base), dataset.lineage, {}, recipe.digest()),
    )
    return save_adapter(out, peft, card, add_files)


def _choose_layout(ctx: RunContext, model: AdapterModel, inputs: _LoraInputs) -> RowLayout:
    """How conversations share rows, measured on the loaded model, whose layers are made lean here."""
    model.make_lean(fused=inputs.device.fused)
    if not inputs.recipe.adapter.packing:
        return RowLayout.APART
    if model.joins_rows(fused=inputs.device.fused, longest=int(inputs.data.lengths.max())):
        return RowLayout.JOINED
    if model.packs_rows():
        return RowLayout.PACKED
    ctx.log(
        _(
            "conversations are not packed: in a row of this model one would change what is learnt from the next"
        ),
        "warning",
    )
    return RowLayout.APART


def base_lineage(base: BaseModel) -> Lineage:
    """The training lineage of the base, or of the adapter that is continued; empty without a card."""
    card = adapter_card(base.adapter or base.path)
    return card.lineage if card is not None else Lineage()


def _prepare_inputs(
    ctx: RunContext,
    recipe: Recipe,
    base: BaseModel,
    dataset: TrainingDataset,
    general: Sequence[Path],
    budget: Budget,
    resumed: Checkpoint | None,
    question: str,
) -> _LoraInputs:
    """Device, format and window that fit the budget, and the rendered conversations."""
    old = resumed.state if resumed is not None else None
    width = base.dimensions.hidden
    device = device_for(width, old, recipe)
    four_bit = _four_bit(ctx, recipe, base, device.name)
    chat = load_chat_template(base)
    if chat.is_fallback:
        ctx.log(_("the model has no chat template: a plain one is used"), "warning")
    repeats = replay_counts_for(ctx, dataset.path, base_lineage(base).conversations)
    rendered_at = min(recipe.curriculum[-1].context, base.dimensions.context)
    data = render_windows(read_dataset(dataset.path), chat, rendered_at, repeats)
    fit = fit_to_budget(
        base,
        recipe.adapter,
        budget,
        context=rendered_at,
        four_bit=four_bit,
        bf16_fast=device.bf16 or device.name != "cpu",
        longest=int(data.lengths.max()),
    )
    digests = {"base": base.sha256, "data": file_sha256(dataset.path)}
    adapter = adapter_card(base.adapter) if base.adapter is not None else None
    if adapter is not None:
        digests["adapter"] = adapter.weights_sha256
    if old is not None:
        fit = _original_fit(fit, recipe, base, old.bf16, old.dataset_sha256, digests)
    ctx.log(
        _("the base {name} is loaded in {format}: about {need} MB with windows of {context} tokens").format(
            name=base.name,
            format=_("4 bits") if fit.four_bit else fit.format,
            need=round(fit.need_mb),
            context=fit.context,
        )
    )
    if fit.context < rendered_at:
        data = render_windows(read_dataset(dataset.path), chat, fit.context, repeats)
    ctx.log(
        _(
            "{count} windows with {trained} tokens of answers to train on, {cut} bytes truncated beyond "
            "the context"
        ).format(count=len(data), trained=data.trained, cut=data.cut)
    )
    if data.refused:
        ctx.log(
            _("{count} conversations do not fit the model's chat template and are skipped").format(
                count=data.refused
            ),
            "warning",
        )
    tokenizer = chat.tokenizer
    stage = CurriculumStage(until=1.0, context=fit.context, batch=recipe.curriculum[-1].batch)
    recipe = msgspec.structs.replace(recipe, curriculum=(stage,))
    if old is not None:
        recipe = as_begun(recipe, old.settings_sha256)
    windows, evaluations = _general_windows(chat, general, recipe, data)
    return _LoraInputs(
        device=replace(device, bf16=fit.dtype is torch.bfloat16),
        fit=fit,
        data=data,
        general=windows,
        evaluations=evaluations,
        pad=next((id_ for id_ in (tokenizer.pad_token_id, tokenizer.eos_token_id) if id_ is not None), 0),
        data_sha256=_digest(digests, fit),
        recipe=recipe,
        samples=adapter_samples(
            ctx, recipe.phase, languages_of([dataset.path]), question, chat, token_bytes(chat)
        ),
    )


def _general_windows(
    chat: ChatTemplate, files: Sequence[Path], recipe: Recipe, data: TokenWindows
) -> tuple[list[GeneralWindow], int]:
    """The windows of every evaluation of the run, as much text as its steps can afford, and the number of
    evaluations after the first."""
    stage = recipe.curriculum[-1]
    windows = tokenized_general_windows(chat, files, min(stage.context, EVAL_LENGTH), recipe.eval_bytes)
    per_step = stage.batch * recipe.accumulation
    planned = -(-len(data) // per_step) * recipe.epochs
    steps = min(planned, recipe.max_steps or planned)
    step_tokens = int(steps * min(per_step, len(data)) * data.lengths.mean())
    wanted = round(1 / recipe.eval_every)
    chosen = affordable_windows(windows, len(files), step_tokens, wanted + 1)
    return chosen, affordable_evaluations(chosen, step_tokens, wanted)


def _four_bit(ctx: RunContext, recipe: Recipe, base: BaseModel, device: str) -> bool:
    """Whether the base is loaded in 4 bits; otherwise logs why not."""
    if not recipe.adapter.four_bit:
        ctx.log(_("4-bit quantization is off, as requested"))
        return False
    if base.is_gguf:
        ctx.log(_("4-bit quantization is off: a GGUF file is read in bfloat16"))
        return False
    shape = base.dimensions
    width = shape.heads * shape.head_dim
    works, why = check_four_bit(device, (shape.kv_heads * shape.head_dim, width, shape.ffn, shape.hidden))
    ctx.log(
        _("4-bit quantization is on (bitsandbytes works)")
        if works
        else _("4-bit quantization is off: {why}").format(why=why)
    )
    return works


def _digest(digests: dict[str, str], fit: LoraFit) -> str:
    more = {"context": str(fit.context), "format": fit.format}
    return combined_sha256(digests | more)


def _original_fit(
    fit: LoraFit, recipe: Recipe, base: BaseModel, bf16: bool, expected: str, digests: dict[str, str]
) -> LoraFit:
    """The fit of the interrupted phase, whatever memory is free now; `fit` when no combination matches its
    hash."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    longest = min(recipe.curriculum[-1].context, base.dimensions.context)
    contexts = {fit.context, longest, *(max(128, longest >> shift) for shift in range(1, 6))}
    for four_bit in (False, True):
        for context in contexts:
            old = LoraFit(dtype, four_bit, context, fit.activation_checkpointing, fit.need_mb)
            if _digest(digests, old) == expected:
                return old
    return fit
