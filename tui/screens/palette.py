"""The palette: one field that finds every action, setting, model, run and conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from engine.core.i18n import _
from tui.screens.ask import input_drained
from tui.screens.palette_match import PaletteMatch, match, match_letters
from tui.terminal.text import cells, fit, one_line, safe

WIDTH = 72
_FRAME = 6
"""Cells of a line that are border, padding or scroll bar."""
_KEY_CELLS = 7
_HINT_CELLS = 18
SHOWN = 60
"""Entries shown at most."""
SEARCH_DELAY_S = 0.15
"""Letters come in bursts; conversations are searched after the last one."""
MATCH_STYLE = "bold underline"


@dataclass(frozen=True)
class PaletteEntry:
    """One thing that the palette finds."""

    id: str
    label: str
    chosen: Callable[[], Awaitable[None]]
    """What choosing it does."""
    hint: str = ""
    """Beside the label: the tab of an action, the value of a setting, the state of a run."""
    key: str = ""
    detail: str = ""
    """Below the list while the cursor is on it."""
    words: tuple[str, ...] = ()
    """Other words that find it: its id, its command line."""
    weight: float = 1.0
    """What its score counts."""


SearchText = Callable[[str], Awaitable[Sequence[PaletteEntry]]]
"""Finds conversations that have a text; its entries stand below all others."""


def ranked(entries: Sequence[PaletteEntry], query: str) -> list[tuple[PaletteEntry, PaletteMatch]]:
    """The entries that match `query`, the best first; all of them in their order without a query."""
    if not query.strip():
        return [(entry, PaletteMatch(0.0)) for entry in entries]
    found = [(entry, match(query, entry.label, entry.words, entry.detail)) for entry in entries]
    if not any(one.score for _entry, one in found):
        found = [(entry, match_letters(query, entry.label)) for entry in entries]
    matching = [(entry, one) for entry, one in found if one.score]
    return sorted(matching, key=lambda pair: -pair[0].weight * pair[1].score)


def entry_line(entry: PaletteEntry, places: Sequence[int], width: int) -> Content:
    """`log scale            Train      Y` in exactly `width` cells, the letters at `places` in MATCH_STYLE."""
    hint = one_line(entry.hint)
    room = min(_HINT_CELLS, cells(hint)) if hint else 0
    label = fit(entry.label, max(8, width - room - _KEY_CELLS - 2))
    text = safe(label)
    for place in places:
        if place < len(label):
            text = text.stylize(MATCH_STYLE, place, place + 1)
    key = " " * max(0, _KEY_CELLS - cells(entry.key)) + entry.key
    return Content.assemble(
        text, " ", safe(fit(hint, room), "$foreground-muted"), " ", safe(key, "$text-accent")
    )


class PaletteScreen(ModalScreen["PaletteEntry | None"]):
    """Returns the chosen entry. The field has every key except those that move the cursor of the list."""

    DEFAULT_CSS = """
    PaletteScreen { align: center top; background: transparent; }
    PaletteScreen > Vertical { width: 72; max-width: 100%; height: auto; max-height: 100%; margin-top: 1;
        background: $surface; border: round $accent; padding: 0 1; }
    PaletteScreen Input { background: $surface; border: none; padding: 0 1; height: 1; margin-bottom: 1; }
    PaletteScreen OptionList, PaletteScreen OptionList:focus { height: auto; max-height: 16; border: none; padding: 0;
        background: $surface; scrollbar-size-vertical: 1; }
    PaletteScreen #palette-detail { height: 2; color: $foreground-muted; background: $surface; padding: 0 1; margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+p", "leave", show=False),
        Binding("up,ctrl+k", "step(-1)", show=False),
        Binding("down,ctrl+j,tab", "step(1)", show=False),
        Binding("pageup", "step(-10)", show=False),
        Binding("pagedown", "step(10)", show=False),
    ]

    class TextsFound(Message):
        """Conversations that have the text of the query."""

        def __init__(self, query: str, entries: Sequence[PaletteEntry]) -> None:
            super().__init__()
            self.query = query
            self.entries = entries

    def __init__(self, entries: Sequence[PaletteEntry], search: SearchText, cursor: str = "▸") -> None:
        """`entries` in the order in which they are shown without a query. `cursor` is the sign before the field."""
        super().__init__()
        self._entries = list(entries)
        self._search = search
        self._found: list[PaletteEntry] = []
        """Conversations, for the query on the screen."""
        self._shown: list[PaletteEntry] = []
        self._query = ""
        self._cursor = cursor
        self._field = Input(placeholder=_("action, setting, model, run or conversation …"), compact=True)
        self._list = OptionList(id="palette-list", markup=False)
        self._detail = Static(id="palette-detail")

    def compose(self) -> ComposeResult:
        with Vertical() as panel:
            panel.border_title = safe(_("Find anything"))
            panel.border_subtitle = safe(_("enter run  esc back"))
            yield self._field
            yield self._list
            yield self._detail

    def on_mount(self) -> None:
        self._list.can_focus = False
        self._field.focus()
        self._draw()

    def on_resize(self) -> None:
        self._list.styles.max_height = max(3, self.app.size.height - 9)
        self._draw()

    def add_entries(self, entries: Sequence[PaletteEntry]) -> None:
        """More entries that were read meanwhile; the cursor keeps its entry."""
        if self.is_attached and entries:
            self._entries += entries
            self._draw(keep=True)

    # The field

    async def process_key(self, event: events.Key) -> bool:
        """Handles a key before the app reads the next one: what is typed quickly stands in the field in its order, and
        `enter` means the entries for all of it. Always True."""
        if event.is_printable and event.character:
            if self._field.selection.is_empty:
                self._field.insert_text_at_cursor(event.character)
            else:
                self._field.replace(event.character, *self._field.selection)
        elif event.key == "enter":
            await input_drained(self._field)
            self._update_query()
            self._choose(self._list.highlighted)
            return True
        elif not await self.app._check_bindings(event.key, priority=True):
            await self.app._check_bindings(event.key)
        self._update_query()
        return True

    @on(Input.Changed)
    def _field_changed(self) -> None:
        self._update_query()

    def _update_query(self) -> None:
        if self._field.value != self._query:
            self._query = self._field.value
            self._found = []
            self._draw()
            self._find_texts(self._query)

    @work(group="palette:texts", exclusive=True, exit_on_error=False)
    async def _find_texts(self, query: str) -> None:
        await asyncio.sleep(SEARCH_DELAY_S)
        entries = await self._search(query)
        if entries:
            self.post_message(self.TextsFound(query, entries))

    @on(TextsFound)
    def _texts_found(self, message: TextsFound) -> None:
        if message.query == self._query:
            self._found = list(message.entries)
            self._draw(keep=True)

    # The list

    def _draw(self, *, keep: bool = False) -> None:
        """The entries for the query; `keep` leaves the cursor on its entry."""
        at = self._list.highlighted
        before = self._shown[at].id if keep and at is not None and at < len(self._shown) else ""
        width = min(WIDTH, self.app.size.width) - _FRAME
        found = ranked(self._entries, self._query)[:SHOWN]
        places = [one.places for _entry, one in found] + [()] * len(self._found)
        self._shown = [entry for entry, _one in found] + self._found
        self._list.clear_options()
        self._list.add_options(
            [Option(entry_line(entry, at, width)) for entry, at in zip(self._shown, places, strict=True)]
            or [Option(safe(_("nothing matches"), "$foreground-muted"), disabled=True)]
        )
        if self._shown:
            self._list.highlighted = next(
                (place for place, entry in enumerate(self._shown) if entry.id == before), 0
            )
        self._draw_detail()

    @on(OptionList.OptionHighlighted)
    def _draw_detail(self) -> None:
        at = self._list.highlighted
        entry = self._shown[at] if at is not None and at < len(self._shown) else None
        self._detail.update(safe(entry.detail if entry is not None else ""))

    def action_step(self, by: int) -> None:
        if self._shown:
            last, at = len(self._shown) - 1, (self._list.highlighted or 0) + by
            around = abs(by) == 1 and not 0 <= at <= last
            self._list.highlighted = at % (last + 1) if around else max(0, min(last, at))

    @on(OptionList.OptionSelected)
    def _clicked(self, message: OptionList.OptionSelected) -> None:
        self._choose(message.option_index)

    def _choose(self, at: int | None) -> None:
        if at is not None and at < len(self._shown):
            self.dismiss(self._shown[at])

    def action_leave(self) -> None:
        self.dismiss(None)
