"""The line below the list and the text of an empty list, as texts."""

from __future__ import annotations

from textual.content import Content

from engine.core.i18n import _, n_
from engine.corpus.enums import CorpusStage
from engine.runs.event_text import format_duration
from engine.runs.events import Funnel
from engine.runs.kinds import KINDS, RunKind
from tui.host.run_follower import RunBoard
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import cells, safe

PREPARING = tuple(
    kind for kind, info in KINDS.items() if (info.imports or info.builds_corpus) and not info.trains
)
"""Kinds that only import or filter conversations."""


def is_preparing(board: RunBoard) -> bool:
    """Whether a run imports or filters conversations now."""
    return any(run.kind in PREPARING for run in board.live)


def run_line(board: RunBoard, glyphs: Glyphs) -> Content | None:
    """The run that imports or filters conversations now, with its progress."""
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
                parts.append(_("{eta} left").format(eta=format_duration(progress.eta_s)))
        return safe(" " + "   ".join(parts), "$text-accent")
    return None


def figures_line(funnel: Funnel | None, in_memory: int, width: int, glyphs: Glyphs) -> Content:
    """The funnel, or that memory has more conversations than the corpus."""
    if funnel is None or not funnel.collected:
        return Content("")
    new = in_memory - funnel.collected
    if new > 0:
        text = n_(
            "{n} conversation in memory is not in the corpus yet; b builds it",
            "{n} conversations in memory are not in the corpus yet; b builds it",
            new,
        )
        return safe(f" {text.format(n=f'{new:,}')}", "$text-warning")
    return safe(f" {funnel_line(funnel, width, glyphs.cursor)}")


def empty_text(
    *, problem: str, damaged: bool, filter_: str, collected: int, in_memory: int, preparing: bool
) -> Content:
    """What would be in the list, and the key that fills or repairs it; `preparing` while a run fills it."""
    if problem:
        lines = [safe(problem, "$text-error"), safe(_("R   try again"))]
        if damaged:
            lines.append(safe(_("B   restore the newest backup; the current file is kept next to it")))
    elif filter_ and collected:
        lines = [
            safe(_("Nothing under /{filter}.").format(filter=filter_), "bold"),
            safe(_("esc   clear the filter")),
            safe(_("/     another one, e.g. stage:near  state:pending  lang:zh  len>400  words")),
        ]
    elif preparing:
        text = _("{n} conversations are in memory; the corpus is being built.").format(n=f"{in_memory:,}")
        lines = [
            safe(text if in_memory else _("Conversations are being imported."), "bold"),
            safe(_("The line below shows how far it is. You can leave this tab, or the app.")),
        ]
    elif in_memory:
        count = f"{in_memory:,}"
        lines = [
            safe(_("{n} conversations are in memory; the corpus is not built yet.").format(n=count), "bold"),
            safe(_("b   build it: filters, duplicates, test set")),
        ]
    else:
        lines = [
            safe(_("No conversations yet. This tab filters them and lets you review them."), "bold"),
            safe(_("i   import your own: exports of chat programs, data sets, text")),
            safe(_("s   take the sample: conversations to try everything with")),
        ]
    return Content("\n\n").join(lines)


def funnel_line(funnel: Funnel, width: int, cursor: str = "▸") -> str:
    """ "collected 705 ▸ low value −3 ▸ PII −2 (193 redacted) ▸ duplicates −16 ▸ rejected −18 ▸ accepted 666 = train 566 +
    test 100" in at most `width` cells: where the stages do not fit, their sum. What is shown adds up."""
    first = _("collected {n}").format(n=f"{funnel.collected:,}")
    middle, least = _left_out(funnel)
    excluded = funnel.collected - funnel.accepted
    total = [_("excluded −{n}").format(n=f"{excluded:,}")] if excluded else []
    for tail in _accepted_texts(funnel):
        for parts in (middle, [part for part in middle if part not in least], total, []):
            line = f" {cursor} ".join([first, *parts, tail])
            if cells(line) <= width:
                return line
    return f"{funnel.accepted:,}"


def _left_out(funnel: Funnel) -> tuple[list[str], list[str]]:
    """What each stage left out, and which of it goes first when the line is too long: it takes nothing away."""
    unpaired, low = funnel.dropped.get(CorpusStage.COLLECT, 0), funnel.dropped.get(CorpusStage.LOW_VALUE, 0)
    private = funnel.dropped.get(CorpusStage.SENSITIVE, 0) + funnel.dropped.get(CorpusStage.INJECTION, 0)
    rules = funnel.dropped.get(CorpusStage.RULE, 0)
    middle: list[str] = []
    least: list[str] = []
    if unpaired:
        middle.append(_("no pair −{n}").format(n=f"{unpaired:,}"))
    if low:
        middle.append(_("low value −{n}").format(n=f"{low:,}"))
    if private and funnel.redacted:
        middle.append(_("PII −{n} ({r} redacted)").format(n=f"{private:,}", r=f"{funnel.redacted:,}"))
    elif private:
        middle.append(_("PII −{n}").format(n=f"{private:,}"))
    elif funnel.redacted:
        least.append(_("{r} redacted").format(r=f"{funnel.redacted:,}"))
        middle += least
    if funnel.duplicates:
        middle.append(_("duplicates −{n}").format(n=f"{funnel.duplicates:,}"))
    if rules:
        middle.append(_("rules −{n}").format(n=f"{rules:,}"))
    if funnel.rejected:
        middle.append(_("rejected −{n}").format(n=f"{funnel.rejected:,}"))
    if funnel.pending:
        middle.append(_("pending −{n}").format(n=f"{funnel.pending:,}"))
    return middle, least


def _accepted_texts(funnel: Funnel) -> list[str]:
    """ "accepted 669 = train 566 + test 100 + 3 at the next build (b)" and shorter forms of it."""
    short = _("accepted {n}").format(n=f"{funnel.accepted:,}")
    terms = [_("train {n}").format(n=f"{funnel.train:,}"), _("test {n}").format(n=f"{funnel.test:,}")]
    if funnel.waiting:
        terms.append(_("{n} for the next test").format(n=f"{funnel.waiting:,}"))
    if funnel.border:
        terms.append(_("{n} in neither").format(n=f"{funnel.border:,}"))
    if not funnel.unassigned:
        return [f"{short} = {' + '.join(terms)}", short]
    terms.append(_("{n} at the next build (b)").format(n=f"{funnel.unassigned:,}"))
    return [f"{short} = {' + '.join(terms)}", _(", ").join([short, terms[-1]]), short]
