"""The `?` sheet: every available action, its key and its command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from engine.core.i18n import _
from tui.actions import BY_ID, AppAction, key_labels
from tui.terminal.text import fit, safe

SHEET_WIDTH = 84
_FRAME = 6
"""Cells of a line that are border, padding or scroll bar."""
_KEY, _LABEL = 10, 16
"""Cells of the first two columns."""


class KeysSheet(ModalScreen["AppAction | None"]):
    """Enter performs the action under the cursor, so every action can be reached without its key."""

    DEFAULT_CSS = """
    KeysSheet { align: center middle; background: transparent; }
    KeysSheet OptionList, KeysSheet OptionList:focus { width: 84; max-width: 100%; height: 100%; border: round $accent;
        padding: 0 1; background: $surface; scrollbar-size-vertical: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", show=False),
        Binding("question_mark", "close", show=False, id="keys"),
        Binding("j", "down", show=False),
        Binding("k", "up", show=False),
    ]

    def __init__(
        self, sections: Sequence[tuple[str, Sequence[AppAction]]], keys: Mapping[str, tuple[str, ...]]
    ) -> None:
        """`sections`: a title and its actions. `keys`: by the ids of the actions."""
        super().__init__()
        self._sections = sections
        self._keys = keys

    def compose(self) -> ComposeResult:
        options: list[Option] = []
        for title, actions in self._sections:
            options.append(Option(Content.styled(title, "bold $text-accent"), disabled=True))
            for action in actions:
                options.append(Option(self._line(action), id=action.id))
        sheet = OptionList(*options, id="keys-sheet", markup=False)
        sheet.border_title = safe(_("Keys"))
        sheet.border_subtitle = safe(_("enter run  esc back"))
        yield sheet

    def on_mount(self) -> None:
        sheet = self.query_one(OptionList)
        sheet.highlighted = 1

    def on_resize(self) -> None:
        sheet = self.query_one(OptionList)
        for _title, actions in self._sections:
            for action in actions:
                sheet.replace_option_prompt(action.id, self._line(action))

    def _line(self, action: AppAction) -> Content:
        return action_lines(action, self._keys[action.id], min(SHEET_WIDTH, self.app.size.width) - _FRAME)

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        self.dismiss(BY_ID.get(message.option_id or ""))

    def action_close(self) -> None:
        self.dismiss(None)

    def action_down(self) -> None:
        self.query_one(OptionList).action_cursor_down()

    def action_up(self) -> None:
        self.query_one(OptionList).action_cursor_up()


def action_lines(row: AppAction, keys: tuple[str, ...], width: int) -> Content:
    """`x       stop            Checkpoint and stop; asks once.` and below it the command, in lines of `width` cells.

    The sentence is wrapped in its own column.
    """
    shown = {"go_tab": "1–9"}.get(row.id) or "  ".join(key_labels(keys))
    if row.outside:
        shown = f"esc {shown}"
    line = Content.assemble((fit(shown, _KEY), "bold"), " ", fit(_(row.label), _LABEL))
    column = _KEY + _LABEL + 2
    if row.help:
        wrapped = Content(_(row.help)).wrap(max(16, width - column))
        line = line.append(" ").append(Content("\n" + " " * column).join(wrapped))
    if row.command:
        command = Content.styled(row.command, "$text-muted").wrap(max(16, width - _KEY - 1))
        line = line.append("\n" + " " * (_KEY + 1)).append(Content("\n" + " " * (_KEY + 1)).join(command))
    return line
