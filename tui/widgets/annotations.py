"""Annotations of a run as glyphs on its curve, a legend and a list; each kind is recognisable without colour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from textual.content import Content

from engine.core.i18n import N_, _
from engine.runs.curve import Annotation, AnnotationKind
from engine.runs.view import LogLine

SIGNS: dict[AnnotationKind, str] = {
    AnnotationKind.RECOVERY: "▼",
    AnnotationKind.ROLLBACK: "◄",
    AnnotationKind.RESUME: "►",
    AnnotationKind.GOVERNOR: "■",
    AnnotationKind.COMMAND: "◆",
    AnnotationKind.CHECKPOINT: "◇",
    AnnotationKind.CYCLE: "┃",
}
ASCII: dict[AnnotationKind, str] = {
    AnnotationKind.RECOVERY: "v",
    AnnotationKind.ROLLBACK: "<",
    AnnotationKind.RESUME: ">",
    AnnotationKind.GOVERNOR: "#",
    AnnotationKind.COMMAND: "@",
    AnnotationKind.CHECKPOINT: "c",
    AnnotationKind.CYCLE: "|",
}
NAMES: dict[AnnotationKind, str] = {
    AnnotationKind.RECOVERY: N_("recovery"),
    AnnotationKind.ROLLBACK: N_("rollback"),
    AnnotationKind.RESUME: N_("resumed"),
    AnnotationKind.GOVERNOR: N_("memory"),
    AnnotationKind.COMMAND: N_("by hand"),
    AnnotationKind.CHECKPOINT: N_("checkpoint"),
    AnnotationKind.CYCLE: N_("cycle"),
}
WARNINGS = (AnnotationKind.RECOVERY, AnnotationKind.ROLLBACK, AnnotationKind.GOVERNOR)
"""Kinds that tell of a fault, or of too little memory."""
MAX_PER_KIND = 20
"""Annotations of one kind on a curve at most: the newest."""


def glyph_of(kind: AnnotationKind, *, ascii_only: bool = False) -> str:
    """One cell."""
    return (ASCII if ascii_only else SIGNS)[kind]


def on_curve(annotations: Sequence[Annotation]) -> list[Annotation]:
    """The newest `MAX_PER_KIND` of each kind, checkpoints first so that the others are drawn over them."""
    kept = [
        mark for kind in AnnotationKind for mark in [m for m in annotations if m.kind is kind][-MAX_PER_KIND:]
    ]
    order = [
        AnnotationKind.CHECKPOINT,
        AnnotationKind.CYCLE,
        AnnotationKind.COMMAND,
        AnnotationKind.RESUME,
        AnnotationKind.GOVERNOR,
        AnnotationKind.RECOVERY,
        AnnotationKind.ROLLBACK,
    ]
    return sorted(kept, key=lambda mark: order.index(mark.kind))


def legend(annotations: Sequence[Annotation], *, ascii_only: bool = False) -> str:
    """`▼ recovery 2  ◇ checkpoint 3` for the kinds that occur; "" without any."""
    # The end of a cycle and the start of the next one are at the same step.
    counts = Counter(
        kind
        for kind, _step in {
            (mark.kind, mark.step if mark.kind is AnnotationKind.CYCLE else n)
            for n, mark in enumerate(annotations)
        }
    )
    return "  ".join(
        f"{glyph_of(kind, ascii_only=ascii_only)} {_(NAMES[kind])} {counts[kind]}"
        for kind in AnnotationKind
        if counts[kind]
    )


def annotation_lines(annotations: Sequence[Annotation], *, ascii_only: bool = False) -> list[LogLine]:
    """The annotations as lines of a log, in order of time."""
    level = dict.fromkeys(WARNINGS, "warning")
    lines = []
    for mark in sorted(annotations, key=lambda mark: mark.t):
        place = _("step {step}").format(step=mark.step)
        text = f"{glyph_of(mark.kind, ascii_only=ascii_only)} {place}  {mark.text}"
        lines.append(LogLine(mark.t, level.get(mark.kind, "info"), text))
    return lines


def no_annotations() -> Content:
    """The text of an empty list."""
    return Content(_("No events. Recoveries, memory steps, checkpoints and cycles are listed here."))
