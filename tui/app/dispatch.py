"""From a key press to the action that it means.

Textual's own bindings of the focused widget and of the screen come first (`App._check_bindings`). What stands here is
what they cannot do: full-width keys of Chinese input methods act as their half-width ones; keys typed ahead are
handled strictly one after the other, each on the result of the one before; a key whose action is not available says
so; and the keys of everywhere cannot be shadowed by a tab.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from textual import events
from textual.app import App
from textual.keys import _character_to_key, key_to_character
from textual.widgets import Input, TextArea

from engine.core.errors import H2QError
from engine.core.i18n import _
from tui.actions import EVERYWHERE, AppAction, half_width
from tui.screens.ask import LinePrompt

if TYPE_CHECKING:
    from tui.actions import KeyMap
    from tui.tabs.base import Tab

LAST_LATIN = 0x2E7F
"""Characters above this one come from an input method."""
IMMEDIATE_KEYS = frozenset("123456789qQ") | {"f10", "ctrl+q", "ctrl+c"}
"""Keys that do not wait until the tab has loaded."""


class DispatchHost(Protocol):
    """What the dispatcher needs of the app besides Textual."""

    keys: KeyMap

    @property
    def tab(self) -> Tab | None:
        """The tab on the screen."""

    def show_message(self, text: str, severity: str = "") -> None:
        """One line in the footer."""

    def clear_message(self) -> None:
        """Removes the message from the footer."""

    def refresh_footer(self) -> None:
        """Redraws the keys that are available now."""


def split_alt(event: events.Key, in_field: bool) -> list[events.Key]:
    """`esc` and a letter right behind it reach the app as one key with alt, which none of our keys has."""
    letter = event.character or ""
    if in_field or not event.key.startswith("alt+") or not letter.isprintable():
        return [event]
    return [events.Key("escape", "\x1b"), events.Key(_character_to_key(letter), letter)]


class ActionDispatcher:
    """Handles the keys of the app in its own message queue.

    An action of the table is performed by the tab on the screen (`action_<verb>`), else, for an action of
    EVERYWHERE, by `global_actions` (`action_<verb>` there).
    """

    def __init__(self, app: App[Any], host: DispatchHost, global_actions: object) -> None:
        self.app = app
        self.host = host
        self.global_actions = global_actions

    def split(self, event: events.Key) -> Sequence[events.Key]:
        """The keys that a key event stands for."""
        return split_alt(event, self.in_field and not isinstance(self.app.screen, LinePrompt))

    @property
    def in_field(self) -> bool:
        """Whether a text field has the focus."""
        return isinstance(self.app.focused, Input | TextArea)

    @property
    def _no_screen_open(self) -> bool:
        return len(self.app.screen_stack) == 1

    async def handle(self, event: events.Key) -> bool:
        """Performs the action of a key before the next key is read, so that quick keys keep their order: what one
        opens or closes is there or gone for the next. False for keys that a field or a screen reads."""
        app, screen = self.app, self.app.screen
        if isinstance(screen, LinePrompt):
            return await screen.process_key(event)
        in_field = self.in_field
        if (in_field and event.key != "escape") or hasattr(screen, "on_key"):
            return False
        if screen.maximized is not None and event.key == "escape":
            return False
        event = event if in_field else self._half_width(event)
        tab = self.host.tab
        if self._no_screen_open and tab is not None and event.key not in IMMEDIATE_KEYS:
            await tab.wait_until_loaded()
        if await app._check_bindings(event.key, priority=True) or await app._check_bindings(event.key):
            return True
        if self._no_screen_open:
            await self._perform_key(event)
        return True

    async def handle_unused(self, event: events.Key) -> None:
        """A key that the focused field did not use."""
        if event.key not in self.app.screen.active_bindings and self._no_screen_open:
            await self._perform_key(event)

    def _half_width(self, event: events.Key) -> events.Key:
        """`：` from an input method acts as `:`; composed words get a hint how to switch."""
        character = event.character or key_to_character(event.key) or ""
        half = half_width(character)
        if half != character:
            return events.Key(_character_to_key(half), half)
        if len(character) == 1 and ord(character) > LAST_LATIN and self._no_screen_open:
            self.host.show_message(
                _("An input method is on: shift or ctrl+space switches it off; the keys are Latin letters"),
                "warning",
            )
        return event

    async def _perform_key(self, event: events.Key) -> None:
        character = event.character or ""
        key = character if event.is_printable and character.strip() else event.key
        tab = self.host.tab
        action = self.host.keys.find(tab.TAB_ID if tab is not None else "", key)
        if action is None:
            return
        event.stop()
        event.prevent_default()
        self.host.clear_message()
        await self.perform(action, key)

    async def perform(self, action: AppAction, key: str = "") -> None:
        """Performs `action` in the tab on the screen, else in the app; an error is one line in the footer."""
        tab = self.host.tab
        if tab is None:
            return
        name = f"action_{action.verb}"
        method = None
        if tab.is_available(action) and action.tab in (EVERYWHERE, tab.TAB_ID):
            method = getattr(tab, name)
        elif self.has_global_action(action):
            method = getattr(self.global_actions, name)
        if method is None:
            if action.verb != "back":
                text = _("not now: {action}") if hasattr(tab, name) else _("not here: {action}")
                self.host.show_message(text.format(action=_(action.label)))
            return
        try:
            result = method(key) if "key" in inspect.signature(method).parameters else method()
            if inspect.isawaitable(result):
                await result
        except H2QError as error:
            self.host.show_message(str(error), "error")
        self.host.refresh_footer()

    def has_global_action(self, action: AppAction) -> bool:
        """Whether the app itself implements an action of EVERYWHERE."""
        return action.tab == EVERYWHERE and hasattr(self.global_actions, f"action_{action.verb}")
