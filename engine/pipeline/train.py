"""A training from the corpus to promotion; entry point of the run kind `train`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from engine.core.config import non_default_training_settings
from engine.core.errors import NotEnoughData
from engine.core.i18n import _, bracketed
from engine.core.outputs import MODEL_FOLDER, check_output_folder
from engine.core.paths import shipped
from engine.corpus.training_set import TrainingSet
from engine.inference.client import free_service_memory
from engine.memory.store import MemoryStore
from engine.models.card import load_card
from engine.models.registry import find_model, in_use, list_outside, new_name, promote
from engine.models.resolve import ModelKind, find_place
from engine.pipeline.corpus import counted_pairs, prepare_corpus
from engine.pipeline.lora import lora_fits, train_adapter
from engine.pipeline.message import make_message_model, message_fits
from engine.pipeline.own_question import own_question
from engine.pipeline.promote import promote_if_better
from engine.pipeline.report import TrainResult, finish, status_of
from engine.pipeline.stages import (
    StagePlan,
    TrainedModel,
    TrainRequest,
    announce_work,
    existing_texts,
    model_summary,
    resume_folder,
)
from engine.pipeline.validate import validate_candidate
from engine.runs.context import RunContext, RunResult
from engine.runs.estimates import BASE_SHARE, Workload
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.train_flags import check_processes, unused_flags
from engine.training.native import train_native
from engine.training.recipe import Phase, recipe_for
from engine.training.scratch import train_scratch
from engine.training.text_files import find_text
from engine.workspace.outside import outside_output


def run_train(ctx: RunContext) -> RunResult:
    """Entry point of the run kind `train`."""
    params = ctx.params(TrainParams)
    if params.config:
        ctx.workspace = replace(ctx.workspace, models_file=Path(params.config))
    with ctx.train_lock(wait=params.wait):
        return train(ctx, params)


def train(ctx: RunContext, params: TrainParams, *, stages_before: int = 0) -> RunResult:
    """Train under the lock of the workspace; `stages_before` counts stages that the caller has run already."""
    resume = resume_folder(ctx, params)  # first, so that an unknown run fails before any work
    if params.promote:
        in_use(ctx.workspace)  # a broken models.json is reported before the work, not at its end
    mode, reason = choose_mode(ctx, params)
    ctx.log(_("mode {mode}: {reason}").format(mode=mode, reason=reason))
    check_processes(params.nproc, mode)
    if unused := unused_flags(params, mode):
        ctx.log(
            _("--mode {mode} makes no use of {flags}").format(mode=mode, flags=_(", ").join(unused)),
            "warning",
        )
    if changed := non_default_training_settings(ctx.settings):
        ctx.log(_("non-default settings: {settings}").format(settings=changed))
    request = TrainRequest(params, mode, reason, time.time(), resume, stages_before)
    if mode is TrainMode.SCRATCH:
        return _train_on_text(ctx, request)
    if mode is TrainMode.LORA:
        return train_adapter(ctx, request)
    if mode is TrainMode.MESSAGE:
        return make_message_model(ctx, request)
    return _train_on_conversations(ctx, request)


def choose_mode(ctx: RunContext, params: TrainParams) -> tuple[TrainMode, str]:
    """The training mode and the reason for it."""
    if params.mode is not TrainMode.AUTO:
        return params.mode, _("as requested")
    kind = find_place(ctx.workspace, params.model).kind if params.model else None
    reason = ""
    if kind is not ModelKind.NATIVE:
        fits, reason = (False, "") if kind is ModelKind.SERVED else lora_fits(ctx, params)
        if fits:
            return TrainMode.LORA, reason
        fits, served = message_fits(ctx, params)
        if fits:
            return TrainMode.MESSAGE, _("; ").join(filter(None, (reason, served)))
        if kind is not None:
            return TrainMode.LORA, _("the base is not the built-in model")
    text = _("training the built-in model on your conversations; nothing else is needed")
    return TrainMode.NATIVE, bracketed(text, reason) if reason else text


def _train_on_text(ctx: RunContext, request: TrainRequest) -> RunResult:
    """`--mode scratch`: a model from plain text. There is no verdict, as there is nothing to compare with."""
    params, ws = request.params, ctx.workspace
    folder = Path(params.output) if params.output else ws.models / new_name(ws, "scratch")
    check_output_folder(folder, MODEL_FOLDER, hint="h2q-tui train --mode scratch --output NEW-FOLDER")
    plan = StagePlan(("scratch",), before=request.stages_before)
    texts = find_text(params.data, ws).files
    announce_work(ctx, _workload(TrainMode.SCRATCH, params, texts=texts))
    model = _scratch_stage(ctx, plan, request, texts, folder, params.time_budget_s)
    result = TrainResult("trained", new=folder.name, lineage=model.lineage, training_time_s=model.seconds)
    return finish(ctx, request, result)


def _train_on_conversations(ctx: RunContext, request: TrainRequest) -> RunResult:
    """`--mode native`: continue the base, or a new one from plain text, on the corpus; validate and promote."""
    params, ws = request.params, ctx.workspace
    if params.output:
        check_output_folder(Path(params.output), MODEL_FOLDER, hint="h2q-tui train --output NEW-FOLDER")
    name = params.model or in_use(ws)
    scratch = () if name else ("scratch",)
    plan = StagePlan(("corpus", *scratch, "native", "validate", "promote"), before=request.stages_before)
    with MemoryStore(ws.memory_db) as store:
        base = find_model(ws, name) if name else None
        texts = _base_texts(ctx, params) if base is None else existing_texts(load_card(base))
        if base is not None and params.data:
            ctx.log(
                _("--data is not used: {base} is continued, with the texts that it was made from").format(
                    base=base.name
                ),
                "warning",
            )
        new_texts = texts if base is None else []
        announce_work(ctx, _workload(TrainMode.NATIVE, params, texts=new_texts, conversations=store.count()))
        try:
            corpus = prepare_corpus(
                ctx, plan, store, base=base, min_pairs=params.min_corpus, resume=request.resume
            )
        except NotEnoughData as problem:
            result = TrainResult(
                "skipped",
                base=base.name if base else "",
                pairs=counted_pairs(store),
                error=str(problem),
            )
            return finish(ctx, request, result)
        budget, seconds = params.time_budget_s, 0.0
        announce_work(
            ctx,
            _workload(
                TrainMode.NATIVE,
                params,
                texts=new_texts,
                conversations=len(corpus.dataset.lineage.conversations),
                test=len(corpus.window.conversations),
            ),
        )
        if base is None:
            base, seconds = _new_base(ctx, plan, request, texts)
            if budget is not None:
                budget = max(budget - seconds, (1 - BASE_SHARE) * budget)
        question = own_question(store, corpus.window)
        model = _native_stage(ctx, plan, request, base, corpus.dataset, texts, budget, question)
        report = validate_candidate(
            ctx,
            plan,
            store,
            corpus.window,
            base=base,
            new=model.folder,
            texts=texts,
            replay_sample=corpus.replay_sample,
        )
    promoted = promote_if_better(
        ctx,
        plan,
        model.folder,
        report,
        newest_conversation=model.lineage.newest_conversation,
        allowed=params.promote,
    )
    result = TrainResult(
        status_of(report, promoted=promoted),
        base=base.name,
        new=model.folder.name,
        pairs=corpus.pairs,
        dataset=str(corpus.dataset.path),
        lineage=model.lineage,
        training_time_s=seconds + model.seconds,
        replayed=corpus.dataset.replayed,
        validation=report,
    )
    return finish(ctx, request, result)


def _workload(
    mode: TrainMode,
    params: TrainParams,
    *,
    texts: Sequence[Path] = (),
    conversations: int = 0,
    test: int = 0,
) -> Workload:
    return Workload(
        mode,
        conversations=conversations,
        test=test,
        text_bytes=sum(text.stat().st_size for text in texts),
        epochs=params.epochs,
        max_steps=params.max_steps,
        time_budget_s=params.time_budget_s,
    )


def _base_texts(ctx: RunContext, params: TrainParams) -> list[Path]:
    """Text for a first base: the user's own, else the shipped sample."""
    try:
        return find_text(params.data, ctx.workspace).files
    except NotEnoughData:
        ctx.log(_("no text of your own found: training the base on the shipped sample text"))
        return find_text([shipped("data") / "sample" / "text"], ctx.workspace).files


def _new_base(
    ctx: RunContext, plan: StagePlan, request: TrainRequest, texts: Sequence[Path]
) -> tuple[Path, float]:
    """Train a base for `_train_on_conversations`. Returns its folder and the seconds of training."""
    budget = request.params.time_budget_s
    folder = ctx.workspace.models / new_name(ctx.workspace, "scratch")
    model = _scratch_stage(ctx, plan, request, texts, folder, None if budget is None else BASE_SHARE * budget)
    return folder, model.seconds


def _scratch_stage(
    ctx: RunContext,
    plan: StagePlan,
    request: TrainRequest,
    texts: Sequence[Path],
    folder: Path,
    time_budget_s: float | None,
) -> TrainedModel:
    """Train a model on plain text. The first model of a workspace is promoted, as there is none to compare with."""
    recipe = recipe_for(request.params, Phase.SCRATCH, time_budget_s=time_budget_s, settings=ctx.settings)
    with plan.open(ctx, "scratch") as stage, outside_output(ctx.workspace, folder):
        began = time.monotonic()
        card = train_scratch(
            ctx,
            recipe,
            texts,
            name=folder.name,
            out=folder,
            resume=request.resume,
            free_memory=partial(free_service_memory, ctx.workspace),
        )
        seconds = time.monotonic() - began
        stage.detail = model_summary(card)
    if in_use(ctx.workspace) is None:
        promote(ctx.workspace, str(folder), description=_("the first model, from plain text"))
        ctx.log(_("{name} is the first model and is in use").format(name=card.name))
    list_outside(ctx.workspace, folder)
    return TrainedModel(folder, card.lineage, seconds)


def _native_stage(
    ctx: RunContext,
    plan: StagePlan,
    request: TrainRequest,
    base: Path,
    data: TrainingSet,
    texts: Sequence[Path],
    time_budget_s: float | None,
    question: str,
) -> TrainedModel:
    """Continue the native model in `base` on the corpus; `texts` are replayed, `question` is a held-out one."""
    params, ws = request.params, ctx.workspace
    folder = Path(params.output) if params.output else ws.models / new_name(ws, "native")
    recipe = recipe_for(params, Phase.NATIVE, time_budget_s=time_budget_s, settings=ctx.settings)
    with plan.open(ctx, "native") as stage, outside_output(ws, folder):
        began = time.monotonic()
        card = train_native(
            ctx,
            recipe,
            base,
            data,
            texts,
            name=folder.name,
            out=folder,
            resume=request.resume,
            free_memory=partial(free_service_memory, ws),
            question=question,
        )
        seconds = time.monotonic() - began
        stage.detail = model_summary(card)
    list_outside(ctx.workspace, folder)
    return TrainedModel(folder, card.lineage, seconds)
