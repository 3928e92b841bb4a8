"""The screen of the first start: what this is, and what to begin with, in both languages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import msgspec
from rich.console import RenderableType
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.renderables.blank import Blank
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.core.errors import H2QError
from engine.core.i18n import LANGUAGES, _, bracketed, language
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.memory.store import MemoryStore
from engine.models.catalog import list_bases
from engine.workspace.demo import outline
from tui.actions import key_label, keys_in_use
from tui.app.bindings import bindings_for_leaving
from tui.app.find_exports import ExportFile, downloads, find_exports, format_path, format_size
from tui.screens.ask import Confirm
from tui.tabs.registry import TABS
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import fit, safe

KEY_CELLS = 7
MAX_MODELS = 3
FRAMED_FROM, LOGO_FROM = 24, 30
"""Rows from which the choices have frames, and the name is drawn large."""
LOGO = (
    "█    ▀▀▀█ █▀▀█",
    "█▀▀█ █▀▀▀ ▀▀▀█",
    "▀  ▀ ▀▀▀▀    ▀",
)


@dataclass(frozen=True)
class ShownChoice:
    """One of the choices on the screen."""

    key: str
    en: str
    zh: str
    about: str
    action: str

    @property
    def label(self) -> str:
        """In the language in use, with the other one behind it: nobody has chosen one yet."""
        first, second = (self.zh, self.en) if language() == "zh" else (self.en, self.zh)
        return f"{first} · {second}"


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


class ChoiceBox(Static):
    """A choice: its name and key in the first line, what it means in the second. A click chooses it."""

    def __init__(self, choice: ShownChoice, cursor: str) -> None:
        super().__init__()
        self.choice = choice
        self._cursor = cursor
        self.selected = False

    def draw(self, *, selected: bool) -> None:
        """`selected`: the cursor is on it, so that enter chooses it."""
        self.selected = selected
        self.set_class(selected, "-selected")
        width = max(30, self.content_size.width or 70)
        sign = self._cursor if selected else " "
        label = fit(self.choice.label, width - KEY_CELLS - 2)
        self.update(
            Content.assemble(
                safe(f"{sign} ", "bold $text-accent"),
                safe(label, "bold $text-accent" if selected else "bold"),
                safe(" " * max(0, KEY_CELLS - len(self.choice.key)) + self.choice.key, "bold $text-accent"),
                "\n  ",
                safe(fit(self.choice.about, width - 2), "$foreground-muted"),
            )
        )

    async def on_click(self) -> None:
        await self.run_action(f"screen.{self.choice.action}")


class FirstStart(ModalScreen[FirstChoice | None]):
    """Returns the choice, or None for "later". `apply` saves and applies a changed language."""

    DEFAULT_CSS = """
    FirstStart { align: center middle; background: $background; }
    FirstStart > Vertical { width: 100%; max-width: 88; height: auto; max-height: 100%; padding: 0 1; }
    FirstStart Static { height: auto; }
    FirstStart #first-choices { height: auto; }
    FirstStart ChoiceBox { height: 2; padding: 0 1; }
    FirstStart.-framed ChoiceBox { height: 4; border: round $panel-lighten-2; }
    FirstStart.-framed ChoiceBox.-selected { border: round $accent; }
    FirstStart #first-about, FirstStart #first-found { padding: 0 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "choose('import')", show=False),
        Binding("d", "choose('demo')", show=False),
        Binding("f", "found", show=False),
        Binding("enter,space", "take", show=False),
        Binding("down,j,tab", "move(1)", show=False),
        Binding("up,k,shift+tab", "move(-1)", show=False),
        Binding("L", "language", show=False),
        Binding("escape,q", "leave", show=False),
        *bindings_for_leaving("go_tab", "keys"),
    ]

    class DownloadsSearched(Message):
        """The downloads folder has been searched."""

        def __init__(self, files: list[ExportFile]) -> None:
            super().__init__()
            self.files = files

    class ModelsRead(Message):
        """The models that are on this machine already, by name."""

        def __init__(self, names: Sequence[str]) -> None:
            super().__init__()
            self.names = names

    def __init__(
        self, workspace: Workspace, settings: Settings, apply: Callable[[Settings], None], glyphs: Glyphs
    ) -> None:
        super().__init__()
        self._keys_in_use = keys_in_use(settings.keys)
        self._workspace = workspace
        self._settings = settings
        self._apply = apply
        self._glyphs = glyphs
        self._files: list[ExportFile] = []
        self._models: Sequence[str] = ()
        self._searched = False
        self._selected = "choose('import')"
        """The action of the choice under the cursor."""
        self._moved = False
        self._about = Static(id="first-about")
        self._choices = Vertical(id="first-choices")
        self._found = Static(id="first-found")

    def compose(self) -> ComposeResult:
        with Vertical():
            yield self._about
            yield self._choices
            yield self._found

    def render(self) -> RenderableType:
        """The background of the app: that of the sixteen colours is transparent, and the tabs would be seen through it."""
        return cast("RenderableType", Blank(self.app.styles.background))

    async def on_mount(self) -> None:
        await self._draw()
        self._search()
        self._read_models()

    async def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.height >= FRAMED_FROM + 4 * bool(self._files), "-framed")
        self.call_after_refresh(self._draw)

    @work(group="first:search", exit_on_error=False)
    async def _search(self) -> None:
        self.post_message(self.DownloadsSearched(await asyncio.to_thread(find_exports, downloads())))

    @work(group="first:models", exit_on_error=False)
    async def _read_models(self) -> None:
        self.post_message(self.ModelsRead(await asyncio.to_thread(_models_here, self._workspace)))

    @on(DownloadsSearched)
    async def _exports_found(self, message: DownloadsSearched) -> None:
        self._files, self._searched = message.files, True
        if self._files and not self._moved:
            self._selected = "found"
        self.set_class(self.size.height >= FRAMED_FROM + 4 * bool(self._files), "-framed")
        await self._draw()

    @on(ModelsRead)
    async def _models_came(self, message: ModelsRead) -> None:
        self._models = message.names
        await self._draw()

    # Drawing

    @property
    def _shown(self) -> list[ShownChoice]:
        """The choices, most useful first."""
        choices = [
            ShownChoice(
                "i",
                "Import conversations",
                "导入对话",
                _("ChatGPT, Claude, Open WebUI, WhatsApp …; nothing leaves this machine"),
                "choose('import')",
            ),
            ShownChoice("d", "Try it on a sample", "用示例试试", outline(), "choose('demo')"),
            ShownChoice(
                "esc", "Look around", "先看看", _("all tabs are empty and say what fills them"), "leave"
            ),
        ]
        if self._files:
            file = self._files[0]
            text = bracketed(format_path(file.path), format_size(file.bytes)) + "  " + _("(asks first)")
            choices.insert(0, ShownChoice("f", "Found here", "在这里找到", text, "found"))
        return choices

    async def _draw(self) -> None:
        if not self.is_attached:
            return
        self._about.update(Content("\n").join([*self._title(), Content("")]))
        shown = self._shown
        if [box.choice for box in self._boxes] != shown:
            await self._choices.remove_children()
            await self._choices.mount_all([ChoiceBox(choice, self._glyphs.cursor) for choice in shown])
            self.call_after_refresh(self._draw_choices)
        self._draw_choices()
        self._found.update(Content("\n").join([Content(""), *self._last_lines()]))

    def _draw_choices(self) -> None:
        for box in self._boxes:
            box.draw(selected=box.choice.action == self._selected)

    @property
    def _boxes(self) -> list[ChoiceBox]:
        return cast("list[ChoiceBox]", list(self._choices.children))

    def _title(self) -> list[Content]:
        """The name, in both languages what it is for, and one sentence."""
        name = Content.assemble(
            ("h2q-tui", "bold $text-accent"), "  ", ("Make your own model · 制作你自己的模型", "bold")
        )
        logo = [safe(line, "bold $text-accent") for line in LOGO]
        large = self.size.height >= LOGO_FROM and not self._glyphs.ascii
        return [
            *([*logo, Content("")] if large else []),
            name,
            safe(_("Your conversations become a model of your own, offline, on this machine.")),
            safe(_("A new one replaces the old one only when it is provably better."), "$foreground-muted"),
        ]

    def _last_lines(self) -> list[Content]:
        names = [f"[{name}]" if code == language() else name for code, name in LANGUAGES.items()]
        label = "语言 / Language" if language() == "zh" else "Language / 语言"
        language_line = Content.assemble(
            safe(f"{label}  "), safe(" · ".join(names), "$foreground-muted"), "  ", ("L", "bold $text-accent")
        )
        return [safe(self._found_text(), "$foreground-muted"), language_line, self._keys()]

    def _found_text(self) -> str:
        """What is on this machine already."""
        if self._models:
            more = len(self._models) - MAX_MODELS
            names = _(", ").join(self._models[:MAX_MODELS]) + (f" +{more}" if more > 0 else "")
            return _("Models on this machine: {names}").format(names=names)
        if self._searched and not self._files:
            return _("No export in {folder}, no model on this machine: neither is needed.").format(
                folder=format_path(downloads())
            )
        return ""

    def _keys(self) -> Content:
        arrows, dash = ("j k", "-") if self._glyphs.ascii else ("↑ ↓", "–")
        keys = [
            (arrows, _("choose")),
            ("enter", _("start")),
            (f"1{dash}{len(TABS)}", _("tabs")),
            (key_label(self._keys_in_use["keys"]), _("keys")),
        ]
        return Content("  ").join(
            Content.assemble((key, "bold $text-accent"), f" {word}") for key, word in keys
        )

    # Choices

    def action_move(self, by: int) -> None:
        actions = [choice.action for choice in self._shown]
        at = actions.index(self._selected) if self._selected in actions else 0
        self._moved = True
        self._selected = actions[(at + by) % len(actions)]
        self._draw_choices()

    async def action_take(self) -> None:
        """Enter: the choice under the cursor."""
        await self.run_action(f"screen.{self._selected}")

    def action_choose(self, kind: Literal["import", "demo"]) -> None:
        self.dismiss(FirstChoice(kind))

    def action_found(self) -> None:
        """Imports the newest export found, after asking."""
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

    async def action_language(self) -> None:
        """The other language, saved and applied immediately."""
        codes = list(LANGUAGES)
        other = codes[(codes.index(language()) + 1) % len(codes)]
        self._settings = msgspec.structs.replace(self._settings, language=other)
        self._apply(self._settings)
        await self._draw()

    async def action_leave_for(self, action: str) -> None:
        """Leaves for a tab or the sheet of keys."""
        self.dismiss(None)
        await self.app.run_action(action)

    def action_leave(self) -> None:
        self.dismiss(None)


def _models_here(workspace: Workspace) -> list[str]:
    """Names of the models that are on this machine already. Reads headers, and asks Ollama: call it in a thread."""
    try:
        return [model.name for model in list_bases(workspace) if not model.problem]
    except (H2QError, OSError):
        return []
