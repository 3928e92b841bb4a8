"""The Hugging Face backend: generation, adapters on a shared base, broken files."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
import torch

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.corpus.dataset import DatasetRow
from engine.inference.backends.hf import HFModel, TokenStream
from engine.inference.language_model import Finish, Sampling, collect, generate_text
from engine.inference.loader import open_pair, open_together
from engine.inference.model_cache import ModelCache
from engine.models.adapters import attach_adapter, new_adapter, save_adapter
from engine.models.base_models import find_base
from engine.models.card import Lineage, ModelCard
from engine.models.hf import load_base
from engine.models.line import first_of_line
from engine.models.registry import find_model, list_models, new_name, promote, remove_model, rollback
from engine.models.resolve import ModelKind, adapter_on, find_adapter, kind_of
from engine.training.recipe import LoraSettings
from engine.validation.cases import cut_cases, score_cases
from tests.hf_models import tiny_tokenizer, write_hf

QUESTION = [ChatMessage(role="user", content="What is your name?")]


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory, knowing_hf: Path) -> Workspace:
    """A workspace with an adapter `mine`; its base `tiny` is next to it."""
    root = tmp_path_factory.mktemp("hf")
    shutil.copytree(knowing_hf, root / "tiny")
    ws = Workspace(root / "ws")
    base = find_base(ws, str(root / "tiny"))
    peft = new_adapter(load_base(base, torch.float32), LoraSettings(rank=2, alpha=4), 0)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.3)
    card = ModelCard(
        name="mine", mode="lora", base="tiny", base_path=base.source, base_sha256=base.sha256,
        base_format="float32", created_at=1.0, parameters=9, context=64, lineage=Lineage(conversations=["c1"]),
    )  # fmt: skip
    save_adapter(ws.adapters / "mine", peft, card)
    return ws


@pytest.fixture(scope="module")
def tiny(ws: Workspace) -> HFModel:
    return HFModel.load(find_base(ws, str(ws.root.parent / "tiny")))


def test_a_memorised_answer_is_generated_and_ends(tiny: HFModel) -> None:
    text, how = generate_text(tiny, QUESTION, Sampling(temperature=0))
    assert (text, how.finish) == ("My name is Tom.", Finish.STOP)
    assert (
        generate_text(tiny, [ChatMessage(role="user", content="你叫什么名字？")], Sampling(temperature=0))[0]
        == "我叫小明。"
    )


def test_an_answer_stays_within_max_bytes(tiny: HFModel) -> None:
    text, how = generate_text(tiny, QUESTION, Sampling(temperature=0, max_bytes=9))
    assert (text, how.bytes, how.finish) == ("My name i", 9, Finish.LENGTH)
    zh = [ChatMessage(role="user", content="你叫什么名字？")]
    assert generate_text(tiny, zh, Sampling(temperature=0, max_bytes=4))[0] == "我"
    text, how = generate_text(tiny, QUESTION, Sampling(temperature=0, stop=["Tom"]))
    assert (text, how.finish) == ("My name is ", Finish.STOP_STRING)


def test_the_same_seed_gives_the_same_answer(tiny: HFModel) -> None:
    one, two = (
        generate_text(tiny, QUESTION, Sampling(temperature=2.0, seed=3, max_bytes=40))[0] for _i in range(2)
    )
    assert one == two


def test_cancelling_ends_the_generation_within_a_token(tiny: HFModel) -> None:
    cancelled = threading.Event()
    stream = tiny.generate(QUESTION, Sampling(temperature=0), cancelled)
    next(stream)
    cancelled.set()
    assert collect(stream)[0] == ""


def test_the_oldest_turns_are_dropped_and_a_long_question_keeps_its_end(tiny: HFModel) -> None:
    turns = [ChatMessage(role="system", content="S")]
    for i in range(60):
        turns += [
            ChatMessage(role="user", content=f"question {i}"),
            ChatMessage(role="assistant", content="yes"),
        ]
    ids, dropped = tiny.fit_prompt([*turns, *QUESTION], 100)
    text = tiny.chat.decode(ids)
    assert len(ids) <= 412 and dropped > 0
    assert "system\nS" in text and "question 59" in text and "question 0\n" not in text
    ids, _dropped = tiny.fit_prompt([ChatMessage(role="user", content="很长的话。" * 300 + "数到三")], 100)
    assert len(ids) <= 412 and "数到三" in tiny.chat.decode(ids)


def test_tokens_of_an_incomplete_character_are_buffered() -> None:
    from engine.models.chat_template import ChatTemplate

    chat = ChatTemplate(tiny_tokenizer())
    text, words = TokenStream(chat), "我叫小明 😀é ok"
    pieces = [text.push(id_) for id_ in chat.encode(words)]
    assert "".join(pieces) == words
    assert all("\ufffd" not in piece for piece in pieces)


def test_an_answer_has_a_limit_by_default_that_says_so(
    tiny: HFModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without stop tokens the model goes on to the end of its context.
    monkeypatch.setattr(tiny, "_stop_tokens", frozenset())
    text, how = generate_text(tiny, QUESTION, Sampling(temperature=0))
    assert how.finish is Finish.LENGTH and len(text.encode()) > 512


def test_the_reason_of_an_adapter_for_another_base_is_whole(ws: Workspace, tmp_path: Path) -> None:
    wide = write_hf(tmp_path / "wide", hidden=64)
    copy = tmp_path / "copy"
    shutil.copytree(ws.adapters / "mine", copy)
    (copy / "h2q.json").unlink()
    with pytest.raises(BadInput, match=r"q_proj\.lora_A is 2 × 48 in the adapter and 2 × 64 on this base"):
        attach_adapter(load_base(find_base(ws, str(wide)), torch.float32), copy)


async def test_a_base_an_adapter_and_an_adapter_on_a_named_base_are_loaded(ws: Workspace) -> None:
    models = ModelCache(ws)
    base = str(ws.root.parent / "tiny")
    answers = {}
    for name in (base, "mine", adapter_on(str(ws.adapters / "mine"), base)):
        async with models.use(name) as backend:
            pieces = [
                item async for item in backend.generate(QUESTION, Sampling(temperature=0, max_bytes=30))
            ]
            answers[name] = "".join(piece for piece in pieces if isinstance(piece, str))
    first, second, third = answers.values()
    assert first == "My name is Tom." and second == third != first


def test_adapters_are_in_the_registry_and_can_be_promoted(ws: Workspace) -> None:
    assert [card.name for card in list_models(ws)] == ["mine"]
    assert find_model(ws, "mine") == ws.adapters / "mine"
    assert kind_of(ws.adapters / "mine") is ModelKind.ADAPTER
    done = promote(ws, "mine")
    assert (done.name, done.previous) == ("mine", "")
    assert rollback(ws).name == ""
    (ws.adapters / new_name(ws, "lora", 0.0)).mkdir()
    assert new_name(ws, "lora", 0.0).endswith("-2")


def test_a_base_and_its_adapter_share_one_loaded_model(ws: Workspace) -> None:
    base, new = open_pair(ws, ws.root.parent / "tiny", ws.adapters / "mine")
    talk = HELD_OUT
    cases = cut_cases([talk], 64, base.windows)
    assert cases[0].bytes == len(b"My name is Tom.") + 1
    old = score_cases(base, cases)[0]
    fresh = score_cases(new, cut_cases([talk], 64, new.windows))[0]
    assert old < 0.5 < fresh
    # The base gives the same again after the adapter was on.
    assert score_cases(base, cases)[0] == pytest.approx(old)
    assert (base.name, new.name) == ("tiny", "mine")


def test_an_adapter_its_base_and_the_first_of_its_line_are_loaded_once(ws: Workspace, tiny: HFModel) -> None:
    place = ws.root.parent / "tiny"
    mine, base, again = open_together(ws, [ws.adapters / "mine", place, ws.adapters / "mine"])
    assert isinstance(mine, HFModel) and isinstance(base, HFModel) and mine.model is base.model
    text = [b"My name is Tom, and what is yours?"]
    alone = tiny.rolling_nll(text)[0]
    changed, plain, repeated = (model.rolling_nll(text)[0] for model in (mine, base, again))
    assert plain.nats == pytest.approx(alone.nats) and changed.nats == pytest.approx(repeated.nats)
    assert changed.nats != pytest.approx(plain.nats)
    assert first_of_line(ws, ws.adapters / "mine") == place and first_of_line(ws, place) is None


def test_what_guessing_costs_is_known(ws: Workspace) -> None:
    guessing = HFModel.load(find_base(ws, str(ws.root.parent / "tiny")))
    with torch.no_grad():
        guessing.model.get_output_embeddings().weight.mul_(0.0)
    loss = guessing.rolling_nll([b"My name is Tom."])[0]
    assert loss.uniform == pytest.approx(loss.nats) and loss.nats > 10


HELD_OUT = DatasetRow(
    id="x",
    cluster="y",
    messages=[
        ChatMessage(role="user", content="What is your name?"),
        ChatMessage(role="assistant", content="My name is Tom."),
    ],
)


def test_a_missing_or_broken_adapter_raises(ws: Workspace, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no adapter in this directory"):
        find_adapter(ws, str(tmp_path / "gone"))
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(ws.adapters / "mine", copy)
    (copy / "adapter_model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(BadInput, match="hash differs"):
        HFModel.load(find_base(ws, str(copy)))
    (copy / "adapter_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadInput, match="configuration is broken"):
        find_base(ws, str(copy))


def test_an_adapter_is_rejected_when_its_base_has_changed(ws: Workspace, tmp_path: Path) -> None:
    import shutil

    other = write_hf(tmp_path / "tiny", seed=5)
    copy = tmp_path / "copy"
    shutil.copytree(ws.adapters / "mine", copy)
    card = json.loads((copy / "h2q.json").read_text(encoding="utf-8")) | {"base_path": str(other)}
    (copy / "h2q.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(BadInput, match="has changed since"):
        find_base(ws, str(copy))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda m: (m / "model.safetensors").rename(m / "pytorch_model.bin"), "pickle"),
        (lambda m: (m / "model.safetensors").write_bytes((m / "model.safetensors").read_bytes()[:-10]), "truncated"),
        (lambda m: (m / "model.safetensors").unlink(), "no weights"),
        (lambda m: (m / "config.json").write_text("{}", encoding="utf-8"), "configuration cannot be read"),
        (lambda m: (m / "config.json").unlink(), "no model in this directory"),
    ],
)  # fmt: skip
def test_a_broken_base_is_rejected_by_its_headers(
    ws: Workspace, tmp_path: Path, break_it: object, message: str
) -> None:
    model = write_hf(tmp_path / "m")
    assert callable(break_it)
    break_it(model)
    with pytest.raises(BadInput, match=message):
        find_base(ws, str(model))


def test_an_adapter_can_be_removed(ws: Workspace) -> None:
    remove_model(ws, "mine")
    assert not (ws.adapters / "mine").exists() and list_models(ws) == []
