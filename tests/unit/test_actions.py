"""The table of actions: no key means two things, none of a tab hides one of everywhere."""

from __future__ import annotations

import importlib
from random import Random

import pytest
from textual.actions import parse
from textual.app import App
from textual.binding import BindingsMap
from typer.testing import CliRunner

from tui.actions import ACTIONS, BY_ID, EVERYWHERE, key_label, keys_in_use, of_tab
from tui.app.bindings import PERFORM, keymap, table_bindings, textual_key
from tui.app.dispatch import half_width
from tui.app.global_actions import GlobalActions
from tui.cli.main import build
from tui.tabs.base import Tab
from tui.tabs.registry import TABS


def test_ids_are_unique() -> None:
    assert len(BY_ID) == len(ACTIONS)


@pytest.mark.parametrize("row", [row for row in ACTIONS if row.tab != EVERYWHERE], ids=lambda row: row.id)
def test_a_key_of_a_tab_shadows_no_global_key(row) -> None:  # type: ignore[no-untyped-def]
    everywhere = {key for other in of_tab(EVERYWHERE) for key in other.keys}
    assert not set(row.keys) & everywhere


@pytest.mark.parametrize("tab", [EVERYWHERE, *(row.id for row in TABS)])
def test_a_key_means_one_thing_in_a_tab(tab: str) -> None:
    keys = [key for row in of_tab(tab) for key in row.keys]
    assert len(keys) == len(set(keys))


def bound(own: dict[str, str]) -> dict[tuple[str, str], list[str]]:
    """Ids of the actions that Textual has for a key, by tab and key, with the user's `own` keys."""
    bindings = BindingsMap(table_bindings())
    bindings.apply_keymap(App._normalize_keymap(keymap(keys_in_use(own))))
    found: dict[tuple[str, str], list[str]] = {}
    for key, binding in bindings:
        name, parameters = parse(binding.action)[1:]
        action = BY_ID[str(parameters[0])]
        assert name == PERFORM
        ids = found.setdefault((action.tab, key), [])
        # Textual lists a binding with two keys twice where the keymap names it.
        if action.id not in ids:
            ids.append(action.id)
    return found


OWN_KEYS: dict[str, dict[str, str]] = {
    "none": {},
    "a free key for a shared one": {"train.stop": "Z"},
    "a key that another tab has": {"train.new": "a"},
    "a key of the tab": {"train.new": "s"},
    "a key of everywhere": {"train.new": "q"},
    "its name in Textual": {"train.new": "question_mark", "health.now": "comma"},
    "a key of a tab for everywhere": {"settings": "x"},
    "two keys changed round": {"corpus.accept": "x", "corpus.reject": "a"},
    "a key that is given up": {"corpus.accept": "x", "corpus.reject": "z"},
    "several keys": {"train.new": "N ctrl+n", "redo": "ctrl+y"},
    "unknown ids and nothing": {"no.such": "q", "train.new": " ", "": "z"},
    "digits": {"train.new": "5", "go_tab": "z", "keys": "1"},
    "the key of the palette": {"palette": "P", "train.new": "ctrl+p"},
    "punctuation": {"health.faster": ";", "corpus.skip": ",", "train.run_before": "{ ("},
}


@pytest.mark.parametrize("own", OWN_KEYS.values(), ids=OWN_KEYS)
def test_textual_binds_the_keys_in_use_and_each_means_one_thing_in_a_tab(own: dict[str, str]) -> None:
    keys, found = keys_in_use(own), bound(own)
    expected = {
        (action.tab, textual_key(key)): [action.id]
        for action in ACTIONS
        for key in keys[action.id]
        if (action.id, key) != ("palette", "ctrl+p")
    }
    assert found == expected
    assert not {key for tab, key in found if tab != EVERYWHERE} & {
        key for tab, key in found if tab == EVERYWHERE
    }


def test_every_random_keymap_leaves_every_key_its_action() -> None:
    random = Random(7)
    for _n in range(60):
        chosen = random.sample(ACTIONS, random.randint(1, 12))
        own = {action.id: " ".join(random.sample("abcxzSq?,/:1", random.randint(1, 2))) for action in chosen}
        test_textual_binds_the_keys_in_use_and_each_means_one_thing_in_a_tab(own)


def test_own_keys_that_are_taken_leave_those_of_the_table() -> None:
    assert keys_in_use({"train.new": "q"})["train.new"] == ("n",)
    assert keys_in_use({"train.new": "q N"})["train.new"] == ("N",)
    assert keys_in_use({"corpus.accept": "x"})["corpus.reject"] == ()
    assert keys_in_use({"no.such": "q"}) == keys_in_use({})


@pytest.mark.parametrize("own", [{}, {"go_tab": "z", "train.new": "5"}])
def test_digits_are_always_tabs(own: dict[str, str]) -> None:
    found = bound(own)
    assert all(found[EVERYWHERE, digit] == ["go_tab"] for digit in "123456789")
    assert not any((tab.id, digit) in found for tab in TABS for digit in "123456789")


@pytest.mark.parametrize(
    "row", [row for row in ACTIONS if row.tab in {tab.id for tab in TABS}], ids=lambda row: row.id
)
def test_every_action_of_a_tab_has_its_method(row) -> None:  # type: ignore[no-untyped-def]
    place = next(tab.place for tab in TABS if tab.id == row.tab)
    module, _colon, name = place.partition(":")
    assert hasattr(getattr(importlib.import_module(module), name), f"action_{row.verb}")


def test_every_global_action_has_a_method_in_the_app_or_in_a_tab() -> None:
    classes = [
        getattr(importlib.import_module(tab.place.partition(":")[0]), tab.place.partition(":")[2])
        for tab in TABS
    ]
    for action in of_tab(EVERYWHERE):
        method = f"action_{action.verb}"
        assert hasattr(GlobalActions, method) or any(hasattr(tab, method) for tab in classes), action.id
    assert all(issubclass(tab, Tab) for tab in classes)


def test_no_action_needs_ctrl_alt_or_a_function_key() -> None:
    for row in ACTIONS:
        simple = [key for key in row.keys if "+" not in key or key == "+"]
        # ctrl+z and ctrl+l are what every shell knows; the palette offers them too.
        assert row.id in ("suspend", "redraw") or [
            k for k in simple if not (k.startswith("f") and k[1:].isdigit())
        ]


@pytest.mark.parametrize(
    "row",
    [row for row in ACTIONS if row.command and row.tab in {tab.id for tab in TABS}],
    ids=lambda row: row.id,
)
def test_every_command_shown_exists(row) -> None:  # type: ignore[no-untyped-def]
    words = []
    for word in row.command.split()[1:]:
        if word.isupper() or word.startswith("-") or "=" in word:
            break
        words.append(word)
    result = CliRunner().invoke(build(), [*words, "--help"])
    assert result.exit_code == 0, result.output


def test_full_width_keys_act_as_half_width_ones() -> None:
    assert [half_width(c) for c in "：？／＜＞１ａ，。　【】"] == [*":?/<>1a,. []"]
    assert half_width("汉") == "汉"


def test_keys_have_short_labels() -> None:
    assert key_label(("escape",)) == "esc"
    assert key_label((",", ".")) == ","
    assert key_label(("space",)) == "space"
    assert key_label(()) == ""
