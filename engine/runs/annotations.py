"""What happened to a run at a step of its curve: recoveries, memory steps, changes by hand, checkpoints, cycles."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AnnotationKind(StrEnum):
    """What happened at a mark of the curve."""

    RECOVERY = "recovery"
    """A step went wrong and was discarded, skipped or gone back from."""
    GOVERNOR = "governor"
    """The memory governor acted."""
    COMMAND = "command"
    """A person changed something, or paused the run."""
    CHECKPOINT = "checkpoint"
    CYCLE = "cycle"
    """A cycle of evolution began or ended."""


@dataclass(frozen=True)
class Annotation:
    """Something that explains the curve from this step on, e.g. a learning rate that was set by hand."""

    phase: str
    step: int
    """Where it stands on the curve: in a later cycle of evolution, behind the steps of those before."""
    text: str
    kind: AnnotationKind = AnnotationKind.COMMAND
    t: float = 0.0
