"""The table of all actions of the app.

An action feeds the keys, the command palette, the `?` sheet, the footer and the command line shown. To add one: add it
to the rows of its tab (`tui/action_rows/`, the short ones are here), and a method `action_<verb>` to the tab (or to
`GlobalActions`, for an action of EVERYWHERE), where the verb is the part of the id after the last dot. An action without
a method in the tab on the screen is not offered.
`tui/app/bindings.py` makes Textual's bindings of the table; the user's own keys (`keys` in the settings) replace `key`
by id.
"""

from __future__ import annotations

from collections.abc import Mapping

from textual.keys import key_to_character

from engine.core.i18n import N_
from tui.action_rows.chat import CHAT
from tui.action_rows.corpus import CORPUS
from tui.action_rows.hive import HIVE
from tui.action_rows.row import EVERYWHERE, AppAction, actions_of
from tui.action_rows.train import TRAIN
from tui.action_rows.validate import VALIDATE

__all__ = [
    "ACTIONS",
    "BY_ID",
    "EVERYWHERE",
    "TAB_TITLES",
    "AppAction",
    "is_digit_action",
    "key_label",
    "key_labels",
    "keys_in_use",
    "of_tab",
]

TAB_TITLES = {
    "train": N_("Train"),
    "corpus": N_("Corpus"),
    "validate": N_("Validate"),
    "chat": N_("Chat"),
    "health": N_("Health"),
    "hive": N_("Hive"),
}
"""Titles of the tabs by their ids."""


_E = EVERYWHERE

_EVERYWHERE = actions_of(
    _E,
    AppAction("go_tab", "1 2 3 4 5 6 7 8 9", N_("tabs"), _E, palette=False),
    AppAction("tab_before", "<", N_("previous tab"), _E),
    AppAction("tab_after", ">", N_("next tab"), _E),
    AppAction("next_panel", "tab", N_("next panel"), _E, palette=False),
    AppAction(
        "keys", "?", N_("keys"), _E, footer=True, help=N_("The keys of this panel, and their commands.")
    ),
    AppAction("palette", "ctrl+p :", N_("find an action"), _E, palette=False),
    AppAction("filter", "/", N_("filter"), _E, help=N_("A chip shows the filter; esc clears it.")),
    AppAction(
        "back", "escape", N_("back"), _E, palette=False, help=N_("Leaves a field, or clears the filter.")
    ),
    AppAction("move_left", "h", N_("left"), _E, palette=False),
    AppAction("move_down", "j", N_("down"), _E, palette=False),
    AppAction("move_up", "k", N_("up"), _E, palette=False),
    AppAction("move_right", "l", N_("right"), _E, palette=False),
    AppAction("go_top", "g", N_("first"), _E, palette=False),
    AppAction("go_end", "G", N_("last"), _E, palette=False),
    AppAction("enlarge", "+", N_("enlarge"), _E, help=N_("Only this panel; esc shows all again.")),
    AppAction("undo", "u", N_("undo"), _E),
    AppAction("redo", "U ctrl+r", N_("redo"), _E),
    AppAction("refresh", "R", N_("refresh"), _E),
    AppAction(
        "copy",
        "y",
        N_("copy"),
        _E,
        help=N_("Copies the item under the cursor to the clipboard of your terminal."),
    ),
    AppAction(
        "fetch_model",
        "I",
        N_("get a base model"),
        _E,
        "h2q-tui models fetch smollm2",
        help=N_("Downloads a small base model with pip, after asking: the only step that needs a network."),
    ),
    AppAction(
        "check_machine",
        "V",
        N_("check this machine"),
        _E,
        "h2q-tui check",
        help=N_(
            "Machine, programs and workspace: what is wrong, and what helps; f makes a change after asking."
        ),
    ),
    AppAction("settings", "S", N_("settings"), _E, help=N_("Language, theme, signs, memory budget, keys.")),
    AppAction(
        "redraw",
        "ctrl+l",
        N_("redraw"),
        _E,
        help=N_("Draws the whole screen again, when something else has written on it."),
        priority=True,
    ),
    AppAction(
        "suspend",
        "ctrl+z",
        N_("suspend"),
        _E,
        help=N_("Back to the shell; fg returns to the app. Runs continue."),
        priority=True,
    ),
    AppAction("leave", "q Q f10", N_("leave"), _E, help=N_("Quit the app; runs continue.")),
)


_HEALTH = actions_of(
    "health",
    AppAction("health.faster", ",", N_("shorter interval"), "health"),
    AppAction("health.slower", ".", N_("longer interval"), "health", "h2q-tui monitor --interval 2"),
    AppAction(
        "health.shorter", "[", N_("shorter time"), "health", help=N_("The graphs reach back less far.")
    ),
    AppAction(
        "health.longer", "]", N_("longer time"), "health", help=N_("The graphs reach back up to a day.")
    ),
    AppAction("health.now", "r", N_("refresh"), "health", "h2q-tui monitor --plain", footer=True),
    AppAction(
        "health.clear", "c C", N_("clear"), "health", footer=True, help=N_("Clear the history of the bars.")
    ),
    AppAction("health.ack", "a", N_("acknowledge"), "health", "h2q-tui notify ack", footer=True),
    AppAction(
        "health.mute",
        "m",
        N_("mute"),
        "health",
        "h2q-tui notify mute --for 8h",
        footer=True,
        help=N_("Hold back alerts for eight hours, or end that; critical ones are sent."),
    ),
    AppAction("health.test", "T", N_("test channels"), "health", "h2q-tui notify test"),
    AppAction(
        "health.channel",
        "n",
        N_("set up alerts"),
        "health",
        "h2q-tui notify setup",
        help=N_("Add a channel for alerts, guided, and send a test message to it."),
    ),
    AppAction("health.stop", "x", N_("end run"), "health", "h2q-tui runs stop ID", footer=True),
)

ACTIONS: tuple[AppAction, ...] = (*_EVERYWHERE, *TRAIN, *CORPUS, *VALIDATE, *CHAT, *_HEALTH, *HIVE)

BY_ID: dict[str, AppAction] = {action.id: action for action in ACTIONS}


def of_tab(tab: str) -> tuple[AppAction, ...]:
    """The actions of one tab, in the order of the table."""
    return tuple(action for action in ACTIONS if action.tab == tab)


_SHOWN = {"escape": "esc", "f10": "F10", "up": "↑", "down": "↓", "left": "←", "right": "→"}


def key_label(keys: tuple[str, ...]) -> str:
    """The first of `keys` as it is shown, "" when there is none."""
    return next(iter(key_labels(keys)), "")


def key_labels(keys: tuple[str, ...]) -> list[str]:
    """All of `keys` as they are shown."""
    return [_SHOWN.get(key, key) for key in keys]


def is_digit_action(action: AppAction) -> bool:
    """Whether it is bound to digits, which cannot be rebound."""
    return any(key.isdigit() for key in action.keys)


def _key_as_typed(key: str) -> str:
    """`?` for Textual's name of it, `question_mark`, which settings written by hand may have."""
    character = key_to_character(key) or ""
    return character if character.isprintable() and character.strip() else key


def keys_in_use(own: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The keys of every action by its id, the user's `own` keys in place of those of the table.

    A key means one thing in a tab: it belongs to the first action of the table that has it there or everywhere. An
    action whose own keys are all taken keeps those of the table, if they are free. Unknown ids have no effect.
    """
    taken: set[tuple[str, str]] = set()
    keys: dict[str, tuple[str, ...]] = {}
    for action in ACTIONS:
        wished = [action.keys]
        if not is_digit_action(action):
            wished.insert(0, tuple(map(_key_as_typed, own.get(action.id, "").split())))
        free = (tuple(k for k in some if not {(EVERYWHERE, k), (action.tab, k)} & taken) for some in wished)
        keys[action.id] = next(filter(None, free), ())
        taken.update((action.tab, key) for key in keys[action.id])
    return keys
