"""`h2q-tui evolve`: measure the champion, make material, train a candidate, measure both alike, keep the better one.

A cycle reads from top to bottom in `Evolving.cycle`. What decides is the verdict of DESIGN §8 alone; the
canary can only forbid. A candidate that loses leaves its row in the statistics and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from engine.corpus import dataset as corpus_dataset
from engine.errors import NotEnoughData, UsageProblem
from engine.evolution import canary
from engine.evolution.batches import FlooredBatches
from engine.evolution.dataset import Mixed, mix
from engine.evolution.held import all_held_back
from engine.evolution.made import REAL_FLOOR
from engine.evolution.measuring import Measured, measure
from engine.evolution.record import Record
from engine.evolution.report import (
    EvolutionReport,
    correction,
    cycle_event,
    improvement_of,
    material_words,
    row_of,
    status_of,
    write_report,
)
from engine.evolution.state import OpenCycle
from engine.evolution.stats import FILE, CycleRow
from engine.i18n import _, n_
from engine.inference.torch_backend import NativeModel
from engine.memory.store import MemoryStore
from engine.models.card import ModelCard
from engine.models.directory import load_card, load_model
from engine.models.registry import find_model, in_use
from engine.report import write_validation
from engine.runs.context import Outcome, RunContext
from engine.runs.events import RunStatus
from engine.runs.spec import EvolveParams, TrainMode, TrainParams
from engine.stages import Course, Prepared, judge, prepare, put_to_use, texts_of, told
from engine.training.native import train_native
from engine.training.settings import Phase, recipe_for
from engine.validation.power import MIN_CLUSTERS
from engine.validation.promotion import promote
from engine.validation.report import ValidationReport

STAGES = 6
"""Stages of a cycle: measure, material, native, validate, canary, promote."""
LR = 0.004
"""Peak rate of a candidate: below that of a first training, because it goes on from a model that has learnt."""


def run(ctx: RunContext) -> Outcome:
    """The code of the run kind `evolve`."""
    params = ctx.params(EvolveParams)
    check(params)
    with ctx.train_lock(wait=params.wait), MemoryStore(ctx.workspace.memory_db) as store:
        return Evolving(ctx, params, store).all()


def check(params: EvolveParams) -> None:
    """Raises UsageProblem in the words of the flag."""
    if params.cycles < 1:
        raise UsageProblem(_("--cycles takes 1 or more, not {value}").format(value=params.cycles))
    if not REAL_FLOOR <= params.real_share <= 1:
        raise UsageProblem(
            _("--real-share takes {floor} to 1, not {value}: at least half of what is learnt is real").format(
                floor=REAL_FLOOR, value=params.real_share
            ),
            mend="h2q-tui evolve --real-share 0.7",
        )


class Evolving:
    """One run: what its cycles share."""

    def __init__(self, ctx: RunContext, params: EvolveParams, store: MemoryStore) -> None:
        self.ctx, self.params, self.store = ctx, params, store
        self.ws = ctx.workspace
        self.record = Record(ctx, params)
        self.canaries = canary.load_set()
        self.known: dict[str, Measured] = {}
        """Measured models by the hash of their weights."""

    def all(self) -> Outcome:
        """Every cycle that is still to come, and the report.

        Raises NotEnoughData without a model in use, below `min_corpus`, or without enough to judge on.
        """
        champion = in_use(self.ws)
        if champion is None:
            raise NotEnoughData(
                _("evolution goes on from the model in use, and there is none yet"), mend="h2q-tui train"
            )
        state = self.record.state
        state.first = state.first or champion
        course = self._course(0, champion)
        self.prepared: Prepared = prepare(self.ctx, self.store, course, self.params.min_corpus)
        stopped = ""
        try:
            self._refuse_small()
            window = self.prepared.window
            self.held = corpus_dataset.held_out(self.store, window.id)
            self.held_text = all_held_back(self.store, self.held, course.texts, self.canaries.texts)
            self.ctx.log(correction(window.looks, self.params.cycles - len(state.rows)))
            while len(state.rows) < self.params.cycles and not stopped:
                stopped = self._out_of_time() or self.cycle(len(state.rows) + 1)
        finally:
            # The datasets of the cycles hold its rows; this one was only their source.
            self.prepared.data.path.unlink(missing_ok=True)
        return self._finish(stopped)

    def cycle(self, number: int) -> str:
        """One cycle. Returns why no other one may follow, "" when one may."""
        used = in_use(self.ws)
        assert used is not None
        old = self.record.state.open
        if old is not None and old.row is not None:
            return self._carry_out(old, old.row)
        open_ = self.record.open(number, used, self.prepared.window.id)
        course = self._course(number, used)
        course.new = self.ws.models / open_.candidate
        self._tell(open_, "began")

        champion = self._measure(course)
        first = self.record.first_canary(champion)
        if warnings := canary.collapse(champion.canary, first):
            return self._refuse_to_begin(open_, warnings)
        mixed = self._material(open_, course)
        card = self._train(open_, course, mixed)
        report = self._judge(course)
        candidate = self._canary(course, report)
        warnings = canary.collapse(candidate.canary, first)

        row = row_of(
            open_,
            report,
            champion,
            candidate,
            run_id=self.ctx.spec.run_id,
            train_loss=card.loss,
            warnings=warnings,
            seconds=self.record.cycle_seconds(open_),
        )
        self.record.settle(open_, row)
        if row.kept:
            course.lineage = card.lineage
            put_to_use(self.ctx, course, report)
        else:
            self._drop(open_, course, warnings)
        return self._close(open_, row)

    # The steps of a cycle

    def _measure(self, course: Course) -> Measured:
        """The champion on the window and the canary; once for the same weights."""
        assert course.base is not None
        sha256 = load_card(course.base).weights_sha256
        with self.ctx.stage("measure", course.next_stage(), course.stages) as stage:
            if sha256 not in self.known:
                self.known[sha256] = measure(
                    course.base, self.held, self.canaries, step=self._steps("measure")
                )
            found = self.known[sha256]
            stage.detail = _("{name}: perplexity {perplexity} on what is kept back").format(
                name=found.name, perplexity="–" if found.perplexity is None else f"{found.perplexity:.3f}"
            )
        return found

    def _material(self, open_: OpenCycle, course: Course) -> Mixed:
        """The cycle's dataset; one that a killed run has written is taken as it is."""
        assert course.base is not None
        lineage = self.prepared.data.lineage
        with self.ctx.stage("material", course.next_stage(), course.stages) as stage:
            if open_.material is not None and self.record.dataset_is_whole(open_):
                mixed = Mixed.of(Path(open_.dataset), open_.dataset_sha256, lineage, open_.material)
            else:
                mixed = mix(
                    self.prepared.data.path,
                    lineage,
                    course.texts,
                    self.held_text,
                    NativeModel(load_model(course.base)[0]),
                    self.ws.training / f"train_data_{open_.candidate}.jsonl",
                    real_share=self.params.real_share,
                    answers=self.params.answers,
                    seed=self.params.seed * 1009 + open_.cycle,
                    step=self._steps("material"),
                )
                open_.dataset, open_.dataset_sha256 = str(mixed.path), mixed.sha256
                open_.material = mixed.figures
                self.record.save()
            stage.detail = material_words(mixed.figures)
        return mixed

    def _train(self, open_: OpenCycle, course: Course, mixed: Mixed) -> ModelCard:
        """The candidate; one that a killed run has finished is taken as it is."""
        assert course.base is not None and course.new is not None
        params = self.params
        asked = TrainParams(
            epochs=params.epochs,
            max_steps=params.max_steps,
            lr=params.lr or LR,
            batch_size=params.batch_size,
            context=params.context,
            max_memory_gb=params.max_memory_gb,
            seed=params.seed + open_.cycle,
            checkpoint_every_s=params.checkpoint_every_s,
            time_budget_s=self.record.training_seconds(open_.cycle),
        )
        with self.ctx.stage("native", course.next_stage(), course.stages) as stage:
            card = self.record.finished_candidate(open_)
            drawn: list[FlooredBatches] = []

            def batches(*arguments: Any) -> FlooredBatches:
                drawn.append(FlooredBatches(*arguments))
                return drawn[-1]

            if card is None:
                card = train_native(
                    self.ctx,
                    recipe_for(asked, Phase.NATIVE),
                    course.base,
                    mixed,
                    course.texts,
                    name=open_.candidate,
                    out=course.new,
                    resume=self.record.trains_here(open_),
                    batches=batches,
                )
            if drawn and open_.material is not None:
                least = min(drawn[0].shares())
                open_.material = msgspec.structs.replace(open_.material, least_batch_share=least)
            stage.detail = told(card)
        return card

    def _judge(self, course: Course) -> ValidationReport:
        """The verdict of candidate against champion: one more look at the window. Its report stays."""
        assert course.new is not None
        report = judge(self.ctx, self.store, course, self.prepared.window)
        write_validation(self.ws, msgspec.structs.replace(report, run_id=course.new.name))
        return report

    def _canary(self, course: Course, report: ValidationReport) -> Measured:
        """The candidate's answers and canary; its perplexity stands in the verdict."""
        assert course.new is not None
        nll = report.verdict.new.nll_per_byte
        with self.ctx.stage("canary", course.next_stage(), course.stages):
            found = measure(
                course.new,
                self.held,
                self.canaries,
                perplexity=math.exp(min(nll, 50.0)) if nll is not None else None,
                step=self._steps("canary"),
            )
        self.known[found.weights_sha256] = found
        return found

    def _drop(self, open_: OpenCycle, course: Course, warnings: list[str]) -> None:
        with self.ctx.stage("promote", course.next_stage(), course.stages) as stage:
            self.record.clear(open_)
            why = "; ".join(warnings) or _("the candidate is not shown to be better")
            stage.skip(
                _("{champion} stays: {why}; {candidate} is removed").format(
                    champion=open_.champion, why=why, candidate=open_.candidate
                )
            )

    # What belongs to the cycles together

    def _course(self, number: int, champion: str) -> Course:
        """Where the stages of a cycle stand among all; cycle 0 is the corpus before the first one."""
        folder = find_model(self.ws, champion)
        course = Course(
            TrainMode.NATIVE,
            "",
            stage=2 + STAGES * (number - 1) if number else 1,
            stages=1 + STAGES * self.params.cycles,
            base=folder,
        )
        course.texts = texts_of(load_card(folder))
        return course

    def _refuse_small(self) -> None:
        have = len(self.prepared.window.clusters)
        if have < MIN_CLUSTERS:
            raise NotEnoughData(
                n_(
                    "{have} group of conversations is kept back, {needed} are needed to judge a candidate",
                    "{have} groups of conversations are kept back, {needed} are needed to judge a candidate",
                    have,
                ).format(have=have, needed=MIN_CLUSTERS),
                mend="h2q-tui memory import ~/Downloads",
            )

    def _out_of_time(self) -> str:
        if not self.record.time_is_up:
            return ""
        return _("the time is up after {n} of {cycles} cycles").format(
            n=len(self.record.state.rows), cycles=self.params.cycles
        )

    def _carry_out(self, open_: OpenCycle, row: CycleRow) -> str:
        """Ends a cycle whose outcome an earlier process wrote down and may not have carried out."""
        if not row.kept:
            self.record.clear(open_)
        elif in_use(self.ws) != open_.candidate:
            promote(self.ws, open_.candidate, description=row.sentence)
        return self._close(open_, row)

    def _close(self, open_: OpenCycle, row: CycleRow) -> str:
        """Into the books. Returns why no other cycle may follow, "" when one may."""
        self.record.close(open_, row)
        self._tell(open_, "kept" if row.kept else "collapsed" if row.warnings else "dropped", row)
        if not row.warnings:
            return ""
        return _("the candidate of cycle {n} collapses: {why}; evolution stops").format(
            n=row.cycle, why="; ".join(row.warnings)
        )

    def _refuse_to_begin(self, open_: OpenCycle, warnings: list[str]) -> str:
        """The champion itself is worse than the canary allows: no candidate of it can be better for it."""
        self.record.clear(open_)
        self.record.state.open = None
        self.record.save()
        why = _("{champion} collapses: {why}; evolution stops").format(
            champion=open_.champion, why="; ".join(warnings)
        )
        self._tell(open_, "collapsed", reason=why)
        return why

    def _steps(self, stage: str) -> Callable[[int, int], None]:
        def step(done: int, total: int) -> None:
            self.ctx.check_stop()
            self.ctx.progress(stage, done, total)

        return step

    def _tell(self, open_: OpenCycle, state: str, row: CycleRow | None = None, reason: str = "") -> None:
        self.ctx.emit(cycle_event(open_, self.params.cycles, state, row, reason))

    def _finish(self, stopped: str) -> Outcome:
        state = self.record.state
        if stopped:
            self.ctx.log(stopped, "warning")
        report = EvolutionReport(
            run_id=self.ctx.spec.run_id,
            base_model=state.first,
            new_model=in_use(self.ws) or "",
            status=status_of(state.rows, stopped),
            cycles=state.rows,
            improvement=improvement_of(state.rows),
            stopped=stopped,
            correction=correction(self.prepared.window.looks, len(state.rows) or 1),
            seconds=round(self.record.seconds, 1),
            peak_memory_mb=round(self.ctx.view.peak_memory_mb or 0.0, 1),
            stats=str(self.ws.root / FILE),
        )
        return Outcome(RunStatus.DONE, result=report, report=write_report(self.ws, report))
