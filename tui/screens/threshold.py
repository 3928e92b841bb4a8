"""Moves the threshold of near duplicates and says what it would change, before anything is saved."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import msgspec
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.errors import H2QError
from engine.i18n import _
from engine.paths import Workspace
from tui.headless import ask
from tui.text import fit, safe

STEP = 0.05
LEAST, MOST = 0.3, 1.0
SETTLED_S = 0.25
"""A value that stands for so long is counted."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What of `corpus threshold --json` the sheet shows."""

    now: int
    then: int
    leave: int
    back: int
    leaving: list[str]
    returning: list[str]


class ThresholdScreen(ModalScreen[float | None]):
    """Answers the threshold to save, or None."""

    DEFAULT_CSS = """
    ThresholdScreen { align: center middle; background: transparent; }
    ThresholdScreen > Vertical { width: 76; max-width: 100%; height: auto; max-height: 100%; background: $surface;
        border: round $accent; padding: 0 1; }
    ThresholdScreen Static { height: auto; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,t", "leave", show=False),
        Binding("enter", "take", show=False),
        Binding("left,h,minus,down,j", "move(-1)", show=False),
        Binding("right,l,plus,up,k", "move(1)", show=False),
    ]

    def __init__(self, workspace: Workspace, value: float) -> None:
        super().__init__()
        self.workspace = workspace
        self._saved = self.value = value
        self._known: dict[float, Outcome] = {}
        self._problem = ""

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = safe(_("Near duplicates"))
            box.border_subtitle = safe(_("← → move   enter save and build   esc back"))
            yield Static(id="threshold-words")

    def on_mount(self) -> None:
        self._draw()
        self._count()

    def _draw(self) -> None:
        share = f"{self.value * 100:.0f}"
        lines = [safe(_("left out when they share {share} % of their words").format(share=share), "bold")]
        known = self._known.get(self.value)
        if self._problem:
            lines.append(safe(self._problem, "$text-error"))
        elif known is None:
            lines.append(safe(_("counting …"), "$foreground-muted"))
        else:
            lines.append(
                safe(
                    _("left out: {now} now, {then} then").format(now=f"{known.now:,}", then=f"{known.then:,}")
                )
            )
            if not known.leave and not known.back:
                lines.append(safe(_("nothing would change"), "$foreground-muted"))
            for count, words, style, first in (
                (known.leave, _("{n} would leave:"), "$text-warning", known.leaving),
                (known.back, _("{n} would come back:"), "$text-success", known.returning),
            ):
                if count:
                    lines.append(safe(words.format(n=f"{count:,}"), style))
                    lines += [safe("  " + fit(line, 68)) for line in first[:5]]
        self.query_one("#threshold-words", Static).update(Content("\n").join(lines))

    @work(group="threshold:count", exclusive=True, exit_on_error=False)
    async def _count(self) -> None:
        value = self.value
        if value in self._known:
            return
        await asyncio.sleep(SETTLED_S)
        try:
            out = await ask(self.workspace, "corpus", "threshold", f"{value:g}")
            self._known[value] = msgspec.json.decode(out, type=Outcome)
            self._problem = ""
        except (H2QError, OSError, msgspec.DecodeError) as problem:
            self._problem = str(problem)
        self._draw()

    def action_move(self, by: int) -> None:
        self.value = round(max(LEAST, min(MOST, round(self.value / STEP) * STEP + by * STEP)), 2)
        self._problem = ""
        self._draw()
        self._count()

    def action_take(self) -> None:
        self.dismiss(self.value if self.value != self._saved else None)

    def action_leave(self) -> None:
        self.dismiss(None)
