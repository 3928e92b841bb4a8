"""`train --mode lora`: an adapter on a Hugging Face or Ollama base, from the corpus or from files of conversations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from engine.core.errors import BadInput, H2QError, NotEnoughData, UsageProblem
from engine.core.i18n import _, n_
from engine.core.outputs import ADAPTER_FOLDER, check_output_folder
from engine.core.paths import Workspace, shipped
from engine.corpus.clusters import HoldoutWindow
from engine.corpus.training_set import held_out_rows
from engine.export.gguf_writer import write_gguf_copy
from engine.inference.client import free_service_memory
from engine.machine.budget import resolve_budget
from engine.memory.store import MemoryStore
from engine.models.adapter_settings import check_continued
from engine.models.base_models import BaseModel, base_of_adapter, find_base
from engine.models.card import ADAPTER_CONFIG
from engine.models.registry import find_model, in_use, list_outside, new_name
from engine.pipeline.corpus import counted_pairs, prepare_corpus
from engine.pipeline.own_question import best_question, own_question
from engine.pipeline.promote import promote_if_better
from engine.pipeline.report import Pairs, TrainResult, finish, status_of
from engine.pipeline.served import serve_adapter
from engine.pipeline.stages import StagePlan, TrainedModel, TrainRequest, announce_work, model_summary
from engine.pipeline.validate import validate_candidate
from engine.runs.context import RunContext, RunResult
from engine.runs.estimates import Workload
from engine.runs.kinds import TrainMode, TrainParams
from engine.training.lora.files import FileDataset, read_files
from engine.training.lora.fit import fit_to_budget
from engine.training.lora.train import train_lora
from engine.training.native import TrainingDataset
from engine.training.recipe import Phase, recipe_for
from engine.validation.report import ValidationReport
from engine.validation.validate import measure_forgetting, stage_progress, validate
from engine.workspace.outside import outside_output


def train_adapter(ctx: RunContext, request: TrainRequest) -> RunResult:
    """`train --mode lora`. Files of `--data` replace the corpus; then there is no verdict and no promotion."""
    _output_folder(
        ctx.workspace, request.params
    )  # first, so that a foreign folder is refused before any work
    base = choose_base(ctx.workspace, request.params, ctx.settings.lora_base)
    if base.adapter is not None and request.resume is None:
        check_continued(base.adapter, request.params)
    texts = sorted(ctx.workspace.training_data.glob("*.txt"))
    if request.params.data:
        return _train_on_files(ctx, request, base, texts)
    return _train_on_corpus(ctx, request, base, texts)


def choose_base(ws: Workspace, params: TrainParams, configured: str) -> BaseModel:
    """The base of an adapter: `--model`, else the adapter in use (which is continued), else `configured`.

    Raises UsageProblem when there is none, BadInput for a broken one.
    """
    if params.model:
        return find_base(ws, params.model)
    used = in_use(ws)
    if used is not None:
        try:
            folder = find_model(ws, used)
        except BadInput:
            folder = None
        if folder is not None and (folder / ADAPTER_CONFIG).is_file():
            return base_of_adapter(ws, folder)
    if not configured:
        raise UsageProblem(
            _("lora needs a base: a Hugging Face directory or an Ollama tag"),
            hint="h2q-tui train --mode lora --model DIR",
        )
    return find_base(ws, configured)


def lora_fits(ctx: RunContext, params: TrainParams) -> tuple[bool, str]:
    """Whether an adapter can be trained on the base that is named or configured, and the reason; "" without one.

    Loads no weights.
    """
    configured = ctx.settings.lora_base
    if params.data or not (params.model or configured):
        return False, ""
    try:
        base = choose_base(ctx.workspace, params, configured)
        recipe = recipe_for(params, Phase.LORA, settings=ctx.settings)
        memory_fit = fit_to_budget(
            base,
            recipe.adapter,
            resolve_budget(ctx.settings.max_memory_gb, params.max_memory_gb),
            context=recipe.curriculum[-1].context,
            four_bit=False,
            bf16_fast=True,
        )
    except H2QError as problem:
        return False, _("LoRA not used: {reason}").format(reason=problem.message)
    text = (
        _("the base {name} fits: about {need} MB")
        if params.model
        else _("the base model {name} is configured and fits: about {need} MB")
    )
    return True, text.format(name=base.name, need=round(memory_fit.need_mb))


def _train_on_corpus(
    ctx: RunContext, request: TrainRequest, base: BaseModel, texts: Sequence[Path]
) -> RunResult:
    params = request.params
    stages = ("corpus", "lora", "validate", "promote", *(("serve",) if base.is_gguf else ()))
    plan = StagePlan(stages, before=request.stages_before)
    with MemoryStore(ctx.workspace.memory_db) as store:
        characters = store.mean_characters()
        announce_work(ctx, _workload(params, base, store.count(), characters=characters))
        try:
            corpus = prepare_corpus(
                ctx,
                plan,
                store,
                base=_compared_path(base),
                min_pairs=params.min_corpus,
                resume=request.resume,
            )
        except NotEnoughData as problem:
            result = TrainResult(
                "skipped", base=_base_name(base), pairs=counted_pairs(store), error=str(problem)
            )
            return finish(ctx, request, result)
        question = own_question(store, corpus.window)
        trained, test = len(corpus.dataset.lineage.conversations), len(corpus.window.conversations)
        announce_work(ctx, _workload(params, base, trained, test, characters))
        adapter = _lora_stage(ctx, plan, request, base, corpus.dataset, texts, question)
        report = validate_candidate(
            ctx,
            plan,
            store,
            corpus.window,
            base=_compared_path(base),
            new=adapter.folder,
            texts=texts,
            replay_sample=corpus.replay_sample,
        )
        allowed = params.promote and beats_model_in_use(
            ctx, store, corpus.window, report, base=_base_name(base), new=adapter.folder
        )
    promoted = promote_if_better(
        ctx,
        plan,
        adapter.folder,
        report,
        newest_conversation=adapter.lineage.newest_conversation,
        allowed=allowed,
    )
    served = serve_adapter(ctx, plan, base, adapter.folder) if base.is_gguf else None
    result = TrainResult(
        status_of(report, promoted=promoted),
        base=_base_name(base),
        new=adapter.folder.name,
        pairs=corpus.pairs,
        dataset=str(corpus.dataset.path),
        lineage=adapter.lineage,
        training_time_s=adapter.seconds,
        replayed=corpus.dataset.replayed,
        validation=report,
        served=served,
    )
    return finish(ctx, request, result)


def _train_on_files(
    ctx: RunContext, request: TrainRequest, base: BaseModel, texts: Sequence[Path]
) -> RunResult:
    """Train on unfiltered files; the loss on a part held out by hash stands in for a verdict."""
    params, ws = request.params, ctx.workspace
    plan = StagePlan(
        ("corpus", "lora", "validate", *(("serve",) if base.is_gguf else ())), before=request.stages_before
    )
    with plan.open(ctx, "corpus") as stage:
        data = read_files([Path(file) for file in params.data], ws.training, ctx.spec.run_id)
        stage.detail = _file_summary(data)
        ctx.log(_("training on the files as they are: no filters, no verdict"))
        pairs = _pairs_of(data)
        if pairs.train < params.min_corpus:
            text = _("{have} training pairs, {need} needed").format(have=pairs.train, need=params.min_corpus)
            problem = NotEnoughData(text, hint=f"h2q-tui train --min-corpus {max(1, pairs.train)}")
            stage.skip(text)
            result = TrainResult(
                "skipped",
                base=_base_name(base),
                pairs=pairs,
                dataset=str(data.path),
                lineage=data.lineage,
                error=str(problem),
            )
            return finish(ctx, request, result)
    question = best_question(
        next((message.content for message in row.messages if message.role == "user"), "")
        for row in data.held_out
    )
    adapter = _lora_stage(ctx, plan, request, base, data, texts, question)
    with plan.open(ctx, "validate") as stage:
        loss = measure_forgetting(
            ws, data.held_out, _compared_path(base), adapter.folder, progress=stage_progress(ctx)
        )
        if loss is not None:
            stage.detail = _(
                "held out by hash: {count} conversations, {before:.3f} nats per byte before, {after:.3f} after"
            ).format(count=loss.conversations, before=loss.before, after=loss.after)
    name = adapter.folder.name if adapter.folder.parent == ws.adapters else adapter.folder
    ctx.log(_("to use it: {command}").format(command=f"h2q-tui promote {name}"))
    served = serve_adapter(ctx, plan, base, adapter.folder) if base.is_gguf else None
    result = TrainResult(
        "trained",
        base=_base_name(base),
        new=adapter.folder.name,
        pairs=pairs,
        dataset=str(data.path),
        lineage=adapter.lineage,
        training_time_s=adapter.seconds,
        held_out=loss,
        served=served,
    )
    return finish(ctx, request, result)


def _workload(
    params: TrainParams, base: BaseModel, conversations: int, test: int = 0, characters: float = 0.0
) -> Workload:
    return Workload(
        TrainMode.LORA,
        conversations=conversations,
        test=test,
        base=params.model or "",
        base_parameters=base.parameters,
        characters=characters,
        epochs=params.epochs,
        max_steps=params.max_steps,
        time_budget_s=params.time_budget_s,
    )


def _lora_stage(
    ctx: RunContext,
    plan: StagePlan,
    request: TrainRequest,
    base: BaseModel,
    data: TrainingDataset,
    texts: Sequence[Path],
    question: str,
) -> TrainedModel:
    """Train the adapter. The general set is `texts`, else the shipped one; `question` is a held-out one."""
    params = request.params
    folder = _output_folder(ctx.workspace, params)
    recipe = recipe_for(params, Phase.LORA, time_budget_s=params.time_budget_s, settings=ctx.settings)
    general = texts or sorted((shipped("data") / "general").glob("*.txt"))
    with plan.open(ctx, "lora") as stage, outside_output(ctx.workspace, folder):
        began = time.monotonic()
        card = train_lora(
            ctx,
            recipe,
            base,
            data,
            general=general,
            name=folder.name,
            out=folder,
            resume=request.resume,
            add_files=partial(write_gguf_copy, base=base.path, name=folder.name)
            if base.is_gguf and base.lora is None
            else None,
            free_memory=partial(free_service_memory, ctx.workspace),
            question=question,
        )
        seconds = time.monotonic() - began
        stage.detail = model_summary(card)
    list_outside(ctx.workspace, folder)
    return TrainedModel(folder, card.lineage, seconds)


def _output_folder(ws: Workspace, params: TrainParams) -> Path:
    """`--output`, else a new folder in `--training-dir` or the workspace.

    Raises UsageProblem if it holds anything but an adapter.
    """
    name = new_name(ws, "lora")
    if params.output:
        folder = Path(params.output)
    elif params.training_dir:
        folder = Path(params.training_dir) / name
    else:
        folder = ws.adapters / name
    check_output_folder(folder, ADAPTER_FOLDER, hint="h2q-tui train --mode lora --output NEW-FOLDER")
    return folder


def beats_model_in_use(
    ctx: RunContext,
    store: MemoryStore,
    window: HoldoutWindow,
    report: ValidationReport,
    *,
    base: str,
    new: Path,
) -> bool:
    """Whether the new model is also better than the model in use, if that is another one than its base."""
    used = in_use(ctx.workspace)
    if report.verdict.decision != "promote" or used is None or used == base:
        return True
    try:
        other = find_model(ctx.workspace, used)
    except BadInput:
        return True
    second = validate(
        ctx,
        held_out_rows(store, window.id),
        base=other,
        new=new,
        window_id=window.id,
        look=report.verdict.look,
        dated=window.dated,
        texts={},
    )
    ctx.log(
        _("compared with {name}, the model in use: {sentence}").format(
            name=used, sentence=second.verdict.sentence
        )
    )
    return second.verdict.decision == "promote"


def _compared_path(base: BaseModel) -> Path:
    """What the new adapter is validated against: the adapter that it continues, else the base model."""
    return base.adapter or base.place


def _base_name(base: BaseModel) -> str:
    return base.adapter.name if base.adapter is not None else base.name


def _pairs_of(data: FileDataset) -> Pairs:
    total = data.train_answers + data.test_answers
    return Pairs(collected=total, filtered=total, train=data.train_answers, test=data.test_answers)


def _file_summary(data: FileDataset) -> str:
    count = len(data.lineage.conversations)
    text = n_(
        "{n} conversation to train on, {back} held out by hash",
        "{n} conversations to train on, {back} held out by hash",
        count,
    ).format(n=count, back=len(data.held_out))
    if not data.skipped:
        return text
    skipped = n_("{n} row skipped", "{n} rows skipped", data.skipped).format(n=data.skipped)
    return f"{text}; {skipped}"
