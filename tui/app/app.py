"""The App: which tab is on the screen, which key means which action, and who gets which message. No logic of the work.

`tui/app/bindings.py` makes Textual's bindings of the table of actions, `tui/app/perform.py` performs them;
`tui/tabs/base.py` describes a tab.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import events, on, work
from textual._compositor import CompositorUpdate
from textual._xterm_parser import XTermParser
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.filter import Monochrome, NoColor
from textual.screen import Screen
from textual.widgets import ContentSwitcher

from engine.core.i18n import _, set_language, system_language
from engine.core.paths import shipped
from engine.core.settings import Settings
from tui.actions import BY_ID, EVERYWHERE, AppAction, key_label, keys_in_use
from tui.app import onboarding
from tui.app.bindings import PERFORM, keymap, table_bindings, textual_action
from tui.app.dispatch import KeyDispatcher
from tui.app.global_actions import GlobalActions
from tui.app.next_step import NextStepLine
from tui.app.perform import ActionPerformer
from tui.host.machine_feed import MachineFeed, MachineSampled
from tui.host.run_follower import RunBoard, RunsChanged, RunUpdated, header_status
from tui.host.shutdown import refuse_changes
from tui.tabs.base import Tab
from tui.tabs.registry import TABS, TabRow, make_tab
from tui.terminal.capabilities import detect_terminal, hung_up, theme_name
from tui.terminal.glyphs import Glyphs, choose_glyphs
from tui.terminal.rendering import AsciiFilter, PrintableFilter
from tui.terminal.screen_diff import DiffUpdate, ScreenDiff
from tui.terminal.text import plain
from tui.terminal.themes import themes
from tui.widgets.cell_lines import CellLines
from tui.widgets.footer import Footer, FooterEntry
from tui.widgets.header import Header

if TYPE_CHECKING:
    from engine.core.paths import Workspace

MIN_SIZE = (60, 20)
"""Columns and rows below which nothing useful fits."""
HANGUP_CHECK_S = 5.0
ALERT_CHECK_S = 5.0
"""Seconds between two checks whether the terminal is still there."""
TAB_READ_S = 2.0
"""How long an action chosen in the palette waits until its tab, just shown, offers it."""
TAB_POLL_S = 0.05
REBUILD_SETTINGS = ("language", "signs", "ambiguous_width", "max_memory_gb")
"""Settings whose change makes the tabs again."""


class TooSmall(CellLines):
    """The one line of a terminal below MIN_SIZE."""

    DEFAULT_CSS = "TooSmall { display: none; }"

    def on_resize(self, _event: events.Resize) -> None:
        self.set_lines([Content(_("h2q needs 60 columns and 20 rows"))])


class MainScreen(Screen[None]):
    """Header, tabs and footer. Below another screen the footer offers no keys: that screen reads them."""

    @on(events.ScreenSuspend)
    @on(events.ScreenResume)
    def _refresh_footer(self) -> None:
        cast("H2QApp", self.app).refresh_footer()


class H2QApp(App[None]):
    """The terminal app on one workspace; implements `AppHost`.

    `board` knows every run, `action_keys` the keys of every action, `glyphs` what this terminal can draw, `settings` what the user has set.
    Header, footer and tabs are kept by reference: a message that arrives while the app closes changes a widget that is
    off the screen, and finds nothing missing.
    """

    CSS_PATH = sorted(shipped("styles").glob("*.tcss"))
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    BINDINGS: ClassVar[list[BindingType]] = [*table_bindings()]
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
        read_only: bool = False,
    ) -> None:
        """`welcome` offers the first-start sheet in an empty workspace; `interval` is the refresh interval of the
        Health tab in seconds; `ambiguous_wide` is the terminal's answer about the width of `●`; `typed` are the keys
        pressed before the app had the terminal; `read_only` offers only what changes nothing but the screen."""
        self.read_only = read_only
        refuse_changes(read_only)
        self.ambiguous_wide = ambiguous_wide
        self._typed = typed
        self.workspace = workspace
        self.interval = interval
        self._welcome = welcome and not read_only
        self.settings = settings or Settings()
        self.terminal = detect_terminal()
        self.glyphs = self._glyphs_for(self.settings)
        self.action_keys: Mapping[str, tuple[str, ...]] = keys_in_use(self.settings.keys)
        super().__init__()
        self.set_keymap(keymap(self.action_keys))
        self.preparing = False
        self.demo_requested = False
        """The user chose the demo, which has a workspace of its own: the app opens again on that."""
        self._filters += [PrintableFilter(), AsciiFilter(lambda: self.glyphs.ascii)]
        if self.no_color:
            # Textual's own filter turns all colours into greys, which came out as black on black.
            self._filters = [one for one in self._filters if not isinstance(one, Monochrome)]
            self._filters.append(NoColor())
        self._screen_diff = ScreenDiff()
        self.board = RunBoard(self, workspace)
        self.machine = MachineFeed(self, self.board, lambda: self.interval, keeps=not read_only)
        self.set_class(self.glyphs.ascii, "-ascii")
        self._first_tab = tab or TABS[0].id
        self._tabs: dict[str, Tab] = {}
        self._replaced: dict[str, Tab] = {}
        """Removed tabs, until the tabs that replace them restore their state."""
        self._tab: Tab | None = None
        self._actions = GlobalActions(self, self, self, self.perform)
        self._performer = ActionPerformer(self, self._actions)
        self._dispatcher = KeyDispatcher(self, self)
        self.header = Header([row.title for row in TABS], self.glyphs)
        self.footer = Footer()
        self.next_step = NextStepLine(self)
        self._switcher = ContentSwitcher(id="tabs")
        for theme in themes():
            self.register_theme(theme)
        self._apply_theme()

    def _glyphs_for(self, settings: Settings) -> Glyphs:
        """The glyphs for these settings in this terminal."""
        wide = {"wide": True, "narrow": False}.get(settings.ambiguous_width, self.ambiguous_wide)
        return choose_glyphs(settings.signs, ambiguous_wide=wide)

    def _apply_theme(self) -> None:
        theme = theme_name(self.settings.theme, self.terminal.colours)
        if theme in self.available_themes:
            self.theme = theme

    def get_default_screen(self) -> Screen[Any]:
        return MainScreen(id="_default")

    def compose(self) -> ComposeResult:
        yield self.header
        yield self._switcher
        yield self.next_step
        yield TooSmall(id="too-small")
        yield self.footer

    def on_load(self) -> None:
        """Keys pressed before the app had the terminal come before all others."""
        for message in XTermParser().feed(self._typed) if self._typed else ():
            self.post_message(message)

    async def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.exit)
        self.app_resume_signal.subscribe(self, lambda _app: self.redraw())
        await self.show_tab(self._first_tab)
        self.board.start()
        self.machine.start()
        self.set_interval(HANGUP_CHECK_S, self._leave_when_hung_up)
        self._count_alerts()
        self.set_interval(ALERT_CHECK_S, self._count_alerts)
        if self._welcome:
            self.run_worker(onboarding.offer_first_start(self), group="first-start", exit_on_error=False)

    def on_resize(self, event: events.Resize) -> None:
        columns, rows = event.size
        self._main_screen.set_class(columns < MIN_SIZE[0] or rows < MIN_SIZE[1], "-too-small")

    def _leave_when_hung_up(self) -> None:
        """Ends when the terminal went without a SIGHUP (no controlling terminal, a closed pipe)."""
        if not self.is_headless and hung_up():
            self.exit()

    # Keys

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Key) and not event.is_forwarded:
            for key in self._dispatcher.split(event):
                if not await self._dispatcher.handle(key):
                    await super().on_event(key)
        else:
            await super().on_event(event)

    def on_key(self, event: events.Key) -> None:
        """A key that the focused field did not use; Textual looks for its binding after this."""
        self._dispatcher.explain(event.key)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == PERFORM:
            return self._performer.state(BY_ID[str(parameters[0])])
        return super().check_action(action, parameters)

    async def action_perform(self, action_id: str, *parameters: object) -> None:
        """Performs an action of the table. Textual runs it for a key or a click when `check_action` allows it."""
        await self._performer.perform(BY_ID[action_id], *parameters)

    async def perform(self, action: AppAction) -> None:
        """Performs an action of the tab on the screen or of everywhere, or says why not."""
        if not await self.run_action(textual_action(action)):
            self.say_unavailable(action)

    def is_offered(self, action: AppAction) -> bool:
        return self._performer.state(action) is True

    def say_unavailable(self, action: AppAction) -> None:
        self._performer.say_unavailable(action)

    async def perform_anywhere(self, action: AppAction) -> None:
        """Performs an action, after showing its tab. What a tab reads when it is shown decides what it offers."""
        if action.tab != EVERYWHERE and self._tab is not None and action.tab != self._tab.TAB_ID:
            await self.show_tab(action.tab)
            deadline = time.monotonic() + TAB_READ_S
            while not self.is_offered(action) and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(TAB_POLL_S)
        await self.perform(action)

    def action_command_palette(self) -> None:
        self.open_palette()

    def open_palette(self) -> None:
        """The palette, once: its key works above sheets too. Its code is loaded when it is asked for."""
        from tui.app.palette import add_models, open_palette
        from tui.screens.palette import PaletteScreen

        if not isinstance(self.screen, PaletteScreen):
            palette = open_palette(self)
            self.run_worker(add_models(self, palette), group="palette:models", exit_on_error=False)

    def open_setting(self, row: str) -> None:
        onboarding.open_settings(self, sorted(self.available_themes), row)

    def action_help_quit(self) -> None:
        """ctrl+c in a full-screen app is a habit, not a wish to lose the screen."""
        self.show_message(_("q quits, or ctrl+q from a field; runs continue"))

    # Tabs

    @property
    def tab(self) -> Tab | None:
        """The tab on the screen."""
        return self._tab

    @property
    def tab_ids(self) -> Sequence[str]:
        return [row.id for row in TABS]

    @property
    def open_tabs(self) -> Iterable[Tab]:
        return self._tabs.values()

    @property
    def _main_screen(self) -> Screen[Any]:
        return self.screen_stack[0]

    async def show_tab(self, tab_id: str) -> None:
        """Shows a tab, making it first if it has not been shown yet."""
        if not self.is_running:
            return
        index, row = next(((i, row) for i, row in enumerate(TABS) if row.id == tab_id), (0, TABS[0]))
        previous = self._tab
        if previous is not None:
            if row.id == previous.TAB_ID:
                return
            previous.last_focus = self._main_screen.focused
            previous.deactivate()
        tab = self._tabs.get(row.id)
        if tab is None:
            tab = await self._make_tab(row)
        self._tab = tab
        self._switcher.current = f"tab-{row.id}"
        self.header.active = index
        self.header.redraw()
        self.next_step.tab_id = row.id
        self.next_step.redraw()
        self._focus_in(tab)
        tab.activate()
        self.refresh_footer()

    async def _make_tab(self, row: TabRow) -> Tab:
        tab = self._tabs[row.id] = make_tab(row, self)
        previous = self._replaced.pop(row.id, None)
        if previous is not None:
            tab.restore_from(previous)
        await self._switcher.mount(tab)
        return tab

    def _focus_in(self, tab: Tab) -> None:
        target = tab.last_focus
        if (target is None or not target.is_attached) and tab.FIRST_FOCUS:
            target = next(iter(tab.query(tab.FIRST_FOCUS)), None)
        self._main_screen.set_focus(target)

    async def rebuild_tabs(self) -> None:
        """Makes the tabs again, in another language or with other glyphs; each restores its state."""
        current, self._tab = self._tab, None
        self._replaced, self._tabs = self._tabs, {}
        self.set_class(self.glyphs.ascii, "-ascii")
        self._switcher.current = None
        for tab in self._replaced.values():
            tab.deactivate()
            await tab.remove()
        if current is not None:
            await self.show_tab(current.TAB_ID)
        self._refresh_header()

    def refresh_tab(self) -> None:
        if self._tab is not None and self.is_running:
            self._tab.activate()

    @on(Header.TabClicked)
    async def _tab_clicked(self, message: Header.TabClicked) -> None:
        await self.show_tab(TABS[message.index].id)

    # Services of AppHost

    def apply_settings(self, settings: Settings) -> None:
        previous, self.settings = self.settings, settings
        self.action_keys = keys_in_use(settings.keys)
        self.set_keymap(keymap(self.action_keys))
        self._apply_theme()
        if any(getattr(previous, name) != getattr(settings, name) for name in REBUILD_SETTINGS):
            set_language(system_language() if settings.language == "auto" else settings.language)
            self.glyphs = self.header.glyphs = self._glyphs_for(settings)
            self.run_worker(self.rebuild_tabs(), group="settings:tabs", exclusive=True, exit_on_error=False)
        self.refresh_footer()

    def open_import(self) -> None:
        self.run_worker(onboarding.ask_import(self), group="import", exit_on_error=False)

    def import_sample(self) -> None:
        self.run_worker(onboarding.import_sample(self), group="import", exit_on_error=False)

    def open_demo(self) -> None:
        if self.is_web:
            # The demo opens the app again; the session of a browser ends with the app.
            self.show_message(_("In a terminal: {command}").format(command="h2q-tui demo --app"), "warning")
            return
        self.demo_requested = True
        self.exit()

    def show_message(self, text: str, severity: str = "") -> None:
        if self.is_running:
            self.footer.show_message(text, severity)

    def clear_message(self) -> None:
        self.footer.clear_message()

    def refresh_footer(self) -> None:
        tab = self._tab
        if tab is None or not self.is_running:
            return
        self.footer.entries = [
            FooterEntry(
                key_label(self.action_keys[action.id]), tab.footer_label(action), textual_action(action)
            )
            for action in (*tab.footer_actions(), BY_ID["keys"])
            if len(self.screen_stack) == 1
        ]
        self.footer.notice = tab.notice()
        self.footer.redraw()

    def refresh_next_step(self) -> None:
        if self.is_running:
            self.next_step.redraw()
            self.next_step.read()

    # Runs

    @on(RunUpdated)
    def _run_updated(self, message: RunUpdated) -> None:
        self._refresh_header()
        if self._tab is not None and self.is_running:
            self._tab.run_updated(message)

    @on(RunsChanged)
    def _runs_changed(self, message: RunsChanged) -> None:
        self._refresh_header()
        if self._tab is not None and self.is_running:
            self._tab.runs_changed()
        self.refresh_footer()
        self.refresh_next_step()

    @on(MachineSampled)
    def _machine_sampled(self) -> None:
        if self._tab is not None and self.is_running:
            self._tab.machine_sampled()

    def _refresh_header(self) -> None:
        self.header.running = header_status(self.board)
        self.header.redraw()

    @work(group="alerts:count", exclusive=True, exit_on_error=False)
    async def _count_alerts(self) -> None:
        """Alerts in force that nobody has acknowledged, for the header."""
        count = await asyncio.to_thread(_unseen_alerts, self.workspace)
        if count != self.header.alerts:
            self.header.alerts = count
            self.header.redraw()

    # Textual

    def _print_error_renderables(self) -> None:
        """A fault of the app is left to `open_app`, which reports it in one sentence. Textual would print the values
        of variables too, which may be text of the user."""
        if self.fault is not None:
            self._exit_renderables.clear()
        super()._print_error_renderables()

    @property
    def fault(self) -> Exception | None:
        """The exception that ended the app."""
        return self._exception

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        if isinstance(renderable, CompositorUpdate):
            renderable = DiffUpdate(renderable, self._screen_diff, (self.size.width, self.size.height))
        super()._display(screen, renderable)

    def redraw(self) -> None:
        """Draws every cell again: another program had the terminal. After ctrl+z and fg, Textual draws nothing itself."""
        self._screen_diff.forget()
        self.refresh(layout=True)

    def notify(self, message: str, **options: Any) -> None:
        """Text, never markup; only Textual itself still calls this."""
        options["markup"] = False
        if "title" in options:
            options["title"] = plain(options["title"])
        super().notify(plain(message), **options)


def _unseen_alerts(workspace: Workspace) -> int:
    """Alerts in force that nobody has acknowledged. Their code is loaded in the thread, after the first paint."""
    from engine.alerts.desk import count_unseen

    return count_unseen(workspace)
