"""The command palette: the actions of all tabs with their keys and command lines."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from engine.core.i18n import _
from tui.actions import ACTIONS, EVERYWHERE, TAB_TITLES, AppAction, key_label

if TYPE_CHECKING:
    from tui.tabs.base import Tab

ELSEWHERE = 0.8
"""The score of an action of another tab counts so much: those of the tab on the screen come first."""


class PaletteHost(Protocol):
    """What the palette needs of the app."""

    action_keys: Mapping[str, tuple[str, ...]]

    @property
    def tab(self) -> Tab | None:
        """The tab on the screen."""

    def is_offered(self, action: AppAction) -> bool:
        """Whether `action` can be performed now, in the tab on the screen or everywhere."""

    def perform_anywhere(self, action: AppAction) -> Awaitable[None]:
        """Performs an action in its tab."""


class ActionProvider(Provider):
    """The actions of the table: those available in the tab on the screen and everywhere, then all of the other tabs,
    which are shown for it. Textual's system commands match their title alone; here the id, the help and the command
    line match too."""

    @property
    def _host(self) -> PaletteHost:
        return cast("PaletteHost", self.app)

    def _is_elsewhere(self, action: AppAction) -> bool:
        tab = self._host.tab
        return action.tab not in (EVERYWHERE, tab.TAB_ID if tab is not None else "")

    @property
    def _actions(self) -> list[AppAction]:
        shown = [
            action
            for action in ACTIONS
            if action.palette and (self._is_elsewhere(action) or self._host.is_offered(action))
        ]
        return sorted(shown, key=lambda action: (self._is_elsewhere(action), action.tab == EVERYWHERE))

    def _name(self, action: AppAction) -> str:
        key = key_label(self._host.action_keys[action.id])
        name = _(action.label) + (f"  ({key})" if key else "")
        if self._is_elsewhere(action):
            return _("{tab}: {action}").format(tab=_(TAB_TITLES[action.tab]), action=name)
        return name

    def _help(self, action: AppAction) -> str:
        return "  ".join(part for part in (_(action.help), action.command) if part)

    async def discover(self) -> Hits:
        for action in self._actions:
            perform = partial(self._host.perform_anywhere, action)
            yield DiscoveryHit(self._name(action), perform, help=self._help(action))

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for action in self._actions:
            name = self._name(action)
            # Letters of the program's own name would match nearly every query.
            texts = (name, action.id, action.command.removeprefix("h2q-tui "), _(action.help))
            score = max(matcher.match(text) for text in texts)
            if score > 0:
                perform = partial(self._host.perform_anywhere, action)
                score *= ELSEWHERE if self._is_elsewhere(action) else 1.0
                yield Hit(score, matcher.highlight(name), perform, help=self._help(action))
