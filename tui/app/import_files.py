"""Asks for the files to import: a path, with exports in the downloads folder as suggestions."""

from __future__ import annotations

import asyncio
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from engine.core.i18n import _
from tui.terminal.text import safe
from tui.widgets.virtual_list import ListCell, ListRow, VirtualList

CHAT_NAMES = ("conversation", "chat", "sharegpt", "alpaca", "openai", "messages", "dialog", "对话", "聊天")
"""Parts of file names that suggest conversations."""
MAX_SUGGESTIONS = 50


@dataclass(frozen=True)
class ExportFile:
    """A file that looks like an export."""

    path: Path
    bytes: int


def downloads() -> Path:
    """The folder where a browser puts an export."""
    return Path(os.environ.get("XDG_DOWNLOAD_DIR") or "~/Downloads").expanduser()


def find_exports(folder: Path) -> list[ExportFile]:
    """Files of `folder` that look like exports of conversations, newest first; none if it cannot be read. Reads names,
    and the table of contents of a zip."""
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
    return [file for _time, file in sorted(found, key=lambda pair: pair[0], reverse=True)][:MAX_SUGGESTIONS]


def _looks_like_chat(path: Path) -> bool:
    suffix, name = path.suffix.lower(), path.name.lower()
    if suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                return any(Path(member).name == "conversations.json" for member in archive.namelist())
        except (OSError, zipfile.BadZipFile, NotImplementedError):
            return False
    return suffix in (".json", ".jsonl") and any(word in name for word in CHAT_NAMES)


def format_size(count: int) -> str:
    """ "12 MB" for a number of bytes, in powers of 1,000."""
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def format_path(path: Path) -> str:
    """A path with `~` for the home folder."""
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except ValueError:
        return str(path)


class ImportScreen(ModalScreen[str | None]):
    """Returns the path to import, or None. `enter` in the field or on a suggestion returns it."""

    DEFAULT_CSS = """
    ImportScreen { align: center middle; }
    ImportScreen > Vertical { width: 90%; max-width: 100; height: auto; max-height: 90%; border: round $accent; padding: 0 1; }
    ImportScreen VirtualList { height: 8; }
    ImportScreen .note { color: $text-muted; height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False),
        Binding("enter", "accept", show=False),
    ]

    class FolderSearched(Message):
        """The downloads folder has been searched."""

        def __init__(self, files: list[ExportFile]) -> None:
            super().__init__()
            self.files = files

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self._folder = folder or downloads()
        self._files: list[ExportFile] = []
        self._input = Input(placeholder="~/Downloads/conversations.zip", id="import-path", compact=True)
        self._search_note = Static(id="import-found", classes="note")
        self._suggestions = VirtualList((0, 8), id="import-list")
        self._keys_note = Static(id="import-note", classes="note")

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = _("Import conversations")
            text = _(
                "A file or folder: ChatGPT export (json or zip), Alpaca, ShareGPT, OpenAI messages, text"
            )
            yield Static(safe(text), classes="note")
            yield self._input
            yield self._search_note
            yield self._suggestions
            yield self._keys_note

    def on_mount(self) -> None:
        searching = _("searching {folder} …").format(folder=format_path(self._folder))
        self._search_note.update(safe(searching))
        self._keys_note.update(safe(_("enter import   tab suggestions   esc back")))
        self._suggestions.display = False
        self._input.focus()
        self._search()

    @work(group="import:search", exit_on_error=False)
    async def _search(self) -> None:
        self.post_message(self.FolderSearched(await asyncio.to_thread(find_exports, self._folder)))

    @on(FolderSearched)
    def _exports_found(self, message: FolderSearched) -> None:
        self._files = files = message.files
        text = _("found in {folder}:") if files else _("no exports found in {folder}")
        self._search_note.update(safe(text.format(folder=format_path(self._folder))))
        self._suggestions.display = bool(files)
        self._suggestions.styles.height = min(8, len(files))
        self._suggestions.set_ids([str(file.path) for file in files])
        self._suggestions.set_rows(
            ListRow(str(file.path), (ListCell(file.path.name), ListCell(format_size(file.bytes), "dim")))
            for file in files
        )

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        message.stop()
        text = message.value.strip().strip("'\"")
        if not text:
            return
        path = Path(text).expanduser()
        if not path.exists():
            note = _("There is no {path}.").format(path=format_path(path))
            self._keys_note.update(safe(note, "$text-error"))
            return
        self.dismiss(str(path.absolute()))

    def action_accept(self) -> None:
        """Enter on a suggestion."""
        if self._suggestions.has_focus and self._files:
            self.dismiss(self._suggestions.cursor_id)

    def action_leave(self) -> None:
        self.dismiss(None)
