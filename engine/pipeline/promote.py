"""The promotion stage: the candidate becomes the model in use if its verdict says so."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from engine.core.i18n import _
from engine.memory.data_source import MemoryDataSource
from engine.models.registry import promote
from engine.pipeline.stages import StagePlan
from engine.runs.context import RunContext
from engine.runs.events import Promoted
from engine.validation.report import ValidationReport


def promote_if_better(
    ctx: RunContext,
    plan: StagePlan,
    candidate: Path,
    report: ValidationReport,
    *,
    newest_conversation: float | None = None,
    allowed: bool = True,
) -> bool:
    """Promote the model in the folder `candidate` if the verdict is "promote"; returns whether it was promoted.

    Args:
        newest_conversation: time of the newest conversation in the candidate's lineage, seconds since the epoch.
        allowed: False keeps the model in use whatever the verdict is.
    """
    with plan.open(ctx, "promote") as stage:
        if report.verdict.decision != "promote" or not allowed:
            stage.skip(
                _("the model in use is kept")
                if allowed
                else _("the new model is not promoted yet: h2q-tui promote {name}").format(
                    name=candidate.name
                )
            )
            return False
        promotion = promote(ctx.workspace, str(candidate), description=report.verdict.sentence)
        if newest_conversation is not None:
            MemoryDataSource(ctx.workspace).update_last_train_time(
                datetime.fromtimestamp(newest_conversation, UTC)
            )
        stage.detail = _("{name} is in use; undo with h2q-tui rollback").format(name=promotion.name)
        ctx.emit(Promoted(name=promotion.name, previous=promotion.previous, backup=promotion.backup))
        return True
