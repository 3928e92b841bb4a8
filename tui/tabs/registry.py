"""The tabs in the order of their digits. A tab stands here when it works."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

from tui.actions import TAB_TITLES

if TYPE_CHECKING:
    from tui.host.app_host import AppHost
    from tui.tabs.base import Tab


class TabRow(NamedTuple):
    """One tab; `place` is "module:class", imported when the tab is shown for the first time."""

    id: str
    title: str
    place: str


TABS: tuple[TabRow, ...] = (
    TabRow("train", TAB_TITLES["train"], "tui.tabs.train.tab:TrainTab"),
    TabRow("corpus", TAB_TITLES["corpus"], "tui.tabs.corpus.tab:CorpusTab"),
    TabRow("validate", TAB_TITLES["validate"], "tui.tabs.validate.tab:ValidateTab"),
    TabRow("chat", TAB_TITLES["chat"], "tui.tabs.chat.tab:ChatTab"),
    TabRow("health", TAB_TITLES["health"], "tui.tabs.health.tab:HealthTab"),
    TabRow("hive", TAB_TITLES["hive"], "tui.tabs.hive.tab:HiveTab"),
)


def make_tab(row: TabRow, host: AppHost) -> Tab:
    """The widget of a tab, not yet mounted."""
    module, _colon, name = row.place.partition(":")
    tab: Tab = getattr(importlib.import_module(module), name)(host)
    return tab
