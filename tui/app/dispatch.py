"""From a key to what it does.

A field that has the focus has its turn first. Every other key is dealt with in the app's own queue, one after
the other: the bindings of the focused widget, then the table of `tui/actions.py`, done by the tab on the screen
(`action_<verb>`), else by the app (`do_<verb>`).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from textual import events
from textual.app import App
from textual.command import CommandPalette
from textual.keys import _character_to_key, key_to_character
from textual.widgets import Input, TextArea

from engine.core.errors import H2QError
from engine.core.i18n import _
from tui.app.actions import EVERYWHERE, AppAction, KeyMap, half_width
from tui.screens.ask import Confirm, LinePrompt
from tui.screens.help import KeysSheet

if TYPE_CHECKING:
    from tui.tabs.base import Tab


LATIN = 0x2E7F
"""Characters above this one come from an input method."""

AT_ONCE = frozenset("123456789qQ") | {"f10", "ctrl+q", "ctrl+c"}
"""Keys that wait for nothing."""


def _apart(event: events.Key, in_field: bool) -> list[events.Key]:
    """`esc` and a letter right behind it reach the app as one key with alt, which none of our keys has."""
    letter = event.character or ""
    if in_field or not event.key.startswith("alt+") or not letter.isprintable():
        return [event]
    return [events.Key("escape", "\x1b"), events.Key(_character_to_key(letter), letter)]


class KeyedApp(App[None]):
    """An App whose keys come from the table. The subclass has the tabs."""

    keys: KeyMap

    @property
    def tab(self) -> Tab | None:
        """The tab on the screen."""
        raise NotImplementedError

    @property
    def tab_ids(self) -> Sequence[str]:
        """In the order of the digits."""
        raise NotImplementedError

    async def show_tab(self, tab_id: str) -> None:
        raise NotImplementedError

    def show_message(self, text: str, kind: str = "") -> None:
        """One line at the foot of the screen; kind is "", "success", "warning" or "error"."""
        raise NotImplementedError

    def clear_message(self) -> None:
        """Takes back what `say` said."""
        raise NotImplementedError

    def refresh_footer(self) -> None:
        """The keys that make sense now."""
        raise NotImplementedError

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Key) and not event.is_forwarded:
            for key in _apart(event, self._in_field() and not isinstance(self.screen, LinePrompt)):
                if not await self._took(key):
                    await super().on_event(key)
        else:
            await super().on_event(event)

    def _in_field(self) -> bool:
        return isinstance(self.focused, Input | TextArea)

    async def _took(self, event: events.Key) -> bool:
        """Does what a key means before the next key is looked at, so that quick keys stay in their order: what
        opens or closes by one is there or gone for the next. False for keys that a field or a screen reads.
        """
        screen = self.screen
        if isinstance(screen, LinePrompt):
            return await screen.take(event)
        field = self._in_field()
        if (field and event.key != "escape") or hasattr(screen, "on_key"):
            return False
        if screen.maximized is not None and event.key == "escape":
            return False
        event = event if field else self._half_width(event)
        if len(self.screen_stack) == 1 and self.tab is not None and event.key not in AT_ONCE:
            await self.tab.wait_until_loaded()
        if await self._check_bindings(event.key, priority=True) or await self._check_bindings(event.key):
            return True
        if len(self.screen_stack) == 1:
            await self._do(event)
        return True

    def _half_width(self, event: events.Key) -> events.Key:
        """`：` from an input method acts as `:`; whole words from one get the hint how to switch."""
        character = event.character or key_to_character(event.key) or ""
        half = half_width(character)
        if half != character:
            return events.Key(_character_to_key(half), half)
        if len(character) == 1 and ord(character) > LATIN and len(self.screen_stack) == 1:
            self.show_message(
                _("An input method is on: shift or ctrl+space switches it off, keys are latin letters"),
                "warning",
            )
        return event

    async def on_key(self, event: events.Key) -> None:
        """A key that the focused field left alone."""
        if event.key not in self.screen.active_bindings and len(self.screen_stack) == 1:
            await self._do(event)

    async def _do(self, event: events.Key) -> None:
        """The row of a key, in the tab on the screen or in the app."""
        character = event.character or ""
        key = character if event.is_printable and character.strip() else event.key
        tab = self.tab
        row = self.keys.find(tab.TAB_ID if tab is not None else "", key)
        if row is None:
            return
        event.stop()
        event.prevent_default()
        self.clear_message()
        await self.perform(row, key)

    async def perform(self, row: AppAction, key: str = "") -> None:
        """Does `row` in the tab on the screen, else in the app; a failure is one sentence at the foot."""
        tab = self.tab
        if tab is None:
            return
        if tab.is_available(row) and row.tab in (EVERYWHERE, tab.TAB_ID):
            method = getattr(tab, f"action_{row.verb}")
        elif row.tab == EVERYWHERE:
            method = getattr(self, f"do_{row.verb}", None)
        else:
            method = None
        if method is None:
            if row.verb != "back":
                later = hasattr(tab, f"action_{row.verb}")
                words = _("not now: {action}") if later else _("not here: {action}")
                self.show_message(words.format(action=_(row.label)))
            return
        try:
            result = method(key) if "key" in inspect.signature(method).parameters else method()
            if inspect.isawaitable(result):
                await result
        except H2QError as error:
            self.show_message(str(error), "error")
        self.refresh_footer()

    def is_available(self, row: AppAction) -> bool:
        """Whether the app itself has a method for a row of EVERYWHERE."""
        return row.tab == EVERYWHERE and hasattr(self, f"do_{row.verb}")

    async def do_go_tab(self, key: str) -> None:
        if key.isdigit() and 0 < int(key) <= len(self.tab_ids):
            await self.show_tab(self.tab_ids[int(key) - 1])

    async def do_tab_before(self) -> None:
        await self._step_tab(-1)

    async def do_tab_after(self) -> None:
        await self._step_tab(1)

    async def _step_tab(self, step: int) -> None:
        here = self.tab_ids.index(self.tab.TAB_ID) if self.tab is not None else 0
        await self.show_tab(self.tab_ids[(here + step) % len(self.tab_ids)])

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

    def do_back(self) -> None:
        """Out of a field: the focus goes to what the tab is about."""
        tab = self.tab
        if tab is not None and self._in_field():
            self.screen.set_focus(next(iter(tab.query(tab.FIRST_FOCUS)), None) if tab.FIRST_FOCUS else None)

    def do_keys(self) -> None:
        tab = self.tab
        if tab is not None:
            self.push_screen(KeysSheet(tab), self._chosen)

    def do_next_panel(self) -> None:
        self.screen.focus_next()

    def do_palette(self) -> None:
        self.action_command_palette()

    def action_command_palette(self) -> None:
        """Textual's palette, with our words."""
        if not isinstance(self.screen, CommandPalette):
            self.push_screen(CommandPalette(id="--command-palette", placeholder=_("find an action …")))

    def do_enlarge(self) -> None:
        focused = self.focused
        if self.screen.maximized is not None:
            self.screen.minimize()
        elif focused is not None:
            self.screen.maximize(focused)

    def do_leave(self) -> None:
        questions = [cast("Tab", tab).unsaved_question() for tab in self.screen.query("Tab")]
        question = next(filter(None, questions), "")
        if question:
            self.push_screen(Confirm(question), self._leave)
        else:
            self.exit()

    def _leave(self, yes: bool | None) -> None:
        if yes:
            self.exit()

    def action_help_quit(self) -> None:
        """Ctrl+C in a full-screen app is a habit, not a wish to lose the screen."""
        self.show_message(_("q leaves, or ctrl+q from a field; runs go on"))

    async def _chosen(self, row: AppAction | None) -> None:
        if row is not None:
            await self.perform(row)
