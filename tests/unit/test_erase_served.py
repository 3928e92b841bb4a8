"""Forgetting conversations that stand before every chat of a served model."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.core.chat import ChatMessage, Role
from engine.core.files import write_bytes
from engine.core.paths import Workspace
from engine.export.create_model import CreateRequest, create_model
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.models.base_models import find_base
from engine.models.card import CARD_FILE, Lineage, ModelCard, encode_card, load_card
from engine.models.ollama.create import modelfile
from engine.models.ollama.model_store import ModelStore
from engine.models.registry import promote
from engine.pipeline.forget import forget
from engine.workspace.open import open_workspace
from tests.export_models import write_arch, write_gguf

SECRET = "the zebraquartz stands beside the old bridge"


def _conversation(question: str, answer: str) -> Conversation:
    turns = [Turn(role=Role.USER, text=question), Turn(role=Role.ASSISTANT, text=answer)]
    return Conversation.of(turns, source="test", title=question)


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    return open_workspace(Workspace(tmp_path / "ws"))


def _holding(ws: Workspace, text: str) -> list[str]:
    return [str(path) for path in ws.root.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.parametrize("with_index", [True, False], ids=["by conversation", "by exchange"])
def test_a_forgotten_conversation_leaves_every_served_model(
    ws: Workspace, tmp_path: Path, *, with_index: bool
) -> None:
    secret = _conversation("Where does it stand? I ask for a reason.", f"As I said, {SECRET}.")
    kept = _conversation("How do I make tea in the morning?", "Boil some water and pour it over the leaves.")
    with MemoryStore(ws.memory_db) as store:
        store.add([secret, kept])
    base = write_gguf(tmp_path / "base.gguf", write_arch(tmp_path / "hf", "llama"))
    turns = [
        ChatMessage(role=turn.role.value, content=turn.text) for one in (secret, kept) for turn in one.turns
    ]
    index = [(secret.id, 2), (kept.id, 2)] if with_index else []
    list(create_model(ws, CreateRequest("mine", from_=str(base), messages=turns, conversations=index)))
    list(create_model(ws, CreateRequest("other", from_=str(base), system=f"Know that {SECRET}.")))
    stored = ModelStore(ws).find("mine")
    card = ModelCard(
        name="mine", mode="message", served="mine", created_at=1.0, parameters=1, context=512,
        weights_sha256=stored.digest, lineage=Lineage(conversations=[secret.id, kept.id]),
    )  # fmt: skip
    write_bytes(ws.models / "mine" / CARD_FILE, encode_card(card))
    (ws.training).mkdir(exist_ok=True)
    for name in ("mine", "gone"):
        write_bytes(ws.training / f"Modelfile_{name}", modelfile("/base.gguf", messages=turns).encode())
    # What a creation that was stopped has left.
    blobs = ModelStore(ws)
    blobs.put_bytes("messages", f'[{{"role": "user", "content": "{SECRET}"}}]'.encode())
    unrelated = blobs.blob(blobs.put_bytes("messages", b'[{"role": "user", "content": "hello"}]').digest)
    assert _holding(ws, "zebraquartz")
    report = forget(ws, [secret.id])
    assert _holding(ws, "zebraquartz") == []
    assert [message.content for message in find_base(ws, "mine").messages] == [
        turn.text for turn in kept.turns
    ]
    assert find_base(ws, "other").system == ""
    assert "Boil some water" in (ws.training / "Modelfile_mine").read_text()
    assert not (ws.training / "Modelfile_gone").exists()
    assert load_card(ws.models / "mine").lineage.conversations == [kept.id]
    assert report.models == []
    assert unrelated.is_file()
    # Its card describes what is left: it can be put in use.
    assert promote(ws, "mine").name == "mine"


def test_what_holds_nothing_of_it_stays_as_it_was(ws: Workspace, tmp_path: Path) -> None:
    secret = _conversation("Where does it stand? I ask for a reason.", f"As I said, {SECRET}.")
    with MemoryStore(ws.memory_db) as store:
        store.add([secret])
    base = write_gguf(tmp_path / "base.gguf", write_arch(tmp_path / "hf", "llama"))
    turns = [ChatMessage(role="user", content="hello"), ChatMessage(role="assistant", content="hi there")]
    list(create_model(ws, CreateRequest("mine", from_=str(base), messages=turns, system="Be kind.")))
    before = ModelStore(ws).find("mine").digest
    forget(ws, [secret.id])
    assert ModelStore(ws).find("mine").digest == before
