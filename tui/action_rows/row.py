"""A row of the table of actions."""

from __future__ import annotations

from dataclasses import dataclass

EVERYWHERE = "everywhere"


@dataclass(frozen=True)
class AppAction:
    """One action."""

    id: str
    """`<tab>.<verb>`, or `<verb>` alone everywhere."""
    key: str
    """Characters as typed, else Textual's key names, separated by spaces; the first one is shown."""
    label: str
    """One to three words for footer and palette, marked for the catalogs."""
    tab: str
    """TAB_ID, or EVERYWHERE."""
    command: str = ""
    """The equivalent command line; "" for an action on the screen alone."""
    palette: bool = True
    footer: bool = False
    help: str = ""
    """One sentence for the `?` sheet; "" where the label is enough."""
    outside: bool = False
    """A letter in a tab whose field usually has the focus: it works after `esc`, and the sheet says so."""
    priority: bool = False
    """Its key works above an open sheet too."""

    @property
    def verb(self) -> str:
        return self.id.rpartition(".")[2]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.key.split())


def actions_of(tab: str, *actions: AppAction) -> tuple[AppAction, ...]:
    """The rows of one tab, in the order in which they are shown."""
    assert all(action.tab == tab for action in actions)
    return actions
