"""The table of actions as Textual's bindings, and the keys in use as its keymap.

Every action of the table is a binding of the app, so that it is there whatever has the focus. Actions of several tabs
share a key: Textual tries the bindings of a key in turn, and `check_action` of the app refuses those of other tabs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from textual.app import App
from textual.binding import Binding
from textual.keys import _character_to_key

from tui.actions import ACTIONS, BY_ID, AppAction, is_digit_action, keys_in_use

PERFORM = "perform"
"""Name of the Textual action that performs an action of the table; its first parameter is the id."""


def textual_key(key: str) -> str:
    """Textual's name of a key of the table: `comma` for `,`."""
    return _character_to_key(key) if len(key) == 1 else key


def textual_action(action: AppAction) -> str:
    """The Textual action of a row of the table."""
    return f"app.{PERFORM}('{action.id}')"


def table_bindings() -> list[Binding]:
    """The bindings of all actions of the table."""
    return [binding for action in ACTIONS for binding in _bindings_of(action)]


def bindings_for_leaving(*ids: str) -> list[Binding]:
    """The bindings of some actions for a screen that leaves to perform them (`action_leave_for`)."""
    return [
        replace(binding, action=f"leave_for({binding.action!r})", show=False)
        for id_ in ids
        for binding in _bindings_of(BY_ID[id_])
    ]


def _bindings_of(action: AppAction) -> list[Binding]:
    """The bindings of a row of the table.

    The digits of the tabs carry their number, and no id: no keymap reaches them. ctrl+p is left to the binding of the
    palette that Textual itself adds, which works in fields and above sheets too.
    """
    if is_digit_action(action):
        return [Binding(key, f"app.{PERFORM}('{action.id}', '{key}')", show=False) for key in action.keys]
    keys = _bound_keys(action.id, action.keys)
    what = textual_action(action)
    return [Binding(keys, what, action.label, show=action.footer, priority=action.priority, id=action.id)]


def keymap(keys: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """What `App.set_keymap` needs for these keys (`keys_in_use`).

    Textual drops every binding of a key that an action in the keymap has or takes, also those of other tabs. So
    whatever shares a key with an action of the keymap stands in it too, with the keys that it has already.
    """
    table = keys_in_use({})
    named, rest = set[str](), {id_ for id_ in keys if not is_digit_action(BY_ID[id_])}
    more = {id_ for id_ in rest if keys[id_] != table[id_]}
    while more:
        named |= more
        rest -= more
        touched = {key for id_ in more for key in (*keys[id_], *table[id_])}
        more = {id_ for id_ in rest if touched & {*keys[id_], *table[id_]}}
    return {id_: _bound_keys(id_, keys[id_]) for id_ in keys if id_ in named and keys[id_]}


def _bound_keys(id_: str, keys: Iterable[str]) -> str:
    """The keys of an action as Textual's bindings name them, without the one of the palette that Textual binds itself."""
    bound = (key for key in keys if (id_, key) != ("palette", App.COMMAND_PALETTE_BINDING))
    return ",".join(map(textual_key, bound))
