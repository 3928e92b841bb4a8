"""What the tests of the app share: reading the screen as text, and waiting for what a worker brings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from textual.app import App
from textual.pilot import Pilot


def text_of(app: App[Any]) -> str:
    """What the terminal shows now, without colours, all layers of screens."""
    width, height = app.size
    lines = app.screen._compositor.render_strips()
    return "\n".join(strip.text.ljust(width) for strip in lines[:height])


async def until(pilot: Pilot[Any], condition: Callable[[], bool], seconds: float = 8.0) -> None:
    """Waits until `condition` holds; fails the test with the screen when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        await pilot.pause()
        await asyncio.sleep(0.01)
        assert time.monotonic() < deadline, f"waited in vain; the screen shows:\n{text_of(pilot.app)}"
    await pilot.pause()
