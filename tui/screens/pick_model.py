"""Picks one of the models of the workspace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.core.i18n import _
from engine.models.card import ModelCard
from tui.app.glyphs import Signs
from tui.app.text import safe
from tui.widgets.virtual_list import Cell, Row, VirtualList

OLLAMA = "ollama:"
"""Before the tag of a model that Ollama has."""


class PickModel(ModalScreen[str | None]):
    """Answers a name, or None."""

    DEFAULT_CSS = """
    PickModel { align: center middle; }
    PickModel > Vertical { width: 90%; max-width: 90; height: auto; max-height: 80%; border: round $accent; padding: 0 1; }
    PickModel Static { color: $text-muted; height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space", "take", show=False),
        Binding("escape,q,M", "leave", show=False),
    ]

    def __init__(
        self, cards: Sequence[ModelCard], tags: Sequence[str], in_use: str, current: str, signs: Signs
    ) -> None:
        """`tags` are the models of an Ollama on this machine; one is answered as `ollama:TAG`."""
        super().__init__()
        self._cards = cards
        self._tags = tags
        self._in_use = in_use
        self._current = current
        self._signs = signs

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = _("Models")
            yield VirtualList((0, 9, 9, 12))
            yield Static(safe(_("enter take   esc back")))

    def on_mount(self) -> None:
        table = self.query_one(VirtualList)
        rows = [self._row(card) for card in self._cards]
        rows += [
            Row(OLLAMA + tag, (Cell(tag), Cell("Ollama", "dim"), Cell(""), Cell(""))) for tag in self._tags
        ]
        table.styles.height = max(1, min(15, len(rows)))
        table.show([row.id for row in rows])
        table.fill(rows)
        table.move_to_id(self._current)
        table.focus()

    def _row(self, card: ModelCard) -> Row:
        used = f"{self._signs.done} {_('in use')}" if card.name == self._in_use else ""
        size = f"{card.parameters / 1e6:.1f} M"
        return Row(
            card.name, (Cell(card.name), Cell(card.mode, "dim"), Cell(size, "dim"), Cell(used, "good"))
        )

    def action_take(self) -> None:
        self.dismiss(self.query_one(VirtualList).cursor_id or None)

    def action_leave(self) -> None:
        self.dismiss(None)
