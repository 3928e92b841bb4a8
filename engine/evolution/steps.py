"""The steps of one cycle of evolution, each a stage of the run: measure, material, train, judge, canary, drop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from engine.core.i18n import _
from engine.corpus.dataset import HeldOut
from engine.evolution import canary
from engine.evolution.apart import HeldText
from engine.evolution.batches import FlooredBatches
from engine.evolution.bookkeeping import Record
from engine.evolution.dataset import Mixed, mix
from engine.evolution.evaluation import NO_MODEL, Measured, measure, perplexity_at
from engine.evolution.report import answers_words, material_words
from engine.evolution.state import OpenCycle
from engine.inference.backends.native import NativeModel
from engine.inference.client import free_service_memory
from engine.memory.store import MemoryStore
from engine.models.card import ModelCard, load_card
from engine.models.registry import find_model
from engine.pipeline.corpus import PreparedCorpus
from engine.pipeline.report import write_validation
from engine.pipeline.stages import StagePlan, existing_texts, model_summary
from engine.pipeline.validate import validate_candidate
from engine.runs.context import RunContext
from engine.runs.spec import EvolveParams, TrainParams
from engine.training.native import train_native
from engine.training.recipe import Phase, recipe_for
from engine.validation.report import ValidationReport

STAGES = ("measure", "material", "native", "validate", "canary", "promote")
"""Stages of a cycle."""
LR = 0.004
"""Peak rate of a candidate: below that of a first training, because it goes on from a model that has learnt."""


@dataclass(frozen=True)
class CandidatePair:
    """The two models of a cycle and its stages."""

    plan: StagePlan
    champion: Path
    candidate: Path
    texts: list[Path]
    """Plain text that the champion was trained on."""


class Steps:
    """What every step works with."""

    def __init__(self, ctx: RunContext, params: EvolveParams, store: MemoryStore) -> None:
        self.ctx, self.params, self.store = ctx, params, store
        self.ws = ctx.workspace
        self.record = Record(ctx, params)
        self.canaries = canary.load_set()
        self.known: dict[str, Measured] = {}
        """Measured models by the hash of their weights."""
        self.prepared: PreparedCorpus
        """Corpus and test window of the run."""
        self.held: list[HeldOut] = []
        self.held_text = HeldText([])

    def measure(self, pair: CandidatePair) -> Measured:
        """The champion on the window and the canary; once for the same weights."""
        sha256 = load_card(pair.champion).weights_sha256
        with pair.plan.open(self.ctx, "measure") as stage:
            if sha256 not in self.known:
                self.known[sha256] = measure(
                    pair.champion, self.held, self.canaries, step=self.steps_of("measure")
                )
            found = self.known[sha256]
            stage.detail = _("{name}: perplexity {perplexity} on what is kept back").format(
                name=found.name, perplexity="–" if found.perplexity is None else f"{found.perplexity:.3f}"
            )
        return found

    def material(self, open_: OpenCycle, pair: CandidatePair) -> Mixed:
        """The cycle's dataset; one that a killed run has written is taken as it is."""
        lineage = self.prepared.dataset.lineage
        with pair.plan.open(self.ctx, "material") as stage:
            if open_.material is not None and self.record.dataset_is_whole(open_):
                mixed = Mixed.of(Path(open_.dataset), open_.dataset_sha256, lineage, open_.material)
            else:
                mixed = mix(
                    self.prepared.dataset.path,
                    lineage,
                    pair.texts,
                    self.held_text,
                    NativeModel.load(pair.champion),
                    self.ws.training / f"train_data_{open_.candidate}.jsonl",
                    real_share=self.params.real_share,
                    answers=self.params.answers,
                    seed=self.params.seed * 1009 + open_.cycle,
                    step=self.steps_of("material"),
                )
                open_.dataset, open_.dataset_sha256 = str(mixed.path), mixed.sha256
                open_.material = mixed.figures
                self.record.save()
            stage.detail = material_words(mixed.figures)
            if asked := answers_words(mixed.figures):
                self.ctx.log(asked)
        return mixed

    def train(self, open_: OpenCycle, pair: CandidatePair, mixed: Mixed) -> ModelCard:
        """The candidate; one that a killed run has finished is taken as it is."""
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
        with pair.plan.open(self.ctx, "native") as stage:
            card = self.record.finished_candidate(open_)
            drawn: list[FlooredBatches] = []

            def batches(*arguments: Any) -> FlooredBatches:
                drawn.append(FlooredBatches(*arguments))
                return drawn[-1]

            if card is None:
                card = train_native(
                    self.ctx,
                    recipe_for(asked, Phase.NATIVE),
                    pair.champion,
                    mixed,
                    pair.texts,
                    name=open_.candidate,
                    out=pair.candidate,
                    resume=self.record.trains_here(open_),
                    free_memory=partial(free_service_memory, self.ws),
                    batches=batches,
                )
            if drawn and open_.material is not None:
                least = min(drawn[0].shares())
                open_.material = msgspec.structs.replace(open_.material, least_batch_share=least)
            stage.detail = model_summary(card)
        return card

    def judge(self, pair: CandidatePair) -> ValidationReport:
        """The verdict of candidate against champion: one more look at the window. Its report stays."""
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

    def canary(self, pair: CandidatePair, report: ValidationReport) -> Measured:
        """The candidate's answers and canary; its perplexity stands in the verdict."""
        nll = report.verdict.new.nll_per_byte
        with pair.plan.open(self.ctx, "canary"):
            found = measure(
                pair.candidate,
                self.held,
                self.canaries,
                # Measured by the verdict already; without a figure there is none to be found again.
                perplexity=math.exp(min(nll, NO_MODEL)) if nll is not None else None,
                step=self.steps_of("canary"),
            )
        if nll is not None and perplexity_at(nll) is None:
            found = replace(found, perplexity=None)
        self.known[found.weights_sha256] = found
        return found

    def drop(self, open_: OpenCycle, pair: CandidatePair, warnings: list[str]) -> None:
        with pair.plan.open(self.ctx, "promote") as stage:
            self.record.clear(open_)
            why = "; ".join(warnings) or _("the candidate is not shown to be better")
            stage.skip(
                _("{champion} stays: {why}; {candidate} is removed").format(
                    champion=open_.champion, why=why, candidate=open_.candidate
                )
            )

    def pair(self, open_: OpenCycle) -> CandidatePair:
        """Champion and candidate of a cycle; before its stages stand the corpus and those of earlier cycles."""
        before = open_.cycle - 1
        plan = StagePlan(
            STAGES,
            before=1 + len(STAGES) * before,
            after=len(STAGES) * (self.params.cycles - before - 1),
        )
        champion = find_model(self.ws, open_.champion)
        return CandidatePair(
            plan, champion, self.ws.models / open_.candidate, existing_texts(load_card(champion))
        )

    def steps_of(self, stage: str) -> Callable[[int, int], None]:
        def step(done: int, total: int) -> None:
            self.ctx.check_stop()
            self.ctx.progress(stage, done, total)

        return step
