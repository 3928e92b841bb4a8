"""The stages of a training run, each journalled: corpus, scratch, native, validate, promote.

A stage takes what the ones before it found from the `Course` and leaves there what it found itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from engine.core.config import load_settings
from engine.core.errors import NotEnoughData
from engine.core.i18n import _, n_
from engine.core.paths import shipped
from engine.corpus import build, dataset, split
from engine.corpus.dataset import HeldOut
from engine.corpus.dedup.semantic import by_meaning
from engine.corpus.funnel import pair_counts
from engine.inference.client import make_room_sync
from engine.memory.data_source import MemoryAdapter
from engine.memory.store import MemoryStore
from engine.models.card import Lineage, ModelCard
from engine.models.native_format import load_card
from engine.models.promotion import promote
from engine.models.registry import in_use, new_name
from engine.pipeline.report import Pairs
from engine.runs.context import RunContext
from engine.runs.events import Funnel, Plan, Promoted, VerdictGiven
from engine.runs.resume import run_with_checkpoints
from engine.runs.spec import TrainMode, TrainParams
from engine.training.native import train_native
from engine.training.recipe import Phase, recipe_for
from engine.training.replay import sample_of_older
from engine.training.scratch import train_scratch
from engine.training.text_files import find_text, general_tail
from engine.validation.report import Forgetting, ValidationReport
from engine.validation.reports import newest_report
from engine.validation.validate import card_of, validate
from engine.validation.verdict import relative_deviation, visible_gain

BASE_SHARE = 0.6
"""Share of a time budget that a base from plain text takes when there is none yet."""


@dataclass
class Course:
    """Where a training run stands: what its stages found, for the stages after them and for the report."""

    mode: TrainMode
    mode_reason: str
    stage: int
    stages: int
    started: float = field(default_factory=time.time)
    pairs: Pairs = field(default_factory=Pairs)
    base: Path | None = None
    base_name: str = ""
    """What the report calls the base; "": as its folder."""
    new: Path | None = None
    texts: Sequence[Path] = ()
    dataset: str = ""
    training_time_s: float = 0.0
    lineage: Lineage = field(default_factory=Lineage)
    replayed: int = 0
    """Conversations of the dataset that the base has learnt already."""
    older: Sequence[HeldOut] = ()
    """A sample of them, to see what is forgotten."""
    held_out: Forgetting | None = None
    resume: Path | None = None
    """Folder of the run that is gone on with."""

    def next_stage(self) -> int:
        self.stage += 1
        return self.stage - 1


@dataclass(frozen=True)
class Prepared:
    """The corpus of one run: its open test window and the dataset of all else."""

    window: split.Window
    data: dataset.Dataset


def build_corpus(ctx: RunContext, store: MemoryStore, seen: frozenset[str]) -> Funnel:
    """Collect and filter; journals how many came in and how many left at each stage."""

    def progress(done: int, total: int) -> None:
        ctx.check_stop()
        ctx.progress("corpus", done, total, unit=_("conversations"))

    def embedded(done: int, total: int) -> None:
        ctx.check_stop()
        ctx.progress("meaning", done, total, unit=_("conversations"))

    settings = load_settings(ctx.workspace)
    meaning = partial(
        by_meaning, setting=settings.embedder, root=ctx.workspace.root, say=ctx.log, on_progress=embedded
    )
    funnel = build.build_corpus(store, settings, on_progress=progress, trained=seen, by_meaning=meaning)
    ctx.emit(funnel)
    return funnel


def prepare(ctx: RunContext, store: MemoryStore, course: Course, min_corpus: int) -> Prepared:
    """Corpus, test window and dataset; says before training whether a verdict will be possible.

    Raises NotEnoughData below `min_corpus` accepted pairs, and when no conversation can be kept back; no
    window is opened then.
    """
    with ctx.stage("corpus", course.next_stage(), course.stages) as stage:
        card = card_of(course.base) if course.base else None
        base = card.lineage if card else Lineage()
        seen = frozenset(base.conversations)
        funnel = build_corpus(ctx, store, seen)
        pairs = pair_counts(store)
        course.pairs = Pairs(collected=pairs.collected, filtered=pairs.accepted)
        if pairs.accepted < min_corpus:
            raise too_small(pairs.accepted, min_corpus, funnel)
        begun = _begun_with(ctx, course)
        window = split.open_window(store, time.time(), trained=seen | begun)
        if not window.conversations:
            raise NotEnoughData(
                _("the corpus is too small to keep conversations back to judge on"),
                hint="h2q-tui memory import ~/Downloads",
            )
        split.assert_no_overlap(store, window)
        data = dataset.write_dataset(store, ctx.workspace, ctx.spec.run_id, base_lineage=base, only=begun)
        if begun:
            ctx.log(
                n_(
                    "goes on with the {n} conversation that it began with; what came since waits for the next run",
                    "goes on with the {n} conversations that it began with; what came since waits for the next run",
                    len(data.conversations),
                ).format(n=len(data.conversations))
            )
        course.pairs = Pairs(
            collected=pairs.collected, filtered=pairs.accepted, train=data.pairs, test=pair_counts(store).test
        )
        course.dataset, course.lineage = str(data.path), data.lineage
        course.replayed = data.report.replayed
        course.older = sample_of_older(data.path, seen)
        plan = plan_for(window, data, _deviation_seen(ctx))
        ctx.emit(plan)
        stage.detail = plan.text
    return Prepared(window, data)


def _begun_with(ctx: RunContext, course: Course) -> frozenset[str]:
    """The conversations that the run which is gone on with had begun to learn; what came later waits for the next."""
    if course.resume is None:
        return frozenset()
    return dataset.ids_of(dataset.dataset_path(ctx.workspace, course.resume.name))


def too_small(have: int, need: int, funnel: Funnel) -> NotEnoughData:
    """What is there, what waits for review and what could come back."""
    text = _(
        "{have} accepted pairs are there, {need} are needed; {pending} conversations wait for review and "
        "{dropped} that filters left out can be restored"
    ).format(have=have, need=need, pending=funnel.pending, dropped=sum(funnel.dropped.values()))
    return NotEnoughData(text, hint="h2q-tui memory import ~/Downloads")


def plan_for(window: split.Window, data: dataset.Dataset, deviation: float | None) -> Plan:
    """Whether a verdict will be possible, and how small a gain it could see."""
    gain = visible_gain(len(window.clusters), deviation=deviation, look=window.looks + 1)
    return Plan(
        text=gain.sentence,
        pairs=data.pairs,
        train_conversations=len(data.conversations),
        test_conversations=len(window.conversations),
        test_clusters=len(window.clusters),
        verdict_possible=gain.possible,
        visible_gain=gain.relative,
    )


def _deviation_seen(ctx: RunContext) -> float | None:
    """How much the gain varied between clusters in the last validation here; None without one."""
    last = newest_report(ctx.workspace)
    return relative_deviation(last) if last else None


def base_texts(ctx: RunContext, params: TrainParams) -> list[Path]:
    """Text for a first base: the person's own, else the sample that ships, which the log then says."""
    try:
        return find_text(params.data, ctx.workspace).files
    except NotEnoughData:
        ctx.log(
            _("no text of your own is there: the base learns the sample text that ships with the program")
        )
        return find_text([shipped("data") / "sample" / "text"], ctx.workspace).files


def train_base(ctx: RunContext, params: TrainParams, course: Course, texts: Sequence[Path]) -> None:
    """A model from scratch on plain text; the first one of a workspace is put to use, as there is none to beat."""
    ws, alone = ctx.workspace, course.mode is TrainMode.SCRATCH
    folder = Path(params.output) if params.output and alone else ws.models / new_name(ws, "scratch")
    budget = (
        params.time_budget_s if alone or params.time_budget_s is None else BASE_SHARE * params.time_budget_s
    )
    recipe = recipe_for(params, Phase.SCRATCH, time_budget_s=budget, settings=ctx.settings)
    with ctx.stage("scratch", course.next_stage(), course.stages) as stage:
        began = time.monotonic()
        card = train_scratch(
            ctx,
            recipe,
            texts,
            name=folder.name,
            out=folder,
            resume=resume_from(ctx, params),
            free_memory=partial(make_room_sync, ws),
        )
        course.training_time_s += time.monotonic() - began
        stage.detail = told(card)
    course.texts = texts
    if alone:
        course.new, course.lineage = folder, card.lineage
    else:
        course.base = folder
    if in_use(ws) is None:
        promote(ws, str(folder), description=_("the first model, from plain text"))
        ctx.log(_("{name} is the first model and is in use").format(name=card.name))


def train_on_corpus(ctx: RunContext, params: TrainParams, course: Course, data: dataset.Dataset) -> None:
    """The native model on the corpus, continuing the base."""
    assert course.base is not None
    ws = ctx.workspace
    folder = Path(params.output) if params.output else ws.models / new_name(ws, "native")
    course.texts = course.texts or texts_of(load_card(course.base))
    budget = params.time_budget_s
    if budget is not None and course.training_time_s:
        budget = max(budget - course.training_time_s, (1 - BASE_SHARE) * budget)
    recipe = recipe_for(params, Phase.NATIVE, time_budget_s=budget, settings=ctx.settings)
    with ctx.stage("native", course.next_stage(), course.stages) as stage:
        began = time.monotonic()
        card = train_native(
            ctx, recipe, course.base, data, course.texts,
            name=folder.name, out=folder, resume=resume_from(ctx, params),
            free_memory=partial(make_room_sync, ws),
        )  # fmt: skip
        course.training_time_s += time.monotonic() - began
        course.lineage = card.lineage
        stage.detail = told(card)
    course.new = folder


def resume_from(ctx: RunContext, params: TrainParams) -> Path | None:
    """Folder of the run that `--resume` names, or of the one that it went on from. Raises BadInput for an unknown one."""
    return run_with_checkpoints(ctx.workspace, params.resume).path if params.resume else None


def texts_of(card: ModelCard) -> list[Path]:
    """The scratch texts that a model learnt and that are still there."""
    return [Path(path) for path in card.lineage.texts if Path(path).is_file()]


def told(card: ModelCard) -> str:
    """A new model in one sentence."""
    loss = _("unknown") if card.loss is None else f"{card.loss:.3f}"
    words = (
        _("{name}: {n} tokens seen, loss {loss}")
        if card.base_path
        else _("{name}: {n} bytes seen, loss {loss}")
    )
    return words.format(name=card.name, n=f"{card.train_bytes:,}", loss=loss)


def judge(ctx: RunContext, store: MemoryStore, course: Course, window: split.Window) -> ValidationReport:
    """The verdict of new against base on the window; one more look at it is counted first."""
    assert course.base is not None and course.new is not None
    with ctx.stage("validate", course.next_stage(), course.stages) as stage:
        report = validate(
            ctx,
            dataset.held_out(store, window.id),
            base=course.base,
            new=course.new,
            window_id=window.id,
            look=split.count_look(store, window.id),
            dated=window.dated,
            texts={path.name: general_tail(path) for path in course.texts},
            older=course.older,
        )
        verdict = report.verdict
        stage.detail = verdict.sentence
    if report.forgetting is not None:
        ctx.log(forgetting_words(report.forgetting))
    ctx.emit(
        VerdictGiven(
            base=verdict.base.name,
            new=verdict.new.name,
            decision=verdict.decision,
            sentence=verdict.sentence,
            verdict=msgspec.Raw(msgspec.json.encode(verdict)),
        )
    )
    return report


def forgetting_words(found: Forgetting) -> str:
    """How far older conversations are forgotten, in one sentence with bits per byte."""
    before, after = found.before / math.log(2), found.after / math.log(2)
    return n_(
        "forgetting: {n} older conversation, {before} bits per byte before, {after} after ({change})",
        "forgetting: {n} older conversations, {before} bits per byte before, {after} after ({change})",
        found.conversations,
    ).format(
        n=found.conversations,
        before=f"{before:.3f}",
        after=f"{after:.3f}",
        change=f"{100 * found.increase:+.1f} %",
    )


def put_to_use(ctx: RunContext, course: Course, report: ValidationReport, *, allowed: bool = True) -> bool:
    """Promotes the new model when the verdict says so; whether it did."""
    assert course.new is not None
    index = course.next_stage()
    with ctx.stage("promote", index, course.stages) as stage:
        if report.verdict.decision != "promote" or not allowed:
            stage.skip(
                _("the model in use stays")
                if allowed
                else _("the new model waits: h2q-tui promote {name}").format(name=course.new.name)
            )
            return False
        done = promote(ctx.workspace, str(course.new), description=report.verdict.sentence)
        newest = course.lineage.newest_conversation
        if newest is not None:
            MemoryAdapter(ctx.workspace).update_last_train_time(datetime.fromtimestamp(newest, UTC))
        stage.detail = _("{name} is in use; h2q-tui rollback takes it back").format(name=done.name)
        ctx.emit(Promoted(name=done.name, previous=done.previous, backup=done.backup))
        return True
