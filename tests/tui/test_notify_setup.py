"""The dialogue that sets up alerts: reached from Health, filled by keys, tested against a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.core.config import load_settings
from engine.core.credentials import read_secret, secrets_file
from engine.core.paths import Workspace
from tests.alert_servers import http_server
from tests.tui.helpers import text_of, until
from tui.app.app import H2QApp
from tui.screens.notify_setup import NotifySetup, channel_name

SECRET = "k-123456"


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


async def test_a_channel_is_set_up_and_tested_by_keys_alone(ws: Workspace) -> None:
    app = H2QApp(ws, tab="health")
    with http_server() as server:
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("n")
            await until(pilot, lambda: isinstance(app.screen, NotifySetup) and "126.com" in text_of(app))
            await pilot.press("G", "enter")
            await until(pilot, lambda: "bearer token" in text_of(app))
            await pilot.press(*f"http://127.0.0.1:{server.port}/{SECRET}", "enter", "enter")
            await pilot.press(*["backspace"] * 2, *"yes", "enter")
            await until(pilot, lambda: "sent: look whether it has arrived" in text_of(app))
            assert SECRET not in text_of(app)
            assert app.settings.alert_channels == {"webhook": {"kind": "webhook", "private": "yes"}}
            await pilot.press("escape")
            await until(pilot, lambda: "Feishu" in text_of(app))
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, NotifySetup))
    assert [path for path, _headers, _body in server.requests] == [f"/{SECRET}"]
    assert SECRET in read_secret(ws, "webhook", "password")
    assert SECRET not in ws.settings_file.read_text(encoding="utf-8")
    assert secrets_file(ws).stat().st_mode & 0o077 == 0


async def test_a_failed_test_says_why_and_can_be_tried_again(ws: Workspace) -> None:
    app = H2QApp(ws, tab="health")
    with http_server() as server:
        server.status = 500
        async with app.run_test(size=(120, 40)) as pilot:
            await pilot.press("n")
            await until(pilot, lambda: "Webhook" in text_of(app))
            await pilot.press("G", "enter")
            await until(pilot, lambda: "bearer token" in text_of(app))
            await pilot.press("enter", "enter", "enter")
            await until(pilot, lambda: "not sent" in text_of(app) or "missing" in text_of(app))
            await pilot.press("up", "up", *f"http://127.0.0.1:{server.port}/", "enter", "enter")
            await pilot.press(*["backspace"] * 2, *"yes", "enter")
            await until(pilot, lambda: "500" in text_of(app))
            server.status = 200
            await pilot.press("enter")
            await until(pilot, lambda: "sent: look whether it has arrived" in text_of(app))


def test_a_second_channel_of_a_kind_gets_a_name_of_its_own(ws: Workspace) -> None:
    from engine.alerts.desk import add_channel

    assert channel_name("bark", load_settings(ws)) == "bark"
    add_channel(ws, "bark", "bark", {"password": SECRET})
    add_channel(ws, "bark-2", "bark", {"password": SECRET})
    assert channel_name("bark", load_settings(ws)) == "bark-3"
