"""With NO_COLOR the app is drawn in the colours of the terminal, and nothing depends on another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.core.paths import Workspace
from tests.corpus_store import distinct, memory
from tui.app.app import H2QApp


@pytest.mark.parametrize("key", ["1", "2", "3", "4", "5", "?", "S"])
async def test_no_cell_has_a_colour_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with memory(tmp_path, [distinct(number) for number in range(5)]):
        pass
    app = H2QApp(Workspace(tmp_path))
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press(key)
        await pilot.pause(0.3)
        segments = [segment for strip in app.screen._compositor.render_strips() for segment in strip]
        styles = [segment.style for segment in segments if segment.style is not None]
    assert styles
    colors = {color for style in styles for color in (style.color, style.bgcolor) if color is not None}
    assert {color.name for color in colors} <= {"default"}
    assert any(style.bold or style.reverse for style in styles)
