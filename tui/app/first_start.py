"""The sheet of the first start: asks, in both languages, what to begin with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.core.errors import H2QError
from engine.core.i18n import LANGUAGES, _, bracketed, language
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.memory.store import MemoryStore
from engine.models.ollama.running import installed_models
from engine.workspace.demo import outline
from tui.app.bindings import bindings_for_leaving
from tui.app.find_exports import ExportFile, downloads, find_exports, format_path, format_size
from tui.screens.ask import Confirm
from tui.terminal.text import cells, fit, safe

LABEL_CELLS = 24
"""Cells of a label where one language fits."""
BOTH_CELLS = 36
"""Cells of a label in both languages."""
KEY_CELLS = 6
MAX_TAGS = 3


@dataclass(frozen=True)
class FirstChoice:
    """What the user chose."""

    kind: Literal["import", "file", "demo"]
    path: str = ""
    """The file to import, for "file"."""


def is_empty(workspace: Workspace) -> bool:
    """Whether the workspace has no run, no model and no conversation. Reads files: call it in a thread."""
    for folder in (workspace.runs, workspace.models):
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            return False
    if not workspace.memory_db.exists():
        return True
    try:
        with MemoryStore(workspace.memory_db, readonly=True) as store:
            return store.count() == 0
    except H2QError:
        return False


class FirstStart(ModalScreen[FirstChoice | None]):
    """Returns the choice, or None for "later". `apply` saves and applies a changed language."""

    DEFAULT_CSS = """
    FirstStart { align: center middle; background: transparent; }
    FirstStart > Vertical {
        width: 98%; max-width: 92; height: auto; border: round $accent; background: $background; padding: 1 0;
    }
    FirstStart Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "choose('import')", show=False),
        Binding("d", "choose('demo')", show=False),
        Binding("enter", "found", show=False),
        Binding("L", "language", show=False),
        Binding("escape,q", "leave", show=False),
        *bindings_for_leaving("go_tab", "keys"),
    ]

    class DownloadsSearched(Message):
        """The downloads folder has been searched."""

        def __init__(self, files: list[ExportFile]) -> None:
            super().__init__()
            self.files = files

    class TagsRead(Message):
        """The models of an Ollama on this machine."""

        def __init__(self, tags: list[str]) -> None:
            super().__init__()
            self.tags = tags

    def __init__(self, settings: Settings, apply: Callable[[Settings], None], cursor: str) -> None:
        """`cursor` is the sign before the first row."""
        super().__init__()
        self._settings = settings
        self._apply = apply
        self._cursor = cursor
        self._files: list[ExportFile] = []
        self._tags: list[str] = []
        self._box = Vertical()
        self._lines = Static(id="first-lines")

    def compose(self) -> ComposeResult:
        with self._box:
            # Both languages: nobody has chosen one yet.
            self._box.border_title = "Make your own model · 制作你自己的模型"
            yield self._lines

    def on_mount(self) -> None:
        self._draw()
        self._search()
        self._read_tags()

    def on_resize(self) -> None:
        self._draw()

    @work(group="first:search", exit_on_error=False)
    async def _search(self) -> None:
        self.post_message(self.DownloadsSearched(await asyncio.to_thread(find_exports, downloads())))

    @work(group="first:ollama", exit_on_error=False)
    async def _read_tags(self) -> None:
        self.post_message(self.TagsRead(await asyncio.to_thread(installed_models)))

    @on(DownloadsSearched)
    def _exports_found(self, message: DownloadsSearched) -> None:
        self._files = message.files
        self._draw()

    @on(TagsRead)
    def _tags_read(self, message: TagsRead) -> None:
        self._tags = message.tags
        self._draw()

    def _draw(self) -> None:
        lines = [
            self._line(
                "Import conversations",
                "导入对话",
                _("ChatGPT export, ShareGPT, Alpaca, text …"),
                "i",
                first=True,
            )
        ]
        if self._files:
            file = self._files[0]
            text = bracketed(format_path(file.path), format_size(file.bytes))
            lines.append(self._line("  Found here", "  在这里找到", text, "enter", note=_("(asks first)")))
        if self._tags:
            more = "" if len(self._tags) <= MAX_TAGS else f" +{len(self._tags) - MAX_TAGS}"
            lines.append(self._line("", "", "Ollama: " + ", ".join(self._tags[:MAX_TAGS]) + more, ""))
        lines.append(self._line("Try it on a sample", "用示例试试", outline(), "d"))
        names = [f"[{name}]" if code == language() else name for code, name in LANGUAGES.items()]
        lines.append(self._line("Language / 语言", "语言 / Language", " · ".join(names), "L"))
        lines.append(self._line("Later", "以后再说", "", "esc"))
        self._lines.update(Content("\n").join(lines))

    def _line(self, en: str, zh: str, text: str, key: str, *, note: str = "", first: bool = False) -> Content:
        """One row: label in the language in use (both where there is room), its text, its key."""
        width = max(40, self._box.content_size.width or 70)
        label, other = (zh, en) if language() == "zh" else (en, zh)
        both = f"{label} · {other.strip()}" if other.strip() and "/" not in label else label
        room = BOTH_CELLS if width >= 84 else LABEL_CELLS
        shown = both if cells(both) <= room - 3 else label
        middle = max(10, width - room - KEY_CELLS)
        tail = f" {note}" if note and cells(text) + cells(note) + 2 <= middle else ""
        return Content.assemble(
            safe(fit((f"{self._cursor} " if first else "  ") + shown, room)),
            safe(fit(text, middle - cells(tail) - 1), "$foreground-muted"),
            " ",
            safe(fit(key, KEY_CELLS), "bold $text-accent") if not tail else safe(key, "bold $text-accent"),
            safe(tail, "$foreground-muted"),
        )

    # Choices

    def action_choose(self, kind: Literal["import", "demo"]) -> None:
        self.dismiss(FirstChoice(kind))

    def action_found(self) -> None:
        """Enter: imports the newest export found, after asking."""
        if not self._files:
            return
        file = self._files[0]
        question = _("Import {path} ({size})?").format(
            path=format_path(file.path), size=format_size(file.bytes)
        )

        def answered(yes: bool | None) -> None:
            if yes:
                self.dismiss(FirstChoice("file", str(file.path)))

        self.app.push_screen(Confirm(question), answered)

    def action_language(self) -> None:
        """The other language, saved and applied immediately."""
        codes = list(LANGUAGES)
        other = codes[(codes.index(language()) + 1) % len(codes)]
        self._settings = msgspec.structs.replace(self._settings, language=other)
        self._apply(self._settings)
        self._draw()

    async def action_leave_for(self, action: str) -> None:
        """Leaves for a tab or the sheet of keys."""
        self.dismiss(None)
        await self.app.run_action(action)

    def action_leave(self) -> None:
        self.dismiss(None)
