"""The base class of the tabs.

To add a tab: write a package `tui/tabs/<name>/` whose `tab.py` has a subclass of `Tab` (TAB_ID, TITLE, `compose`),
add its actions to `tui/actions.py` with one method `action_<verb>` for each, and one line to `TABS` in
`tui/tabs/registry.py`. The module is imported and its widgets are made when the tab is first shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.containers import Container
from textual.content import Content
from textual.widget import Widget

from engine.core.i18n import _
from tui.actions import ACTIONS, AppAction, of_tab

if TYPE_CHECKING:
    from tui.host.app_host import AppHost
    from tui.host.run_follower import RunUpdated


class Tab(Container):
    """The content of one tab.

    Keys: every action of the table is a Textual binding of the app, which calls `action_<verb>` of the tab on the
    screen; for an action of EVERYWHERE (undo, filter, refresh, copy …) the method of the tab goes before that of the
    app. A method may be a coroutine; anything longer than 5 ms belongs in a worker with a group name. What a focused
    widget binds itself (arrows and enter of a list, everything printable in a field) never gets here.

    A tab keeps references to its widgets and never queries for them: a worker or a message that comes late, while
    the app closes, then changes a widget that is off the screen instead of failing.
    """

    TAB_ID: ClassVar[str] = ""
    TITLE: ClassVar[str] = ""
    """Marked with `N_()`, shown through `_()`."""
    FIRST_FOCUS: ClassVar[str] = ""
    """Selector of the widget that has the focus when the tab is first shown."""

    DEFAULT_CSS = "Tab { width: 1fr; height: 1fr; }"

    def __init__(self, host: AppHost) -> None:
        super().__init__(id=f"tab-{self.TAB_ID}", classes="tab")
        self.host = host
        self.workspace = host.workspace
        self.last_focus: Widget | None = None
        """Set by the app when another tab is shown: the focus returns there."""

    def activate(self) -> None:
        """The tab is on the screen now: draw the present state. Called after mounting, each time."""

    def deactivate(self) -> None:
        """Another tab is on the screen: stop timers that only feed the screen."""

    def restore_from(self, previous: Tab) -> None:
        """Takes the state of `previous`, of the same class, which this tab replaces (the language changed).
        Called before mounting."""

    async def show_item(self, item_id: str) -> None:
        """Puts the cursor on a thing of this tab that the palette found: a run, a conversation."""

    async def wait_until_loaded(self) -> None:
        """Returns when the tab shows the result of the keys so far, or after a second or two: the next key is
        meant for that result."""

    def unsaved_question(self) -> str:
        """A question when leaving the app now would lose something, else ""."""
        return ""

    def run_updated(self, message: RunUpdated) -> None:
        """New events of a run, at most twice a second. Called only while the tab is on the screen; `activate` draws
        what was missed (`self.host.board` has the state of every run)."""

    def runs_changed(self) -> None:
        """A run appeared, ended or was removed (`self.host.board.runs`). Called only while on the screen."""

    def machine_sampled(self) -> None:
        """`self.host.machine` has a new sample. Called only while the tab is on the screen."""

    def is_enabled(self, action: AppAction) -> bool:
        """Whether `action` makes sense now; footer, palette and `?` sheet offer only enabled actions."""
        return True

    def is_available(self, action: AppAction) -> bool:
        """Whether the tab implements `action` and it is enabled."""
        return hasattr(self, f"action_{action.verb}") and self.is_enabled(action)

    def notice(self) -> Content | None:
        """A line for the footer in place of the keys, or None."""
        return None

    def footer_actions(self) -> list[AppAction]:
        """Actions for the footer, most useful first; those that do not fit are dropped, `?` never is."""
        return [action for action in of_tab(self.TAB_ID) if action.footer and self.host.is_offered(action)]

    def footer_label(self, action: AppAction) -> str:
        """The translated label of an action as it applies now."""
        return _(action.label)

    def available_actions(self) -> list[AppAction]:
        """Every available action of this tab and of EVERYWHERE, for the `?` sheet and the palette."""
        return [action for action in ACTIONS if self.host.is_offered(action)]

    def show_message(self, text: str, severity: str = "") -> None:
        """One line in the footer; severity is "", "success", "warning" or "error"."""
        self.host.show_message(text, severity)
