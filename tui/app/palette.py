"""The command palette: every available action with its key and its command line."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from engine.core.i18n import _
from tui.actions import EVERYWHERE, AppAction

if TYPE_CHECKING:
    from tui.actions import KeyMap


class PaletteHost(Protocol):
    """What the palette needs of the app."""

    keys: KeyMap

    @property
    def palette_actions(self) -> Sequence[AppAction]:
        """The available actions."""

    def perform(self, action: AppAction) -> Awaitable[None]:
        """Performs an action."""


class ActionProvider(Provider):
    """The available actions of `tui/app/actions.py`. Textual's system commands match their title alone; here the id,
    the help and the command line match too."""

    @property
    def _host(self) -> PaletteHost:
        return cast("PaletteHost", self.app)

    @property
    def _actions(self) -> list[AppAction]:
        actions = [action for action in self._host.palette_actions if action.palette]
        return sorted(actions, key=lambda action: action.tab == EVERYWHERE)

    def _name(self, action: AppAction) -> str:
        return f"{_(action.label)}  ({self._host.keys.shown(action)})"

    def _help(self, action: AppAction) -> str:
        return "  ".join(part for part in (_(action.help), action.command) if part)

    async def discover(self) -> Hits:
        for action in self._actions:
            yield DiscoveryHit(
                self._name(action), partial(self._host.perform, action), help=self._help(action)
            )

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for action in self._actions:
            name = self._name(action)
            # Letters of the program's own name would match nearly every query.
            texts = (name, action.id, action.command.removeprefix("h2q-tui "), _(action.help))
            score = max(matcher.match(text) for text in texts)
            if score > 0:
                perform = partial(self._host.perform, action)
                yield Hit(score, matcher.highlight(name), perform, help=self._help(action))
