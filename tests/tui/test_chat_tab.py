"""The Chat tab against the real inference service with a small real model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.core.errors import ServiceUnreachable
from engine.core.paths import Workspace
from engine.inference.client import InferenceClient
from engine.memory.store import MemoryStore
from engine.models.card import ModelCard, read_card
from engine.models.registry import promote
from tests.models import copy_model
from tests.tui.helpers import text_of, until
from tui.app.app import H2QApp
from tui.tabs.chat.input import ChatInput
from tui.tabs.chat.tab import ChatTab


def add_model(ws: Workspace, name: str, created: float) -> None:
    """A native model with random weights."""
    import torch

    from engine.models.native_format import save_model
    from engine.models.transformer import ModelConfig, Transformer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = ModelConfig(dim=16, layers=1, heads=2, kv_heads=1, head_dim=8, ffn=16, context=128)
    card = ModelCard(name=name, mode="native", created_at=created, parameters=1, context=128)
    save_model(ws.models / name, Transformer(config), card)
    assert read_card(ws.models / name).weights_sha256


@pytest.fixture
async def ws(tmp_path: Path) -> AsyncIterator[Workspace]:
    workspace = Workspace(tmp_path)
    workspace.runs.mkdir(parents=True)
    yield workspace
    await InferenceClient(workspace).shutdown()


async def opened(app: H2QApp) -> ChatTab:
    await app.show_tab("chat")
    assert isinstance(app.tab, ChatTab)
    return app.tab


async def test_without_a_model_the_tab_shows_how_to_get_one(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: "There is no model to talk with yet" in text_of(app))
        assert [row.key for row in tab.footer_actions()] == ["d", "f", "n"]
        await pilot.press("n")
        assert app.tab is not None
        assert app.tab.TAB_ID == "train"


async def test_an_answer_streams_in_and_can_be_kept_in_memory(ws: Workspace, knowing: Path) -> None:
    # A model with random weights may end its turn with the first token.
    copy_model(knowing, ws.models / "native-1")
    promote(ws, "native-1")
    app = H2QApp(ws)
    async with app.run_test(size=(100, 30)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        assert "native-1 (in use)" in text_of(app)
        await pilot.press("h", "i", "space", "q", "enter")
        assert "hi q" in text_of(app)
        await until(pilot, lambda: tab.record.last is not None and not tab.is_answering, 60)
        assert "tokens/s" in text_of(app)
        await pilot.press("escape", "K")
        await until(pilot, lambda: "Stored in memory" in text_of(app))
        with MemoryStore(ws.memory_db, readonly=True) as store:
            (kept,) = store.conversations()
        assert kept.source == "chat"
        assert kept.turns[0].text == "hi q"
        assert kept.turns[1].text == tab.record.exchanges[0].text
        assert "in memory" in text_of(app)
        await pilot.press("C")
        assert not tab.record.exchanges
        await pilot.press("u")
        assert "hi q" in text_of(app)


async def test_escape_stops_the_answer_and_keeps_its_text(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(ws, "native-1", 1.0)

    async def endless(_self: object, _model: str, _messages: object, _sampling: object) -> AsyncIterator[str]:
        while True:
            yield "字 [red]"
            await asyncio.sleep(0.01)

    monkeypatch.setattr(InferenceClient, "generate", endless)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        await pilot.press("a", "enter")
        await until(pilot, lambda: text_of(app).count("[red]") > 20)
        assert "esc stops" in text_of(app)
        await pilot.press("escape")
        answer = tab.record.exchanges[0].text
        assert answer.startswith("字 [red]")
        await asyncio.sleep(0.05)
        assert tab.record.exchanges[0].text == answer
        assert "stopped" in text_of(app)


async def test_a_growing_answer_is_painted_by_the_timer_and_not_for_each_token(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(ws, "native-1", 1.0)

    async def quick(_self: object, _model: str, _messages: object, _sampling: object) -> AsyncIterator[str]:
        for _n in range(400):
            yield "x "
            await asyncio.sleep(0.001)

    flushes: list[None] = []
    flush = ChatTab._flush

    def counted(tab: ChatTab) -> None:
        flushes.append(None)
        flush(tab)

    monkeypatch.setattr(InferenceClient, "generate", quick)
    monkeypatch.setattr(ChatTab, "_flush", counted)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        painted: list[str] = []
        grow = tab.view.grow

        def paint(index: int, version: int, text: str) -> None:
            painted.append(text)
            grow(index, version, text)

        monkeypatch.setattr(tab.view, "grow", paint)
        await pilot.press("a", "enter")
        await until(pilot, lambda: not tab.is_answering)
        assert tab.record.exchanges[0].text == "x " * 400
        assert ("x " * 400).startswith("".join(painted))
        assert 0 < len(painted) <= len(flushes) < 400
        assert tab.view.plain_text.count("x") == 400, "the end draws what no flush has drawn"


async def test_a_failing_service_is_one_sentence_with_a_hint(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(ws, "native-1", 1.0)

    async def failing(_self: object, _model: str, _messages: object, _sampling: object) -> AsyncIterator[str]:
        for piece in ("", None):
            if piece is None:
                raise ServiceUnreachable("the inference service does not answer", hint="h2q-tui check")
            yield piece

    monkeypatch.setattr(InferenceClient, "generate", failing)
    app = H2QApp(ws)
    async with app.run_test(size=(100, 24)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        await pilot.press("a", "enter")
        await until(pilot, lambda: "does not answer → h2q-tui check" in text_of(app))
        await pilot.press("escape")
        assert "again" in [row.verb for row in tab.footer_actions()]
        assert "keep" not in [row.verb for row in tab.footer_actions()]


async def test_new_lines_history_and_letters_in_the_field(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(ws, "native-1", 1.0)
    asked: list[str] = []

    async def echo(
        _self: object, _model: str, messages: list[object], _sampling: object
    ) -> AsyncIterator[str]:
        asked.append(messages[-1].content)  # type: ignore[attr-defined]
        yield "ok"

    monkeypatch.setattr(InferenceClient, "generate", echo)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        await pilot.press("q", "ctrl+j", "1", "backslash", "enter", "C", "enter")
        await until(pilot, lambda: asked == ["q\n1\nC"])
        assert app.tab is tab
        await pilot.press("d", "up")
        field = tab.query_one(ChatInput)
        assert field.text == "q\n1\nC"
        await pilot.press("up", "up", "down", "down", "down")
        assert field.text == "d"


async def test_again_adds_a_version_and_the_arrows_walk_them(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(ws, "native-1", 1.0)
    answers = iter(["first", "second"])

    async def one(
        _self: object, _model: str, messages: list[object], _sampling: object
    ) -> AsyncIterator[str]:
        assert len(messages) == 1
        yield next(answers)

    monkeypatch.setattr(InferenceClient, "generate", one)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        await pilot.press("a", "enter")
        await until(pilot, lambda: "first" in text_of(app))
        await pilot.press("escape", "r")
        await until(pilot, lambda: "second" in text_of(app))
        assert "first" not in text_of(app) and "‹ 2/2 ›" in text_of(app)
        await pilot.press("left")
        assert "first" in text_of(app) and "‹ 1/2 ›" in text_of(app)
        await pilot.press("left")
        assert "‹ 1/2 ›" in text_of(app)
        await pilot.press("l")
        assert "second" in text_of(app)
        await pilot.press("K")
        await until(pilot, lambda: "Stored in memory" in text_of(app))
        with MemoryStore(ws.memory_db, readonly=True) as store:
            (kept,) = store.conversations()
        assert kept.turns[1].text == "second"
        assert kept.turns[1].alternatives == ("first",)


async def test_m_picks_another_model(ws: Workspace) -> None:
    add_model(ws, "native-1", 1.0)
    add_model(ws, "native-2", 2.0)
    promote(ws, "native-1")
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        await pilot.press("escape", "M")
        await until(pilot, lambda: "native-2" in text_of(app))
        await pilot.press("up", "enter")
        await until(pilot, lambda: tab.model == "native-2")
