"""Asks for the files to import: a path that is completed, the folder that it is in, and what an import would take."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from engine.core.errors import H2QError
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.memory.import_texts import ImportPreview, count_text, preview_sentence
from tui.app.find_exports import ExportFile, downloads, find_exports, format_path, format_size
from tui.app.path_completion import FolderEntry, completed, folder_entries, split_typed, typed_path
from tui.host.cli_call import cli_json
from tui.terminal.text import cells, fit, safe
from tui.widgets.virtual_list import ListCell, ListRow, VirtualList

PREVIEW_DELAY_S = 0.6
"""Without another key, before a path is looked at."""
PREVIEW_S = 4.0
"""How long a file or folder is looked at."""
PREVIEW_TIMEOUT_S = 12.0
LIST_ROWS = 7
PREVIEW_ROWS = 5
_previews = msgspec.json.Decoder(list[ImportPreview])


def _previewable(text: str) -> str:
    """The absolute path of what was typed; "" for nothing, and for the home folder and the root, where nobody means all."""
    path = typed_path(text)
    if not path.exists() or path.resolve() in (Path.home(), Path("/")):
        return ""
    return str(path.absolute())


class ImportScreen(ModalScreen[str | None]):
    """Returns the path to import, or None. `enter` in the field returns it; `enter` on a row puts the row in the field."""

    DEFAULT_CSS = """
    ImportScreen { align: center middle; }
    ImportScreen > Vertical { width: 90%; max-width: 100; height: auto; max-height: 96%; border: round $accent; padding: 0 1; }
    ImportScreen .note { color: $foreground-muted; height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False),
        Binding("tab", "complete", show=False),
        Binding("shift+tab", "to_field", show=False),
        Binding("down", "to_list", show=False),
        Binding("enter", "take_row", show=False),
    ]

    class ExportsFound(Message):
        """The downloads folder has been searched."""

        def __init__(self, files: list[ExportFile]) -> None:
            super().__init__()
            self.files = files

    class FolderRead(Message):
        """The folder of what was typed has been read."""

        def __init__(self, text: str, entries: list[FolderEntry]) -> None:
            super().__init__()
            self.text = text
            self.entries = entries

    class Previewed(Message):
        """What an import of a path would take, or why it would fail; neither while it is being looked at."""

        def __init__(self, text: str, preview: ImportPreview | None = None, problem: str = "") -> None:
            super().__init__()
            self.text = text
            self.preview = preview
            self.problem = problem

    def __init__(self, workspace: Workspace, folder: Path | None = None) -> None:
        super().__init__()
        self.workspace = workspace
        self._folder = folder or downloads()
        self._exports: list[ExportFile] = []
        self._entries: list[FolderEntry] = []
        self._input = Input(placeholder="~/Downloads/conversations.zip", id="import-path", compact=True)
        self._list_note = Static(id="import-found", classes="note")
        self._rows = VirtualList((0, 8), id="import-list")
        self._preview = Static(id="import-preview")
        self._keys_note = Static(id="import-note", classes="note")

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = _("Import conversations")
            text = _("A file or folder: exports of chats and coding agents, data sets, text")
            yield Static(safe(text), classes="note")
            yield self._input
            yield self._list_note
            yield self._rows
            yield self._preview
            yield self._keys_note

    def on_mount(self) -> None:
        searching = _("searching {folder} …").format(folder=format_path(self._folder))
        self._list_note.update(safe(searching))
        self._draw_keys()
        self._input.focus()
        self._search()

    def on_resize(self) -> None:
        # Nothing moves while one types: the sheet keeps its height.
        self._rows.styles.height = max(3, min(LIST_ROWS, self.app.size.height - PREVIEW_ROWS - 10))
        self._preview.styles.height = PREVIEW_ROWS + 1

    def _draw_keys(self, problem: str = "") -> None:
        keys = _("enter import   tab complete   ↓ list   esc back")
        self._keys_note.update(safe(problem, "$text-error") if problem else safe(keys))

    @property
    def _typed(self) -> str:
        return self._input.value.strip().strip("'\"")

    # The list

    @work(group="import:search", exit_on_error=False)
    async def _search(self) -> None:
        self.post_message(self.ExportsFound(await asyncio.to_thread(find_exports, self._folder)))

    @on(ExportsFound)
    def _exports_found(self, message: ExportsFound) -> None:
        self._exports = message.files
        if not self._typed:
            self._show_exports()

    def _show_exports(self) -> None:
        text = _("found in {folder}:") if self._exports else _("no exports found in {folder}")
        self._list_note.update(safe(text.format(folder=format_path(self._folder))))
        self._show(
            ListRow(
                format_path(file.path), (ListCell(file.path.name), ListCell(format_size(file.bytes), "dim"))
            )
            for file in self._exports
        )

    def _show(self, rows: Iterable[ListRow]) -> None:
        shown = list(rows)
        self._rows.set_ids([row.id for row in shown])
        self._rows.set_rows(shown)

    @work(group="import:folder", exclusive=True, exit_on_error=False)
    async def _read_folder(self, text: str) -> None:
        self.post_message(self.FolderRead(text, await asyncio.to_thread(folder_entries, text)))

    @on(FolderRead)
    def _folder_read(self, message: FolderRead) -> None:
        if message.text != self._typed:
            return
        self._entries = message.entries
        folder = split_typed(message.text)[0]
        text = _("in {folder}:") if message.entries else _("nothing in {folder} begins so")
        self._list_note.update(safe(text.format(folder=folder or "./")))
        self._show(
            ListRow(
                folder + entry.name + "/" * entry.is_folder,
                (
                    ListCell(entry.name + "/" * entry.is_folder),
                    ListCell("" if entry.is_folder else format_size(entry.bytes), "dim"),
                ),
            )
            for entry in message.entries
        )

    # What the path holds

    @work(group="import:preview", exclusive=True, exit_on_error=False)
    async def _look(self, text: str) -> None:
        await asyncio.sleep(PREVIEW_DELAY_S)
        try:
            path = await asyncio.to_thread(_previewable, text)
            if not path:
                return
            self.post_message(self.Previewed(text))
            words = ["memory", "import", "--dry-run", "--within", str(PREVIEW_S), path]
            async with asyncio.timeout(PREVIEW_TIMEOUT_S):
                out = await cli_json(self.workspace, *words)
            self.post_message(self.Previewed(text, _previews.decode(out)[0]))
        except TimeoutError:
            self.post_message(self.Previewed(text, None, _("too large to look at first; enter imports it")))
        except (H2QError, OSError, ValueError, msgspec.DecodeError) as problem:
            self.post_message(self.Previewed(text, None, str(problem)))

    @on(Previewed)
    def _previewed(self, message: Previewed) -> None:
        if message.text == self._typed:
            self._draw_preview(message.preview, message.problem)

    def _draw_preview(self, preview: ImportPreview | None, problem: str = "") -> None:
        if preview is None:
            looking = safe(_("looking at what it holds …"), "$foreground-muted")
            self._preview.update(safe(problem, "$text-warning") if problem else looking)
            return
        width = max(20, self._preview.content_size.width)
        lines = [safe(preview_sentence(preview), "bold")]
        rows = [(file.name, file.format, file.problem or count_text(file)) for file in preview.files] + [
            (line, "", "") for line in preview.unread
        ]
        for name, format_, what in rows[:PREVIEW_ROWS]:
            tail = f"  {format_}  {what}"
            room = max(12, width - cells(tail) - 2)
            lines.append(safe(fit(f"  {fit(name, room)}{tail}", width), "$foreground-muted"))
        if len(rows) > PREVIEW_ROWS:
            lines.append(
                safe(_("  and {n} more").format(n=f"{len(rows) - PREVIEW_ROWS:,}"), "$foreground-muted")
            )
        self._preview.update(Content("\n").join(lines))

    # Keys

    @on(Input.Changed)
    def _changed(self, message: Input.Changed) -> None:
        message.stop()
        self._draw_keys()
        self._preview.update("")
        text = self._typed
        if text:
            self._read_folder(text)
            self._look(text)
        else:
            self.workers.cancel_group(self, "import:preview")
            self._show_exports()

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        message.stop()
        if not self._typed:
            return
        path = typed_path(self._typed)
        if not path.exists():
            self._draw_keys(_("There is no {path}.").format(path=format_path(path)))
            return
        self.dismiss(str(path.absolute()))

    def _fill(self, text: str) -> None:
        self._input.value = text
        self._input.cursor_position = len(text)

    def action_complete(self) -> None:
        """Tab: completes the path; from the list, back to the field."""
        if not self._input.has_focus:
            self._input.focus()
        elif self._typed:
            self._fill(completed(self._typed, self._entries))
        elif self._exports:
            self._fill(format_path(self._exports[0].path))

    def action_to_field(self) -> None:
        self._input.focus()

    def action_to_list(self) -> None:
        if self._rows.ids:
            self._rows.focus()

    def action_take_row(self) -> None:
        """Enter on a row: a folder shows its entries, a file stands in the field; enter there imports it."""
        row = self._rows.cursor_id
        if self._rows.has_focus and row:
            self._fill(row)
            if not row.endswith("/"):
                self._input.focus()

    def action_leave(self) -> None:
        self.dismiss(None)
