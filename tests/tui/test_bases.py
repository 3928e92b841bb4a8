"""Bases in the app: the new-run sheet names them with their figures, Chat talks with them, and one can be downloaded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.core.config import save_settings
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.inference.client import InferenceClient
from engine.models.add import add_model
from tests.export_models import write_gguf
from tests.hf_models import write_hf
from tests.package_index import CONTENT, MODEL, only_index, write_wheel
from tests.tui.helpers import text_of, until
from tui.app.app import H2QApp
from tui.screens.fetch_model import FetchModel
from tui.tabs.chat.tab import ChatTab
from tui.tabs.train.new_run import NewRun


@pytest.fixture
async def ws(tmp_path: Path) -> AsyncIterator[Workspace]:
    workspace = Workspace(tmp_path / "ws")
    workspace.config.mkdir(parents=True)
    save_settings(workspace, Settings(first_start_done=True))
    yield workspace
    await InferenceClient(workspace).shutdown()


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model of `package_index` is what can be fetched; the folder is the index."""
    for module in ("engine.models.fetch", "tui.screens.fetch_model"):
        monkeypatch.setattr(f"{module}.FETCHABLE", (MODEL,))
    return only_index(tmp_path / "index", monkeypatch)


async def _lora_sheet(app: H2QApp, pilot: object) -> None:
    from textual.pilot import Pilot

    assert isinstance(pilot, Pilot)
    await pilot.press("n")
    await until(pilot, lambda: isinstance(app.screen, NewRun) and "counting" not in text_of(app))
    await pilot.press("j")


async def test_the_sheet_names_a_base_with_its_figures_and_a_refused_one_with_its_reason(
    ws: Workspace, tmp_path: Path
) -> None:
    directory = write_hf(tmp_path / "tiny")
    add_model(ws, write_gguf(tmp_path / "tiny.gguf", directory), "small")
    config = json.loads((directory / "config.json").read_text()) | {"architectures": ["Qwen3Model"]}
    (directory / "config.json").write_text(json.dumps(config))
    directory.rename(ws.models / "embedder")
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await _lora_sheet(app, pilot)
        await until(pilot, lambda: "base: small (1 of 2, b" in text_of(app))
        assert "qwen3, F32, 512 tokens, workspace" in text_of(app)
        assert "--model small" in text_of(app)
        await pilot.press("b")
        await until(pilot, lambda: "base: embedder (2 of 2" in text_of(app))
        assert "not to be trained on: qwen3 is not a causal language model" in text_of(app)
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, NewRun) and not list(ws.runs.glob("*"))


async def test_a_base_is_downloaded_from_the_sheet_after_asking(ws: Workspace, offered: Path) -> None:
    write_wheel(offered, CONTENT)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await _lora_sheet(app, pilot)
        await until(pilot, lambda: "f: download SmolLM2-135M-Instruct" in text_of(app))
        await pilot.press("f")
        await until(pilot, lambda: isinstance(app.screen, FetchModel))
        assert "only step that needs a network" in text_of(app) and "Apache-2.0" in text_of(app)
        assert not ws.models.exists() or not list(ws.models.iterdir())
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, NewRun) and "base: smollm2" in text_of(app), 20)
    assert [path.name for path in ws.models.iterdir()] == ["smollm2.gguf"]


async def test_a_download_that_fails_says_why_and_leaves_nothing(ws: Workspace, offered: Path) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("I")
        await until(pilot, lambda: isinstance(app.screen, FetchModel))
        await pilot.press("enter")
        await until(pilot, lambda: "could not be fetched" in text_of(app), 20)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, FetchModel))
    assert not list(ws.models.iterdir())


async def test_chat_answers_with_a_base(ws: Workspace, tmp_path: Path, knowing_hf: Path) -> None:
    add_model(ws, write_gguf(tmp_path / "k.gguf", knowing_hf), "tom")
    app = H2QApp(ws)
    async with app.run_test(size=(100, 30)) as pilot:
        await app.show_tab("chat")
        tab = app.tab
        assert isinstance(tab, ChatTab)
        await until(pilot, lambda: tab.model == "tom")
        await pilot.press("escape", "M")
        await until(pilot, lambda: "Models" in text_of(app) and "F32" in text_of(app))
        await pilot.press("escape")
        tab.input.focus()
        await pilot.press(*["space" if c == " " else c for c in "What is your name?"], "enter")
        await until(pilot, lambda: tab.record.last is not None and not tab.is_answering, 60)
        assert tab.record.last is not None and tab.record.last.text.strip()
