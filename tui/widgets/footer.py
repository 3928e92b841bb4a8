"""The last line: the keys that matter here, or one sentence to the person."""

from __future__ import annotations

from textual import events
from textual.content import Content
from textual.timer import Timer

from engine.core.i18n import _
from tui.app.actions import BY_ID, Action, Keys
from tui.app.text import one_line
from tui.widgets.diff_lines import Lines

SAID_FOR_S = 6.0

KIND_STYLE = {"": "", "good": "$text-success", "watch": "$text-warning", "act": "bold $text-error"}


class Footer(Lines):
    """` n new  space pause  s checkpoint  x stop  ? keys`; `say` puts a sentence there for a while."""

    DEFAULT_CSS = "Footer { dock: bottom; height: 1; }"

    def __init__(self, keys: Keys) -> None:
        super().__init__(id="footer")
        self.keys = keys
        self.rows: list[Action] = []
        self.notice: Content | None = None
        self._said: Content | None = None
        self._timer: Timer | None = None

    def say(self, text: str, kind: str = "") -> None:
        """Shows one sentence instead of the keys, for six seconds or until the next one."""
        self._said = Content.styled(" " + one_line(text), KIND_STYLE.get(kind, ""))
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(SAID_FOR_S, self.hush)
        self.redraw()

    def hush(self) -> None:
        """Back to the keys."""
        if self._said is not None:
            self._said = None
            self.redraw()

    @property
    def said(self) -> str:
        """The sentence on the line now, "" when the keys are."""
        return "" if self._said is None else self._said.plain.strip()

    def on_resize(self, _event: events.Resize) -> None:
        self.redraw()

    def redraw(self) -> None:
        self.show([self._said or self.notice or self._keys()])

    def _keys(self) -> Content:
        last = self._one(BY_ID["keys"])
        room = self.size.width - last.cell_length - 1
        line = Content(" ")
        for row in self.rows:
            one = self._one(row)
            if line.cell_length + one.cell_length + 2 > room:
                break
            line = line.append(one).append("  ")
        return line.append(last)

    def _one(self, row: Action) -> Content:
        return Content.assemble((self.keys.shown(row), "bold $text-accent"), " ", _(row.label))
