"""The wheel scrolls what is under the mouse: sheets and lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual import events
from textual.widgets import OptionList

from engine.core.paths import Workspace
from tests.tui.helpers import until
from tui.app.app import H2QApp
from tui.screens.palette import PaletteScreen
from tui.widgets.virtual_list import VirtualList


@pytest.mark.parametrize(
    ("key", "kind"), [("question_mark", OptionList), ("S", VirtualList), ("ctrl+p", OptionList)]
)
async def test_the_wheel_scrolls_a_sheet(
    tmp_path: Path, key: str, kind: type[OptionList] | type[VirtualList]
) -> None:
    app = H2QApp(Workspace(tmp_path))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(key)
        await until(pilot, lambda: len(app.screen_stack) == 2 and bool(app.screen.query(kind)))
        sheet = app.screen.query_one(kind)
        await until(pilot, lambda: sheet.max_scroll_y > 0)
        for _turn in range(3):
            await pilot._post_mouse_events([events.MouseScrollDown], widget=sheet, offset=(5, 5))
        await until(pilot, lambda: sheet.scroll_offset.y > 0)
        if isinstance(app.screen, PaletteScreen):
            await pilot.press("s")
            await until(pilot, lambda: app.screen.query_one("Input").value == "s")  # type: ignore[attr-defined]
