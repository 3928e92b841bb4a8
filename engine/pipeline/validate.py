"""The validation stage: candidate against base on the held-out conversations of a test window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.core.errors import NotEnoughData
from engine.core.i18n import _, n_, with_percent
from engine.core.json_text import encode_json
from engine.corpus import split
from engine.corpus.clusters import HoldoutWindow, current_window
from engine.corpus.dataset import DatasetRow
from engine.corpus.next_window import read_outlook
from engine.corpus.training_set import held_out_rows
from engine.memory.store import MemoryStore
from engine.models.base_models import model_path
from engine.pipeline.promote import promote_if_better
from engine.pipeline.report import write_validation
from engine.pipeline.stages import StagePlan, existing_texts
from engine.runs.context import RunContext, RunResult
from engine.runs.events import RunStatus, VerdictGiven
from engine.runs.kinds import ValidateParams
from engine.training.text_files import general_tail
from engine.validation.report import Forgetting, ValidationReport
from engine.validation.validate import card_of, validate


def run_validate(ctx: RunContext) -> RunResult:
    """Entry point of the run kind `validate`: compare two existing models on the open test window."""
    params = ctx.params(ValidateParams)
    base, new = (model_path(ctx.workspace, name) for name in (params.base, params.new))
    card = card_of(base)
    plan = StagePlan(("validate", "promote") if params.promote else ("validate",))
    with MemoryStore(ctx.workspace.memory_db) as store:
        window = current_window(store)
        if window is None:
            raise NotEnoughData(_("there is no test set yet"), hint="h2q-tui train")
        texts = existing_texts(card) if card is not None else []
        report = validate_candidate(ctx, plan, store, window, base=base, new=new, texts=texts)
    if params.promote:
        promote_if_better(ctx, plan, new, report)
    path = write_validation(ctx.workspace, report)
    return RunResult(RunStatus.DONE, result=report.verdict, report=path)


def validate_candidate(
    ctx: RunContext,
    plan: StagePlan,
    store: MemoryStore,
    window: HoldoutWindow,
    *,
    base: Path,
    new: Path,
    texts: Sequence[Path],
    replay_sample: Sequence[DatasetRow] = (),
) -> ValidationReport:
    """The verdict of `new` against `base`. Counts one more interim look at the window first.

    Args:
        texts: plain text files whose tails join the general set.
        replay_sample: conversations that the base was trained on; forgetting is measured on them.
    """
    card = card_of(base)
    trained = frozenset(card.lineage.conversations if card is not None else ())
    with plan.open(ctx, "validate") as stage:
        report = validate(
            ctx,
            held_out_rows(store, window.id),
            base=base,
            new=new,
            window_id=window.id,
            look=split.count_look(store, window.id),
            dated=window.dated,
            texts={path.name: general_tail(path) for path in texts},
            older=replay_sample,
            outlook=read_outlook(store, trained),
        )
        verdict = report.verdict
        stage.detail = verdict.sentence
    if report.forgetting is not None:
        ctx.log(_forgetting_summary(report.forgetting))
    ctx.emit(
        VerdictGiven(
            base=verdict.base.name,
            new=verdict.new.name,
            decision=verdict.decision,
            sentence=verdict.sentence,
            verdict=msgspec.Raw(encode_json(verdict)),
        )
    )
    return report


def _forgetting_summary(forgetting: Forgetting) -> str:
    """The loss on replayed conversations before and after, in bits per byte."""
    before, after = forgetting.before / math.log(2), forgetting.after / math.log(2)
    return n_(
        "forgetting: {n} older conversation, {before} bits per byte before, {after} after ({change})",
        "forgetting: {n} older conversations, {before} bits per byte before, {after} after ({change})",
        forgetting.conversations,
    ).format(
        n=forgetting.conversations,
        before=f"{before:.3f}",
        after=f"{after:.3f}",
        change=with_percent(f"{100 * forgetting.increase:+.1f}"),
    )
