"""The check after a creation: a served model that is as judged passes, and a fault of the server is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.core.paths import Workspace
from engine.export.create_model import CreateRequest, create_model
from engine.export.created import CreatedCheck, check_created, created_sentences
from engine.inference.llama.server import LlamaServer
from engine.models.base_models import find_base
from tests.export_models import write_gguf, write_lora
from tests.hf_models import write_hf


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a base, an adapter on it, and the adapter as a tag."""
    ws = Workspace(tmp_path_factory.mktemp("created") / "ws")
    ws.models.mkdir(parents=True)
    write_gguf(ws.models / "tiny.gguf", write_hf(ws.root / "hf", hidden=64, positions=2048))
    write_lora(ws, "mine", seed=1)
    list(create_model(ws, CreateRequest("tuned", from_="mine")))
    list(create_model(ws, CreateRequest("plain", from_="tiny")))
    return ws


def checked(ws: Workspace, tag: str = "tuned") -> CreatedCheck:
    return check_created(ws, tag, find_base(ws, "tiny"))


def test_a_model_that_is_served_as_it_was_judged_passes(ws: Workspace) -> None:
    tuned, plain = checked(ws), checked(ws, "plain")
    assert tuned.passed and tuned.adapter_applied and tuned.served.same_prompts == 20, tuned
    assert tuned.adapter_effect is not None and tuned.adapter_effect > 10 * tuned.served.mean_difference
    assert plain.passed and plain.adapter_applied is None and plain.adapter_effect is None
    assert "adapter applied" in created_sentences(tuned)[0]
    assert "adapter" not in created_sentences(plain)[0]


Answer = Callable[[str, dict[str, Any], Any], Any]


def _other_template(path: str, _body: dict[str, Any], reply: Any) -> Any:
    return {"prompt": reply["prompt"] + " "} if path == "/apply-template" else reply


def _other_tokenizer(path: str, _body: dict[str, Any], reply: Any) -> Any:
    return {"tokens": [*reply["tokens"], 5]} if path == "/tokenize" else reply


def _no_stop(path: str, body: dict[str, Any], reply: Any) -> Any:
    return {**reply, "stop_type": "limit"} if path == "/completion" and body["n_predict"] == 2 else reply


class _Remembering:
    """Each answer is a little lower than the one before."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, path: str, _body: dict[str, Any], reply: Any) -> Any:
        if path == "/completion" and "completion_probabilities" in reply:
            self.count += 1
            for one in reply["completion_probabilities"][0]["top_logprobs"]:
                one["logprob"] -= 0.0011 * self.count
        return reply


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (_other_template, "template"),
        (_other_tokenizer, "tokenizer"),
        (_no_stop, "stop token"),
        (_Remembering(), "cache"),
    ],
)
def test_a_fault_of_the_server_is_named(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, answer: Answer, fault: str
) -> None:
    post = LlamaServer.post

    async def changed(self: LlamaServer, path: str, body: dict[str, Any]) -> Any:
        return answer(path, body, await post(self, path, body))

    monkeypatch.setattr(LlamaServer, "post", changed)
    check = checked(ws)
    assert check.faults == [fault], check
    assert len(created_sentences(check)) == 1


def test_an_adapter_that_the_server_does_not_load_is_named(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = LlamaServer.__init__

    def without(self: LlamaServer, *args: Any, **more: Any) -> None:
        start(self, *args, **{**more, "adapters": []})

    monkeypatch.setattr(LlamaServer, "__init__", without)
    check = checked(ws)
    assert check.faults == ["adapter"] and check.adapter_applied is False, check
    assert "adapter" in created_sentences(check)[0]


def test_a_base_that_changed_meanwhile_is_named(ws: Workspace, tmp_path: Path) -> None:
    before = find_base(ws, "tiny")
    data = before.path.read_bytes()
    try:
        # A new file under its name, as an update makes it: the blob of the tag is the old one.
        before.path.unlink()
        before.path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        check = check_created(ws, "plain", before)
    finally:
        before.path.write_bytes(data)
    assert check.faults == ["base"], check


def test_a_check_that_cannot_be_made_says_why(ws: Workspace) -> None:
    check = check_created(ws, "nothing-there", find_base(ws, "tiny"))
    assert not check.passed and check.faults == []
    assert created_sentences(check)[0].startswith("not compared with llama.cpp")
