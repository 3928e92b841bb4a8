"""The input of the Chat tab: enter sends, ctrl+j or a trailing backslash starts a new line, up recalls."""

from __future__ import annotations

from textual import events
from textual.message import Message
from textual.widgets import TextArea

MAX_HISTORY = 200


class ChatInput(TextArea):
    """A small editor with a history for the session, the newest entry last."""

    DEFAULT_CSS = """
    ChatInput { height: auto; min-height: 1; max-height: 8; border: none; padding: 0; }
    ChatInput:focus { border: none; }
    """
    ESCAPE_LEAVES = True
    """`esc` and a letter right behind it are two keys here too: the letters are the keys of the chat."""
    NEW_LINE = ("ctrl+j", "shift+enter", "alt+enter", "newline")

    class Sent(Message):
        """`text` is to be sent; the field has been cleared."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, *, placeholder: str = "", id: str | None = None) -> None:
        super().__init__(
            id=id, placeholder=placeholder, compact=True, highlight_cursor_line=False, show_line_numbers=False
        )
        self.sent: list[str] = []
        self._place = 0
        """Position in the history; its length while the user writes something new."""
        self._draft = ""

    @property
    def line_count(self) -> int:
        """Lines of the text, as they are sent."""
        return self.document.line_count

    def use_history(self, history: list[str]) -> None:
        """Continues a history; the list itself grows."""
        self.sent, self._place = history, len(history)

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            self._consume(event)
            self._enter()
        elif event.key in self.NEW_LINE:
            self._consume(event)
            self.insert("\n")
        elif event.key == "up" and self.cursor_at_first_line and self._place > 0:
            self._consume(event)
            self._recall(self._place - 1)
        elif event.key == "down" and self.cursor_at_last_line and self._place < len(self.sent):
            self._consume(event)
            self._recall(self._place + 1)
        else:
            await super()._on_key(event)

    @staticmethod
    def _consume(event: events.Key) -> None:
        event.stop()
        event.prevent_default()

    def _enter(self) -> None:
        row, column = self.cursor_location
        line = self.document.get_line(row)
        if line[:column].endswith("\\"):
            self.replace("\n", (row, column - 1), (row, column))
            return
        text = self.text.strip()
        if not text:
            return
        if not self.sent or self.sent[-1] != text:
            self.sent.append(text)
            del self.sent[:-MAX_HISTORY]
        self._place, self._draft = len(self.sent), ""
        self.clear()
        self.post_message(self.Sent(text))

    def _recall(self, place: int) -> None:
        if self._place == len(self.sent):
            self._draft = self.text
        self._place = place
        self.text = self._draft if place == len(self.sent) else self.sent[place]
        self.move_cursor(self.document.end)
