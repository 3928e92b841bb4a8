"""Two to four marked runs over each other: their smoothed losses with a letter each, and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from engine.core.i18n import _, p_
from engine.runs.event_text import format_duration, format_figure, format_rate
from engine.runs.view import RunView
from engine.runs.work import work_done
from tui.tabs.train.loss_chart import held_out_values
from tui.tabs.validate.measures import DECISIONS
from tui.terminal.text import cells, fit, one_line, safe
from tui.widgets.cell_lines import CellLines
from tui.widgets.plot import Curve, CurveKind, Plot

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

MOST_RUNS = 4
LETTERS = "abcd"
STYLES = ("$text-accent", "$text-success", "$text-warning", "$text-error")
"""Of the runs in the order of their marks; the letters tell them apart without colours."""
REFRESH_S = 0.5
_HELD_OUT_SIGNS = 6
"""Signs of a held-out loss on its curve at most."""
_RIGHT = (2, 3, 4, 5, 7)
"""Columns of the table that hold figures."""


@dataclass(frozen=True)
class ComparedRun:
    """A marked run; `view` is None while its journal is being read."""

    run_id: str
    label: str
    view: RunView | None


def compared_curves(runs: Sequence[ComparedRun]) -> list[Curve]:
    """The smoothed loss of each run in its last phase, with its letter, and its held-out loss as capitals."""
    curves = []
    for run, letter, style in zip(runs, LETTERS, STYLES, strict=False):
        if run.view is None:
            continue
        line = run.view.loss_means(run.view.phase).smoothed()
        if line:
            curves.append(Curve([x for x, _y in line], [y for _x, y in line], style=style, name=letter))
        for _name, values in held_out_values(run.view)[:1]:
            kept = values[:: max(1, len(values) // _HELD_OUT_SIGNS)]
            curves.append(
                Curve([x for x, _y in kept], [y for _x, y in kept], CurveKind.SIGNS, style, letter.upper())
            )
    return curves


def compared_rows(runs: Sequence[ComparedRun]) -> list[list[str]]:
    """The head of the table, then one row for each run."""
    head = [
        "",
        p_("column", "run"),
        p_("column", "steps"),
        p_("column", "best"),
        p_("column", "held out"),
        p_("column", "tok/s"),
        p_("column", "verdict"),
        p_("column", "time"),
    ]
    rows = [head]
    for run, letter in zip(runs, LETTERS, strict=False):
        name = f"{run.run_id[:9]} {_(run.label)}"
        if run.view is None:
            rows.append([letter, name, "…", *[""] * (len(head) - 3)])
        else:
            rows.append([letter, name, *_figures(run.view)])
    return rows


def _figures(view: RunView) -> list[str]:
    held_out = held_out_values(view)
    speeds = view.series(view.phase, "tokens_per_s").y
    verdict = view.verdict
    decision = "–" if verdict is None else _(DECISIONS.get(verdict.decision, verdict.decision))
    return [
        f"{view.step:,}",
        format_figure(view.best_loss),
        format_figure(held_out[0][1][-1][1]) if held_out else "–",
        format_rate(sum(speeds) / len(speeds)) if speeds else "–",
        decision,
        format_duration(work_done(view, view.updated_at or 0.0).active_s),
    ]


def table_lines(rows: Sequence[Sequence[str]], width: int) -> list[Content]:
    """The table in lines of at most `width` cells; the last columns are cut first."""
    widths = [max(cells(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        parts = [
            " " * (widths[column] - cells(text)) + text if column in _RIGHT else fit(text, widths[column])
            for column, text in enumerate(map(one_line, row))
        ]
        style = "$foreground-muted" if number == 0 else STYLES[(number - 1) % len(STYLES)]
        lines.append(safe(fit("  ".join(parts), width).rstrip(), style))
    return lines


class CompareRuns(ModalScreen[None]):
    """The curves above, the table below; both follow runs that are live."""

    DEFAULT_CSS = """
    CompareRuns { align: center middle; background: transparent; }
    CompareRuns > Vertical { width: 100%; height: 100%; background: $surface; border: round $accent; padding: 0 1; }
    CompareRuns Plot { height: 1fr; background: $surface; }
    CompareRuns #compare-table { background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,c", "back", show=False),
        Binding("Y", "scale", show=False),
    ]

    def __init__(self, host: AppHost, run_ids: Sequence[str]) -> None:
        super().__init__()
        self._host = host
        self._run_ids = tuple(run_ids)[:MOST_RUNS]
        self._plot = Plot(id="compare-plot", ascii_only=host.glyphs.ascii)
        self._table = CellLines(id="compare-table")
        self._log_scale = False

    def compose(self) -> ComposeResult:
        with Vertical() as panel:
            panel.border_title = safe(_("Compare: a smoothed loss, A held out"))
            panel.border_subtitle = safe(_("Y log scale   esc back"))
            yield self._plot
            yield self._table

    def on_mount(self) -> None:
        for run_id in self._run_ids:
            self._host.board.follow(run_id)
        self._table.styles.height = len(self._run_ids) + 1
        self.call_after_refresh(self._draw)
        self.set_interval(REFRESH_S, self._draw)

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        board = self._host.board
        runs = [
            ComparedRun(run_id, entry.label, board.view(run_id))
            for run_id in self._run_ids
            if (entry := board.entry(run_id)) is not None
        ]
        curves = compared_curves(runs)
        if curves:
            self._plot.set_curves(curves, log=self._log_scale, robust=True)
        elif any(run.view is None for run in runs):
            self._plot.clear(_("reading the journal …"))
        else:
            self._plot.clear(_("none of these runs has trained"))
        self._table.set_lines(table_lines(compared_rows(runs), self._table.size.width or 78))

    def action_scale(self) -> None:
        self._log_scale = not self._log_scale
        self._draw()

    def action_back(self) -> None:
        self.dismiss(None)
