"""What the workers of the Hive tab report to it."""

from __future__ import annotations

from textual.message import Message

from engine.core.settings import Settings
from engine.hive.outgoing import OutgoingAdapter
from engine.hive.protocol import ServerInfo
from tui.tabs.hive.reader import HiveState


class HiveStateRead(Message):
    """What the server and the workspace say."""

    def __init__(self, state: HiveState) -> None:
        super().__init__()
        self.state = state


class ReadyToShare(Message):
    """What would leave is known."""

    def __init__(self, outgoing: OutgoingAdapter, info: ServerInfo) -> None:
        super().__init__()
        self.outgoing = outgoing
        self.info = info


class PortFound(Message):
    """A hive could be served at this port."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port


class AddressKept(Message):
    """The server is in the settings."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings


class HiveWorkDone(Message):
    """An action succeeded: what it says; `undo` is the stamp of the backup that takes a promotion back."""

    def __init__(self, text: str, undo: str = "") -> None:
        super().__init__()
        self.text = text
        self.undo = undo
