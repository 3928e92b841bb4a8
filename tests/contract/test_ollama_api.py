"""Ollama's API through its own Python client: the built-in server, and a real Ollama where `$OLLAMA_HOST` answers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import msgspec
import ollama
import pytest

from engine.core.paths import Workspace
from engine.models.card import CARD_FILE, Lineage, encode_card, read_card
from engine.models.registry import promote
from engine.validation.report import ModelScore, ValidationReport, Verdict
from tests.export_models import write_gguf, write_lora
from tests.hf_models import KNOWN
from tests.models import copy_model
from tests.serving import serving, short_workspace

QUESTION, ANSWER = KNOWN[1]
ASKED = [{"role": "user", "content": QUESTION}]
GREEDY = {"temperature": 0, "seed": 1}


@dataclass
class Api:
    """A server of Ollama's API with the model `tiny`."""

    url: str
    client: ollama.Client
    built_in: bool

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60, trust_env=False)


def write_verdict(ws: Workspace, name: str) -> None:
    """The report of a training that was judged better."""
    score = ModelScore(name=name, nll_per_byte=1.0, bits_per_byte=1.4)
    verdict = Verdict(
        decision="promote", n_cases=30, n_groups=30, base=score, new=score, delta=0.2, p_value=0.01, alpha=0.025,
        look=1, ci95=None,
    )  # fmt: skip
    report = ValidationReport(run_id="r1", created_at=1.0, window_id=1, verdict=verdict, measures=[])
    (ws.training / "report_r1.json").write_bytes(msgspec.json.encode({"validation": report}))


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory, knowing_hf: Path) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", knowing_hf)


@pytest.fixture(scope="module")
def workspace(gguf: Path, knowing: Path) -> Iterator[Workspace]:
    """A GGUF model, an adapter on it, and a native model that is in use and was judged."""
    with short_workspace() as ws:
        (ws.models / "tiny.gguf").write_bytes(gguf.read_bytes())
        write_lora(ws, "mine", seed=0)
        copy_model(
            knowing, ws.models / "own", run_id="r1", base="first", lineage=Lineage(conversations=["c1", "c2"])
        )
        ws.training.mkdir(parents=True)
        write_verdict(ws, "own")
        promote(ws, "own")
        yield ws


@pytest.fixture(scope="module")
def url(workspace: Workspace) -> Iterator[str]:
    with serving(workspace) as url:
        yield url


@pytest.fixture(scope="module", params=["built-in", "ollama"])
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    if request.param == "built-in":
        url = request.getfixturevalue("url")
        yield Api(url, ollama.Client(url, timeout=60, trust_env=False), True)
        return
    url = os.environ.get("H2Q_TEST_OLLAMA", "")
    if not url:
        pytest.skip("$OLLAMA_HOST names no Ollama to compare with")
    client = ollama.Client(url, timeout=60, trust_env=False)
    try:
        client.list()
    except (ConnectionError, httpx.HTTPError):
        pytest.skip(f"no Ollama answers at {url}")
    file = request.getfixturevalue("gguf")
    client.create("tiny", files={"tiny.gguf": client.create_blob(file)})
    yield Api(url, client, False)
    client.delete("tiny")


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
def test_programs_probe_the_server_with_head_and_get(api: Api, path: str) -> None:
    for method in ("HEAD", "GET"):
        reply = httpx.request(method, api.url + path, trust_env=False)
        assert reply.status_code == 200
        assert bool(reply.content) == (method == "GET")
    if path == "/":
        assert reply.text == "Ollama is running"
    if path == "/api/version":
        assert [int(part) for part in reply.json()["version"].split(".")[:2]] >= [0, 5]


def test_models_are_listed_with_their_details(api: Api) -> None:
    listed = {model.model: model for model in api.client.list().models}
    tiny = listed["tiny:latest"]
    assert tiny.digest is not None and len(tiny.digest) == 64 and tiny.size and tiny.modified_at
    assert tiny.details is not None and tiny.details.format == "gguf"
    assert tiny.details.family == "qwen3" and tiny.details.quantization_level == "F32"
    if api.built_in:
        assert {"own:latest", "mine:latest", "personal:latest"} <= set(listed)


@pytest.mark.parametrize("name", ["tiny", "tiny:latest", "TINY"])
def test_a_chat_streams_and_ends_with_its_figures(api: Api, name: str) -> None:
    parts = list(api.client.chat(name, ASKED, stream=True, options=GREEDY))
    assert "".join(part.message.content or "" for part in parts) == ANSWER
    assert len(parts) > 1 and {part.model for part in parts} == {name}
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    last = parts[-1]
    assert last.done_reason == "stop" and last.message.content == ""
    assert last.prompt_eval_count and last.eval_count and 0 < last.eval_count <= len(ANSWER) + 1
    total = last.total_duration or 0
    assert 1_000 < (last.eval_duration or 0) <= total and 0 < (last.prompt_eval_duration or 0) <= total


def test_a_chat_without_a_stream_is_one_document(api: Api) -> None:
    reply = api.client.chat("tiny", ASKED, options=GREEDY)
    assert (reply.message.content, reply.done, reply.done_reason) == (ANSWER, True, "stop")
    assert reply.total_duration and reply.created_at


def test_generate_answers_a_prompt_with_the_template_and_without(api: Api) -> None:
    templated = api.client.generate("tiny", QUESTION, options=GREEDY)
    assert templated.response == ANSWER
    prompt = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    assert api.client.generate("tiny", prompt, raw=True, options=GREEDY).response == ANSWER
    assert api.client.generate("tiny", QUESTION, raw=True, options=GREEDY).response != ANSWER


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"num_predict": 2}, "length"), ({"stop": [ANSWER[2]]}, "stop"), ({"num_predict": -1}, "stop")],
    ids=str,
)
def test_the_options_end_an_answer(api: Api, options: dict[str, Any], reason: str) -> None:
    reply = api.client.chat("tiny", ASKED, options=GREEDY | options)
    text = reply.message.content or ""
    assert ANSWER.startswith(text) and reply.done_reason == reason
    assert (text == ANSWER) == (options == {"num_predict": -1})


def test_a_seed_gives_the_same_text(api: Api) -> None:
    hot = {"temperature": 3.0, "top_p": 1.0, "top_k": 0, "num_predict": 20}
    texts = [
        api.client.chat("tiny", ASKED, options=hot | {"seed": seed}).message.content for seed in (5, 5, 6)
    ]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("stream", [False, True])
def test_the_context_of_a_reply_carries_the_conversation_on(api: Api, stream: bool) -> None:
    body = {
        "model": "tiny",
        "prompt": QUESTION,
        "system": "Be 短 and <|im_end|> kind.",
        "options": GREEDY,
    }
    reply = api.post("/api/generate", body | {"stream": stream})
    parts = [json.loads(line) for line in reply.text.splitlines()]
    if not api.built_in:
        pytest.skip("a real Ollama renders the prompt by a template of its own")
    context = parts[-1]["context"]
    assert all("context" not in part for part in parts[:-1])
    further = {"model": "tiny", "prompt": "Why?", "context": context, "_debug_render_only": True}
    shown = api.post("/api/generate", further).json()["_debug_info"]["rendered_template"]
    turns = [
        {"role": "system", "content": body["system"]},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "".join(part["response"] for part in parts)},
        {"role": "user", "content": "Why?"},
    ]
    chat = {"model": "tiny", "messages": turns, "_debug_render_only": True}
    assert api.post("/api/chat", chat).json()["_debug_info"]["rendered_template"] == shown
    changed = api.post("/api/generate", further | {"system": "Be long."}).json()["_debug_info"][
        "rendered_template"
    ]
    assert "Be long." in changed and "短" not in changed and QUESTION in changed


@pytest.mark.parametrize(
    "context", [[1, 2, 3], [-1], [1 << 40], [91], [91, 34, 93], list(b'[["wizard","a"]]')]
)
def test_a_context_of_another_server_is_refused(api: Api, context: list[int]) -> None:
    if api.built_in:
        reply = api.post("/api/generate", {"model": "tiny", "prompt": QUESTION, "context": context})
        assert reply.status_code == 400 and ("context is not" in reply.text or "invalid role" in reply.text)


def test_a_raw_reply_has_no_context(api: Api) -> None:
    reply = api.post(
        "/api/generate",
        {"model": "tiny", "prompt": QUESTION, "raw": True, "stream": False, "options": GREEDY},
    )
    assert "context" not in reply.json()


def test_a_schema_shapes_the_answer(api: Api) -> None:
    schema = {"type": "string", "enum": ["yes", "no"]}
    reply = api.client.chat("tiny", ASKED, format=schema, options=GREEDY)
    assert json.loads(reply.message.content or "") in ("yes", "no")


def test_log_probabilities_come_with_their_alternatives(api: Api) -> None:
    reply = api.client.chat("tiny", ASKED, logprobs=True, top_logprobs=3, options=GREEDY | {"num_predict": 4})
    rows = reply.logprobs or []
    assert 2 <= len(rows) <= 4
    assert (reply.message.content or "").startswith("".join(row.token for row in rows[:2]))
    for row in rows:
        assert row.logprob <= 0 and len(row.top_logprobs or []) == 3
        assert (row.top_logprobs or [])[0].logprob == pytest.approx(row.logprob, abs=1e-4)
    streamed = list(
        api.client.chat("tiny", ASKED, stream=True, logprobs=True, options=GREEDY | {"num_predict": 4})
    )
    tokens = [row.token for part in streamed for row in part.logprobs or []]
    assert tokens == [row.token for row in rows]


def test_the_rendered_prompt_is_shown_without_an_answer(api: Api) -> None:
    body = {"model": "tiny", "messages": ASKED, "_debug_render_only": True, "stream": False}
    shown = api.post("/api/chat", body).json()["_debug_info"]["rendered_template"]
    assert shown == f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"


def test_a_conversation_that_is_too_long_is_refused_or_loses_its_oldest_turns(api: Api) -> None:
    long = [{"role": role, "content": f"{n} hello"} for n in range(60) for role in ("user", "assistant")]
    body = {
        "model": "tiny",
        "messages": [*long, *ASKED],
        "stream": False,
        "options": GREEDY | {"num_ctx": 128},
    }
    refused = api.post("/api/chat", body | {"truncate": False, "shift": False})
    assert refused.status_code == 400 and "exceeds the context length" in refused.json()["error"]
    kept = api.post("/api/chat", body)
    assert kept.status_code == 200 and kept.json()["prompt_eval_count"] < 128


def test_a_model_is_loaded_kept_and_unloaded(api: Api) -> None:
    loaded = api.client.generate("tiny", keep_alive="1h")
    assert (loaded.done_reason, loaded.response) == ("load", "")
    running = [model for model in api.client.ps().models if model.model == "tiny:latest"]
    assert len(running) == 1 and running[0].size and running[0].context_length
    assert running[0].expires_at is not None
    assert 3000 < running[0].expires_at.timestamp() - time.time() <= 3601
    gone = api.client.generate("tiny", keep_alive=0)
    assert gone.done_reason == "unload"
    assert not [model for model in api.client.ps().models if model.model == "tiny:latest"]
    api.client.chat("tiny", ASKED, keep_alive=0, options=GREEDY)
    assert not [model for model in api.client.ps().models if model.model == "tiny:latest"]


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_what_has_no_prompt_loads_the_model(api: Api, path: str) -> None:
    reply = api.post(path, {"model": "tiny", "messages": [], "prompt": ""})
    assert reply.status_code == 200 and reply.json()["done_reason"] == "load"


def test_embeddings_are_vectors_of_length_one(api: Api) -> None:
    reply = api.client.embed("tiny", ["hello", "天气"])
    assert len(reply.embeddings) == 2
    for vector in reply.embeddings:
        assert sum(value * value for value in vector) == pytest.approx(1.0, abs=1e-3)
    assert reply.prompt_eval_count
    assert api.client.embed("tiny", "hello").embeddings[0] == pytest.approx(reply.embeddings[0], abs=1e-3)
    short = api.client.embed("tiny", "hello", dimensions=4).embeddings[0]
    assert len(short) == 4 and sum(value * value for value in short) == pytest.approx(1.0, abs=1e-3)
    assert api.client.embed("tiny", []).embeddings == []
    older = api.client.embeddings("tiny", "hello").embedding
    assert len(older) == len(reply.embeddings[0])
    with pytest.raises(ollama.ResponseError) as problem:
        api.client.embed("tiny", "hello " * 5000, truncate=False)
    assert problem.value.status_code == 400
    assert len(api.client.embed("tiny", "hello " * 5000).embeddings) == 1


def test_a_model_is_created_from_another_copied_and_deleted(api: Api) -> None:
    client = api.client
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    statuses = [
        part.status
        for part in client.create(
            "made",
            from_="tiny",
            system="Be brief.",
            messages=turns,
            parameters={"num_predict": 3},
            stream=True,
        )
    ]
    assert statuses[-2:] == ["writing manifest", "success"]
    listed = {model.model: model for model in client.list().models}
    assert "made:latest" in listed
    body = {"model": "made", "messages": ASKED, "_debug_render_only": True}
    shown = api.post("/api/chat", body).json()["_debug_info"]["rendered_template"]
    assert [shown.index(text) for text in ("Be brief.", "Hello", "Hi", QUESTION)] == sorted(
        shown.index(text) for text in ("Be brief.", "Hello", "Hi", QUESTION)
    )
    reply = client.chat("made", ASKED, options=GREEDY)
    assert reply.done_reason == "length" and reply.eval_count == 3
    assert api.post("/api/show", {"model": "made"}).json()["system"] == "Be brief."
    client.copy("made", "other")
    client.delete("made")
    names = {model.model for model in client.list().models}
    assert "other:latest" in names and "made:latest" not in names
    assert client.chat("other", ASKED, options=GREEDY).eval_count == 3
    client.delete("other")
    with pytest.raises(ollama.ResponseError) as problem:
        client.delete("other")
    assert problem.value.status_code == 404


def test_blobs_are_checked_by_their_digest(api: Api) -> None:
    data = b"hello"
    digest = f"sha256:{sha256(data).hexdigest()}"
    other = f"sha256:{sha256(b'other').hexdigest()}"

    def send(method: str, digest: str, content: bytes = b"") -> httpx.Response:
        return httpx.request(
            method, f"{api.url}/api/blobs/{digest}", content=content, timeout=60, trust_env=False
        )

    assert send("HEAD", other).status_code == 404
    wrong = send("POST", other, data)
    assert wrong.status_code == 400 and "digest mismatch" in wrong.json()["error"]
    assert send("HEAD", other).status_code == 404
    assert send("POST", digest, data).status_code == 201
    assert (send("HEAD", digest).status_code, send("POST", digest, data).status_code) == (200, 200)
    assert send("POST", "sha256:zz", data).status_code in (400, 500)
    refused = api.post("/api/create", {"model": "text", "files": {"a.gguf": digest}, "stream": False})
    assert refused.status_code >= 400 and refused.json()["error"]


BAD = [
    ("/api/create", b'{"model": "x"}', 400, "neither 'from' or 'files' was specified"),
    ("/api/create", b'{"from": "tiny"}', 400, ""),
    ("/api/copy", b'{"source": "nothing", "destination": "x"}', 404, "not found"),
    ("/api/chat", b"", 400, "missing request body"),
    ("/api/chat", b"{", 400, ""),
    ("/api/chat", b"[]", 400, ""),
    ("/api/chat", b'{"model": 3}', 400, ""),
    ("/api/chat", b'{"model": ""}', 400, ""),
    ("/api/chat", b'{"model": "nothing"}', 404, "model 'nothing' not found"),
    ("/api/chat", b'{"model": "/etc/passwd", "messages": []}', 404, ""),
    ("/api/chat", b'{"model": "../tiny", "messages": []}', 404, ""),
    ("/api/chat", b'{"model": "tiny", "messages": "hello"}', 400, ""),
    ("/api/chat", b'{"model": "tiny", "messages": [{"role": "user", "content": 5}]}', 400, ""),
    ("/api/chat", b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "options": {"temperature": "hot"}}', 400, "temperature"),
    ("/api/chat", b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "format": "xml"}', 400, "format"),
    ("/api/chat", b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "think": true}', 400, "does not support thinking"),
    ("/api/generate", b'{"model": "tiny", "prompt": "a", "top_logprobs": 50, "logprobs": true}', 400, "top_logprobs must be between 0 and 20"),
    ("/api/generate", b'{"model": "tiny", "prompt": "a", "suffix": "b"}', 400, "does not support insert"),
    ("/api/generate", b'{"model": "tiny", "prompt": "a", "raw": true, "system": "b"}', 400, "raw mode does not support"),
    ("/api/generate", b'{"model": "tiny", "prompt": "a", "keep_alive": "soon"}', 400, ""),
    ("/api/show", b'{"model": "nothing"}', 404, "not found"),
    ("/api/show", b"{}", 400, "model is required"),
    ("/api/embed", b'{"model": "tiny", "input": 3}', 400, "invalid input type"),
    ("/api/embed", b'{"model": "nothing", "input": "a"}', 404, "not found"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "status", "words"), BAD, ids=[f"{p} {b[:70]!r}" for p, b, *_ in BAD]
)
def test_bad_input_is_one_sentence_and_the_server_stays(
    api: Api, path: str, body: bytes, status: int, words: str
) -> None:
    reply = httpx.post(api.url + path, content=body, timeout=60, trust_env=False)
    assert reply.status_code == status, reply.text
    sentence = reply.json()["error"]
    assert words in sentence and sentence and "\n" not in sentence and "Traceback" not in sentence
    assert httpx.get(api.url + "/", trust_env=False).status_code == 200


def test_a_wrong_path_or_method_is_an_error_of_the_server(api: Api) -> None:
    assert httpx.get(api.url + "/api/nothing", trust_env=False).status_code == 404
    assert httpx.get(api.url + "/api/chat", trust_env=False).status_code in (404, 405)


# What the built-in server adds.


@pytest.fixture
def own(url: str) -> ollama.Client:
    return ollama.Client(url, timeout=60, trust_env=False)


def test_a_served_model_carries_its_lineage_and_its_verdict(url: str, own: ollama.Client) -> None:
    shown = own.show("personal")
    assert shown.details is not None and shown.details.parent_model == "first"
    about = dict(shown.modelinfo or {})
    assert about["h2q.lineage"]["conversations"] == 2 and about["h2q.in_use"] is True
    assert about["h2q.verdict"]["decision"] == "promote"
    raw = httpx.post(url + "/api/show", json={"model": "own"}, trust_env=False)
    assert raw.json()["h2q"]["base"] == "first"
    assert "c1" not in raw.text, "what was said, and its ids, stay here"
    plain = own.show("tiny")
    assert plain.template and (plain.modelinfo or {})["general.architecture"] == "qwen3"
    assert (plain.modelinfo or {})["h2q.in_use"] is False


def test_native_models_and_adapters_answer(own: ollama.Client, workspace: Workspace) -> None:
    native = own.chat("own", [{"role": "user", "content": "数到三"}], options=GREEDY)
    assert (native.message.content, native.done_reason) == ("一二三。", "stop")
    assert (
        own.chat("personal", [{"role": "user", "content": "数到三"}], options=GREEDY).message.content
        == "一二三。"
    )
    assert "own:latest" in [model.model for model in own.ps().models]
    assert own.chat("mine", ASKED, options=GREEDY).message.content != ANSWER
    scored = own.chat(
        "own", [{"role": "user", "content": "Two and two?"}], logprobs=True, top_logprobs=2, options=GREEDY
    )
    assert "".join(row.token for row in scored.logprobs or []) == "Four."
    with pytest.raises(ollama.ResponseError) as problem:
        own.chat("own", ASKED, format="json")
    assert problem.value.status_code == 400 and "llama.cpp" in problem.value.error


def test_base_adapter_and_base_again_have_the_same_log_probabilities(own: ollama.Client) -> None:
    def scores(name: str) -> list[float]:
        reply = own.chat(name, ASKED, logprobs=True, top_logprobs=5, options=GREEDY | {"num_predict": 4})
        return [top.logprob for row in reply.logprobs or [] for top in row.top_logprobs or []]

    base, adapted, again = scores("tiny"), scores("mine"), scores("tiny")
    assert base == again
    assert max(abs(one - other) for one, other in zip(base, adapted, strict=False)) > 0.5


def test_models_of_the_workspace_are_not_changed_over_http(own: ollama.Client, url: str) -> None:
    for name in ("own", "mine", "tiny", "personal"):
        reply = httpx.request("DELETE", url + "/api/delete", json={"model": name}, trust_env=False)
        assert reply.status_code == 400 and "h2q-tui models remove" in reply.json()["error"]
        with pytest.raises(ollama.ResponseError, match=r"workspace|in use") as problem:
            own.create(name, from_="tiny", system="x")
        assert problem.value.status_code == 400


def test_a_model_that_is_made_again_answers_with_what_it_is_now(own: ollama.Client) -> None:
    texts = []
    for turns in (1, 6):
        talk = [{"role": role, "content": "x"} for _n in range(turns) for role in ("user", "assistant")]
        own.create("again", from_="tiny", messages=talk)
        texts.append(own.chat("again", ASKED, options=GREEDY).prompt_eval_count)
    own.delete("again")
    assert texts[0] is not None and texts[1] is not None and texts[1] > texts[0]


def test_an_adapter_is_created_from_its_upload(own: ollama.Client, workspace: Workspace) -> None:
    digest = own.create_blob(workspace.adapters / "mine" / "adapter.gguf")
    own.create("tuned", from_="tiny", adapters={"adapter.gguf": digest})
    one, other = (
        own.chat(name, ASKED, logprobs=True, options=GREEDY | {"num_predict": 3})
        for name in ("tuned", "mine")
    )
    assert [row.logprob for row in one.logprobs or []] == [row.logprob for row in other.logprobs or []]
    own.delete("tuned")


@pytest.mark.parametrize("path", ["/api/pull", "/api/push"])
def test_a_server_without_a_registry_says_so(url: str, path: str) -> None:
    reply = httpx.post(url + path, json={"model": "llama3"}, trust_env=False)
    assert reply.status_code == 400 and "offline" in reply.json()["error"]


def test_a_broken_model_is_one_sentence(url: str, workspace: Workspace) -> None:
    copy = workspace.models / "broken"
    copy.mkdir()
    for file in (workspace.models / "own").iterdir():
        (copy / file.name).write_bytes(
            file.read_bytes()[:-20] if file.suffix == ".safetensors" else file.read_bytes()
        )
    (copy / CARD_FILE).write_bytes(encode_card(msgspec.structs.replace(read_card(copy), name="broken")))
    reply = httpx.post(
        url + "/api/chat", json={"model": "broken", "messages": ASKED}, timeout=60, trust_env=False
    )
    assert reply.status_code == 400 and "\n" not in reply.json()["error"]
    assert httpx.get(url, trust_env=False).status_code == 200
