"""The first start: an empty workspace asks, in both languages at once, what to begin with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import msgspec
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.core.config import Settings
from engine.core.errors import H2QError
from engine.core.i18n import LANGUAGES, _, language
from engine.core.paths import Workspace
from engine.memory.store import MemoryStore
from engine.models.ollama.running import installed_models
from tui.app.import_files import ExportFile, downloads, find_exports, home_shown, size_shown
from tui.app.text import cells, fit, safe
from tui.screens.ask import Confirm

LABEL = 24
"""Cells of the names where one language fits."""
BOTH = 36
KEY = 6
MOST_TAGS = 3


@dataclass(frozen=True)
class FirstChoice:
    """What the person chose."""

    kind: Literal["import", "file", "demo"]
    path: str = ""
    """The file to import, for "file"."""


def is_empty(workspace: Workspace) -> bool:
    """Whether nothing has been done here yet: no run, no model, no conversation. Reads files: not on the loop."""
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
    """Answers what to begin with, or None for "later". `set_language` saves and applies a language."""

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
    ]

    def __init__(self, settings: Settings, apply: Callable[[Settings], None]) -> None:
        super().__init__()
        self._settings = settings
        self._apply = apply
        self._found: list[ExportFile] = []
        self._tags: list[str] = []

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            # Both languages: nobody has been asked yet.
            box.border_title = "Make your own model · 制作你自己的模型"
            yield Static(id="first-lines")

    def on_mount(self) -> None:
        self._draw()
        self._look()
        self._ask_ollama()

    def on_resize(self) -> None:
        self._draw()

    @work(thread=True, group="first:look", exit_on_error=False)
    def _look(self) -> None:
        self.app.call_from_thread(self._looked, find_exports(downloads()))

    @work(thread=True, group="first:ollama", exit_on_error=False)
    def _ask_ollama(self) -> None:
        self.app.call_from_thread(self._asked, installed_models())

    def _looked(self, found: list[ExportFile]) -> None:
        self._found = found
        self._draw()

    def _asked(self, tags: list[str]) -> None:
        self._tags = tags
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
        if self._found:
            file = self._found[0]
            what = f"{home_shown(file.path)} ({size_shown(file.bytes)})"
            lines.append(self._line("  Found here", "  在这里找到", what, "enter", note=_("(asks first)")))
        if self._tags:
            more = "" if len(self._tags) <= MOST_TAGS else f" +{len(self._tags) - MOST_TAGS}"
            lines.append(self._line("", "", "Ollama: " + ", ".join(self._tags[:MOST_TAGS]) + more, ""))
        lines.append(
            self._line("Try it on a sample", "用示例试试", _("about four minutes, nothing to install"), "d")
        )
        names = [f"[{name}]" if code == language() else name for code, name in LANGUAGES.items()]
        lines.append(self._line("Language / 语言", "语言 / Language", " · ".join(names), "L"))
        lines.append(self._line("Later", "以后再说", "", "esc"))
        self.query_one("#first-lines", Static).update(Content("\n").join(lines))

    @property
    def _cursor(self) -> str:
        glyphs = getattr(self.app, "glyphs", None)
        return glyphs.cursor if glyphs is not None else ">"

    def _line(self, en: str, zh: str, what: str, key: str, *, note: str = "", first: bool = False) -> Content:
        """One row: label in the language in use (both where there is room), what it is, its key."""
        width = max(40, self.query_one(Vertical).content_size.width or 70)
        label, other = (zh, en) if language() == "zh" else (en, zh)
        both = f"{label} · {other.strip()}" if other.strip() and "/" not in label else label
        room = BOTH if width >= 84 else LABEL
        shown = both if cells(both) <= room - 3 else label
        middle = max(10, width - room - KEY)
        tail = f" {note}" if note and cells(what) + cells(note) + 2 <= middle else ""
        return Content.assemble(
            safe(fit((f"{self._cursor} " if first else "  ") + shown, room)),
            safe(fit(what, middle - cells(tail) - 1), "$foreground-muted"),
            " ",
            safe(fit(key, KEY), "bold $text-accent") if not tail else safe(key, "bold $text-accent"),
            safe(tail, "$foreground-muted"),
        )

    # Answers

    def action_choose(self, what: Literal["import", "demo"]) -> None:
        self.dismiss(FirstChoice(what))

    def action_found(self) -> None:
        """Enter: the file that was found, after asking."""
        if not self._found:
            return
        file = self._found[0]
        question = _("Import {path} ({size})?").format(
            path=home_shown(file.path), size=size_shown(file.bytes)
        )

        def answered(yes: bool | None) -> None:
            if yes:
                self.dismiss(FirstChoice("file", str(file.path)))

        self.app.push_screen(Confirm(question), answered)

    def action_language(self) -> None:
        """The other language, saved and in force at once."""
        codes = list(LANGUAGES)
        other = codes[(codes.index(language()) + 1) % len(codes)]
        self._settings = msgspec.structs.replace(self._settings, language=other)
        self._apply(self._settings)
        self._draw()

    def action_leave(self) -> None:
        self.dismiss(None)
