"""The tabs in the order of their digits. A tab stands here when it works."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

from engine.core.i18n import N_

if TYPE_CHECKING:
    from tui.app.host import AppHost
    from tui.tabs.base import Tab


class TabRow(NamedTuple):
    """One tab; `place` is "module:class", imported when the tab is shown for the first time."""

    id: str
    title: str
    place: str


TABS: tuple[TabRow, ...] = (
    TabRow("train", N_("Train"), "tui.tabs.train.tab:TrainTab"),
    TabRow("corpus", N_("Corpus"), "tui.tabs.corpus.tab:CorpusTab"),
    TabRow("validate", N_("Validate"), "tui.tabs.validate.tab:ValidateTab"),
    TabRow("chat", N_("Chat"), "tui.tabs.chat.tab:ChatTab"),
    TabRow("health", N_("Health"), "tui.tabs.health.tab:HealthTab"),
)


def make_tab(row: TabRow, host: AppHost) -> Tab:
    """The widget of a tab, not yet mounted."""
    module, _colon, name = row.place.partition(":")
    tab: Tab = getattr(importlib.import_module(module), name)(host)
    return tab
