"""Keys, tabs, sheets and the size of the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Input

from engine.core.paths import Workspace
from engine.core.settings import Settings
from tests.tui.helpers import text_of, until
from tests.tui.live_run import live_run
from tui.actions import ACTIONS
from tui.app.app import H2QApp
from tui.host.run_follower import RunsChanged
from tui.screens.help import KeysSheet, action_lines
from tui.screens.palette import PaletteScreen
from tui.tabs.registry import TABS
from tui.tabs.train.new_run import NewRun
from tui.terminal.text import cells
from tui.widgets.footer import Footer
from tui.widgets.header import Header


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


async def test_digits_and_angle_brackets_change_the_tab(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        for number, row in enumerate(TABS, 1):
            await pilot.press(str(number))
            assert app.tab is not None
            assert row.id == app.tab.TAB_ID
            assert f"[{number} {row.title}]" in text_of(app).splitlines()[0]
        await pilot.press("1", "less_than_sign")
        assert app.tab is not None
        assert TABS[-1].id == app.tab.TAB_ID
        await pilot.press("greater_than_sign")
        assert app.tab is not None
        assert TABS[0].id == app.tab.TAB_ID


async def test_full_width_keys_act(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("？")
        await until(pilot, lambda: isinstance(app.screen, KeysSheet))
        await pilot.press("escape", "：")
        await until(pilot, lambda: isinstance(app.screen, PaletteScreen))


async def test_a_composed_letter_shows_how_to_switch_the_input_method_off(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("你")
        await until(pilot, lambda: "input method" in text_of(app).splitlines()[-1])


async def test_letters_do_nothing_in_a_field(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        field = Input()
        assert app.tab is not None
        await app.tab.mount(field)
        field.focus()
        await pilot.pause()
        await pilot.press("2", "n", "q", "colon", "question_mark")
        assert field.value == "2nq:?"
        assert app.tab.TAB_ID == "train"
        assert len(app.screen_stack) == 1
        await pilot.press("escape")
        assert app.focused is not field


async def test_the_key_sheet_shows_commands_and_performs_the_chosen_action(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("question_mark")
        await until(pilot, lambda: "h2q-tui train --detach" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, NewRun))


@pytest.mark.parametrize("key", ["q", "Q", "f10", "ctrl+q"])
async def test_every_way_to_leave(ws: Workspace, key: str) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(key)
        await pilot.pause()
        assert not app.is_running


async def test_a_terminal_that_is_too_small_shows_one_line(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(59, 24)) as pilot:
        await pilot.pause()
        lines = [line for line in text_of(app).splitlines() if line.strip()]
        assert lines == ["h2q needs 60 columns and 20 rows".ljust(59)]
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "[1 Train]" in text_of(app))
        await pilot.resize_terminal(80, 19)
        await until(pilot, lambda: "[1 Train]" not in text_of(app))


@pytest.mark.parametrize(("width", "height"), [(60, 20), (80, 24), (120, 40), (200, 50)])
async def test_header_and_footer_fit_every_size(ws: Workspace, width: int, height: int) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(width, height)) as pilot:
        await pilot.pause()
        lines = text_of(app).splitlines()
        assert "[1 Train]" in lines[0]
        assert lines[0].rstrip().endswith("nothing running")
        assert "? keys" in lines[-1]


async def test_ascii_signs_leave_nothing_but_ascii(ws: Workspace) -> None:
    app = H2QApp(ws, settings=Settings(signs="ascii"))
    with live_run(ws):
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: "memory" in text_of(app) and "2.1 of 4.0" in text_of(app))
            signs = set(text_of(app)) - set("╭╮╰╯─│…—▸▁▔▊▎")
            assert not {c for c in signs if ord(c) > 127}


async def test_keys_of_the_user_are_used_and_shown(ws: Workspace) -> None:
    app = H2QApp(ws, settings=Settings(keys={"train.new": "N"}))
    async with app.run_test(size=(80, 24)) as pilot:
        assert "N new" in text_of(app).splitlines()[-1]
        await pilot.press("n")
        assert len(app.screen_stack) == 1
        await pilot.press("N")
        await until(pilot, lambda: isinstance(app.screen, NewRun))


async def test_a_key_of_another_tab_stays_when_one_is_changed(ws: Workspace) -> None:
    """Train and Corpus share `x`; Textual's keymap alone would take it from both."""
    app = H2QApp(ws, settings=Settings(keys={"train.stop": "Z"}))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("x")
        assert app.query_one(Footer).message == ""
        await pilot.press("Z")
        await until(pilot, lambda: app.query_one(Footer).message == "not now: stop")
        await pilot.press("2", "x")
        await until(pilot, lambda: app.query_one(Footer).message == "not now: reject")


@pytest.mark.parametrize(("own", "key"), [({}, "question_mark"), ({"keys": "H"}, "H")])
async def test_the_key_that_opens_a_sheet_closes_it(ws: Workspace, own: dict[str, str], key: str) -> None:
    app = H2QApp(ws, settings=Settings(keys=own))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, KeysSheet))
        await pilot.press(key)
        await until(pilot, lambda: len(app.screen_stack) == 1)


async def test_an_action_that_is_not_available_says_so(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        for key, said in (("x", "not now: stop"), ("u", "not here: undo"), ("ctrl+z", "not here: suspend")):
            await pilot.press(key)
            await until(pilot, lambda said=said: app.query_one(Footer).message == said)  # type: ignore[misc]
        await pilot.press("escape", "J")
        assert app.query_one(Footer).message == ""


async def test_a_click_on_a_key_in_the_footer_performs_it(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.click(Footer, offset=(text_of(app).splitlines()[-1].index("new"), 0))
        await until(pilot, lambda: isinstance(app.screen, NewRun))
        assert not text_of(app).splitlines()[-1].strip()
        await pilot.press("escape")
        await until(pilot, lambda: "? keys" in text_of(app).splitlines()[-1])
        app.show_message("n new  ? keys")
        await pilot.click(Footer, offset=(3, 0))
        assert len(app.screen_stack) == 1


async def test_hostile_text_is_shown_harmlessly_in_messages(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        app.show_message("a\x1b]52;c;aGk=\x07[red]b[/] [@click=app.quit]c[/]\n\u202e", "error")
        app.notify("x\x1b[2J[@click=app.quit]y[/]", title="[red]t\x9b")
        await until(pilot, lambda: "[@click=app.quit]y" in text_of(app))
        screen = text_of(app)
        assert "a␛]52;c;aGk=␇[red]b[/] [@click=app.quit]c[/]⏎<U+202E>" in screen
        assert not {c for c in screen if c != "\n" and not c.isprintable()}


async def test_a_click_on_a_tab_shows_it(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        column = text_of(app).splitlines()[0].index(f"{len(TABS)} ")
        await pilot.click(Header, offset=(column, 0))
        await until(pilot, lambda: app.tab is not None and TABS[-1].id == app.tab.TAB_ID)


async def test_the_footer_returns_to_its_keys(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        app.show_message("done")
        assert app.query_one(Footer).message == "done"
        await pilot.press("Y")
        assert app.query_one(Footer).message == ""


@pytest.mark.parametrize("tab", [row.id for row in TABS])
async def test_the_app_closes_while_workers_and_messages_are_under_way(ws: Workspace, tab: str) -> None:
    """A handler or worker that fails while the widgets go away is raised at the end of the block."""
    app = H2QApp(ws)
    with live_run(ws):
        async with app.run_test(size=(80, 24)):
            await app.show_tab(tab)
            for _n in range(20):
                app.post_message(RunsChanged(app.board.runs))
                await app.board.refresh()
                assert app.tab is not None
                app.tab.activate()
                app.show_message("closing", "warning")


@pytest.mark.parametrize("width", [54, 78])
def test_the_sentence_of_an_action_is_wrapped_in_its_column(width: int) -> None:
    for action in ACTIONS:
        lines = action_lines(action, ("x",), width).plain.split("\n")
        assert all(cells(line) <= width for line in lines)
        assert all(line.startswith(" " * 11) for line in lines[1:])


async def test_no_line_of_the_sheet_for_a_new_run_is_wrapped_into_its_margin(tmp_path: Path) -> None:
    app = H2QApp(Workspace(tmp_path))
    async with app.run_test(size=(60, 24)) as pilot:
        await pilot.press("n", "j", "j", "j")
        await until(pilot, lambda: "candidate that is not shown" in text_of(app))
        lines = text_of(app).splitlines()
        top = next(row for row, line in enumerate(lines) if "New run" in line)
        sheet = [line for line in lines[top + 1 :] if line.startswith("│")]
        assert all(line[2:4] in ("  ", "▸ ") for line in sheet), "\n".join(sheet)
