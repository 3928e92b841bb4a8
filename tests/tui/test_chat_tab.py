"""The Chat tab against the real inference service with a small real model."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot

from engine.chats.store import find_chats, read_chats
from engine.core.chat import ChatMessage
from engine.core.errors import ServiceUnreachable
from engine.core.paths import Workspace
from engine.inference.client import InferenceClient
from engine.inference.language_model import Sampling
from engine.memory.store import MemoryStore
from engine.models.card import ModelCard, read_card
from engine.models.registry import promote
from engine.pipeline.forget import forget
from tests.models import copy_model
from tests.tui.helpers import text_of, until
from tui.app.app import H2QApp
from tui.tabs.chat.history_sheet import HistorySheet
from tui.tabs.chat.input import ChatInput
from tui.tabs.chat.sampling_sheet import SamplingSheet
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


async def test_a_letter_right_behind_escape_is_a_key_of_the_chat_and_no_text(
    ws: Workspace, echoed: Asked
) -> None:
    add_model(ws, "native-1", 1.0)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        await ask(pilot, tab, "hi")
        await pilot.press(*"draft")
        # A terminal sends both in one piece: they arrive as one key with alt.
        app.post_message(events.Key("alt+r", "r"))
        await until(pilot, lambda: len(echoed) == 2)
        assert tab.input.text == "draft"
        await until(pilot, lambda: "‹ 2/2 ›" in tab.view.plain_text)


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


@pytest.fixture
def echoed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], Sampling]]:
    """The models answer with their names; what they were asked: (model, contents of the messages, sampling)."""
    asked: list[tuple[str, list[str], Sampling]] = []

    async def generate(
        _self: object, model: str, messages: list[ChatMessage], sampling: Sampling
    ) -> AsyncIterator[str]:
        asked.append((model, [message.content for message in messages], sampling))
        yield f"**{model}** answers {len(asked)}"

    monkeypatch.setattr(InferenceClient, "generate", generate)
    return asked


Asked = list[tuple[str, list[str], Sampling]]


async def ask(pilot: Pilot[None], tab: ChatTab, text: str) -> None:
    """Sends a question and waits for the end of its answer."""
    tab.input.focus()
    tab.input.text = text
    await pilot.press("enter")
    await until(pilot, lambda: not tab.is_answering and tab.record.last is not None)


async def test_two_models_answer_unnamed_until_the_vote_which_is_stored(ws: Workspace, echoed: Asked) -> None:
    add_model(ws, "native-1", 1.0)
    add_model(ws, "native-2", 2.0)
    promote(ws, "native-1")
    app = H2QApp(ws)
    async with app.run_test(size=(100, 30)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        await pilot.press("escape", "A")
        await until(pilot, lambda: "Beside native-1" in text_of(app))
        await pilot.press("g", "enter")
        await until(pilot, lambda: tab.choice.other == "native-2")
        await ask(pilot, tab, "hi")
        assert sorted(model for model, _messages, _sampling in echoed) == ["native-1", "native-2"]
        assert "left" in tab.view.plain_text and "right" in tab.view.plain_text
        assert "tokens" not in text_of(app), "the figures would tell them apart"
        await pilot.press("escape")
        offered = [row.verb for row in tab.footer_actions()]
        assert offered[:4] == ["send", "better_left", "better_right", "equal"] and "keep" not in offered
        await pilot.press("]")
        await until(pilot, lambda: "1 : 0" in text_of(app) or "0 : 1" in text_of(app))
        right = tab.record.exchanges[0].answers[1].model
        assert f"{right}   ✓ better" in tab.view.plain_text
        await until(pilot, lambda: bool(find_chats(ws)) and not tab._saving.locked())
        (stored,) = read_chats(ws)
        assert [vote.choice for vote in stored.exchanges[0].votes] == ["right"]
        await pilot.press("A")
        await ask(pilot, tab, "and now?")
        assert len(echoed) == 3 and echoed[-1][0] == "native-1"
        assert echoed[-1][1][1].startswith(f"**{right}**"), "the chat continues from the better answer"


async def test_a_corrected_answer_is_kept_with_the_models_beside_it(
    ws: Workspace, echoed: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.delenv("VISUAL", raising=False)
    add_model(ws, "native-1", 1.0)
    app = H2QApp(ws)
    async with app.run_test(size=(90, 30)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        await ask(pilot, tab, "hi")
        await pilot.press("escape", "e")
        await until(pilot, lambda: "The answer as it should be" in text_of(app))
        await pilot.press("m", "i", "n", "e", "space", "ctrl+s")
        await until(pilot, lambda: "Your version is in memory" in text_of(app))
        assert "corrected by you   ‹ 2/2 ›" in tab.view.plain_text
        with MemoryStore(ws.memory_db, readonly=True) as store:
            (kept,) = store.conversations()
        assert kept.turns[1].text == "mine **native-1** answers 1" and kept.turns[1].alternatives == (
            "**native-1** answers 1",
        )
        await ask(pilot, tab, "next")
        assert echoed[-1][1][1] == kept.turns[1].text, "the model continues from the correction"


async def test_u_takes_back_what_was_kept_or_corrected(
    ws: Workspace, echoed: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.delenv("VISUAL", raising=False)
    add_model(ws, "native-1", 1.0)

    def kept() -> list[list[str]]:
        with MemoryStore(ws.memory_db, readonly=True) as store:
            return [[turn.text for turn in one.turns] for one in store.conversations()]

    app = H2QApp(ws)
    async with app.run_test(size=(90, 30)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        await ask(pilot, tab, "one")
        await pilot.press("escape", "K")
        await until(pilot, lambda: "Stored in memory" in text_of(app))
        await ask(pilot, tab, "two")
        await pilot.press("escape", "e")
        await until(pilot, lambda: "The answer as it should be" in text_of(app))
        await pilot.press("m", "y", "ctrl+s")
        await until(pilot, lambda: "Your version is in memory" in text_of(app))
        assert len(kept()[0]) == 4
        await pilot.press("u")
        await until(pilot, lambda: "Taken out of memory" in text_of(app))
        assert kept() == [["one", "**native-1** answers 1"]]
        assert tab.record.exchanges[1].text == "**native-1** answers 2" and "‹" not in tab.view.plain_text
        await pilot.press("K")
        await until(pilot, lambda: [len(turns) for turns in kept()] == [4])
        await pilot.press("u")
        await until(pilot, lambda: [len(turns) for turns in kept()] == [2])


async def test_turns_kept_one_after_the_other_are_one_conversation(ws: Workspace, echoed: Asked) -> None:
    add_model(ws, "native-1", 1.0)
    app = H2QApp(ws)
    async with app.run_test(size=(90, 30)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        for question in ("one", "two", "three"):
            await ask(pilot, tab, question)
        for key in ("K", "{", "{", "K", "r", "K"):
            await pilot.press("escape", key)
            await until(pilot, lambda: not tab.is_answering)
            if key == "K":
                await until(pilot, lambda: tab.exchange is not None and tab.exchange.is_kept)
                await until(pilot, lambda: "Stored in memory" in text_of(app))
                app.clear_message()
        with MemoryStore(ws.memory_db, readonly=True) as store:
            (kept,) = store.conversations()
        assert [turn.text for turn in kept.turns[::2]] == ["one", "three"]
        assert kept.turns[1].text == "**native-1** answers 4", "the version that was kept last"
        assert echoed[-1][1] == ["one"], "another answer to an earlier question sees nothing that came later"


async def test_the_sheet_sets_sampling_and_system_prompt_of_the_chat(ws: Workspace, echoed: Asked) -> None:
    add_model(ws, "native-1", 1.0)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        await pilot.press("escape", "s")
        await until(pilot, lambda: isinstance(app.screen, SamplingSheet))
        await pilot.press("end", "backspace", "9", "9", "x", "enter")
        await until(pilot, lambda: "temperature: a number from 0 to 5" in text_of(app))
        await pilot.press("backspace", "tab", "tab", "4", "2", "tab", "7", "tab", *"brief", "ctrl+s")
        await until(pilot, lambda: not isinstance(app.screen, SamplingSheet))
        await ask(pilot, tab, "hi")
        _model, messages, sampling = echoed[0]
        assert (sampling.temperature, sampling.max_tokens, sampling.seed) == (0.99, 42, 7)
        assert messages == ["brief", "hi"]
        await pilot.press("escape", "C")
        assert tab.record.system == "brief", "a new chat has the same settings"


async def test_earlier_chats_are_searched_opened_and_deleted(ws: Workspace, echoed: Asked) -> None:
    add_model(ws, "native-1", 1.0)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        for question in ("about trains", "about ships"):
            await ask(pilot, tab, question)
            await pilot.press("escape", "C")
        await until(pilot, lambda: len(find_chats(ws)) == 2)
        await pilot.press("slash", *"trains")
        await until(pilot, lambda: isinstance(app.screen, HistorySheet))
        await until(pilot, lambda: "about trains" in text_of(app) and "about ships" not in text_of(app))
        await pilot.press("enter", "enter")
        await until(pilot, lambda: bool(tab.record.exchanges))
        assert tab.record.exchanges[0].question == "about trains"
        await ask(pilot, tab, "and more")
        assert echoed[-1][1][0] == "about trains", "an opened chat continues"
        await pilot.press("escape", "o")
        await until(pilot, lambda: "about ships" in text_of(app))
        await pilot.press("down", "x")
        await until(pilot, lambda: "Delete the chat “about ships”?" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: [chat.title for chat in find_chats(ws)] == ["about trains"])


async def test_a_paste_of_300_lines_waits_whole_and_the_footer_is_true_to_the_field(
    ws: Workspace, echoed: Asked
) -> None:
    add_model(ws, "native-1", 1.0)
    pasted = "\n".join(f"line {n}" for n in range(300))
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        await ask(pilot, tab, "hi")
        tab.input.focus()
        app.post_message(events.Paste(pasted))
        await until(pilot, lambda: "300 lines to send" in text_of(app))
        assert len(echoed) == 1, "nothing is sent before enter"
        footer = text_of(app).splitlines()[-1]
        assert "esc keys of the chat" in footer and "K keep" not in footer
        await pilot.press("escape")
        await until(pilot, lambda: "K keep" in text_of(app).splitlines()[-1])
        await pilot.press("enter", "enter")
        await until(pilot, lambda: len(echoed) == 2)
        assert echoed[-1][1][-1] == pasted


async def test_a_rule_chooses_the_model_of_each_question_and_says_why(
    ws: Workspace, echoed: Asked, knowing_hf: Path
) -> None:
    add_model(ws, "native-1", 1.0)
    shutil.copytree(knowing_hf, ws.models / "general-base")
    promote(ws, "native-1")
    app = H2QApp(ws)
    async with app.run_test(size=(100, 30)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        await pilot.press("escape", "w", "w", "w")
        await ask(pilot, tab, "hi")
        assert echoed[-1][0] == "general-base"
        assert "general-base   general: you chose it" in tab.view.plain_text
        await pilot.press("escape", "w")
        await ask(pilot, tab, "hi")
        assert sorted(model for model, _messages, _sampling in echoed[-2:]) == ["general-base", "native-1"]
        await pilot.press("escape", "w")
        assert "One model answers: native-1" in text_of(app)


async def test_what_memory_forgot_leaves_the_chat_on_the_screen(ws: Workspace, echoed: Asked) -> None:
    add_model(ws, "native-1", 1.0)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        await ask(pilot, tab, "my secret word is plover")
        await pilot.press("escape", "K")
        await until(pilot, lambda: "Stored in memory" in text_of(app))
        await until(pilot, lambda: any(one.memory_id for one in read_chats(ws)) and not tab._saving.locked())
        await asyncio.to_thread(forget, ws, [tab.record.memory_id])
        assert not list(read_chats(ws))
        await ask(pilot, tab, "hello again")
        await until(pilot, lambda: "plover" not in text_of(app) and "hello again" in text_of(app))
        await until(pilot, lambda: bool(find_chats(ws)))
        assert [one.question for one in next(read_chats(ws)).exchanges] == ["hello again"]


async def test_the_speed_is_shown_while_the_answer_comes(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = asyncio.Event()

    async def generate(client: InferenceClient, *_asked: object) -> AsyncIterator[str]:
        for client.tokens in (1, 4, 9):
            yield "word "
            await asyncio.sleep(0.01)
        await seen.wait()

    monkeypatch.setattr(InferenceClient, "generate", generate)
    add_model(ws, "native-1", 1.0)
    promote(ws, "native-1")
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.model == "native-1")
        tab.input.text = "hi"
        await pilot.press("enter")
        await until(pilot, lambda: "tokens/s" in text_of(app))
        seen.set()
        await until(pilot, lambda: not tab.is_answering)
        assert "tokens/s" not in text_of(app)
