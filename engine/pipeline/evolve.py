"""The run kind `evolve`: measure the champion, mix a dataset, train a candidate, measure it alike, keep the better one.

`EvolutionRun.cycle` reads from top to bottom. Only the verdict of the validation promotes a candidate; the canary
can only overrule it. A candidate that loses leaves nothing but its row in the statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from engine.core.errors import NotEnoughData, UsageProblem
from engine.core.i18n import _, n_
from engine.corpus import dataset as corpus_dataset
from engine.corpus.dataset import DatasetRow
from engine.corpus.training_set import held_out_rows
from engine.evolution import canary
from engine.evolution.bookkeeping import EvolutionRecord, OpenCycle
from engine.evolution.evaluation import MAX_NLL, ModelMeasurement, measure_model, perplexity_at
from engine.evolution.held_out_guard import HeldOutText, load_held_out_text
from engine.evolution.mixture import MixedBatches, MixedDataset, write_mixed_dataset
from engine.evolution.report import (
    EvolutionReport,
    correction,
    cycle_event,
    cycle_row,
    dataset_summary,
    improvement_of,
    self_answer_summary,
    status_of,
    write_report,
)
from engine.evolution.stats import FILE, CycleRow
from engine.evolution.synthetic import REAL_FLOOR
from engine.inference.client import free_service_memory
from engine.inference.loader import open_language_model
from engine.memory.store import MemoryStore
from engine.models.card import ModelCard, load_card
from engine.models.registry import find_model, in_use, promote
from engine.pipeline.corpus import PreparedCorpus, prepare_corpus
from engine.pipeline.own_question import own_question
from engine.pipeline.promote import promote_if_better
from engine.pipeline.report import iso_local_time, write_validation
from engine.pipeline.stages import StagePlan, existing_texts, model_summary
from engine.pipeline.validate import validate_candidate
from engine.runs.context import RunContext, RunResult
from engine.runs.events import RunStatus
from engine.runs.kinds import EvolveParams, TrainParams
from engine.training.native import train_native
from engine.training.recipe import Phase, recipe_for
from engine.validation.report import ValidationReport
from engine.validation.sequential import MIN_CLUSTERS

STAGES = ("measure", "material", "native", "validate", "canary", "promote")
"""Stages of a cycle."""
LR = 0.004
"""Peak learning rate of a candidate; lower than in a first training, because it continues a trained model."""


def run(ctx: RunContext) -> RunResult:
    """Entry point of the run kind `evolve`."""
    params = ctx.params(EvolveParams)
    check_params(params)
    with ctx.train_lock(wait=params.wait), MemoryStore(ctx.workspace.memory_db) as store:
        return EvolutionRun(ctx, params, store).run()


def check_params(params: EvolveParams) -> None:
    """Raises UsageProblem that names the flag."""
    if params.cycles < 1:
        raise UsageProblem(_("--cycles must be 1 or more, not {value}").format(value=params.cycles))
    if not REAL_FLOOR <= params.real_share <= 1:
        raise UsageProblem(
            _(
                "--real-share must be from {floor} to 1, not {value}: at least half of the training data is real"
            ).format(floor=REAL_FLOOR, value=params.real_share),
            hint="h2q-tui evolve --real-share 0.7",
        )


@dataclass(frozen=True)
class CandidatePair:
    """The two models of a cycle and its stages."""

    plan: StagePlan
    champion: Path
    candidate: Path
    texts: list[Path]
    """Plain text that the champion was trained on."""


class EvolutionRun:
    """One run: its cycles and what they share."""

    def __init__(self, ctx: RunContext, params: EvolveParams, store: MemoryStore) -> None:
        self.ctx, self.params, self.store = ctx, params, store
        self.ws = ctx.workspace
        self.record = EvolutionRecord(ctx, params)
        self.canaries = canary.load_set()
        self.measured: dict[str, ModelMeasurement] = {}
        """Measurements by the hash of the weights."""
        self.prepared: PreparedCorpus
        self.held_out: list[DatasetRow] = []
        self.held_out_text = HeldOutText([])

    def run(self) -> RunResult:
        """Runs all remaining cycles and writes the report.

        Raises NotEnoughData without a model in use, below `min_corpus` pairs, or with too small a test set.
        """
        champion = in_use(self.ws)
        if champion is None:
            raise NotEnoughData(
                _("evolution starts from the model in use, and there is none yet"), hint="h2q-tui train"
            )
        folder = find_model(self.ws, champion)
        card = load_card(folder)
        if card.mode not in (Phase.NATIVE, Phase.SCRATCH):
            raise UsageProblem(
                _("evolution works on the built-in model only; {name}, in use, was trained by {mode}").format(
                    name=champion, mode=card.mode
                ),
                hint="h2q-tui rollback --list",
            )
        state = self.record.state
        state.first = state.first or champion
        self.prepared = prepare_corpus(
            self.ctx,
            StagePlan(("corpus",), after=len(STAGES) * self.params.cycles),
            self.store,
            base=folder,
            min_pairs=self.params.min_corpus,
        )
        stopped = ""
        try:
            self._require_test_clusters()
            window = self.prepared.window
            self.held_out = held_out_rows(self.store, window.id)
            self.held_out_text = load_held_out_text(
                self.store, self.held_out, existing_texts(card), self.canaries.texts
            )
            self.ctx.log(correction(window.looks, self.params.cycles - len(state.rows)))
            while len(state.rows) < self.params.cycles and not stopped:
                stopped = self._out_of_time() or self.cycle(len(state.rows) + 1)
        finally:
            # The datasets of the cycles contain its rows; this one was only their source.
            self.prepared.dataset.path.unlink(missing_ok=True)
            # A killed run leaves its source behind.
            corpus_dataset.dataset_path(self.ws, self.record.earlier).unlink(missing_ok=True)
        return self._finish(stopped)

    def cycle(self, number: int) -> str:
        """One cycle. Returns why evolution stops, "" to continue."""
        used = in_use(self.ws)
        assert used is not None
        old = self.record.state.open
        if old is not None and old.row is not None:
            return self._apply_result(old, old.row)
        cycle = self.record.open(number, used, self.prepared.window.id)
        pair = self._pair(cycle)
        self._emit(cycle, "began")

        champion = self.measure_champion(pair)
        initial = self.record.initial_canary(champion)
        if reasons := canary.collapse_reasons(champion.canary, initial):
            return self._stop_at_champion(cycle, reasons)
        mixed = self.mix(cycle, pair)
        card = self.train(cycle, pair, mixed)
        report = self.validate(pair)
        candidate = self.measure_candidate(pair, report)
        reasons = canary.collapse_reasons(candidate.canary, initial)

        row = cycle_row(
            cycle,
            report,
            champion,
            candidate,
            run_id=self.ctx.spec.run_id,
            finished_at=iso_local_time(report.created_at),
            train_loss=card.loss,
            warnings=reasons,
            seconds=self.record.cycle_seconds(cycle),
        )
        self.record.save_result(cycle, row)
        if row.kept:
            promote_if_better(
                self.ctx,
                pair.plan,
                pair.candidate,
                report,
                newest_conversation=card.lineage.newest_conversation,
            )
        else:
            self.drop(cycle, pair, reasons)
        return self._close(cycle, row)

    # Stages of a cycle

    def measure_champion(self, pair: CandidatePair) -> ModelMeasurement:
        """The champion on the test set and the canary; the same weights are measured once."""
        sha256 = load_card(pair.champion).weights_sha256
        with pair.plan.open(self.ctx, "measure") as stage:
            if sha256 not in self.measured:
                self.measured[sha256] = measure_model(
                    open_language_model(self.ws, pair.champion),
                    self.held_out,
                    self.canaries,
                    weights_sha256=sha256,
                    step=self._progress("measure"),
                )
            champion = self.measured[sha256]
            stage.detail = _("{name}: perplexity {perplexity} on the test set").format(
                name=champion.name,
                perplexity="–" if champion.perplexity is None else f"{champion.perplexity:.3f}",
            )
        return champion

    def mix(self, cycle: OpenCycle, pair: CandidatePair) -> MixedDataset:
        """The cycle's dataset; one that a killed run finished is reused."""
        lineage = self.prepared.dataset.lineage
        with pair.plan.open(self.ctx, "material") as stage:
            if cycle.dataset_stats is not None and self.record.has_intact_dataset(cycle):
                mixed = MixedDataset.of(
                    Path(cycle.dataset), cycle.dataset_sha256, lineage, cycle.dataset_stats
                )
            else:
                mixed = write_mixed_dataset(
                    self.prepared.dataset.path,
                    lineage,
                    pair.texts,
                    self.held_out_text,
                    open_language_model(self.ws, pair.champion),
                    self.ws.training / f"train_data_{cycle.candidate}.jsonl",
                    real_share=self.params.real_share,
                    answers=self.params.answers,
                    seed=self.params.seed * 1009 + cycle.cycle,
                    progress=self._progress("material"),
                )
                cycle.dataset, cycle.dataset_sha256 = str(mixed.path), mixed.sha256
                cycle.dataset_stats = mixed.stats
                self.record.save()
            stage.detail = dataset_summary(mixed.stats)
            if summary := self_answer_summary(mixed.stats):
                self.ctx.log(summary)
        return mixed

    def train(self, cycle: OpenCycle, pair: CandidatePair, mixed: MixedDataset) -> ModelCard:
        """Trains the candidate; one that a killed run finished is reused."""
        params = self.params
        train_params = TrainParams(
            epochs=params.epochs,
            max_steps=params.max_steps,
            lr=params.lr or LR,
            batch_size=params.batch_size,
            context=params.context,
            max_memory_gb=params.max_memory_gb,
            seed=params.seed + cycle.cycle,
            checkpoint_every_s=params.checkpoint_every_s,
            time_budget_s=self.record.training_seconds(cycle.cycle),
        )
        with pair.plan.open(self.ctx, "native") as stage:
            card = self.record.finished_candidate(cycle)
            created: list[MixedBatches] = []

            def batches(*arguments: Any) -> MixedBatches:
                created.append(MixedBatches(*arguments))
                return created[-1]

            if card is None:
                card = train_native(
                    self.ctx,
                    recipe_for(train_params, Phase.NATIVE),
                    pair.champion,
                    mixed,
                    pair.texts,
                    name=cycle.candidate,
                    out=pair.candidate,
                    resume=self.record.start_training(cycle),
                    free_memory=partial(free_service_memory, self.ws),
                    batches=batches,
                    question=own_question(self.store, self.prepared.window),
                )
            if created and cycle.dataset_stats is not None:
                cycle.dataset_stats = msgspec.structs.replace(
                    cycle.dataset_stats, least_batch_share=min(created[0].real_shares())
                )
            stage.detail = model_summary(card)
        return card

    def validate(self, pair: CandidatePair) -> ValidationReport:
        """The verdict of the candidate against the champion, one more interim look; writes its report."""
        report = validate_candidate(
            self.ctx,
            pair.plan,
            self.store,
            self.prepared.window,
            base=pair.champion,
            new=pair.candidate,
            texts=pair.texts,
        )
        write_validation(self.ws, msgspec.structs.replace(report, run_id=pair.candidate.name))
        return report

    def measure_candidate(self, pair: CandidatePair, report: ValidationReport) -> ModelMeasurement:
        """The candidate's answers and canary; its perplexity follows from the verdict."""
        nll = report.verdict.new.nll_per_byte
        with pair.plan.open(self.ctx, "canary"):
            candidate = measure_model(
                open_language_model(self.ws, pair.candidate),
                self.held_out,
                self.canaries,
                weights_sha256=load_card(pair.candidate).weights_sha256,
                perplexity=math.exp(min(nll, MAX_NLL)) if nll is not None else None,
                step=self._progress("canary"),
            )
        if nll is not None and perplexity_at(nll) is None:
            candidate = replace(candidate, perplexity=None)
        self.measured[candidate.weights_sha256] = candidate
        return candidate

    def drop(self, cycle: OpenCycle, pair: CandidatePair, reasons: list[str]) -> None:
        """Removes the candidate and keeps the champion."""
        with pair.plan.open(self.ctx, "promote") as stage:
            self.record.remove_candidate(cycle)
            reason = _("; ").join(reasons) or _("the candidate is not significantly better")
            stage.skip(
                _("{champion} stays in use: {reason}; {candidate} is removed").format(
                    champion=cycle.champion, reason=reason, candidate=cycle.candidate
                )
            )

    def _pair(self, cycle: OpenCycle) -> CandidatePair:
        """Champion and candidate of a cycle. The corpus and earlier cycles precede its stages."""
        before = cycle.cycle - 1
        plan = StagePlan(
            STAGES,
            before=1 + len(STAGES) * before,
            after=len(STAGES) * (self.params.cycles - before - 1),
        )
        champion = find_model(self.ws, cycle.champion)
        return CandidatePair(
            plan, champion, self.ws.models / cycle.candidate, existing_texts(load_card(champion))
        )

    def _progress(self, stage: str) -> Callable[[int, int], None]:
        def progress(done: int, total: int) -> None:
            self.ctx.check_stop()
            self.ctx.progress(stage, done, total)

        return progress

    # Shared by the cycles

    def _require_test_clusters(self) -> None:
        have = len(self.prepared.window.clusters)
        if have < MIN_CLUSTERS:
            raise NotEnoughData(
                n_(
                    "the test set has {have} group of conversations, {needed} are needed to validate a candidate",
                    "the test set has {have} groups of conversations, {needed} are needed to validate a candidate",
                    have,
                ).format(have=have, needed=MIN_CLUSTERS),
                hint="h2q-tui memory import ~/Downloads",
            )

    def _out_of_time(self) -> str:
        if not self.record.out_of_time:
            return ""
        return _("the time budget ended after {n} of {cycles} cycles").format(
            n=len(self.record.state.rows), cycles=self.params.cycles
        )

    def _apply_result(self, cycle: OpenCycle, row: CycleRow) -> str:
        """Ends a cycle whose result an earlier process saved but may not have applied."""
        if not row.kept:
            self.record.remove_candidate(cycle)
        elif in_use(self.ws) != cycle.candidate:
            promote(self.ws, cycle.candidate, description=row.sentence)
        return self._close(cycle, row)

    def _close(self, cycle: OpenCycle, row: CycleRow) -> str:
        """Saves the finished cycle. Returns why evolution stops, "" to continue."""
        self.record.close(cycle, row)
        self._emit(cycle, "kept" if row.kept else "collapsed" if row.warnings else "dropped", row)
        if not row.warnings:
            return ""
        return _("the candidate of cycle {n} collapsed: {reasons}; evolution stops").format(
            n=row.cycle, reasons=_("; ").join(row.warnings)
        )

    def _stop_at_champion(self, cycle: OpenCycle, reasons: list[str]) -> str:
        """Ends evolution because the champion itself fails the canary, so that its candidates would too."""
        self.record.remove_candidate(cycle)
        self.record.state.open = None
        self.record.save()
        reason = _("{champion} collapsed: {reasons}; evolution stops").format(
            champion=cycle.champion, reasons=_("; ").join(reasons)
        )
        self._emit(cycle, "collapsed", reason=reason)
        return reason

    def _emit(self, cycle: OpenCycle, state: str, row: CycleRow | None = None, reason: str = "") -> None:
        self.ctx.emit(cycle_event(cycle, self.params.cycles, state, row, reason))

    def _finish(self, stopped: str) -> RunResult:
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
        return RunResult(RunStatus.DONE, result=report, report=write_report(self.ws, report))
