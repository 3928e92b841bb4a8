"""The Hive tab on a real server: what leaves is shown and asked for, versions are joined, fetched and adopted."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from engine.core.config import load_settings, save_settings
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.hive.shares import read_shares
from engine.models.base_models import find_base
from engine.models.registry import in_use
from engine.workspace.open import open_workspace
from tests.hive_adapters import add_adapter
from tests.hive_server import serving_hive
from tests.tui.helpers import text_of, until
from tui.app.app import H2QApp
from tui.host import hive_process
from tui.host.hive_process import served_here, stop_hive
from tui.tabs.hive.messages import HiveWorkDone
from tui.tabs.hive.tab import HiveTab


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    workspace = open_workspace(Workspace(tmp_path / "ws"))
    add_adapter(workspace, "mine", seed=1)
    return workspace


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with serving_hive(tmp_path / "hive", with_base=False) as address:
        yield address


def app_on(ws: Workspace, url: str = "", user: str = "ann") -> H2QApp:
    settings = Settings(hive_server=url, hive_user=user)
    save_settings(ws, settings)
    return H2QApp(ws, "hive", settings=settings)


async def shows(pilot: Pilot[None], *words: str, seconds: float = 20.0) -> None:
    await until(pilot, lambda: all(word in text_of(pilot.app) for word in words), seconds)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_without_a_hive_it_says_what_one_is_and_what_to_press(
    ws: Workspace, size: tuple[int, int]
) -> None:
    app = app_on(ws)
    async with app.run_test(size=size) as pilot:
        await shows(pilot, "A hive joins the adapters", "only adapters travel", "http://127.0.0.1:")
        assert "P  share an adapter" in text_of(app)
        offered = {action.id for action in app.tab.available_actions()} if app.tab is not None else set()
        assert {"hive.serve", "hive.upload", "hive.server"} <= offered and "hive.download" not in offered


async def test_a_server_that_is_gone_is_named_with_what_to_press(ws: Workspace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    app = app_on(ws, f"http://127.0.0.1:{port}")
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, f"127.0.0.1:{port}", "does not answer", "s opens a hive here", "mine")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_an_adapter_leaves_only_after_what_leaves_was_shown(
    ws: Workspace, url: str, size: tuple[int, int]
) -> None:
    app = app_on(ws, url)
    async with app.run_test(size=size) as pilot:
        await shows(pilot, "round 1: 0 of 2", "not shared")
        await pilot.press("P")
        await shows(pilot, "nothing else", "adapter_model.safetensors", "adapter_config.json", "as ann", url)
        await pilot.press("escape")
        await shows(pilot, "My adapters")
        assert not read_shares(ws).shared
        await pilot.press("P")
        await shows(pilot, "enter share")
        await pilot.press("enter")
        await shows(pilot, "round 1: 1 of 2", "shared, round 1", "ann  ")
    assert [one.name for one in read_shares(ws).shared] == ["mine"]


async def test_the_address_of_a_server_is_asked_for_checked_and_kept(ws: Workspace, url: str) -> None:
    app = app_on(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "A hive joins")
        await pilot.press("P")
        await shows(pilot, "hive server:")
        await pilot.press("ctrl+u", *"http://hive.example", "enter")
        await shows(pilot, "without TLS")
        await pilot.press("ctrl+u", *url.removeprefix("http://"), "enter")
        await shows(pilot, "round 1: 0 of 2")
    assert load_settings(ws).hive_server == url


async def test_versions_are_joined_fetched_adopted_and_given_up_again(
    ws: Workspace, url: str, knowing_hf: Path
) -> None:
    base = str(knowing_hf)
    for number, name in enumerate(("first", "second"), 2):
        add_adapter(ws, name, seed=number, base_path=base, base_sha256=find_base(ws, base).sha256)
    app = app_on(ws, url)
    async with app.run_test(size=(120, 40)) as pilot:
        await shows(pilot, "first", "second")
        tab = app.tab
        assert isinstance(tab, HiveTab)
        for user, name in (("ann", "first"), ("bob", "second")):
            app.settings = Settings(hive_server=url, hive_user=user)
            assert tab.own.move_to_id(name)
            await pilot.press("P")
            await shows(pilot, f"Share {name}", "enter share")
            await pilot.press("enter")
            await until(pilot, lambda: len(app.screen_stack) == 1, 20.0)
            await shows(pilot, f"{user}   ")
        await pilot.press("M")
        await shows(pilot, "Join the 2 adapters")
        await pilot.press("y")
        await until(pilot, lambda: bool(tab.state.versions), 20.0)
        version = tab.state.versions[0].version
        await shows(pilot, version, "clip, rank 2", "ann 50 %")
        await pilot.press("D")
        await until(pilot, lambda: tab.state.fetched_as(version) is not None, 60.0)
        assert tab.own.move_to_id(f"hive-{version}")
        await shows(pilot, "fetched, not judged")
        await pilot.press("a")
        await shows(pilot, "Not validated yet")
        await pilot.press("y")
        await until(pilot, lambda: in_use(ws) == f"hive-{version}")
        await shows(pilot, "u undoes it")
        tab.post_message(HiveWorkDone("another action"))
        await shows(pilot, "another action")
        await pilot.press("u")
        await until(pilot, lambda: in_use(ws) is None)


async def test_a_hive_is_opened_and_closed_with_its_address_named_first(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(hive_process, "DEFAULT_PORT", port)
    app = app_on(ws)
    try:
        async with app.run_test(size=(80, 24)) as pilot:
            await shows(pilot, "A hive joins")
            await pilot.press("s")
            await shows(pilot, f"Open a hive at http://127.0.0.1:{port}?")
            assert served_here(ws) is None
            await pilot.press("y")
            await shows(pilot, "served from here", "round 1: 0 of 2", seconds=60)
        served = served_here(ws)
        assert served is not None and load_settings(ws).hive_server == served.url
        app = app_on(ws, served.url)
        async with app.run_test(size=(80, 24)) as pilot:
            await shows(pilot, "served from here")
            await pilot.press("s")
            await shows(pilot, "Close the hive at")
            await pilot.press("y")
            await until(pilot, lambda: served_here(ws) is None, 20.0)
    finally:
        stop_hive(ws)
