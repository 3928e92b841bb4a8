"""The last line: the keys that are available here, or a message."""

from __future__ import annotations

from textual import events
from textual.content import Content
from textual.timer import Timer

from engine.core.i18n import _
from tui.actions import BY_ID, AppAction, KeyMap
from tui.terminal.text import one_line
from tui.widgets.cell_lines import CellLines

MESSAGE_S = 6.0

SEVERITY_STYLE = {"": "", "success": "$text-success", "warning": "$text-warning", "error": "bold $text-error"}


class Footer(CellLines):
    """` n new  space pause  s checkpoint  x stop  ? keys`; `say` puts a message there for a while."""

    DEFAULT_CSS = "Footer { dock: bottom; height: 1; }"

    def __init__(self, keys: KeyMap) -> None:
        super().__init__(id="footer")
        self.keys = keys
        self.actions: list[AppAction] = []
        self.notice: Content | None = None
        self._message: Content | None = None
        self._timer: Timer | None = None

    def show_message(self, text: str, severity: str = "") -> None:
        """Shows a message instead of the keys, for six seconds or until the next one."""
        self._message = Content.styled(" " + one_line(text), SEVERITY_STYLE.get(severity, ""))
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(MESSAGE_S, self.clear_message)
        self.redraw()

    def clear_message(self) -> None:
        """Back to the keys."""
        if self._message is not None:
            self._message = None
            self.redraw()

    @property
    def message(self) -> str:
        """The message on the line, "" when the keys are there."""
        return "" if self._message is None else self._message.plain.strip()

    def on_resize(self, _event: events.Resize) -> None:
        self.redraw()

    def redraw(self) -> None:
        self.set_lines([self._message or self.notice or self._keys()])

    def _keys(self) -> Content:
        last = self._one(BY_ID["keys"])
        room = self.size.width - last.cell_length - 1
        line = Content(" ")
        for action in self.actions:
            one = self._one(action)
            if line.cell_length + one.cell_length + 2 > room:
                break
            line = line.append(one).append("  ")
        return line.append(last)

    def _one(self, action: AppAction) -> Content:
        return Content.assemble((self.keys.shown(action), "bold $text-accent"), " ", _(action.label))
