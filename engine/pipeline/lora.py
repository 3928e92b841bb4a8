"""The whole loop with an adapter: which base, which conversations, training, and what is said of the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from engine.core.errors import BadInput, H2QError, NotEnoughData, UsageProblem
from engine.core.i18n import _, n_
from engine.core.paths import Workspace, shipped
from engine.corpus.dataset import held_out
from engine.corpus.split import Window
from engine.export.gguf_adapter import write_gguf_copy
from engine.inference.client import make_room_sync
from engine.machine.budget import effective_budget
from engine.memory.store import MemoryStore
from engine.models.base_models import ADAPTER_CONFIG, Base, base_of_adapter, find_base
from engine.models.registry import find_model, in_use, new_name
from engine.pipeline.report import Pairs
from engine.pipeline.stages import Course, judge, prepare, put_to_use, resume_from, told
from engine.runs.context import Outcome, RunContext
from engine.runs.spec import TrainParams
from engine.training.lora.files import FileDataset, read_files
from engine.training.lora.fit import fit
from engine.training.lora.train import train_lora
from engine.training.native import TrainingDataset
from engine.training.recipe import Phase, recipe_for
from engine.validation.report import ValidationReport
from engine.validation.validate import loss_on, validate

Finish = Callable[..., Outcome]
"""`engine.pipeline.train.finish`."""
STATUS_OF_DECISION = {"keep": "kept_base", "inconclusive": "inconclusive"}


def train_adapter(ctx: RunContext, params: TrainParams, course: Course, finish: Finish) -> Outcome:
    """`train --mode lora`: an adapter from the corpus, judged and promoted, or from the files of `--data`."""
    base = chosen_base(ctx.workspace, params, ctx.settings.lora_base)
    course.base = base.adapter or base.path
    course.base_name = base.adapter.name if base.adapter is not None else base.name
    course.texts = sorted(ctx.workspace.training_data.glob("*.txt"))
    if params.data:
        return _from_files(ctx, params, course, base, finish)
    course.stages += 3
    with MemoryStore(ctx.workspace.memory_db) as store:
        try:
            prepared = prepare(ctx, store, course, params.min_corpus)
        except NotEnoughData as too_little:
            return finish(ctx, course, "skipped", error=str(too_little))
        _train(ctx, params, course, base, prepared.data)
        report = judge(ctx, store, course, prepared.window)
        allowed = params.promote and _beats_model_in_use(ctx, course, report, store, prepared.window)
    promoted = put_to_use(ctx, course, report, allowed=allowed)
    status = "promoted" if promoted else STATUS_OF_DECISION.get(report.verdict.decision, "kept_base")
    return finish(ctx, course, status, report)


def chosen_base(ws: Workspace, params: TrainParams, configured: str) -> Base:
    """What the adapter is to stand on: `--model`, else the adapter in use (which is continued), else the setting.

    Raises UsageProblem when none of them is there, BadInput for a broken one.
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
    """Whether `auto` means lora, and why or why not; "" when no base is configured. Files decide, nothing is loaded."""
    configured = ctx.settings.lora_base
    if not configured or params.data:
        return False, ""
    try:
        base = chosen_base(ctx.workspace, params, configured)
        gigabytes = params.max_memory_gb or ctx.settings.max_memory_gb
        recipe = recipe_for(params, Phase.LORA, settings=ctx.settings)
        found = fit(
            base,
            recipe.adapter,
            effective_budget(gigabytes),
            context=recipe.stretches[-1].context,
            four_bit=False,
            bf16_fast=True,
        )
    except H2QError as problem:
        return False, _("no lora: {reason}").format(reason=problem.message)
    return True, _("the base {name} is configured and fits: about {need} MB").format(
        name=base.name, need=round(found.need_mb)
    )


def _train(ctx: RunContext, params: TrainParams, course: Course, base: Base, data: TrainingDataset) -> None:
    ws = ctx.workspace
    name = new_name(ws, "lora")
    if params.output:
        folder = Path(params.output)
    elif params.training_dir:
        folder = Path(params.training_dir) / name
    else:
        folder = ws.adapters / name
    if folder.exists() and not (folder / ADAPTER_CONFIG).is_file() and any(folder.iterdir()):
        raise UsageProblem(
            _("{path} holds something else than an adapter, which would be lost").format(path=folder),
            hint="h2q-tui train --mode lora --output DIR",
        )
    recipe = recipe_for(params, Phase.LORA, time_budget_s=params.time_budget_s, settings=ctx.settings)
    general = list(course.texts) or sorted((shipped("data") / "general").glob("*.txt"))
    with ctx.stage("lora", course.next_stage(), course.stages) as stage:
        began = time.monotonic()
        card = train_lora(
            ctx,
            recipe,
            base,
            data,
            general=general,
            name=folder.name,
            out=folder,
            resume=resume_from(ctx, params),
            add_files=partial(write_gguf_copy, base=base.path, name=folder.name) if base.is_gguf else None,
            free_memory=partial(make_room_sync, ws),
        )
        course.training_time_s += time.monotonic() - began
        course.lineage = card.lineage
        stage.detail = told(card)
    course.new = folder


def _from_files(ctx: RunContext, params: TrainParams, course: Course, base: Base, finish: Finish) -> Outcome:
    """Files of conversations: nothing filters them, and a part held out by hash says what was learnt; no verdict."""
    course.stages += 2
    with ctx.stage("corpus", course.next_stage(), course.stages) as stage:
        data = read_files([Path(file) for file in params.data], ctx.workspace.training, ctx.spec.run_id)
        pairs = data.train_answers + data.test_answers
        course.pairs = Pairs(
            collected=pairs, filtered=pairs, train=data.train_answers, test=data.test_answers
        )
        course.dataset, course.lineage = str(data.path), data.lineage
        stage.detail = _file_words(data)
        ctx.log(
            _("the files are trained on as they are: no filter looks at them, and there will be no verdict")
        )
        if data.train_answers < params.min_corpus:
            text = _("{have} pairs are there to train on, {need} are needed").format(
                have=data.train_answers, need=params.min_corpus
            )
            problem = NotEnoughData(text, hint=f"h2q-tui train --min-corpus {max(1, data.train_answers)}")
            stage.skip(text)
            return finish(ctx, course, "skipped", error=str(problem))
    _train(ctx, params, course, base, data)
    assert course.base is not None and course.new is not None
    with ctx.stage("validate", course.next_stage(), course.stages) as stage:
        found = loss_on(ctx.workspace, data.held_out, course.base, course.new)
        course.held_out = found
        if found is not None:
            stage.detail = _(
                "held out by hash: {count} conversations, {before:.3f} nats per byte before, {after:.3f} after"
            ).format(count=found.conversations, before=found.before, after=found.after)
    ctx.log(
        _("to use it: {command}").format(command=f"h2q-tui promote {_known_as(ctx.workspace, course.new)}")
    )
    return finish(ctx, course, "trained")


def _beats_model_in_use(
    ctx: RunContext, course: Course, report: ValidationReport, store: MemoryStore, window: Window
) -> bool:
    """Where another model is in use than the base, the adapter must be better than that one, too."""
    assert course.base is not None and course.new is not None
    used = in_use(ctx.workspace)
    if report.verdict.decision != "promote" or used is None or used == course.base_name:
        return True
    try:
        other = find_model(ctx.workspace, used)
    except BadInput:
        return True
    again = validate(
        ctx,
        held_out(store, window.id),
        base=other,
        new=course.new,
        window_id=window.id,
        look=report.verdict.look,
        dated=window.dated,
        texts={},
    )
    ctx.log(
        _("against {name}, which is in use: {sentence}").format(name=used, sentence=again.verdict.sentence)
    )
    return again.verdict.decision == "promote"


def _known_as(ws: Workspace, folder: Path) -> str:
    return folder.name if folder.parent == ws.adapters else str(folder)


def _file_words(data: FileDataset) -> str:
    kept, back = len(data.lineage.conversations), len(data.held_out)
    words = n_(
        "{n} conversation to train on, {back} held out by hash",
        "{n} conversations to train on, {back} held out by hash",
        kept,
    ).format(n=kept, back=back)
    if not data.skipped:
        return words
    left = n_("{n} row left out", "{n} rows left out", data.skipped).format(n=data.skipped)
    return f"{words}; {left}"
