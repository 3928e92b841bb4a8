"""What an import or a corpus build has brought, as bars: pure functions from the view of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec
from textual.content import Content

from engine.core.i18n import _
from engine.runs.events import Funnel
from engine.runs.view import RunView
from tui.host.corpus_text import stage_name
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import cells, fit, safe

MAX_FILES = 8
_MOST_LABEL = 28
"""Cells of a label."""


@dataclass(frozen=True)
class CountBar:
    """A count with its name."""

    label: str
    count: int
    style: str = "$text-accent"


class _ImportedFile(msgspec.Struct):
    path: str = ""
    conversations: int = 0


class _Imported(msgspec.Struct):
    taken: int = 0
    unchanged: int = 0
    superseded: int = 0
    files: list[_ImportedFile] = []
    skipped: dict[str, int] = {}


def result_bars(view: RunView) -> list[CountBar]:
    """The counts of a run that imported or filtered conversations; [] for other runs, and before there are any."""
    if view.funnel is not None and not view.phase:
        return _of_funnel(view.funnel)
    if view.finished is None:
        return []
    try:
        imported = msgspec.json.decode(view.finished.result, type=_Imported)
    except msgspec.DecodeError:
        return []
    return _of_import(imported)


def _of_funnel(funnel: Funnel) -> list[CountBar]:
    """What was read, what each stage left out, what is left and where it went."""
    out = [
        CountBar(f"− {stage_name(stage)}", count, "$text-warning")
        for stage, count in funnel.dropped.items()
        if count
    ]
    for label, count in ((_("rejected"), funnel.rejected), (_("pending"), funnel.pending)):
        out += [CountBar(f"− {label}", count, "$text-warning")] if count else []
    return [
        CountBar(_("collected"), funnel.collected),
        *out,
        CountBar(_("accepted"), funnel.accepted, "$text-success"),
        CountBar(f"  {_('training set')}", funnel.train, "$text-success"),
        CountBar(f"  {_('test set')}", funnel.test, "$text-success"),
        *([CountBar(_("redacted"), funnel.redacted, "$foreground-muted")] if funnel.redacted else []),
    ]


def _of_import(imported: _Imported) -> list[CountBar]:
    """New and known conversations, then the files, the largest first."""
    bars = [CountBar(_("new conversations"), imported.taken, "$text-success")]
    for label, count in (
        (_("known already"), imported.unchanged),
        (_("replaced by newer ones"), imported.superseded),
        (_("skipped"), sum(imported.skipped.values())),
    ):
        bars += [CountBar(label, count, "$foreground-muted")] if count else []
    files = sorted(imported.files, key=lambda file: -file.conversations)[:MAX_FILES]
    bars += [CountBar(f"  {PurePosixPath(file.path).name}", file.conversations) for file in files]
    return bars if imported.files or imported.taken or imported.unchanged else []


def bar_lines(bars: Sequence[CountBar], glyphs: Glyphs, width: int, height: int) -> list[Content]:
    """At most `height` lines of `width` cells: name, count, and a bar as long as its share of the largest count."""
    if not bars:
        return []
    most = max(1, *(bar.count for bar in bars))
    label = min(_MOST_LABEL, max(cells(bar.label) for bar in bars), max(10, width // 2))
    number = max(len(f"{bar.count:,}") for bar in bars)
    room = max(4, width - label - number - 4)
    lines = []
    for bar in bars[: max(1, height)]:
        filled = max(1, round(bar.count / most * room)) if bar.count else 0
        lines.append(
            Content.assemble(
                " ",
                safe(fit(bar.label, label)),
                f" {bar.count:>{number},} ",
                (glyphs.full * filled, bar.style),
            )
        )
    return lines
