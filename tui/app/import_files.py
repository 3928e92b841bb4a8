"""Asks for the files to import: a path, with what lies in the downloads folder as suggestions."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from engine.core.i18n import _
from tui.app.text import safe
from tui.widgets.virtual_list import ListCell, ListRow, VirtualList

CHAT_WORDS = ("conversation", "chat", "sharegpt", "alpaca", "openai", "messages", "dialog", "对话", "聊天")
"""Parts of file names that speak of conversations."""
MOST = 50
"""Suggestions at most."""


@dataclass(frozen=True)
class ExportFile:
    """A file that looks like an export."""

    path: Path
    bytes: int


def downloads() -> Path:
    """The folder where a browser puts an export."""
    return Path(os.environ.get("XDG_DOWNLOAD_DIR") or "~/Downloads").expanduser()


def find_exports(folder: Path) -> list[ExportFile]:
    """Files of `folder` that look like exports of conversations, newest first. A folder that cannot be read
    has none. Reads names, and of a zip its table of contents."""
    found: list[tuple[float, ExportFile]] = []
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return []
    for entry in entries:
        try:
            if entry.is_file() and _looks_like_chat(Path(entry.path)):
                info = entry.stat()
                found.append((info.st_mtime, ExportFile(Path(entry.path), info.st_size)))
        except OSError:
            continue
    return [file for _time, file in sorted(found, key=lambda pair: pair[0], reverse=True)][:MOST]


def _looks_like_chat(path: Path) -> bool:
    suffix, name = path.suffix.lower(), path.name.lower()
    if suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                return any(Path(member).name == "conversations.json" for member in archive.namelist())
        except (OSError, zipfile.BadZipFile, NotImplementedError):
            return False
    return suffix in (".json", ".jsonl") and any(word in name for word in CHAT_WORDS)


def size_shown(count: int) -> str:
    """ "12 MB" for a number of bytes, in powers of 1,000."""
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def home_shown(path: Path) -> str:
    """A path as a person writes it, with `~`."""
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except ValueError:
        return str(path)


class ImportScreen(ModalScreen[str | None]):
    """Answers the path to import, or None. `enter` in the field or on a suggestion answers."""

    DEFAULT_CSS = """
    ImportScreen { align: center middle; }
    ImportScreen > Vertical { width: 90%; max-width: 100; height: auto; max-height: 90%; border: round $accent; padding: 0 1; }
    ImportScreen VirtualList { height: 8; }
    ImportScreen .note { color: $text-muted; height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False),
        Binding("enter", "take", show=False),
    ]

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self._folder = folder or downloads()
        self._found: list[ExportFile] = []

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = _("Import conversations")
            yield Static(
                safe(
                    _(
                        "A file or folder: ChatGPT export (json or zip), Alpaca, ShareGPT, OpenAI messages, text"
                    )
                ),
                classes="note",
            )
            yield Input(placeholder="~/Downloads/conversations.zip", id="import-path", compact=True)
            yield Static(
                safe(_("looking in {folder} …").format(folder=home_shown(self._folder))),
                id="import-found",
                classes="note",
            )
            yield VirtualList((0, 8), id="import-list")
            yield Static(
                safe(_("enter import   tab suggestions   esc back")), classes="note", id="import-note"
            )

    def on_mount(self) -> None:
        self.query_one(VirtualList).display = False
        self.query_one(Input).focus()
        self._look()

    @work(thread=True, group="import:look", exit_on_error=False)
    def _look(self) -> None:
        found = find_exports(self._folder)
        self.app.call_from_thread(self._show, found)

    def _show(self, found: list[ExportFile]) -> None:
        self._found = found
        folder = home_shown(self._folder)
        text = _("found in {folder}:") if found else _("nothing that looks like an export in {folder}")
        self.query_one("#import-found", Static).update(safe(text.format(folder=folder)))
        table = self.query_one(VirtualList)
        table.display = bool(found)
        table.styles.height = min(8, len(found))
        table.set_ids([str(file.path) for file in found])
        table.set_rows(
            ListRow(str(file.path), (ListCell(file.path.name), ListCell(size_shown(file.bytes), "dim")))
            for file in found
        )

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        message.stop()
        text = message.value.strip().strip("'\"")
        if not text:
            return
        path = Path(text).expanduser()
        if not path.exists():
            note = _("There is no {path}.").format(path=home_shown(path))
            self.query_one("#import-note", Static).update(safe(note, "$text-error"))
            return
        self.dismiss(str(path.absolute()))

    def action_take(self) -> None:
        """Enter on a suggestion."""
        if self.query_one(VirtualList).has_focus and self._found:
            self.dismiss(self.query_one(VirtualList).cursor_id)

    def action_leave(self) -> None:
        self.dismiss(None)
