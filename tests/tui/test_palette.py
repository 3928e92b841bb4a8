"""The palette finds actions, settings, models, runs and conversations, in every tab."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from textual.widgets import OptionList

from engine.core.config import save_settings
from engine.core.paths import Workspace
from engine.core.settings import Settings
from tests.models import copy_model
from tests.tui.corpus_workspace import build
from tests.tui.helpers import text_of, until
from tests.tui.live_run import LiveRun
from tui.app.app import H2QApp
from tui.screens.palette import PaletteScreen
from tui.screens.settings import SettingsScreen
from tui.tabs.chat.tab import ChatTab
from tui.tabs.corpus.tab import CorpusTab
from tui.tabs.train.new_run import NewRun
from tui.tabs.train.tab import TrainTab
from tui.widgets.footer import Footer
from tui.widgets.virtual_list import VirtualList


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def first_row(app: H2QApp, *parts: str) -> Callable[[], bool]:
    """Whether the first entry has these parts, in this order."""

    def shown() -> bool:
        if not isinstance(app.screen, PaletteScreen):
            return False
        lines = [line for line in text_of(app).splitlines() if "│   │" in line or "│ " in line]
        table = app.screen.query_one(OptionList)
        text = str(table.get_option_at_index(0).prompt) if table.option_count else ""
        return bool(lines) and " ".join(text.split()) == " ".join(parts)

    return shown


async def test_it_finds_actions_of_every_tab_and_shows_the_tab(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2", "ctrl+p", *"training run")
        await until(pilot, first_row(app, "new", "Train", "n"))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, NewRun))
        assert app.tab is not None
        assert app.tab.TAB_ID == "train"
        await pilot.press("escape", "ctrl+p", *"roll back")
        await until(pilot, first_row(app, "roll back", "Validate", "B"))
        await pilot.press("enter")
        await until(pilot, lambda: app.query_one(Footer).message == "not now: roll back")
        assert app.tab.TAB_ID == "validate"


async def test_it_finds_the_tabs_and_the_way_out(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+p", *"health")
        await until(pilot, first_row(app, "Health", "tab", "5"))
        await pilot.press("enter")
        await until(pilot, lambda: app.tab is not None and app.tab.TAB_ID == "health")
        await pilot.press("colon", *"quit", "enter")
        await until(pilot, lambda: not app.is_running)


async def test_keys_typed_in_one_burst_are_all_in_the_query(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("colon", *"xlog scal", "backspace", *"le", "home", "delete", "down", "up", "enter")
        await until(pilot, lambda: not isinstance(app.screen, PaletteScreen))
        assert isinstance(app.tab, TrainTab)
        assert app.tab.run_panel.log_scale


async def test_it_finds_a_setting(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+p", *"memory budget")
        await until(pilot, first_row(app, "memory budget", "setting"))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen))
        assert app.screen.query_one(VirtualList).cursor_id == "max_memory_gb"


async def test_it_finds_a_run(ws: Workspace) -> None:
    older, newer = LiveRun(ws, now=1_793_000_000.0), LiveRun(ws, now=1_793_000_900.0)
    older.end()
    newer.end()
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: len(app.board.runs) == 2)
        await pilot.press("4", "escape", "ctrl+p", *older.dir.run_id, "enter")
        await until(pilot, lambda: isinstance(app.tab, TrainTab))
        assert isinstance(app.tab, TrainTab)
        await until(pilot, lambda: app.tab.runs.cursor_id == older.dir.run_id)  # type: ignore[union-attr]


async def test_it_finds_a_conversation_by_a_word_in_it_and_clears_the_filter_that_hides_it(
    ws: Workspace,
) -> None:
    build(ws)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2", "slash", *"router", "enter", "1", "ctrl+p", *"autumn rain")
        await until(pilot, lambda: "Write a short poem" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.tab, CorpusTab))
        tab = app.tab
        assert isinstance(tab, CorpusTab)
        await until(
            pilot,
            lambda: (
                (item := tab.reader.items.get(tab.conversations.cursor_id)) is not None
                and "autumn" in item.first_line
            ),
        )


async def test_it_finds_a_model_and_lets_it_answer(ws: Workspace, knowing: Path) -> None:
    for name in ("apple", "pear"):
        copy_model(knowing, ws.models / name)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        for name in ("pear", "apple"):
            await pilot.press("ctrl+p", *name)
            await until(pilot, first_row(app, name, "model"))
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.tab, ChatTab))
            await until(pilot, lambda name=name: app.tab.model == name)  # type: ignore[misc, union-attr]


async def test_the_matched_letters_stand_out_and_the_key_is_at_the_right(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        await pilot.press("ctrl+p", *"sca")
        await until(pilot, first_row(app, "log scale", "Y"))
        strips = app.screen._compositor.render_strips()
        line = next(strip for strip in strips if "log scale" in strip.text)
        bold = [one.text for one in line if one.style is not None and one.style.bold and one.style.underline]
        assert "".join(bold) == "sca"
        start, end = line.text.index("log scale"), line.text.rindex("Y")
        assert 60 <= end - start <= 72
        assert abs((start + end) - 120) <= 4, "centred"


async def test_what_was_chosen_last_comes_first_also_after_a_restart(ws: Workspace) -> None:
    save_settings(ws, Settings())
    for query, label in (("log scale", "log scale"), ("side panel", "side panel")):
        app = H2QApp(ws)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("ctrl+p", *query, "enter")
            await until(pilot, lambda: not isinstance(app.screen, PaletteScreen))  # noqa: B023
            await pilot.press("ctrl+p")
            await until(pilot, lambda: "Find anything" in text_of(app))  # noqa: B023
            await until(pilot, lambda: label in text_of(app).splitlines()[4])  # noqa: B023
            shown = text_of(app).splitlines()
    assert "log scale" in shown[5]


async def test_an_app_that_only_looks_finds_nothing_that_changes(ws: Workspace) -> None:
    app = H2QApp(ws, read_only=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+p", *"memory budget")
        await until(pilot, lambda: "nothing matches" in text_of(app))
        await pilot.press("escape", "ctrl+p", *"compare", "escape")
    assert not (ws.config / "recent.json").exists()
