"""Edits a text in place, for a user without an editor."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static, TextArea

from engine.core.i18n import _
from tui.screens.ask import input_drained
from tui.terminal.text import one_line, safe


class EditText(ModalScreen[str | None]):
    """Returns the text, or None when it is discarded.

    `esc` leaves the field for a line of choices: enter saves, `e` continues editing, `x` discards. `ctrl+s` saves
    immediately.
    """

    DEFAULT_CSS = """
    EditText { align: center middle; background: transparent; }
    EditText > Vertical { width: 96%; height: 90%; border: round $accent; padding: 0 1; background: $surface; }
    EditText TextArea, EditText TextArea:focus { height: 1fr; border: none; padding: 0; background: $surface; }
    EditText Static { height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "out", show=False, priority=True),
        Binding("ctrl+s", "keep", show=False, priority=True),
        Binding("enter,y", "keep", show=False),
        Binding("e", "on", show=False),
        Binding("x,q", "drop", show=False),
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title = title
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = safe(one_line(self._title))
            yield TextArea(self._text, soft_wrap=True, tab_behavior="indent", show_line_numbers=False)
            yield Static(id="edit-keys")

    def on_mount(self) -> None:
        self.action_on()

    @property
    def _editing(self) -> bool:
        return self.query_one(TextArea).has_focus

    def _draw_keys(self) -> None:
        writing = _("esc done editing   ctrl+s save")
        words = writing if self._editing else _("enter save   e continue editing   x discard")
        self.query_one("#edit-keys", Static).update(
            safe(words, "$foreground-muted" if self._editing else "bold")
        )

    def action_out(self) -> None:
        if self._editing:
            self.set_focus(None)
        else:
            self.action_on()
        self.call_after_refresh(self._draw_keys)

    def action_on(self) -> None:
        self.query_one(TextArea).focus()
        self.call_after_refresh(self._draw_keys)

    async def action_keep(self) -> None:
        field = self.query_one(TextArea)
        await input_drained(field)
        self.dismiss(field.text)

    def action_drop(self) -> None:
        self.dismiss(None)
