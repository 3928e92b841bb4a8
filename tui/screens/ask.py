"""One-line questions at the bottom of the screen: yes or no, or a short text; the rest stays visible."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, runtime_checkable

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Static

from engine.core.i18n import _
from tui.terminal.text import cells, one_line, safe

_CSS = """
{name} {{ align: left bottom; background: transparent; }}
{name} > Horizontal {{ height: auto; max-height: 3; width: 100%; background: $surface; }}
{name} Static {{ width: auto; height: auto; padding: 0 1; }}
{name} Input {{ width: 1fr; background: $surface; }}
{name} .error {{ color: $text-error; }}
"""


async def input_drained(field: Widget) -> None:
    """Waits until a field has handled the keys and pasted text before."""
    done = asyncio.Event()
    field.call_later(done.set)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), 1.0)


@runtime_checkable
class ReadsKeys(Protocol):
    """A screen that handles each key before the app reads the next one."""

    async def process_key(self, event: events.Key) -> bool:
        """Handles a key; True when no one else is to handle it."""


class Confirm(ModalScreen[bool]):
    """Asks once, naming the thing: `await app.push_screen_wait(Confirm("Stop 1120-2204?"))`.

    `enter` and `y` are yes; `esc`, `n` and `q` are no; other keys do nothing.
    """

    DEFAULT_CSS = _CSS.format(name="Confirm") + "Confirm Static { width: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,y,Y", "answer(True)", show=False),
        Binding("escape,n,N,q", "answer(False)", show=False),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self.question = question

    def compose(self) -> ComposeResult:
        with Horizontal():
            line = f"{one_line(self.question)}   "
            yield Static(safe(line, "bold") + safe(_("enter yes   esc no"), "$foreground-muted"))

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


class LinePrompt(ModalScreen[str | None]):
    """Asks for a short text; None when the user leaves with `esc`.

    `choices` are offered with their digits: a digit in an empty field answers immediately, `enter` in an empty
    field answers `value`. `check` returns what is wrong with an answer, "" when it is good; a wrong one
    stays in the field with the sentence beside it.
    """

    DEFAULT_CSS = _CSS.format(name="LinePrompt")
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", show=False)]

    def __init__(
        self,
        question: str,
        value: str = "",
        *,
        choices: Sequence[tuple[str, str]] = (),
        check: Callable[[str], str] | None = None,
        select: bool = False,
    ) -> None:
        """`choices`: (answer, text); `enter` takes the first one. `select`: typing replaces `value`."""
        super().__init__()
        self.question = question
        self._value = value
        self._choices = tuple(choices)
        self._check = check
        self._select = select

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Static(safe(one_line(self.question), "bold"))
            if self._choices:
                offered = "  ".join(
                    [*(f"{n} {text}" for n, (_answer, text) in enumerate(self._choices, 1)), _("esc no")]
                )
                yield Static(safe(offered, "$foreground-muted"), id="ask-choices")
            yield Input(self._value, select_on_focus=False, compact=True)
            yield Static(id="ask-problem", classes="error")

    def on_mount(self) -> None:
        field = self.query_one(Input)
        field.focus()
        field.cursor_position = len(self._value)
        if self._select:
            field.action_select_all()
        if self._choices:
            self._stack_if_narrow()

    async def process_key(self, event: events.Key) -> bool:
        """Handles a key before the app reads the next one, which may be meant for the screen behind the question. Always
        True: no key goes elsewhere while the question is open."""
        field = self.query_one(Input)
        if event.key != "enter":
            self.query_one("#ask-problem", Static).update("")
        if await self.app._check_bindings(event.key, priority=True):
            return True
        if event.is_printable and event.character:
            if field.selection.is_empty:
                field.insert_text_at_cursor(event.character)
            else:
                field.replace(event.character, *field.selection)
            if self._chosen(field.value):
                self.dismiss(self._chosen(field.value))
        elif event.key == "enter":
            await input_drained(field)
            self._submit(field.value.strip())
        else:
            await self.app._check_bindings(event.key)
        return True

    def _chosen(self, text: str) -> str:
        """The choice of a digit, "" for any other text."""
        digit = self._choices and text.isascii() and text.isdigit() and 1 <= int(text) <= len(self._choices)
        return self._choices[int(text) - 1][0] if digit else ""

    def _stack_if_narrow(self) -> None:
        """On a narrow screen the choices are on a line above the field."""
        width = cells(self.question) + sum(cells(text) + 4 for _answer, text in self._choices) + 28
        if width > self.app.size.width:
            row = self.query_one(Horizontal)
            row.styles.layout = "vertical"
            row.styles.max_height = 4

    def _submit(self, text: str) -> None:
        text = self._chosen(text) or text or (self._choices[0][0] if self._choices else "")
        problem = self._check(text) if self._check else ""
        if problem:
            self.query_one("#ask-problem", Static).update(safe(problem))
        else:
            self.dismiss(text)

    def action_leave(self) -> None:
        self.dismiss(None)
