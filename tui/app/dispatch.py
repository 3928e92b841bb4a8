"""What Textual's bindings cannot do with a key.

- Full-width keys of Chinese input methods act as their half-width ones, and composed words get a hint.
- A letter right behind `esc` arrives as one key with alt: it counts as the two keys.
- Keys typed ahead are handled strictly one after the other, each on the result of the one before. Textual hands a key
  to the queue of the focused widget and reads the next one meanwhile, so a key would meet a screen that is not there
  yet, or rows of a filter that is gone.
- A key whose action is not available says so. Textual is silent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from textual import events
from textual.app import App
from textual.keys import _character_to_key, key_to_character
from textual.widgets import Input, TextArea

from engine.core.i18n import _
from tui.actions import BY_ID, AppAction
from tui.app.bindings import textual_key
from tui.screens.ask import ReadsKeys

if TYPE_CHECKING:
    from tui.tabs.base import Tab

LAST_LATIN = 0x2E7F
"""Characters above this one come from an input method."""
IMMEDIATE_ACTIONS = ("go_tab", "leave", "suspend")
"""Actions that do not wait until the tab has loaded."""

_PUNCTUATION = {
    "。": ".",
    "，": ",",
    "、": "/",
    "《": "<",
    "》": ">",
    "【": "[",
    "】": "]",
    "「": "[",
    "」": "]",
    "\u3000": " ",
}


def half_width(character: str) -> str:
    """The half-width form of a full-width character (`：` is `:`), else the character itself.

    The punctuation that a Chinese input method writes counts as the punctuation keys.
    """
    if len(character) == 1 and 0xFF01 <= ord(character) <= 0xFF5E:
        return chr(ord(character) - 0xFEE0)
    return _PUNCTUATION.get(character, character)


def split_alt(event: events.Key, in_field: bool) -> list[events.Key]:
    """`esc` and a letter right behind it reach the app as one key with alt, which none of our keys has."""
    letter = event.character or ""
    if in_field or not event.key.startswith("alt+") or not letter.isprintable():
        return [event]
    return [events.Key("escape", "\x1b"), events.Key(_character_to_key(letter), letter)]


class KeyHost(Protocol):
    """What the order of keys needs of the app besides Textual."""

    action_keys: Mapping[str, tuple[str, ...]]

    @property
    def tab(self) -> Tab | None:
        """The tab on the screen."""

    def show_message(self, text: str, severity: str = "") -> None:
        """One line in the footer."""

    def say_unavailable(self, action: AppAction) -> None:
        """Says that an action is not possible now or not here."""


class KeyDispatcher:
    """Hands the keys to Textual's bindings, in the message queue of the app."""

    def __init__(self, app: App[Any], host: KeyHost) -> None:
        self.app = app
        self.host = host

    def split(self, event: events.Key) -> Sequence[events.Key]:
        """The keys that a key event stands for."""
        keeps_alt = self._in_field and not getattr(self.app.focused, "ESCAPE_LEAVES", False)
        return split_alt(event, keeps_alt and not isinstance(self.app.screen, ReadsKeys))

    @property
    def _in_field(self) -> bool:
        """Whether a text field has the focus."""
        return isinstance(self.app.focused, Input | TextArea)

    @property
    def _no_screen_open(self) -> bool:
        return len(self.app.screen_stack) == 1

    async def handle(self, event: events.Key) -> bool:
        """Performs the binding of a key before the next key is read, so that quick keys keep their order: what one
        opens or closes is there or gone for the next. False for keys that a field or a screen reads."""
        app, screen = self.app, self.app.screen
        if isinstance(screen, ReadsKeys):
            return await screen.process_key(event)
        if (self._in_field and event.key != "escape") or hasattr(screen, "on_key"):
            return False
        if screen.maximized is not None and event.key == "escape":
            return False
        key = self._half_width_key(event)
        await self._wait_until_loaded(key)
        if not await app._check_bindings(key, priority=True) and not await app._check_bindings(key):
            self.explain(key)
        return True

    async def _wait_until_loaded(self, key: str) -> None:
        immediate = {textual_key(one) for id_ in IMMEDIATE_ACTIONS for one in self.host.action_keys[id_]}
        tab = self.host.tab
        if self._no_screen_open and tab is not None and key not in immediate | {"ctrl+q", "ctrl+c"}:
            await tab.wait_until_loaded()

    def explain(self, key: str) -> None:
        """Says why a key of the table did nothing: nothing that is available here has it."""
        active = self.app.screen.active_bindings.get(key)
        if active is None or active.enabled or active.node is not self.app:
            return
        action = BY_ID.get(active.binding.id or "")
        if action is not None:
            self.host.say_unavailable(action)

    def _half_width_key(self, event: events.Key) -> str:
        """Textual's name of the key that is meant: `：` from an input method acts as `:`; composed words get a hint how
        to switch."""
        character = event.character or key_to_character(event.key) or ""
        half = half_width(character)
        if half == character and len(character) == 1 and ord(character) > LAST_LATIN and self._no_screen_open:
            self.host.show_message(
                _("An input method is on: shift or ctrl+space switches it off; the keys are Latin letters"),
                "warning",
            )
        return _character_to_key(half) if len(half) == 1 and half.isprintable() else event.key
