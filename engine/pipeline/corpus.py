"""The corpus stage: collect and filter conversations, freeze a test window, write the training dataset."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine.core.config import load_settings
from engine.core.errors import NotEnoughData
from engine.core.i18n import _, n_
from engine.corpus import build, split
from engine.corpus.clusters import HoldoutWindow
from engine.corpus.contamination import check_split_contamination
from engine.corpus.dataset import DatasetRow, dataset_ids, dataset_path
from engine.corpus.dedup.semantic import semantic_stage
from engine.corpus.stats import pair_counts
from engine.corpus.training_set import TrainingSet, write_dataset
from engine.memory.store import MemoryStore
from engine.models.card import Lineage, load_card
from engine.models.registry import find_model, in_use
from engine.pipeline.report import Pairs
from engine.pipeline.stages import StagePlan
from engine.runs.context import RunContext, RunResult
from engine.runs.events import Funnel, RunStatus, TrainingPlan
from engine.training.replay import sample_of_older
from engine.validation.gain_spread import gain_deviation
from engine.validation.report import newest_report
from engine.validation.validate import card_of
from engine.validation.verdict import estimate_power


@dataclass(frozen=True)
class PreparedCorpus:
    """The corpus of one training: an open test window and a dataset of everything else."""

    window: HoldoutWindow
    dataset: TrainingSet
    pairs: Pairs
    replay_sample: Sequence[DatasetRow]
    """Some conversations of the dataset that the base was trained on, to measure forgetting."""


def run_corpus(ctx: RunContext) -> RunResult:
    """Entry point of the run kind `corpus`: collect, filter, set review states, split."""
    with ctx.stage("corpus", 1, 1), MemoryStore(ctx.workspace.memory_db) as store:
        base = in_use(ctx.workspace)
        trained = load_card(find_model(ctx.workspace, base)).lineage.conversations if base else []
        funnel = build_corpus(ctx, store, frozenset(trained))
    return RunResult(RunStatus.DONE, result=funnel)


def build_corpus(ctx: RunContext, store: MemoryStore, trained: frozenset[str]) -> Funnel:
    """Collect and filter all conversations; emits the counts of every filter stage.

    `trained`: ids of conversations in the lineage of the base.
    """

    def filter_progress(done: int, total: int) -> None:
        ctx.check_stop()
        ctx.progress("corpus", done, total, unit=_("conversations"))

    def embedding_progress(done: int, total: int) -> None:
        ctx.check_stop()
        ctx.progress("meaning", done, total, unit=_("conversations"))

    settings = load_settings(ctx.workspace)
    meaning = partial(
        semantic_stage,
        setting=settings.embedder,
        root=ctx.workspace.root,
        log=ctx.log,
        on_progress=embedding_progress,
    )
    funnel = build.build_corpus(
        store, settings, on_progress=filter_progress, trained=trained, semantic_stage=meaning
    )
    store.check_all()
    for id_ in store.damaged:
        ctx.log(
            _("The conversation {id} is damaged and skipped").format(id=id_) + " → h2q-tui backup restore"
        )
    ctx.emit(funnel)
    return funnel


def prepare_corpus(
    ctx: RunContext,
    plan: StagePlan,
    store: MemoryStore,
    *,
    base: Path | None,
    min_pairs: int,
    resume: Path | None = None,
) -> PreparedCorpus:
    """Build the corpus, open a test window, write the dataset, and report whether a verdict will be possible.

    With `resume` (the folder of a run), only the conversations of that run's dataset are used.
    Raises NotEnoughData below `min_pairs` accepted pairs, or if no conversation is left for a test window; no
    window is opened then.
    """
    with plan.open(ctx, "corpus") as stage:
        card = card_of(base) if base else None
        lineage = card.lineage if card else Lineage()
        trained = frozenset(lineage.conversations)
        funnel = build_corpus(ctx, store, trained)
        accepted = pair_counts(store).accepted
        if accepted < min_pairs:
            raise _too_few_pairs(accepted, min_pairs, funnel)
        resumed = _resumed_conversations(ctx, resume)
        window = split.open_window(store, time.time(), trained=trained | resumed)
        if not window.conversations:
            raise NotEnoughData(
                _("the corpus is too small for a test set"), hint="h2q-tui memory import ~/Downloads"
            )
        check_split_contamination(store, window)
        data = write_dataset(store, ctx.workspace, ctx.spec.run_id, base_lineage=lineage, only=resumed)
        if resumed:
            ctx.log(
                n_(
                    "resuming with the original {n} conversation; newer ones are used in the next run",
                    "resuming with the original {n} conversations; newer ones are used in the next run",
                    len(data.conversations),
                ).format(n=len(data.conversations))
            )
        outlook = _verdict_outlook(ctx, window, data)
        ctx.emit(outlook)
        stage.detail = outlook.text
        return PreparedCorpus(
            window=window,
            dataset=data,
            pairs=counted_pairs(store, train=data.pairs, test=pair_counts(store).test),
            replay_sample=sample_of_older(data.path, trained),
        )


def counted_pairs(store: MemoryStore, *, train: int = 0, test: int = 0) -> Pairs:
    """The pairs of the corpus for a report."""
    counts = pair_counts(store)
    return Pairs(collected=counts.collected, filtered=counts.accepted, train=train, test=test)


def _resumed_conversations(ctx: RunContext, resume: Path | None) -> frozenset[str]:
    """The conversations of the dataset of the resumed run; empty without one."""
    if resume is None:
        return frozenset()
    return dataset_ids(dataset_path(ctx.workspace, resume.name))


def _too_few_pairs(have: int, need: int, funnel: Funnel) -> NotEnoughData:
    text = _(
        "{have} accepted pairs, {need} needed; {pending} conversations are waiting for review, "
        "{dropped} dropped by filters can be restored"
    ).format(have=have, need=need, pending=funnel.pending, dropped=sum(funnel.dropped.values()))
    return NotEnoughData(text, hint="h2q-tui memory import ~/Downloads")


def _verdict_outlook(ctx: RunContext, window: HoldoutWindow, data: TrainingSet) -> TrainingPlan:
    """Whether the test window allows a verdict, and the smallest gain it can detect.

    The spread of gains is that of the newest validation in this workspace, if there is one.
    """
    report = newest_report(ctx.workspace)
    gain = estimate_power(
        len(window.clusters),
        deviation=gain_deviation(report) if report else None,
        look=window.looks + 1,
    )
    return TrainingPlan(
        text=gain.sentence,
        pairs=data.pairs,
        train_conversations=len(data.conversations),
        test_conversations=len(window.conversations),
        test_clusters=len(window.clusters),
        verdict_possible=gain.possible,
        visible_gain=gain.relative,
    )
