"""What the palette finds: the actions of all tabs, the tabs, the settings, models, runs and conversations."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from engine.core.errors import H2QError
from engine.core.i18n import _
from engine.core.local_time import local_time
from engine.core.paths import Workspace
from engine.corpus.review.store import ReviewStore
from engine.corpus.review.types import ReviewItem
from engine.runs.event_text import status_name
from tui.actions import ACTIONS, EVERYWHERE, TAB_TITLES, AppAction, key_label
from tui.app.read_only import only_looks
from tui.app.recent_choices import read_recent, save_recent, with_newest
from tui.host.shutdown import uninterruptible
from tui.screens.palette import PaletteEntry, PaletteScreen
from tui.screens.settings import setting_rows
from tui.tabs.chat.reader import read_models
from tui.tabs.registry import TABS

if TYPE_CHECKING:
    from textual.screen import Screen

    from tui.host.run_follower import RunBoard
    from tui.tabs.base import Tab
    from tui.terminal.glyphs import Glyphs

ELSEWHERE = 0.8
"""The score of an action of another tab counts so much: those of the tab on the screen come first."""
SETTING = 0.7
THING = 0.9
"""What the score of a model or a run counts."""
MIN_TEXT = 3
"""Cells of a text that is searched in the conversations: two letters stand in nearly all of them."""
CONVERSATIONS = 8
MAX_RUNS = 200


class PaletteHost(Protocol):
    """What the palette needs of the app."""

    workspace: Workspace
    action_keys: Mapping[str, tuple[str, ...]]
    board: RunBoard
    glyphs: Glyphs
    read_only: bool

    @property
    def tab(self) -> Tab | None:
        """The tab on the screen."""

    def is_offered(self, action: AppAction) -> bool:
        """Whether `action` can be performed now, in the tab on the screen or everywhere."""

    def perform_anywhere(self, action: AppAction) -> Awaitable[None]:
        """Performs an action in its tab."""

    async def show_tab(self, tab_id: str) -> None:
        """Brings a tab on the screen."""

    def open_setting(self, row: str) -> None:
        """Opens the settings with the cursor on a row."""

    def push_screen(
        self, screen: Screen[PaletteEntry | None], callback: Callable[[PaletteEntry | None], Awaitable[None]]
    ) -> object:
        """Shows a screen; `callback` gets its result."""


def open_palette(host: PaletteHost) -> PaletteScreen:
    """Shows the palette. Models are read in a thread and come later: the caller adds them (`add_models`)."""
    recent = read_recent(host.workspace)
    screen = PaletteScreen(
        with_recent_first(first_entries(host), recent), partial(find_conversations, host), host.glyphs.cursor
    )

    async def chosen(entry: PaletteEntry | None) -> None:
        if entry is None:
            return
        listed = entry.id in {one.id for one in first_entries(host)} and not entry.id.startswith("run:")
        if listed and not host.read_only:
            with uninterruptible():
                save_recent(host.workspace, with_newest(recent, entry.id))
        await entry.chosen()

    host.push_screen(screen, chosen)
    return screen


def first_entries(host: PaletteHost) -> list[PaletteEntry]:
    """Everything that is known without reading a file."""
    return [*_actions(host), *_tabs(host), *_settings(host), *_runs(host)]


def with_recent_first(entries: Sequence[PaletteEntry], recent: Sequence[str]) -> list[PaletteEntry]:
    """The entries whose ids are in `recent` first, in that order."""
    known = {entry.id: entry for entry in entries}
    first = [known[id_] for id_ in recent if id_ in known]
    return first + [entry for entry in entries if entry.id not in recent]


# Actions and tabs


def _is_elsewhere(host: PaletteHost, action: AppAction) -> bool:
    return action.tab not in (EVERYWHERE, host.tab.TAB_ID if host.tab is not None else "")


def _actions(host: PaletteHost) -> Iterator[PaletteEntry]:
    """The actions that are available in the tab on the screen and everywhere, then all of the other tabs."""
    shown = [
        action
        for action in ACTIONS
        if action.palette
        and (_is_elsewhere(host, action) or host.is_offered(action))
        and (not host.read_only or only_looks(action))
    ]
    for action in sorted(shown, key=lambda one: (_is_elsewhere(host, one), one.tab == EVERYWHERE)):
        elsewhere = _is_elsewhere(host, action)
        yield PaletteEntry(
            id=f"action:{action.id}",
            label=_(action.label),
            chosen=partial(host.perform_anywhere, action),
            hint=_(TAB_TITLES[action.tab]) if elsewhere else "",
            key=key_label(host.action_keys[action.id]),
            detail="\n".join(part for part in (_(action.help), action.command) if part),
            # Letters of the program's own name would match nearly every query.
            words=(action.id, action.command.removeprefix("h2q-tui ")),
            weight=ELSEWHERE if elsewhere else 1.0,
        )


def _tabs(host: PaletteHost) -> Iterator[PaletteEntry]:
    for number, row in enumerate(TABS, 1):
        yield PaletteEntry(
            id=f"tab:{row.id}",
            label=_(row.title),
            chosen=partial(host.show_tab, row.id),
            hint=_("tab"),
            key=str(number),
            words=(row.id,),
        )


# Settings


def _settings(host: PaletteHost) -> Iterator[PaletteEntry]:
    if host.read_only:
        return
    for row in setting_rows():

        async def chosen(id_: str = row.id) -> None:
            host.open_setting(id_)

        yield PaletteEntry(
            id=f"setting:{row.id}",
            label=_(row.title),
            chosen=chosen,
            hint=_("setting"),
            detail=_(row.info.help),
            words=(row.id,),
            weight=SETTING,
        )


# What the workspace has


def _show_in(host: PaletteHost, tab_id: str, item: str) -> Callable[[], Awaitable[None]]:
    """Brings a tab on the screen, with its cursor on an item."""

    async def show() -> None:
        await host.show_tab(tab_id)
        if host.tab is not None:
            await host.tab.show_item(item)

    return show


def _ask_model(host: PaletteHost, name: str) -> Callable[[], Awaitable[None]]:
    """Lets a model answer in the Chat tab."""

    async def ask() -> None:
        from tui.tabs.chat.tab import ChatTab

        await host.show_tab("chat")
        if isinstance(host.tab, ChatTab):
            host.tab.choice.choose(name)

    return ask


def _runs(host: PaletteHost) -> Iterator[PaletteEntry]:
    for run in host.board.runs[:MAX_RUNS]:
        yield PaletteEntry(
            id=f"run:{run.run_id}",
            label=f"{run.run_id} {_(run.label)}",
            chosen=_show_in(host, "train", run.run_id),
            hint=f"{host.glyphs.status(run.status)} {status_name(run.status)}",
            words=(run.kind, _("run")),
            weight=THING,
        )


async def add_models(host: PaletteHost, palette: PaletteScreen) -> None:
    """Adds the models and bases of the workspace, once they are read; choosing one lets it answer in the Chat tab."""
    palette.add_entries(await _models(host))


async def _models(host: PaletteHost) -> list[PaletteEntry]:
    try:
        models = await asyncio.to_thread(read_models, host.workspace)
    except (H2QError, OSError):
        return []
    return [
        PaletteEntry(
            id=f"model:{name}",
            label=name,
            chosen=_ask_model(host, name),
            hint=_("model in use") if name == models.in_use else _("model"),
            detail=_("Ask this model in the Chat tab."),
            words=(_("model"),),
            weight=THING,
        )
        for name in models.names
    ]


async def find_conversations(host: PaletteHost, query: str) -> list[PaletteEntry]:
    """Conversations of the corpus whose text has the query; [] when it is short or cannot be read."""
    text = query.strip()
    if len(text.encode()) < MIN_TEXT or not host.workspace.memory_db.exists():
        return []

    def read() -> list[ReviewItem]:
        with ReviewStore(host.workspace.memory_db, readonly=True) as store:
            return store.items(store.ids(text)[:CONVERSATIONS])

    try:
        items = await asyncio.to_thread(read)
    except (H2QError, sqlite3.Error, OSError):
        return []
    return [
        PaletteEntry(
            id=f"conversation:{item.id}",
            label=item.first_line or "…",
            chosen=_show_in(host, "corpus", item.id),
            hint=local_time("%Y-%m-%d", item.time) if item.time is not None else _("conversation"),
            detail=_("A conversation of the corpus."),
        )
        for item in items
    ]
