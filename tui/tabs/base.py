"""What every tab is.

To add a tab: write `tui/tabs/<name>.py` with a subclass of `Tab` (TAB_ID, TITLE, `compose`), add its rows to
`tui/actions.py`, one method `action_<verb>` for each row, and one line to `TABS` in `tui/tabs/registry.py`.
A tab's module is imported and its widgets are made when it is shown for the first time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.containers import Container
from textual.content import Content
from textual.widget import Widget

from tui.app.actions import BY_ID, EVERYWHERE, AppAction, of_tab

if TYPE_CHECKING:
    from engine.core.paths import Workspace
    from tui.app.app import H2QApp
    from tui.app.run_follower import RunUpdated


class Tab(Container):
    """The content of one tab.

    Keys: the app looks a key up in the table and calls `action_<verb>` of the tab on the screen; for a row of
    EVERYWHERE (undo, filter, refresh, copy …) the tab's method comes before the app's own. A method may be a
    coroutine; anything longer than 5 ms belongs in a worker with a group name. What a focused widget binds
    itself (arrows and enter of a list, everything printable in a field) never gets here.
    """

    TAB_ID: ClassVar[str] = ""
    TITLE: ClassVar[str] = ""
    """Marked with `N_()`, shown through `_()`."""
    FIRST_FOCUS: ClassVar[str] = ""
    """Selector of what has the focus when the tab is shown for the first time."""

    DEFAULT_CSS = "Tab { width: 1fr; height: 1fr; }"

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(id=f"tab-{self.TAB_ID}", classes="tab")
        self.workspace = workspace
        self.last_focus: Widget | None = None
        """Set by the app when another tab is shown, so that coming back finds the cursor where it was."""

    @property
    def h2q(self) -> H2QApp:
        """The app, typed."""
        return cast("H2QApp", self.app)

    def activate(self) -> None:
        """The tab is on the screen now: draw the present state. Called after mounting, each time."""

    def deactivate(self) -> None:
        """Another tab is on the screen: stop timers that only feed the eye."""

    def restore_from(self, before: Tab) -> None:
        """This tab replaces `before`, of the same class (the language changed): take what must not be lost.
        Called before mounting."""

    async def wait_until_loaded(self) -> None:
        """Returns when the tab shows what the keys so far asked for, or after a second or two: the next key is
        meant for that."""

    def unsaved_question(self) -> str:
        """A question when leaving the app now would lose something, else ""."""
        return ""

    def run_updated(self, message: RunUpdated) -> None:
        """Something happened in a run, at most twice a second. Called only while the tab is on the screen;
        `shown` draws what was missed (`self.h2q.board` holds the state of every run)."""

    def runs_changed(self) -> None:
        """A run appeared, ended or went (`self.h2q.board.runs`). Called only while on the screen."""

    def is_enabled(self, row: AppAction) -> bool:
        """Whether `row` makes sense now; the footer, palette and `?` sheet offer only what can be done."""
        return True

    def notice(self) -> Content | None:
        """What the footer says instead of the keys, or None."""
        return None

    def is_available(self, row: AppAction) -> bool:
        """Whether the tab has a method for `row`, and it can be done now."""
        return hasattr(self, f"action_{row.verb}") and self.is_enabled(row)

    def footer_rows(self) -> list[AppAction]:
        """Rows for the footer, most useful first; what does not fit is left out, `?` never is."""
        return [row for row in of_tab(self.TAB_ID) if row.footer and self.is_available(row)]

    def all_rows(self) -> list[AppAction]:
        """Every row of this tab and of everywhere that is offered now, for the `?` sheet and the palette."""
        return [
            row
            for row in BY_ID.values()
            if (row.tab == self.TAB_ID and self.is_available(row))
            or (row.tab == EVERYWHERE and (self.is_available(row) or self.h2q.is_available(row)))
        ]

    def show_message(self, text: str, kind: str = "") -> None:
        """One line to the person at the foot of the screen; kind is "", "success", "warning" or "error"."""
        self.h2q.show_message(text, kind)
