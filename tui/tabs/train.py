"""The Train tab: the runs, and the one under the cursor as curves, figures and log."""

from __future__ import annotations

from textual.app import ComposeResult

from engine.i18n import N_, _
from tui.tabs.base import Tab
from tui.widgets.lines import Lines


class TrainTab(Tab):
    TAB_ID = "train"
    TITLE = N_("Train")

    def compose(self) -> ComposeResult:
        yield Lines(id="runs")

    def shown(self) -> None:
        from textual.content import Content

        self.query_one(Lines).show([Content(_("no run yet"))])
