"""The sheet before an upload: exactly what leaves and where it goes; asks, sends, and shows the progress."""

from __future__ import annotations

import asyncio
import threading
from typing import ClassVar

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
from engine.core.paths import Workspace
from engine.hive.address import HiveAddress
from engine.hive.outgoing import OutgoingAdapter
from engine.hive.protocol import Admitted
from engine.hive.sharing_text import leaving_lines, size_text
from tui.tabs.hive import reader
from tui.terminal.text import safe

_HASH = 16
"""Digits of a hash that the sheet has room for."""


class _Left(Exception):
    """The user left the sheet: what has arrived stays at the server, and the next time the rest is sent."""


class ShareSheet(ModalScreen["Admitted | None"]):
    """Dismisses with the server's answer, or None."""

    DEFAULT_CSS = """
    ShareSheet { align: center middle; background: transparent; }
    ShareSheet > Vertical { width: 78; max-width: 100%; height: auto; max-height: 100%; background: $surface;
        border: round $accent; padding: 0 1; }
    ShareSheet Static { height: auto; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,y", "share", show=False),
        Binding("escape,q,n", "back", show=False),
    ]

    class BytesSent(Message):
        """Bytes that have arrived, of all."""

        def __init__(self, done: int, whole: int) -> None:
            super().__init__()
            self.done = done
            self.whole = whole

    class ShareEnded(Message):
        """The answer, or why there is none."""

        def __init__(self, admitted: Admitted | None, problem: str = "") -> None:
            super().__init__()
            self.admitted = admitted
            self.problem = problem

    def __init__(
        self,
        workspace: Workspace,
        address: HiveAddress,
        outgoing: OutgoingAdapter,
        *,
        token_of: str,
        user: str,
    ) -> None:
        """`token_of`: whose token is sent, "" without one; then `user` is the name that is sent."""
        super().__init__()
        self.workspace = workspace
        self.address = address
        self.outgoing = outgoing
        self._sender = token_of or user
        self._user = "" if token_of else user
        self._text = Static(id="share-text")
        self._sending = False
        self._left = threading.Event()

    def compose(self) -> ComposeResult:
        with Vertical() as panel:
            panel.border_title = safe(_("Share {name}").format(name=self.outgoing.name))
            yield self._text

    def on_mount(self) -> None:
        self._show(_("enter share   esc back"))

    def on_unmount(self) -> None:
        self._left.set()

    def _show(self, last: str, kind: str = "$foreground-muted") -> None:
        text = leaving_lines(self.outgoing, self.address.url, sender=self._sender, hash_length=_HASH)
        lines = [safe(line) for line in text]
        lines += [Content(""), safe(last, kind)]
        lines.append(safe(f"h2q-tui hive upload {self.outgoing.name}", "$foreground-muted"))
        self._text.update(Content("\n").join(lines))

    def action_share(self) -> None:
        if not self._sending:
            self._sending = True
            self._left.clear()
            self._show(_("starting …"))
            self._send()

    def action_back(self) -> None:
        self.dismiss(None)

    @work(group="hive:share", exclusive=True, exit_on_error=False)
    async def _send(self) -> None:
        def progress(done: int, whole: int) -> None:
            if self._left.is_set():
                raise _Left
            self.post_message(self.BytesSent(done, whole))

        try:
            admitted = await asyncio.to_thread(
                reader.share, self.workspace, self.address, self.outgoing, self._user, progress
            )
        except _Left:
            return
        except (H2QError, OSError) as problem:
            self.post_message(self.ShareEnded(None, error_text(problem)))
        else:
            self.post_message(self.ShareEnded(admitted))

    @on(BytesSent)
    def _sent(self, message: BytesSent) -> None:
        self._show(
            _("{done} of {total}   esc stops, and the next time the rest is sent").format(
                done=size_text(message.done), total=size_text(message.whole)
            )
        )

    @on(ShareEnded)
    def _ended(self, message: ShareEnded) -> None:
        self._sending = False
        if message.admitted is None:
            self._show(message.problem, "$text-error")
        else:
            self.dismiss(message.admitted)
