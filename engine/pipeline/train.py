"""The whole loop as runs: corpus → training → validation → promotion (DESIGN 1).

Each `run_…` is the code of a run's kind. This page reads in the order of the data; the stages themselves are
in `engine.pipeline.stages`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import msgspec

from engine.core.config import told_settings
from engine.core.errors import BadInput, NotEnoughData
from engine.core.i18n import _
from engine.corpus import split
from engine.memory.store import MemoryStore
from engine.models.base_models import OLLAMA, find_base
from engine.models.native_format import load_card
from engine.models.registry import find_model, in_use
from engine.models.resolve import find_answering
from engine.pipeline.lora import lora_fits, train_adapter
from engine.pipeline.report import make_report, write_report, write_validation
from engine.pipeline.stages import (
    Course,
    base_texts,
    build_corpus,
    judge,
    prepare,
    put_to_use,
    resume_from,
    texts_of,
    train_base,
    train_on_corpus,
)
from engine.runs.context import Outcome, RunContext
from engine.runs.events import RunStatus
from engine.runs.spec import TrainMode, TrainParams, ValidateParams
from engine.training.text_files import find_text
from engine.validation.report import ValidationReport
from engine.validation.validate import card_of
from engine.workspace.backup import weekly_backup

STATUS_OF_DECISION = {"keep": "kept_base", "inconclusive": "inconclusive"}


def run_corpus(ctx: RunContext) -> Outcome:
    """Builds the corpus: collect, filters, review states, split."""
    with ctx.stage("corpus", 1, 1), MemoryStore(ctx.workspace.memory_db) as store:
        base = in_use(ctx.workspace)
        seen = load_card(find_model(ctx.workspace, base)).lineage.conversations if base else []
        funnel = build_corpus(ctx, store, frozenset(seen))
    return Outcome(RunStatus.DONE, result=funnel)


def run_validate(ctx: RunContext) -> Outcome:
    """Judges one model against another on the open test window."""
    params = ctx.params(ValidateParams)
    base, new = (_judgeable(ctx, name) for name in (params.base, params.new))
    card = card_of(base)
    texts = texts_of(card) if card is not None else []
    course = Course(TrainMode.NATIVE, "", 1, 1 + params.promote, base=base, new=new, texts=texts)
    with MemoryStore(ctx.workspace.memory_db) as store:
        window = split.current_window(store)
        if window is None:
            raise NotEnoughData(_("no conversations are kept back to judge on"), hint="h2q-tui corpus build")
        report = judge(ctx, store, course, window)
    if params.promote:
        put_to_use(ctx, course, report)
    path = write_validation(ctx.workspace, report)
    return Outcome(RunStatus.DONE, result=report.verdict, report=path)


def _judgeable(ctx: RunContext, name: str) -> Path:
    """What is judged: a model or adapter, a Hugging Face directory, or the file of an Ollama tag. Raises BadInput."""
    try:
        return find_answering(ctx.workspace, name)
    except BadInput:
        if name.startswith(OLLAMA):
            return find_base(ctx.workspace, name).path
        raise


def run_train(ctx: RunContext) -> Outcome:
    """The whole loop for one model, or plain-text training for `scratch`."""
    params = ctx.params(TrainParams)
    if params.config:
        ctx.workspace = replace(ctx.workspace, models_file=Path(params.config))
    with ctx.train_lock(wait=params.wait):
        return train(ctx, params)


def train(ctx: RunContext, params: TrainParams, *, stages_before: int = 0) -> Outcome:
    """`run_train` under the lock; the demo calls it after stages of its own."""
    resume = resume_from(ctx, params)  # an unknown run is said before anything is built
    mode, reason = choose_mode(ctx, params)
    ctx.log(_("mode {mode}: {reason}").format(mode=mode, reason=reason))
    if changed := told_settings(ctx.settings):
        ctx.log(_("settings in force: {settings}").format(settings=changed))
    course = Course(mode, reason, stage=stages_before + 1, stages=stages_before + 1, resume=resume)
    if mode is TrainMode.SCRATCH:
        train_base(ctx, params, course, find_text(params.data, ctx.workspace).files)
        return finish(ctx, course, "trained")
    if mode is TrainMode.LORA:
        return train_adapter(ctx, params, course, finish)
    base = params.model or in_use(ctx.workspace)
    course.stages += 3 if base else 4
    with MemoryStore(ctx.workspace.memory_db) as store:
        course.base = find_model(ctx.workspace, base) if base else None
        try:
            prepared = prepare(ctx, store, course, params.min_corpus)
        except NotEnoughData as too_little:
            return finish(ctx, course, "skipped", error=str(too_little))
        if course.base is None:
            train_base(ctx, params, course, base_texts(ctx, params))
        assert course.base is not None
        train_on_corpus(ctx, params, course, prepared.data)
        report = judge(ctx, store, course, prepared.window)
    promoted = put_to_use(ctx, course, report, allowed=params.promote)
    status = "promoted" if promoted else STATUS_OF_DECISION.get(report.verdict.decision, "kept_base")
    return finish(ctx, course, status, report)


def choose_mode(ctx: RunContext, params: TrainParams) -> tuple[TrainMode, str]:
    """The mode to train in and why, in words."""
    if params.mode is not TrainMode.AUTO:
        return params.mode, _("as asked")
    fits, reason = lora_fits(ctx, params)
    if fits:
        return TrainMode.LORA, reason
    words = _("the built-in model learns your conversations; nothing else is needed")
    return TrainMode.NATIVE, f"{words} ({reason})" if reason else words


def finish(
    ctx: RunContext,
    course: Course,
    status: str,
    validation: ValidationReport | None = None,
    *,
    error: str = "",
) -> Outcome:
    """Writes the report and ends the run."""
    rates = [
        rate for phase in ctx.view.phases for _step, rate in ctx.view.series(phase, "tokens_per_s").points()
    ]
    report = make_report(
        run_id=ctx.spec.run_id,
        started=course.started,
        ended=time.time(),
        mode=course.mode,
        mode_reason=course.mode_reason,
        base=course.base_name or (course.base.name if course.base else ""),
        new=course.new.name if course.new else "",
        status=status,
        pairs=course.pairs,
        dataset=course.dataset,
        training_time_s=course.training_time_s,
        peak_memory_mb=ctx.view.peak_memory_mb or 0.0,
        tokens_per_s=sorted(rates)[len(rates) // 2] if rates else 0.0,
        validation=validation,
        lineage=course.lineage,
        error=error,
        replayed=course.replayed,
        held_out=course.held_out,
    )
    path = write_report(ctx.workspace, report)
    weekly_backup(ctx.workspace)
    skipped = status == "skipped"
    return Outcome(
        RunStatus.SKIPPED if skipped else RunStatus.DONE,
        exit_code=NotEnoughData.exit_code if skipped else 0,
        result=msgspec.structs.replace(report, validation=None),
        report=path,
        error=error,
    )
