"""How Textual performs an action of the table, and when."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from engine.core.errors import H2QError
from engine.core.i18n import _
from tui.actions import EVERYWHERE, AppAction
from tui.app.read_only import only_looks

if TYPE_CHECKING:
    from tui.app.global_actions import GlobalActions
    from tui.tabs.base import Tab


class PerformHost(Protocol):
    """What performing an action needs of the app besides Textual."""

    read_only: bool

    @property
    def tab(self) -> Tab | None:
        """The tab on the screen."""

    def show_message(self, text: str, severity: str = "") -> None:
        """One line in the footer."""

    def clear_message(self) -> None:
        """Removes the message from the footer."""

    def refresh_footer(self) -> None:
        """Redraws the keys that are available now."""


class ActionPerformer:
    """Performs actions of the table: in the tab on the screen (`action_<verb>`), else, for an action of EVERYWHERE, by
    `global_actions` (`action_<verb>` there)."""

    def __init__(self, host: PerformHost, global_actions: GlobalActions) -> None:
        self.host = host
        self.global_actions = global_actions

    def state(self, action: AppAction) -> bool | None:
        """The answer for Textual's `check_action`: True available now, None here but not now, False not of this tab."""
        tab = self.host.tab
        if tab is None or action.tab not in (EVERYWHERE, tab.TAB_ID):
            return False
        return True if self._method(action, tab) else None

    def _method(self, action: AppAction, tab: Tab) -> Callable[..., object] | None:
        name = f"action_{action.verb}"
        if self.host.read_only and not only_looks(action):
            return None
        if tab.is_available(action):
            return getattr(tab, name, None)
        if action.tab == EVERYWHERE and self.global_actions.is_enabled(action):
            return getattr(self.global_actions, name, None)
        return None

    async def perform(self, action: AppAction, *parameters: Any) -> None:
        """Performs an available action; an error is one line in the footer."""
        tab = self.host.tab
        method = self._method(action, tab) if tab is not None else None
        if method is None:
            return
        self.host.clear_message()
        try:
            result = method(*parameters)
            if inspect.isawaitable(result):
                await result
        except H2QError as error:
            self.host.show_message(str(error), "error")
        self.host.refresh_footer()

    def say_unavailable(self, action: AppAction) -> None:
        """Why nothing happened: the action is not possible now, or not in this tab at all."""
        tab = self.host.tab
        if self.host.read_only and not only_looks(action):
            self.host.show_message(_("read-only: {action}").format(action=_(action.label)))
            return
        text = _("not now: {action}") if hasattr(tab, f"action_{action.verb}") else _("not here: {action}")
        self.host.show_message(text.format(action=_(action.label)))
