"""The table of actions as Textual's bindings, and how Textual performs one of them.

Every action of the table is a binding of the app, so that it is there whatever has the focus. Actions of several tabs
share a key: Textual tries the bindings of a key in turn, and `check_action` of the app refuses those of other tabs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from textual.app import App
from textual.binding import Binding
from textual.keys import _character_to_key

from engine.core.errors import H2QError
from engine.core.i18n import _
from tui.actions import ACTIONS, BY_ID, EVERYWHERE, AppAction, is_digit_action, keys_in_use

if TYPE_CHECKING:
    from tui.app.global_actions import GlobalActions
    from tui.tabs.base import Tab

PERFORM = "perform"
"""Name of the Textual action that performs an action of the table; its first parameter is the id."""


class PerformHost(Protocol):
    """What performing an action needs of the app besides Textual."""

    @property
    def tab(self) -> Tab | None:
        """The tab on the screen."""

    def show_message(self, text: str, severity: str = "") -> None:
        """One line in the footer."""

    def clear_message(self) -> None:
        """Removes the message from the footer."""

    def refresh_footer(self) -> None:
        """Redraws the keys that are available now."""


def textual_key(key: str) -> str:
    """Textual's name of a key of the table: `comma` for `,`."""
    return _character_to_key(key) if len(key) == 1 else key


def textual_action(action: AppAction) -> str:
    """The Textual action of a row of the table."""
    return f"app.{PERFORM}('{action.id}')"


def table_bindings() -> list[Binding]:
    """A binding for each action of the table.

    The digits of the tabs carry their number, and no id: no keymap reaches them. ctrl+p is left to the binding of the
    palette that Textual itself adds, which works in fields and above sheets too.
    """
    bindings = []
    for action in ACTIONS:
        if is_digit_action(action):
            bindings += [
                Binding(key, f"app.{PERFORM}('{action.id}', '{key}')", show=False) for key in action.keys
            ]
            continue
        keys = ",".join(textual_key(key) for key in action.keys if key != App.COMMAND_PALETTE_BINDING)
        bindings.append(
            Binding(
                keys,
                textual_action(action),
                action.label,
                show=action.footer,
                priority=action.priority,
                id=action.id,
            )
        )
    return bindings


def keymap(keys: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """What `App.set_keymap` needs for these keys (`keys_in_use`).

    Textual drops every binding of a key that an action in the keymap has or takes, also those of other tabs. So
    whatever shares a key with an action of the keymap stands in it too, with the keys that it has already.
    """
    table = keys_in_use({})
    named, rest = set[str](), {id_ for id_ in keys if not is_digit_action(BY_ID[id_])}
    more = {id_ for id_ in rest if keys[id_] != table[id_]}
    while more:
        named |= more
        rest -= more
        touched = {key for id_ in more for key in (*keys[id_], *table[id_])}
        more = {id_ for id_ in rest if touched & {*keys[id_], *table[id_]}}
    return {id_: ",".join(map(textual_key, keys[id_])) for id_ in keys if id_ in named and keys[id_]}


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
        text = _("not now: {action}") if hasattr(tab, f"action_{action.verb}") else _("not here: {action}")
        self.host.show_message(text.format(action=_(action.label)))
