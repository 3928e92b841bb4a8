"""What the Corpus tab says below its list and instead of it."""

from __future__ import annotations

from textual.content import Content

from engine.core.i18n import _
from engine.runs.events import Funnel
from engine.runs.kinds import KINDS, RunKind
from tui.app.glyphs import Glyphs
from tui.app.run_follower import RunBoard
from tui.app.text import safe
from tui.tabs.corpus.review_text import funnel_line

PREPARING = tuple(
    kind for kind, info in KINDS.items() if (info.imports or info.builds_corpus) and not info.trains
)
"""Kinds that only import or filter conversations."""


def changes_corpus(kind: RunKind) -> bool:
    """Whether a run of `kind` changes what the corpus tab shows."""
    return KINDS[kind].imports or KINDS[kind].builds_corpus


def making_line(board: RunBoard, glyphs: Glyphs) -> Content | None:
    """The run that brings or filters conversations now, with how far it is."""
    for run in board.live:
        if run.kind not in PREPARING:
            continue
        view = board.view(run.run_id)
        progress = view.progress if view is not None else None
        parts = [f"{glyphs.status(run.status)} {_(KINDS[RunKind(run.kind)].title)} {run.run_id}"]
        if progress is not None:
            total = f" / {progress.total:,.0f}" if progress.total else ""
            parts.append(f"{progress.done:,.0f}{total} {progress.unit}".rstrip())
            if progress.eta_s is not None:
                parts.append(_("about {s} s left").format(s=f"{progress.eta_s:.0f}"))
        return safe(" " + "   ".join(parts), "$text-accent")
    return None


def figures_line(funnel: Funnel | None, in_memory: int, width: int, glyphs: Glyphs) -> Content:
    """The funnel, or that memory has more than the corpus."""
    if funnel is None or not funnel.collected:
        return Content("")
    new = in_memory - funnel.collected
    if new > 0:
        text = _("{n} conversations in memory are not in the corpus yet: b builds it").format(n=f"{new:,}")
        return safe(f" {text}", "$text-warning")
    return safe(f" {funnel_line(funnel, width, glyphs.cursor)}")


def empty_words(*, problem: str, damaged: bool, filter_: str, collected: int, in_memory: int) -> Content:
    """What would be here, and the key that fills or mends it."""
    if problem:
        lines = [safe(problem, "$text-error"), safe(_("R   try again"))]
        if damaged:
            lines.append(
                safe(_("B   put the newest backup in its place; what is there now is kept beside it"))
            )
    elif filter_ and collected:
        lines = [
            safe(_("Nothing under /{filter}.").format(filter=filter_), "bold"),
            safe(_("esc   clear the filter")),
            safe(_("/     another one, e.g. stage:near  state:pending  lang:zh  len>400  words")),
        ]
    elif in_memory:
        count = f"{in_memory:,}"
        lines = [
            safe(_("{n} conversations are in memory; the corpus is not built yet.").format(n=count), "bold"),
            safe(_("b   build it: filters, duplicates, what is kept back to judge")),
        ]
    else:
        lines = [
            safe(_("No conversations yet. Here they would be filtered and reviewed by you."), "bold"),
            safe(_("i   import a ChatGPT export, ShareGPT, Alpaca, OpenAI messages or text")),
            safe(_("Or write a sample to start from:  h2q-tui sample")),
        ]
    return Content("\n\n").join(lines)
