"""Without colours, or without anything but ASCII, the app is drawn so that it can be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.style import Style

from engine.core.paths import Workspace
from engine.core.settings import Settings
from tests.corpus_store import distinct, memory
from tests.tui.helpers import text_of
from tests.tui.live_run import LiveRun
from tui.app.app import H2QApp
from tui.app.first_start import FirstStart
from tui.terminal.rendering import _ASCII

KEYS = (
    ["1"], ["2"], ["3"], ["4"], ["5"], ["question_mark"], ["S"], ["ctrl+p"], ["ctrl+p", *"log sc"], ["n"],
    ["2", "t"], ["2", "slash"], ["2", "i"], ["2", "x"], ["m"], ["o"], ["X"],
)  # fmt: skip
"""Every tab, and the sheets, the palette and the questions."""


def styles_of(app: H2QApp) -> list[Style]:
    segments = [segment for strip in app.screen._compositor.render_strips() for segment in strip]
    return [segment.style for segment in segments if segment.style is not None]


def workspace(folder: Path) -> Workspace:
    """Conversations and a finished run."""
    with memory(folder, [distinct(number) for number in range(5)]):
        pass
    ws = Workspace(folder)
    run = LiveRun(ws, steps=20)
    run.memory()
    for number in range(1, 21):
        run.step(number)
    run.end()
    return ws


async def test_without_colours_no_cell_has_one_and_something_stands_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = H2QApp(workspace(tmp_path))
    async with app.run_test(size=(100, 30)) as pilot:
        for keys in KEYS:
            await pilot.press(*keys)
            await pilot.pause(0.02)
            styles = styles_of(app)
            colors = {
                color for style in styles for color in (style.color, style.bgcolor) if color is not None
            }
            assert {color.name for color in colors} <= {"default"}, keys
            assert any(style.bold or style.reverse for style in styles), keys
            await pilot.press("escape", "escape", "1")


async def test_the_first_start_has_no_colour_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    app = H2QApp(Workspace(tmp_path / "data"), welcome=True)
    async with app.run_test(size=(100, 30)) as pilot:
        while not isinstance(app.screen, FirstStart):
            await pilot.pause(0.01)
        await pilot.pause(0.1)
        styles = styles_of(app)
    assert not [style for style in styles if style.color is not None and style.color.name != "default"]
    assert any(style.bold for style in styles)


@pytest.mark.parametrize("theme", ["light", "ansi"])
async def test_no_text_is_drawn_in_the_colour_of_its_background(tmp_path: Path, theme: str) -> None:
    app = H2QApp(workspace(tmp_path), settings=Settings(theme=theme))
    async with app.run_test(size=(100, 30)) as pilot:
        for keys in KEYS:
            await pilot.press(*keys)
            await pilot.pause(0.02)
            strips = app.screen._compositor.render_strips()
            for segment in (segment for strip in strips for segment in strip):
                style = segment.style
                # Bars and frames of one colour are drawn as cells of it; letters are not.
                if style is not None and style.color is not None and any(map(str.isalnum, segment.text)):
                    assert style.color.is_default or style.color != style.bgcolor, (keys, segment.text)
            await pilot.press("escape", "escape", "1")


async def test_an_ascii_terminal_gets_ascii(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    run = LiveRun(ws, steps=20)
    run.memory()
    for number in range(1, 21):
        run.step(number)
    run.end()
    app = H2QApp(ws, settings=Settings(signs="ascii", language="en"))
    async with app.run_test(size=(100, 30)) as pilot:
        for key in ("1", "2", "3", "5", "S", "question_mark", "ctrl+p"):
            await pilot.press(key)
            await pilot.pause(0.1)
            # The setting of the language names itself.
            assert {one for one in text_of(app) if not one.isascii()} <= set("语言中文"), key
            await pilot.press("escape")


def test_each_sign_is_replaced_cell_by_cell() -> None:
    for code, replacement in _ASCII.items():
        assert cell_len(chr(code)) == cell_len(str(replacement)) == 1, chr(code)
