"""What the stages of a training share: their numbers in the journal, and the values that one hands to the next."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from engine.core.i18n import _
from engine.models.card import Lineage, ModelCard
from engine.runs.context import RunContext, StageHandle
from engine.runs.estimates import RunHistory, Workload, estimate
from engine.runs.events import WorkPlan
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.resume import run_with_checkpoints


@dataclass(frozen=True)
class StagePlan:
    """Consecutive stages of a run by name, for "stage 2 of 5" in the journal.

    Attributes:
        before: stages of the run that come before these.
        after: stages that follow.
    """

    names: tuple[str, ...]
    before: int = 0
    after: int = 0

    @property
    def total(self) -> int:
        return self.before + len(self.names) + self.after

    def open(self, ctx: RunContext, name: str) -> AbstractContextManager[StageHandle]:
        """Run the body as stage `name` of `ctx`. Raises ValueError for a name that is not in the plan."""
        return ctx.stage(name, self.before + 1 + self.names.index(name), self.total)


@dataclass(frozen=True)
class TrainRequest:
    """The parameters of a training with everything that is resolved before its first stage."""

    params: TrainParams
    mode: TrainMode
    mode_reason: str
    started: float
    """Seconds since the epoch."""
    resume: Path | None = None
    """Folder of the run whose checkpoint is continued."""
    stages_before: int = 0


@dataclass(frozen=True)
class TrainedModel:
    """A model that a training stage has saved."""

    folder: Path
    lineage: Lineage
    seconds: float
    """Time of the training stage."""


def announce_work(ctx: RunContext, load: Workload) -> None:
    """Tells the expected time of every stage of a training."""
    found = estimate(load, RunHistory(ctx.workspace).runs())
    ctx.emit(WorkPlan(seconds=found.seconds, measured=bool(found.run)))


def resume_folder(ctx: RunContext, params: TrainParams) -> Path | None:
    """Folder of the run named by `--resume`, or of the run that it continued. Raises BadInput for an unknown run."""
    return run_with_checkpoints(ctx.workspace, params.resume).path if params.resume else None


def existing_texts(card: ModelCard) -> list[Path]:
    """The plain text files that a model was trained on and that still exist."""
    return [Path(path) for path in card.lineage.texts if Path(path).is_file()]


def model_summary(card: ModelCard) -> str:
    """A trained model in one sentence: name, bytes or tokens seen, loss."""
    loss = _("unknown") if card.loss is None else f"{card.loss:.3f}"
    text = (
        _("{name}: {n} tokens seen, loss {loss}")
        if card.base_path
        else _("{name}: {n} bytes seen, loss {loss}")
    )
    return text.format(name=card.name, n=f"{card.train_bytes:,}", loss=loss)
