"""The App: which tab is shown, which key means which action, and who is told of what. No logic of the work.

`tui/dispatch.py` finds and does the action of a key; `tui/tabs/base.py` tells how a tab takes part.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on
from textual._compositor import ChopsUpdate
from textual._xterm_parser import XTermParser
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import ContentSwitcher

from engine.core.config import Settings
from engine.core.i18n import _
from engine.core.paths import shipped
from tui.app import onboarding
from tui.app.actions import KeyMap
from tui.app.cell_diff import ExactUpdate
from tui.app.dispatch import KeyedApp
from tui.app.glyphs import Glyphs, choose_glyphs
from tui.app.palette import ActionProvider
from tui.app.run_follower import RunBoard, RunsChanged, RunUpdated, header_status
from tui.app.sanitise import OnlyText
from tui.app.terminal import detect_terminal, hung_up, theme_name
from tui.app.text import plain
from tui.app.themes import themes
from tui.tabs.base import Tab
from tui.tabs.registry import TABS, TabRow, make_tab
from tui.widgets.cell_lines import CellLines
from tui.widgets.footer import Footer
from tui.widgets.header import Header

if TYPE_CHECKING:
    from textual.app import SystemCommand
    from textual.command import Provider

    from engine.core.paths import Workspace

TOO_SMALL = (60, 20)
"""Columns and rows below which nothing useful fits."""
HUNG_UP_EVERY_S = 5.0
"""Between two looks whether the terminal is still there."""


class TooSmall(CellLines):
    """The one line of a terminal under 60 by 20."""

    DEFAULT_CSS = "TooSmall { display: none; }"

    def on_resize(self, _event: events.Resize) -> None:
        self.set_lines([Content(_("h2q needs 60 columns and 20 rows"))])


class H2QApp(KeyedApp):
    """The terminal app on one workspace.

    `board` knows every run, `keys` every key, `signs` what this terminal can draw, `settings` what the person
    has set.
    """

    CSS_PATH = sorted(shipped("styles").glob("*.tcss"))
    ENABLE_COMMAND_PALETTE = True
    COMMANDS: ClassVar[set[type[Provider]]] = {ActionProvider}  # type: ignore[assignment]
    COMMAND_PALETTE_BINDING = "ctrl+p"
    BINDINGS: ClassVar[list[BindingType]] = []
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-narrow"),
        (80, "-normal"),
        (120, "-wide"),
    ]

    def __init__(
        self,
        workspace: Workspace,
        tab: str | None = None,
        settings: Settings | None = None,
        *,
        welcome: bool = False,
        interval: float = 2.0,
        ambiguous_wide: bool = False,
        typed: str = "",
    ) -> None:
        """`welcome` offers the first-start sheet where nothing has been done in the workspace yet; `interval`
        is the pace of the Health tab in seconds; `ambiguous_wide` is what the terminal answered about `●`;
        `typed` what the person pressed before the app had the terminal."""
        self.ambiguous_wide = ambiguous_wide
        self._typed = typed
        self.workspace = workspace
        self.interval = interval
        self._welcome = welcome
        self.settings = settings or Settings()
        self.terminal = detect_terminal()
        self.glyphs = self.glyphs_for(self.settings)
        self.keys = KeyMap(self.settings.keys)
        super().__init__()
        self.demo_requested = False
        """The person chose the demo, which has a workspace of its own: the app opens again on that."""
        self._filters.append(OnlyText())
        self.board = RunBoard(self, workspace)
        self.set_class(self.glyphs.ascii, "-ascii")
        self._first_tab = tab or TABS[0].id
        self._tabs: dict[str, Tab] = {}
        self._replaced: dict[str, Tab] = {}
        """Tabs that are off the screen for good, until those made in their place take over."""
        for own in themes():
            self.register_theme(own)
        theme = theme_name(self.settings.theme, self.terminal.colours)
        if theme in self.available_themes:
            self.theme = theme

    def glyphs_for(self, settings: Settings) -> Glyphs:
        """The signs for these settings in this terminal."""
        wide = {"wide": True, "narrow": False}.get(settings.ambiguous_width, self.ambiguous_wide)
        return choose_glyphs(settings.signs, ambiguous_wide=wide)

    def compose(self) -> ComposeResult:
        yield Header([row.title for row in TABS], self.glyphs)
        yield ContentSwitcher(id="tabs")
        yield TooSmall(id="too-small")
        yield Footer(self.keys)

    def on_load(self) -> None:
        """Keys pressed before the terminal was ours come before all others."""
        for message in XTermParser().feed(self._typed) if self._typed else ():
            self.post_message(message)

    async def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.exit)
        await self.show_tab(self._first_tab)
        self.board.start()
        self.set_interval(HUNG_UP_EVERY_S, self._leave_when_hung_up)
        if self._welcome:
            self.run_worker(onboarding.offer_first_start(self), group="first-start", exit_on_error=False)

    def on_resize(self, event: events.Resize) -> None:
        columns, rows = event.size
        self._main.set_class(columns < TOO_SMALL[0] or rows < TOO_SMALL[1], "-too-small")

    def _leave_when_hung_up(self) -> None:
        """Ends when the terminal went without a SIGHUP (no controlling terminal, a closed pipe)."""
        if not self.is_headless and hung_up():
            self.exit()

    # Tabs

    @property
    def tab(self) -> Tab | None:
        """The tab on the screen."""
        switcher = self._main.query_one("#tabs", ContentSwitcher)
        current = switcher.current
        return self._tabs.get(current.removeprefix("tab-")) if current else None

    @property
    def _main(self) -> Screen[Any]:
        return self.screen_stack[0]

    @property
    def tab_ids(self) -> Sequence[str]:
        return [row.id for row in TABS]

    async def show_tab(self, tab_id: str) -> None:
        """Shows a tab, making it first if nobody has looked at it yet."""
        index, row = next(((i, row) for i, row in enumerate(TABS) if row.id == tab_id), (0, TABS[0]))
        switcher = self._main.query_one("#tabs", ContentSwitcher)
        before = self.tab
        if before is not None:
            if row.id == before.TAB_ID:
                return
            before.last_focus = self._main.focused
            before.deactivate()
        tab = self._tabs.get(row.id)
        if tab is None:
            tab = await self._make(row, switcher)
        switcher.current = f"tab-{row.id}"
        header = self._main.query_one(Header)
        header.active = index
        header.redraw()
        self._focus_in(tab)
        tab.activate()
        self.refresh_footer()

    async def rebuild_tabs(self) -> None:
        """Makes the tabs again, in another language or with other signs; each takes over what it held."""
        current, self._replaced, self._tabs = self.tab, self._tabs, {}
        self.set_class(self.glyphs.ascii, "-ascii")
        switcher = self._main.query_one("#tabs", ContentSwitcher)
        switcher.current = None
        for tab in self._replaced.values():
            tab.deactivate()
            await tab.remove()
        if current is not None:
            await self.show_tab(current.TAB_ID)
        self._refresh_header()

    async def _make(self, row: TabRow, switcher: ContentSwitcher) -> Tab:
        tab = self._tabs[row.id] = make_tab(row, self.workspace)
        before = self._replaced.pop(row.id, None)
        if before is not None:
            tab.restore_from(before)
        await switcher.mount(tab)
        return tab

    def _focus_in(self, tab: Tab) -> None:
        target = tab.last_focus
        if (target is None or not target.is_attached) and tab.FIRST_FOCUS:
            target = next(iter(tab.query(tab.FIRST_FOCUS)), None)
        self._main.set_focus(target)

    @on(Header.TabClicked)
    async def _tab_clicked(self, message: Header.TabClicked) -> None:
        await self.show_tab(TABS[message.index].id)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Nothing but our own table: the palette is `ActionProvider`."""
        return ()

    def do_settings(self) -> None:
        onboarding.open_settings(self)

    # Words to the person

    def clear_message(self) -> None:
        self._main.query_one(Footer).clear_message()

    def show_message(self, text: str, kind: str = "") -> None:
        """One line at the foot of the screen; kind is "", "success", "warning" or "error"."""
        self._main.query_one(Footer).show_message(text, kind)

    def _print_error_renderables(self) -> None:
        """A fault of the app is left to `open_app`, which says it in one sentence. Textual would print the
        values of variables too, which may be what a person said."""
        if self.fault is not None:
            self._exit_renderables.clear()
        super()._print_error_renderables()

    @property
    def fault(self) -> Exception | None:
        """What ended the app against its will."""
        return self._exception

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        super()._display(
            screen, ExactUpdate.of(renderable) if type(renderable) is ChopsUpdate else renderable
        )

    def notify(self, message: str, **options: Any) -> None:
        """Text, never markup; only Textual itself still calls this."""
        options["markup"] = False
        if "title" in options:
            options["title"] = plain(options["title"])
        super().notify(plain(message), **options)

    def refresh_footer(self) -> None:
        """The keys that make sense now."""
        tab = self.tab
        if tab is None or not self.is_running:
            return
        footer = self._main.query_one(Footer)
        footer.actions, footer.notice = tab.footer_rows(), tab.notice()
        footer.redraw()

    # Runs

    @on(RunUpdated)
    def _run_updated(self, message: RunUpdated) -> None:
        self._refresh_header()
        tab = self.tab
        if tab is not None:
            tab.run_updated(message)

    @on(RunsChanged)
    def _runs_changed(self, message: RunsChanged) -> None:
        self._refresh_header()
        tab = self.tab
        if tab is not None:
            tab.runs_changed()
        self.refresh_footer()

    def _refresh_header(self) -> None:
        header = self._main.query_one(Header)
        header.running = header_status(self.board)
        header.redraw()
