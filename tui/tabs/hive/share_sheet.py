"""The sheet before an upload: exactly what leaves and where it goes; asks, sends, and shows the progress."""

from __future__ import annotations

from collections.abc import Callable

from textual.content import Content

from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.hive.address import HiveAddress
from engine.hive.outgoing import OutgoingAdapter
from engine.hive.protocol import Admitted
from engine.hive.sharing_text import leaving_lines, size_text
from tui.screens.transfer_sheet import TransferSheet
from tui.tabs.hive import reader
from tui.terminal.text import safe

_HASH = 16
"""Digits of a hash that the sheet has room for."""


class ShareSheet(TransferSheet[Admitted]):
    """Dismisses with the server's answer, or None: what has arrived stays there, and the next time the rest is sent."""

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
        super().__init__(
            _("Share {name}").format(name=outgoing.name),
            _("enter share   esc back"),
            f"h2q-tui hive upload {outgoing.name}",
        )
        self.workspace = workspace
        self.address = address
        self.outgoing = outgoing
        self._sender = token_of or user
        self._user = "" if token_of else user

    def description(self) -> list[Content]:
        text = leaving_lines(self.outgoing, self.address.url, sender=self._sender, hash_length=_HASH)
        return [safe(line) for line in text]

    def transfer(self, progress: Callable[[int, int], None]) -> Admitted:
        return reader.share(self.workspace, self.address, self.outgoing, self._user, progress)

    def progress_text(self, done: int, whole: int) -> str:
        return _("{done} of {total}   esc stops, and the next time the rest is sent").format(
            done=size_text(done), total=size_text(whole)
        )
