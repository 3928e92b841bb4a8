"""What an import took and left out: the report, and its words."""

from __future__ import annotations

import msgspec

from engine.core.i18n import N_, _, colon, n_

REASONS = {
    "another key": N_("another key"),
    "citation": N_("mark of a source"),
    "attachment": N_("attachment"),
    "empty conversation": N_("empty conversation"),
    "empty memory point": N_("empty memory point"),
    "empty message": N_("empty message"),
    "entry of another shape": N_("entry of another shape"),
    "failed answer": N_("failed answer"),
    "file of another kind": N_("file of another kind"),
    "file that cannot be read": N_("file that cannot be read"),
    "forgotten earlier": N_("forgotten earlier"),
    "hidden message": N_("hidden message"),
    "history of another shape": N_("history of another shape"),
    "image": N_("image"),
    "index of a skill": N_("index of a skill"),
    "line before the first speaker": N_("line before the first speaker"),
    "message of another branch": N_("message of another branch"),
    "message of another shape": N_("message of another shape"),
    "message without a role": N_("message without a role"),
    "reasoning": N_("reasoning"),
    "row of another shape": N_("row of another shape"),
    "row without an answer": N_("row without an answer"),
    "tool description": N_("tool description"),
    "tool message": N_("tool message"),
    "unknown role": N_("unknown role, see --map"),
}


class FileReport(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    format: str
    conversations: int
    """Read from the file, whether new or not."""
    points: int = 0
    """Memory points that are no conversations."""


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `memory import --json` prints."""

    import_id: str
    added: int = msgspec.field(name="taken")
    unchanged: int
    superseded: int
    skipped: dict[str, int]
    conversations: int
    """In memory now."""
    points: int = 0
    """Memory points taken that are no conversations."""
    seconds: float
    files: list[FileReport]


def summary(report: ImportReport) -> str:
    """One sentence about what came in."""
    text = _("{taken} new, {unchanged} there already, {total} conversations in memory").format(
        taken=report.added, unchanged=report.unchanged, total=report.conversations
    )
    if report.points:
        text += " · " + _("{n} memory points").format(n=report.points)
    if report.superseded:
        text += " · " + _("{n} had grown").format(n=report.superseded)
    return text


def skipped_lines(skipped: dict[str, int]) -> list[str]:
    """What was left out and why, the most frequent first."""
    return [
        _("left out: {n} × {reason}").format(n=count, reason=reason_words(reason))
        for reason, count in sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    ]


def points_line(report: ImportReport) -> str:
    """What becomes of memory points that are no conversations; "" where there are none."""
    if not report.points:
        return ""
    told = n_(
        "{n} memory point is a summary: kept to be looked up, not trained on",
        "{n} memory points are summaries: kept to be looked up, not trained on",
        report.points,
    )
    return told.format(n=report.points) + " → h2q-tui memory list --points"


def reason_words(reason: str) -> str:
    """A `Skipped.reason` in the person's language; what follows a colon is a name from the file."""
    head, mark, name = reason.partition(": ")
    words = _(REASONS.get(head, head))
    return colon(words, name) if mark else words


def nothing_in(reasons: dict[str, int]) -> str:
    """Why nothing came of a file."""
    if not reasons:
        return _("There are no conversations in this file")
    told = ", ".join(f"{count} × {reason_words(reason)}" for reason, count in reasons.items())
    return _("There are no conversations in this file, only {reasons}").format(reasons=told)
