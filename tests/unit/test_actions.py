"""The table of actions: no key means two things, none of a tab hides one of everywhere."""

from __future__ import annotations

import importlib

import pytest
from typer.testing import CliRunner

from tui.actions import ACTIONS, BY_ID, EVERYWHERE, KeyMap, half_width, key_label, of_tab
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


def test_digits_are_always_tabs() -> None:
    assert all(KeyMap().find(tab.id, digit) == BY_ID["go_tab"] for tab in TABS for digit in "123456789")


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
        assert [key for key in simple if not (key.startswith("f") and key[1:].isdigit())]


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


def test_keys_of_the_user_replace_the_defaults() -> None:
    keys = KeyMap({"train.stop": "Z", "no.such": "q"})
    assert keys.find("train", "Z") == BY_ID["train.stop"]
    assert keys.find("train", "x") is None
    assert keys.shown(BY_ID["train.stop"]) == "Z"


def test_full_width_keys_act_as_half_width_ones() -> None:
    assert [half_width(c) for c in "：？／＜＞１ａ，。　【】"] == [*":?/<>1a,. []"]
    assert half_width("汉") == "汉"


def test_keys_have_short_labels() -> None:
    assert key_label("escape") == "esc"
    assert key_label(", .") == ","
    assert key_label("space") == "space"
