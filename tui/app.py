"""The App: which tab is shown, which key means which action, and who is told of what. No logic of the work.

Keys are looked up in `tui/actions.py` after the focused widget had its turn; see `tui/tabs/base.py` for how a
tab takes part.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on
from textual._compositor import ChopsUpdate
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.keys import _character_to_key, key_to_character
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Input, TextArea

from engine.config import Settings
from engine.errors import H2QError
from engine.i18n import _
from engine.paths import shipped
from tui import personal
from tui.actions import EVERYWHERE, Action, Keys, half_width
from tui.filters import OnlyText
from tui.follow import RunBoard, RunsChanged, RunUpdated, headline
from tui.palette import ActionProvider
from tui.repaint import ExactUpdate
from tui.signs import choose_signs
from tui.tabs.base import Tab
from tui.tabs.registry import TABS, TabRow, make_tab
from tui.terminal import look, theme_name
from tui.text import plain
from tui.widgets.footer import Footer
from tui.widgets.header import Header
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from textual.app import SystemCommand
    from textual.command import Provider

    from engine.paths import Workspace

TOO_SMALL = (60, 20)
"""Columns and rows below which nothing useful fits."""


class TooSmall(Lines):
    """The one line of a terminal under 60 by 20."""

    DEFAULT_CSS = "TooSmall { display: none; }"

    def on_resize(self, _event: events.Resize) -> None:
        from textual.content import Content

        self.show([Content(_("h2q needs 60 columns and 20 rows"))])


class H2QApp(App[None]):
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
    ) -> None:
        """`welcome` offers the first-start sheet where nothing has been done in the workspace yet."""
        self.workspace = workspace
        self._welcome = welcome
        self.settings = settings or Settings()
        self.terminal = look()
        self.signs = choose_signs(self.settings.signs, ambiguous_wide=self.settings.ambiguous_width == "wide")
        self.keys = Keys(self.settings.keys)
        super().__init__()
        self._filters.append(OnlyText())
        self.board = RunBoard(self, workspace)
        self._first_tab = tab or TABS[0].id
        self._tabs: dict[str, Tab] = {}
        self._replaced: dict[str, Tab] = {}
        """Tabs that are off the screen for good, until those made in their place take over."""
        theme = theme_name(self.settings.theme, self.terminal.colours)
        if theme in self.available_themes:
            self.theme = theme

    def compose(self) -> ComposeResult:
        yield Header([row.title for row in TABS], self.signs)
        yield ContentSwitcher(id="tabs")
        yield TooSmall(id="too-small")
        yield Footer(self.keys)

    async def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.exit)
        await self.show_tab(self._first_tab)
        self.board.start()
        if self._welcome:
            self.run_worker(personal.offer_first_start(self), group="first-start", exit_on_error=False)

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

    async def show_tab(self, tab_id: str) -> None:
        """Shows a tab, making it first if nobody has looked at it yet."""
        index, row = next(((i, row) for i, row in enumerate(TABS) if row.id == tab_id), (0, TABS[0]))
        switcher = self._main.query_one("#tabs", ContentSwitcher)
        before = self.tab
        if before is not None:
            if row.id == before.TAB_ID:
                return
            before.last_focus = self._main.focused
            before.hidden()
        tab = self._tabs.get(row.id)
        if tab is None:
            tab = await self._make(row, switcher)
        switcher.current = f"tab-{row.id}"
        header = self._main.query_one(Header)
        header.active = index
        header.redraw()
        self._focus_in(tab)
        tab.shown()
        self.refresh_footer()

    async def make_tabs_anew(self) -> None:
        """Makes the tabs again, in another language or with other signs; each takes over what it held."""
        current, self._replaced, self._tabs = self.tab, self._tabs, {}
        switcher = self._main.query_one("#tabs", ContentSwitcher)
        switcher.current = None
        for tab in self._replaced.values():
            tab.hidden()
            await tab.remove()
        if current is not None:
            await self.show_tab(current.TAB_ID)
        self._refresh_header()

    async def _make(self, row: TabRow, switcher: ContentSwitcher) -> Tab:
        tab = self._tabs[row.id] = make_tab(row, self.workspace)
        before = self._replaced.pop(row.id, None)
        if before is not None:
            tab.take_over(before)
        await switcher.mount(tab)
        return tab

    def _focus_in(self, tab: Tab) -> None:
        target = tab.last_focus
        if (target is None or not target.is_attached) and tab.FIRST_FOCUS:
            target = next(iter(tab.query(tab.FIRST_FOCUS)), None)
        self._main.set_focus(target)

    @on(Header.TabChosen)
    async def _tab_clicked(self, message: Header.TabChosen) -> None:
        await self.show_tab(TABS[message.index].id)

    # Keys and actions

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Key) and not event.is_forwarded and not self._in_field():
            event = self._half_width(event)
        await super().on_event(event)

    def _in_field(self) -> bool:
        return isinstance(self.focused, Input | TextArea)

    def _half_width(self, event: events.Key) -> events.Key:
        """`：` from an input method acts as `:`; whole words from one get the hint how to switch."""
        character = event.character or key_to_character(event.key) or ""
        half = half_width(character)
        if half != character:
            return events.Key(_character_to_key(half), half)
        if len(character) == 1 and ord(character) > 0x2E7F and len(self.screen_stack) == 1:
            self.say(
                _("An input method is on: shift or ctrl+space switches it off, keys are latin letters"),
                "watch",
            )
        return event

    async def on_key(self, event: events.Key) -> None:
        """A key that the focused widget left alone."""
        if len(self.screen_stack) > 1 or event.key in self.screen.active_bindings:
            return
        character = event.character or ""
        key = character if event.is_printable and character.strip() else event.key
        tab = self.tab
        row = self.keys.find(tab.TAB_ID if tab is not None else "", key)
        if row is None:
            return
        event.stop()
        event.prevent_default()
        self._main.query_one(Footer).hush()
        await self.perform(row, key)

    async def perform(self, row: Action, key: str = "") -> None:
        """Does `row` in the tab on the screen, else in the app; a failure is one sentence at the foot."""
        tab = self.tab
        if tab is None:
            return
        if tab.offers(row) and row.tab in (EVERYWHERE, tab.TAB_ID):
            method = getattr(tab, f"action_{row.verb}")
        elif row.tab == EVERYWHERE:
            method = getattr(self, f"do_{row.verb}", None)
        else:
            method = None
        if method is None:
            self.say(_("Nothing here to {action}").format(action=_(row.label)))
            return
        try:
            result = method(key) if "key" in inspect.signature(method).parameters else method()
            if inspect.isawaitable(result):
                await result
        except H2QError as error:
            self.say(str(error), "act")
        self.refresh_footer()

    def offers(self, row: Action) -> bool:
        """Whether the app itself has a method for a row of EVERYWHERE."""
        return row.tab == EVERYWHERE and hasattr(self, f"do_{row.verb}")

    async def do_go_tab(self, key: str) -> None:
        if key.isdigit() and 0 < int(key) <= len(TABS):
            await self.show_tab(TABS[int(key) - 1].id)

    async def do_tab_before(self) -> None:
        await self._step_tab(-1)

    async def do_tab_after(self) -> None:
        await self._step_tab(1)

    async def _step_tab(self, step: int) -> None:
        here = next((i for i, row in enumerate(TABS) if self.tab and row.id == self.tab.TAB_ID), 0)
        await self.show_tab(TABS[(here + step) % len(TABS)].id)

    def do_move_left(self) -> None:
        self.simulate_key("left")

    def do_move_down(self) -> None:
        self.simulate_key("down")

    def do_move_up(self) -> None:
        self.simulate_key("up")

    def do_move_right(self) -> None:
        self.simulate_key("right")

    def do_go_top(self) -> None:
        self.simulate_key("home")

    def do_go_end(self) -> None:
        self.simulate_key("end")

    def do_keys(self) -> None:
        from tui.screens.help import KeysSheet

        tab = self.tab
        if tab is not None:
            self.push_screen(KeysSheet(tab), self._chosen)

    def do_palette(self) -> None:
        self.action_command_palette()

    def do_enlarge(self) -> None:
        focused = self.focused
        if self.screen.maximized is not None:
            self.screen.minimize()
        elif focused is not None:
            self.screen.maximize(focused)

    def do_settings(self) -> None:
        personal.open_settings(self)

    def do_leave(self) -> None:
        self.exit()

    async def _chosen(self, row: Action | None) -> None:
        if row is not None:
            await self.perform(row)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Nothing but our own table: the palette is `ActionProvider`."""
        return ()

    # Words to the person

    def say(self, text: str, kind: str = "") -> None:
        """One line at the foot of the screen; kind is "", "good", "watch" or "act"."""
        self._main.query_one(Footer).say(text, kind)

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
        footer.rows, footer.notice = tab.footer_rows(), tab.notice()
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
        header.running = headline(self.board)
        header.redraw()
