"""The sheet before a transfer: says what is sent or fetched, asks, and shows the progress."""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.core.errors import H2QError, error_text
from engine.core.i18n import _
from tui.terminal.text import safe

T = TypeVar("T")


class _Left(Exception):
    """The user left the sheet; the transfer ends with it."""


class TransferSheet(ModalScreen["T | None"], Generic[T]):
    """Dismisses with what the transfer returned, or None when the user left."""

    DEFAULT_CSS = """
    TransferSheet { align: center middle; background: transparent; }
    TransferSheet > Vertical { width: 78; max-width: 100%; height: auto; max-height: 100%; background: $surface;
        border: round $accent; padding: 0 1; }
    TransferSheet Static { height: auto; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,y", "transfer", show=False),
        Binding("escape,q,n", "back", show=False),
    ]

    class Moved(Message):
        """Bytes that have arrived, of all."""

        def __init__(self, done: int, whole: int) -> None:
            super().__init__()
            self.done = done
            self.whole = whole

    class TransferEnded(Message):
        """What it returned, or why it failed."""

        def __init__(self, result: object, problem: str = "") -> None:
            super().__init__()
            self.result = result
            self.problem = problem

    def __init__(self, heading: str, question: str, command: str) -> None:
        """`command`: the one that does the same, shown last."""
        super().__init__()
        self._heading = heading
        self._question = question
        self._command = command
        self._text = Static(id="transfer-text")
        self._transferring = False
        self._left = threading.Event()

    @abstractmethod
    def description(self) -> list[Content]:
        """What is sent or fetched, and where, line by line."""

    @abstractmethod
    def transfer(self, progress: Callable[[int, int], None]) -> T:
        """Does it, in a thread. What `progress` raises ends it. Raises H2QError and OSError."""

    @abstractmethod
    def progress_text(self, done: int, whole: int) -> str:
        """A line with the bytes that have arrived and all of them."""

    def compose(self) -> ComposeResult:
        with Vertical() as panel:
            panel.border_title = safe(self._heading)
            yield self._text

    def on_mount(self) -> None:
        self._show(self._question)

    def on_unmount(self) -> None:
        self._left.set()

    def _show(self, last: str, kind: str = "$foreground-muted") -> None:
        lines = [*self.description(), Content(""), safe(last, kind), safe(self._command, "$foreground-muted")]
        self._text.update(Content("\n").join(lines))

    def action_transfer(self) -> None:
        if not self._transferring:
            self._transferring = True
            self._show(_("starting …"))
            self._transfer()

    def action_back(self) -> None:
        self.dismiss(None)

    @work(group="transfer", exclusive=True, exit_on_error=False)
    async def _transfer(self) -> None:
        def progress(done: int, whole: int) -> None:
            if self._left.is_set():
                raise _Left
            self.post_message(self.Moved(done, whole))

        try:
            result = await asyncio.to_thread(self.transfer, progress)
        except _Left:
            return
        except (H2QError, OSError) as problem:
            self.post_message(self.TransferEnded(None, error_text(problem)))
        else:
            self.post_message(self.TransferEnded(result))

    @on(Moved)
    def _moved(self, message: Moved) -> None:
        self._show(self.progress_text(message.done, message.whole))

    @on(TransferEnded)
    def _ended(self, message: TransferEnded) -> None:
        self._transferring = False
        if message.problem:
            self._show(message.problem, "$text-error")
        else:
            self.dismiss(message.result)  # type: ignore[arg-type]
