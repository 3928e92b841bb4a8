"""Every text on the screen can be read: 4.5 to 1 against its background (WCAG 2.2, 1.4.3)."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from rich.style import Style
from textual.app import App
from textual.color import Color

from engine.core.paths import Workspace
from engine.runs.events import CheckpointWritten, Evaluated, ModelSample
from tests.tui.helpers import until
from tests.tui.live_run import live_run
from tui.app.app import H2QApp
from tui.terminal.themes import themes

LEAST = 4.5
_FRAMES = set("─│╭╮╰╯┤└┬▁▂▃▄▅▆▇█▊▎░ ")
TEXTS = ("foreground", "foreground-muted", "text-success", "text-warning", "text-error", "text-accent")


def ratio(one: Color, other: Color) -> float:
    """The contrast of two colours: 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: Color) -> float:
    parts = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour.normalized
    )
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


@pytest.mark.parametrize(
    ("theme", "text", "background"),
    itertools.product(("h2q-dark", "h2q-light"), TEXTS, ("background", "surface", "panel")),
)
def test_a_text_can_be_read_on_each_background(theme: str, text: str, background: str) -> None:
    found = next(found for found in themes() if found.name == theme)
    colours = found.to_color_system().generate() | found.variables
    below = Color.parse(colours[background])
    assert ratio(below, below + Color.parse(colours[text])) >= LEAST


@pytest.mark.parametrize("theme", ["h2q-dark", "h2q-light"])
def test_the_frame_of_a_panel_is_seen(theme: str) -> None:
    found = next(found for found in themes() if found.name == theme)
    colours = found.to_color_system().generate() | found.variables
    assert ratio(Color.parse(colours["background"]), Color.parse(colours["panel-lighten-2"])) >= 2


@pytest.mark.parametrize("theme", ["h2q-dark", "h2q-light"])
async def test_the_train_tab_and_its_sheets_can_be_read(tmp_path: Path, theme: str) -> None:
    app = H2QApp(Workspace(tmp_path))
    with live_run(app.workspace) as run:
        run.write(Evaluated(phase="native", step=50, name="general", loss=1.6))
        run.write(ModelSample(phase="native", step=50, prompt="Who are you?", text="A model.", seconds=0.1))
        run.write(CheckpointWritten(phase="native", step=50, path="x", seconds=0.1, bytes=1))
        async with app.run_test(size=(120, 40)) as pilot:
            app.theme = theme
            await until(pilot, lambda: "held out" in _shown(app) or "general text" in _shown(app))
            assert "checkpoint 1" in _shown(app)
            assert _faint(app) == {}
            await pilot.press("n")
            await until(pilot, lambda: "New run" in _shown(app))
            assert _faint(app) == {}
            await pilot.press("escape", "?")
            await until(pilot, lambda: "h2q-tui runs pause ID" in _shown(app))
            assert _faint(app) == {}


def _shown(app: App[None]) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


def _faint(app: App[None]) -> dict[str, float]:
    """Texts whose contrast is too low, and their contrast."""
    found = {}
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            if set(segment.text) - _FRAMES and (contrast := _contrast(segment.style)) < LEAST:
                found[segment.text] = contrast
    return found


def _contrast(style: Style | None) -> float:
    assert style is not None
    assert style.color is not None
    assert style.bgcolor is not None
    return ratio(Color.from_rich_color(style.bgcolor), Color.from_rich_color(style.color))
