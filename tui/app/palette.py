"""The command palette: every action that can be done now, with its key and its command line."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from engine.core.i18n import _
from tui.app.actions import EVERYWHERE, AppAction

if TYPE_CHECKING:
    from tui.app.app import H2QApp


class ActionProvider(Provider):
    """Rows of `tui/actions.py`."""

    @property
    def _rows(self) -> list[AppAction]:
        tab = cast("H2QApp", self.app).tab
        rows = [row for row in tab.all_rows() if row.palette] if tab is not None else []
        return sorted(rows, key=lambda row: row.tab == EVERYWHERE)

    def _name(self, row: AppAction) -> str:
        return f"{_(row.label)}  ({cast('H2QApp', self.app).keys.shown(row)})"

    def _help(self, row: AppAction) -> str:
        return "  ".join(part for part in (_(row.help), row.command) if part)

    async def discover(self) -> Hits:
        app = cast("H2QApp", self.app)
        for row in self._rows:
            yield DiscoveryHit(self._name(row), partial(app.perform, row), help=self._help(row))

    async def search(self, query: str) -> Hits:
        app = cast("H2QApp", self.app)
        matcher = self.matcher(query)
        for row in self._rows:
            name = self._name(row)
            # Letters of the program's own name would match nearly every word.
            words = (name, row.id, row.command.removeprefix("h2q-tui "), _(row.help))
            score = max(matcher.match(text) for text in words)
            if score > 0:
                yield Hit(score, matcher.highlight(name), partial(app.perform, row), help=self._help(row))
