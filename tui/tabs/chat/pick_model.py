"""Picks a model of the workspace, a base, or one of Ollama."""

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
from engine.models.catalog import ListedModel
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import safe
from tui.widgets.virtual_list import ListCell, ListRow, VirtualList

OTHER = "?"
"""Id of the row that asks for a name or a path; no model is called so."""
OLLAMA = "ollama:"
"""Prefix of the tag of an Ollama model."""


class PickModel(ModalScreen[str | None]):
    """Returns a name, or None."""

    DEFAULT_CSS = """
    PickModel { align: center middle; }
    PickModel > Vertical { width: 90%; max-width: 90; height: auto; max-height: 80%; border: round $accent; padding: 0 1; }
    PickModel Static { color: $text-muted; height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space", "accept", show=False),
        Binding("escape,q", "leave", show=False),
        Binding("M", "leave", show=False, id="chat.model"),
    ]

    def __init__(
        self,
        cards: Sequence[ModelCard],
        bases: Sequence[ListedModel],
        tags: Sequence[str],
        in_use: str,
        current: str,
        glyphs: Glyphs,
        title: str = "",
    ) -> None:
        """`tags` are the models of an Ollama on this machine; one is returned as `ollama:TAG`. OTHER is returned for a
        model that is to be named."""
        super().__init__()
        self._title = title or _("Models")
        self._bases = bases
        self._cards = cards
        self._tags = tags
        self._in_use = in_use
        self._current = current
        self._glyphs = glyphs
        self._table = VirtualList((0, 9, 9, 12))

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = safe(self._title)
            yield self._table
            yield Static(safe(_("enter select   esc back")))

    def on_mount(self) -> None:
        table = self._table
        rows = [self._row(card) for card in self._cards]
        rows += [self._base_row(base) for base in self._bases]
        rows += [
            ListRow(OLLAMA + tag, (ListCell(tag), ListCell("Ollama", "dim"), ListCell(""), ListCell("")))
            for tag in self._tags
        ]
        other = ListCell(_("another one …"), "dim")
        rows.append(ListRow(OTHER, (other, ListCell(""), ListCell(""), ListCell(""))))
        table.styles.height = max(1, min(15, len(rows)))
        table.set_ids([row.id for row in rows])
        table.set_rows(rows)
        table.move_to_id(self._current)
        table.focus()

    def _row(self, card: ModelCard) -> ListRow:
        used = _("{mark} in use").format(mark=self._glyphs.done) if card.name == self._in_use else ""
        size = f"{card.parameters / 1e6:.1f} M"
        return ListRow(
            card.name,
            (
                ListCell(card.name),
                ListCell(card.mode, "dim"),
                ListCell(size, "dim"),
                ListCell(used, "success"),
            ),
        )

    def _base_row(self, base: ListedModel) -> ListRow:
        cells = (
            ListCell(base.name),
            ListCell(base.weight_format or base.kind, "dim"),
            ListCell(f"{base.bytes / 1e6:,.0f} MB", "dim"),
            ListCell(_("base"), "dim"),
        )
        return ListRow(base.name, cells)

    def action_accept(self) -> None:
        self.dismiss(self._table.cursor_id or None)

    def action_leave(self) -> None:
        self.dismiss(None)
