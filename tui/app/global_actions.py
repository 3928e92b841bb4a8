"""The actions that are the same in every tab: tabs, panels, palette, key sheet, leaving."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from textual.app import App
from textual.widgets import Input, TextArea

from engine.core.i18n import _
from tui.actions import EVERYWHERE, AppAction
from tui.app import onboarding
from tui.screens.ask import Confirm
from tui.screens.fetch_model import FetchModel, offered_model
from tui.screens.help import KeysSheet
from tui.terminal.capabilities import has_job_control

if TYPE_CHECKING:
    from tui.host.app_host import AppHost
    from tui.tabs.base import Tab


class TabHost(Protocol):
    """The tabs, as the global actions see them."""

    @property
    def tab(self) -> Tab | None:
        """The tab on the screen."""

    @property
    def tab_ids(self) -> Sequence[str]:
        """In the order of the digits."""

    @property
    def open_tabs(self) -> Iterable[Tab]:
        """Tabs that have been shown."""


class GlobalActions:
    """`action_<verb>` for the actions of EVERYWHERE. A tab may have its own, which goes first."""

    def __init__(
        self,
        app: App[Any],
        host: AppHost,
        tabs: TabHost,
        perform: Callable[[AppAction], Awaitable[None]],
    ) -> None:
        self.app = app
        self.host = host
        self.tabs = tabs
        self._perform = perform

    def is_enabled(self, action: AppAction) -> bool:
        """Whether `action` makes sense now."""
        if action.verb == "suspend":
            # In a text area ctrl+z takes back what was typed.
            return (
                has_job_control() and not isinstance(self.app.focused, TextArea) and not self.app.is_headless
            )
        if action.verb == "fetch_model":
            return offered_model(self.host.workspace) is not None
        return True

    async def action_go_tab(self, key: str = "") -> None:
        ids = self.tabs.tab_ids
        if key.isdigit() and 0 < int(key) <= len(ids):
            await self.host.show_tab(ids[int(key) - 1])

    async def action_tab_before(self) -> None:
        await self._step_tab(-1)

    async def action_tab_after(self) -> None:
        await self._step_tab(1)

    async def _step_tab(self, step: int) -> None:
        ids, tab = self.tabs.tab_ids, self.tabs.tab
        here = ids.index(tab.TAB_ID) if tab is not None else 0
        await self.host.show_tab(ids[(here + step) % len(ids)])

    def action_move_left(self) -> None:
        self.app.simulate_key("left")

    def action_move_down(self) -> None:
        self.app.simulate_key("down")

    def action_move_up(self) -> None:
        self.app.simulate_key("up")

    def action_move_right(self) -> None:
        self.app.simulate_key("right")

    def action_go_top(self) -> None:
        self.app.simulate_key("home")

    def action_go_end(self) -> None:
        self.app.simulate_key("end")

    def action_back(self) -> None:
        """Out of a field: the focus goes to the main widget of the tab."""
        tab = self.tabs.tab
        if tab is not None and isinstance(self.app.focused, Input | TextArea):
            target = next(iter(tab.query(tab.FIRST_FOCUS)), None) if tab.FIRST_FOCUS else None
            self.app.screen.set_focus(target)

    def action_fetch_model(self) -> None:
        """The sheet that downloads a base model; the tabs read their models again."""
        model = offered_model(self.host.workspace)
        if model is not None:
            self.app.push_screen(FetchModel(self.host.workspace, model), self._fetched)

    def _fetched(self, name: str | None) -> None:
        if name is not None:
            self.host.show_message(_("{name} is in the workspace").format(name=name), "success")
            for tab in self.tabs.open_tabs:
                tab.runs_changed()

    def action_keys(self) -> None:
        """The sheet of keys; the chosen action is performed."""
        tab = self.tabs.tab
        if tab is None:
            return
        actions = tab.available_actions()
        sections = [
            (_(tab.TITLE), [action for action in actions if action.tab != EVERYWHERE]),
            (_("everywhere"), [action for action in actions if action.tab == EVERYWHERE]),
        ]
        self.app.push_screen(KeysSheet(sections, self.host.action_keys), self._chosen)

    async def _chosen(self, action: AppAction | None) -> None:
        if action is not None:
            await self._perform(action)

    def action_next_panel(self) -> None:
        self.app.screen.focus_next()

    def action_palette(self) -> None:
        """Finds actions, settings, models, runs and conversations."""
        self.app.action_command_palette()

    def action_enlarge(self) -> None:
        focused = self.app.focused
        if self.app.screen.maximized is not None:
            self.app.screen.minimize()
        elif focused is not None:
            self.app.screen.maximize(focused)

    def action_check_machine(self) -> None:
        """The sheet of the preflight."""
        from tui.screens.machine_check import MachineCheck

        self.app.push_screen(MachineCheck(self.host.workspace, read_only=self.host.read_only))

    def action_settings(self) -> None:
        names = sorted(self.app.available_themes)
        onboarding.open_settings(self.host, names)

    def action_suspend(self) -> None:
        """Gives the terminal back to the shell until `fg`."""
        self.app.action_suspend_process()

    def action_redraw(self) -> None:
        """Draws the whole screen again."""
        self.host.redraw()

    def action_leave(self) -> None:
        """Leaves; asks first when a tab would lose something."""
        question = next(filter(None, (tab.unsaved_question() for tab in self.tabs.open_tabs)), "")
        if question:
            self.app.push_screen(Confirm(question), self._leave)
        else:
            self.app.exit()

    def _leave(self, yes: bool | None) -> None:
        if yes:
            self.app.exit()
