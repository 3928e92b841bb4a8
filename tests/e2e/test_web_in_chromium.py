"""The app in a real browser: photographed, with everything that the page asked for."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from engine.core.paths import Workspace
from engine.workspace.open import open_workspace
from tests.chromium import chromium, find_chromium
from tests.e2e.test_web import SECONDS, web_server
from tests.tui.corpus_workspace import build

PROGRAM = find_chromium()
DRAWN_BYTES = 40_000
"""Least size of a PNG of the Corpus tab with its conversations; the empty Train tab has 23 thousand."""


@pytest.mark.skipif(not PROGRAM, reason="no Chromium here; $H2Q_TEST_CHROMIUM names one")
async def test_the_browser_draws_the_app_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    ws = open_workspace(Workspace(tmp_path / "workspace"))
    (ws.config / "h2q.toml").write_text("first_start_done = true\n", encoding="utf-8")
    build(ws)
    pictures = Path(os.environ.get("H2Q_TEST_PICTURES", tmp_path))
    with web_server(ws.root) as (_server, said):
        async with chromium(PROGRAM, tmp_path) as page:
            await page.open(said["url"])
            await page.until("document.body.classList.contains('-first-byte')")
            await page.press("2")
            async with asyncio.timeout(SECONDS):
                while len(drawn := await page.picture()) < DRAWN_BYTES:  # noqa: ASYNC110  the browser tells nobody
                    await asyncio.sleep(0.2)
            (pictures / "web.png").write_bytes(drawn)
            assert await page.value("document.fonts.check('16px \"Roboto Mono\"')")
            assert {urlsplit(url).netloc for url in page.urls if not url.startswith("data:")} == {
                f"127.0.0.1:{said['port']}"
            }
            assert any(url.startswith("ws://") for url in page.urls)
            assert page.complaints == []
            await page.press("q")
            await page.until("document.body.classList.contains('-closed')")
            (pictures / "web-ended.png").write_bytes(await page.picture())
