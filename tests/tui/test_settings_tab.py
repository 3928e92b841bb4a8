"""The settings sheet: each change is in force at once and saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from engine.core.config import load_settings
from engine.core.i18n import language, set_language
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.filters.pii import PiiType
from tests.tui.helpers import text_of, until
from tui.actions import ACTIONS, BY_ID
from tui.app.app import H2QApp
from tui.screens.ask import LinePrompt
from tui.screens.settings import KEY_PREFIX, TYPE_PREFIX, SettingsScreen, key_conflict, setting_rows
from tui.tabs.train.new_run import NewRun
from tui.widgets.virtual_list import VirtualList


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    yield Workspace(tmp_path)
    set_language("en")


async def opened(app: H2QApp, pilot: Pilot[None]) -> SettingsScreen:
    await pilot.press("S")
    await until(pilot, lambda: any(table.ids for table in app.screen.query(VirtualList)))
    assert isinstance(app.screen, SettingsScreen)
    return app.screen


def move_to(screen: SettingsScreen, row_id: str) -> None:
    assert screen.query_one(VirtualList).move_to_id(row_id)


async def test_a_language_is_applied_immediately_and_saved(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen))
        await pilot.press("right", "right")
        assert language() == "zh"
        await until(pilot, lambda: load_settings(ws).language == "zh")
        await pilot.press("left")
        await until(pilot, lambda: load_settings(ws).language == "en")
        assert language() == "en"
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, SettingsScreen))
        assert app.tab is not None


async def test_theme_signs_and_budget_step_through_their_values(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        move_to(screen, "signs")
        await pilot.press("left")
        await until(pilot, lambda: load_settings(ws).signs == "ascii")
        assert app.glyphs.ascii
        move_to(screen, "max_memory_gb")
        await pilot.press("right", "right", "left")
        await until(pilot, lambda: load_settings(ws).max_memory_gb == 4.5)
        await pilot.press("backspace")
        await until(pilot, lambda: load_settings(ws).max_memory_gb == 4.0)
        move_to(screen, "theme")
        await pilot.press("right")
        assert app.settings.theme != "auto"
        assert load_settings(ws).signs == "ascii"


async def test_a_new_key_works_immediately_and_the_old_one_is_free(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        move_to(screen, KEY_PREFIX + "train.new")
        await pilot.press("enter")
        await until(pilot, lambda: "Press the new key" in text_of(app))
        await pilot.press("p")
        await until(pilot, lambda: load_settings(ws).keys == {"train.new": "p"})
        await pilot.press("escape", "n")
        assert len(app.screen_stack) == 1
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, NewRun))
        await pilot.press("escape")
        screen = await opened(app, pilot)
        move_to(screen, KEY_PREFIX + "train.new")
        await pilot.press("backspace")
        await until(pilot, lambda: load_settings(ws).keys == {})
        await pilot.press("escape", "p")
        assert len(app.screen_stack) == 1
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NewRun))


@pytest.mark.parametrize("key", ["q", "1", "s"])
async def test_a_key_that_is_taken_is_refused_with_the_reason(ws: Workspace, key: str) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        move_to(screen, KEY_PREFIX + "train.new")
        await pilot.press("enter", key)
        await until(
            pilot, lambda: "nothing was changed" in text_of(app) or "Digits are the tabs" in text_of(app)
        )
        assert app.settings.keys == {}


async def test_broken_settings_are_not_overwritten(ws: Workspace) -> None:
    ws.settings_file.parent.mkdir(parents=True)
    ws.settings_file.write_text("theme = \n")
    app = H2QApp(ws)
    async with app.run_test(size=(100, 24)) as pilot:
        screen = await opened(app, pilot)
        move_to(screen, "review")
        await pilot.press("right")
        await until(pilot, lambda: "not valid TOML" in text_of(app))
        assert ws.settings_file.read_text() == "theme = \n"


def test_conflicts_are_those_of_the_same_tab_and_of_everywhere() -> None:
    accept = BY_ID["corpus.accept"]
    for key, taken in (("x", "corpus.reject"), ("q", "leave")):
        other = key_conflict(accept, key, {})
        assert other is not None
        assert other.id == taken
    assert key_conflict(accept, "z", {}) is None
    assert key_conflict(accept, "x", {"corpus.reject": "z"}) is None
    leave = BY_ID["leave"]
    assert key_conflict(leave, "n", {}) is not None


def test_no_two_actions_answer_to_one_key() -> None:
    clashes = [(row.id, key) for row in ACTIONS for key in row.keys if key_conflict(row, key, {}) is not None]
    assert [clash for clash in clashes if not clash[0].startswith("health.")] == []


def test_the_sheet_has_a_row_for_every_setting_that_is_set_there() -> None:
    shown = {row.id.partition(":")[0] for row in setting_rows()}
    # Keys have rows of their own, phrases come from the review, the others are set in the file.
    elsewhere = {
        "keys", "first_start_done", "low_value_phrases", "lora_base", "checkpoints_last", "checkpoints_hourly",
        "alert_channels", "heartbeat_url", "peers", "hive_server", "hive_user", "hive_allow_http", "hive_ca_file",
    }  # fmt: skip
    assert shown | elsewhere == set(Settings.__struct_fields__) and not shown & elsewhere
    types = {row.id.removeprefix(TYPE_PREFIX) for row in setting_rows() if TYPE_PREFIX in row.id}
    assert types == {str(type_) for type_ in PiiType}


async def test_each_kind_of_private_data_is_handled_as_set(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        move_to(screen, TYPE_PREFIX + "PHONE")
        await pilot.press("right", "right")
        await until(pilot, lambda: load_settings(ws).sensitive_types == {"PHONE": "drop"})
        move_to(screen, TYPE_PREFIX + "IP")
        await pilot.press("left")
        await until(pilot, lambda: load_settings(ws).sensitive_types == {"PHONE": "drop", "IP": "keep"})
        move_to(screen, "low_value")
        await pilot.press("right")
        await until(pilot, lambda: load_settings(ws).low_value == "keep")
        assert load_settings(ws).sensitive_types == {"PHONE": "drop", "IP": "keep"}
        move_to(screen, TYPE_PREFIX + "PHONE")
        await pilot.press("backspace")
        await until(pilot, lambda: load_settings(ws).sensitive_types == {"IP": "keep"})


async def test_an_embedder_is_named_and_a_folder_that_is_none_is_refused(ws: Workspace) -> None:
    (ws.root / "bge").mkdir(parents=True)
    (ws.root / "bge" / "modules.json").write_text("[]")
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        move_to(screen, "embedder")
        await pilot.press("right")
        await until(pilot, lambda: load_settings(ws).embedder == "off")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, LinePrompt))
        await pilot.press(*"nowhere", "enter")
        await until(pilot, lambda: "no sentence-transformers" in text_of(app))
        await pilot.press(*["backspace"] * 7, *"bge", "enter")
        await until(pilot, lambda: load_settings(ws).embedder == "bge")
        await until(pilot, lambda: app.screen is screen)
        await pilot.press("backspace")
        await until(pilot, lambda: load_settings(ws).embedder == "")


async def test_the_question_for_the_model_in_training_is_typed(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        move_to(screen, "sample_question")
        await until(pilot, lambda: "a held-out question" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, LinePrompt))
        await pilot.press(*"Who am I?", "enter")
        await until(pilot, lambda: load_settings(ws).sample_question == "Who am I?")
        await until(pilot, lambda: "‹ Who am I? ›" in text_of(app))
        await pilot.press("backspace")
        await until(pilot, lambda: load_settings(ws).sample_question == "")


async def test_the_rows_stand_under_headings_and_the_cursor_steps_over_them(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 40)) as pilot:
        screen = await opened(app, pilot)
        table = screen.query_one(VirtualList)
        assert table.cursor_id == "language"
        await pilot.press("up")
        assert table.cursor_id == "language"
        seen = []
        for _row in range(len(table.ids)):
            seen.append(table.cursor_id)
            table.action_move(1)
        assert [id_ for id_ in table.ids if id_ not in table.headings] == list(dict.fromkeys(seen))
        assert all(row.group for row in setting_rows())


async def test_slash_searches_the_settings_and_esc_shows_all_again(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot)
        everything = len(screen.query_one(VirtualList).ids)
        await pilot.press("slash", *"budget", "enter")
        await until(pilot, lambda: "Settings  /budget" in text_of(app))
        table = screen.query_one(VirtualList)
        assert "max_memory_gb" in table.ids and "theme" not in table.ids
        await pilot.press("slash", *"zebra", "enter")
        await until(pilot, lambda: "Nothing under /zebra" in text_of(app))
        await pilot.press("right", "enter", "backspace")
        await pilot.press("escape")
        await until(pilot, lambda: len(table.ids) == everything)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, SettingsScreen))


async def test_a_changed_value_is_marked_and_its_default_is_named(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(app, pilot)
        move_to(screen, "max_memory_gb")
        assert "●" not in text_of(app)
        await pilot.press("right")
        await until(pilot, lambda: "●" in text_of(app) and "(default: 4 GB)" in text_of(app))
        await pilot.press("backspace")
        await until(pilot, lambda: "●" not in text_of(app))
