"""OpenAI's and Anthropic's APIs of the built-in server: OpenAI's own client, and Anthropic's events as documented."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest

from tests.export_models import write_gguf
from tests.hf_models import KNOWN
from tests.serving import serving, short_workspace

QUESTION, ANSWER = KNOWN[1]
ASKED: list[Any] = [{"role": "user", "content": QUESTION}]
GREEDY: dict[str, Any] = {"temperature": 0}


@pytest.fixture(scope="module")
def url(knowing_hf: Path) -> Iterator[str]:
    with short_workspace() as ws:
        write_gguf(ws.models / "tiny.gguf", knowing_hf)
        with serving(ws) as url:
            yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.DefaultHttpxClient(trust_env=False) as http:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60, http_client=http)


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny:latest"]
    assert client.models.retrieve("tiny").id == "tiny" and client.models.retrieve("tiny:latest").created
    with pytest.raises(openai.NotFoundError, match="model 'nothing' not found"):
        client.models.retrieve("nothing")


def test_a_chat_is_answered_whole_and_as_a_stream_with_its_usage(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=ASKED, **GREEDY)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (ANSWER, "stop")
    assert whole.usage is not None and whole.usage.total_tokens > whole.usage.completion_tokens > 1
    parts = list(
        client.chat.completions.create(
            model="tiny", messages=ASKED, stream=True, stream_options={"include_usage": True}, **GREEDY
        )
    )
    texts = [part.choices[0].delta.content or "" for part in parts if part.choices]
    assert "".join(texts) == ANSWER
    assert [part.choices[0].finish_reason for part in parts if part.choices][-2:] == [None, "stop"]
    assert parts[-1].usage == whole.usage and parts[-1].choices == []
    assert len({part.id for part in parts}) == 1
    without = list(client.chat.completions.create(model="tiny", messages=ASKED, stream=True, **GREEDY))
    assert all(part.usage is None and part.choices for part in without)


def test_parts_of_text_and_the_role_of_developers_are_read(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    reply = client.chat.completions.create(model="tiny", messages=messages, **GREEDY)
    assert reply.choices[0].message.content == ANSWER
    client.chat.completions.create(
        model="tiny", messages=[{"role": "developer", "content": "x"}, *ASKED], max_tokens=1
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"max_tokens": 2}, "length"), ({"max_completion_tokens": 2}, "length"), ({"stop": ANSWER[2]}, "stop")],
    ids=str,
)
def test_limits_end_an_answer(client: openai.OpenAI, options: dict[str, Any], reason: str) -> None:
    reply = client.chat.completions.create(model="tiny", messages=ASKED, **GREEDY, **options)
    text = reply.choices[0].message.content or ""
    assert ANSWER.startswith(text) and text != ANSWER and reply.choices[0].finish_reason == reason


def test_log_probabilities_and_schemas(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="tiny", messages=ASKED, logprobs=True, top_logprobs=2, max_tokens=3, **GREEDY
    )
    rows = reply.choices[0].logprobs.content if reply.choices[0].logprobs else None
    assert rows and len(rows[0].top_logprobs) == 2 and rows[0].logprob <= 0
    schema: Any = {"name": "a", "schema": {"type": "string", "enum": ["yes", "no"]}}
    shaped = client.chat.completions.create(
        model="tiny", messages=ASKED, response_format={"type": "json_schema", "json_schema": schema}, **GREEDY
    )
    assert json.loads(shaped.choices[0].message.content or "") in ("yes", "no")


def test_a_completion_is_an_answer_to_its_prompt(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="tiny", prompt=QUESTION, logprobs=1, **GREEDY)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == (ANSWER, "stop")
    assert whole.choices[0].logprobs is not None and whole.choices[0].logprobs.token_logprobs
    parts = client.completions.create(model="tiny", prompt=[QUESTION], stream=True, **GREEDY)
    assert "".join(part.choices[0].text for part in parts) == ANSWER


def test_embeddings_are_the_same_packed_and_as_numbers(client: openai.OpenAI, url: str) -> None:
    packed = client.embeddings.create(model="tiny", input=["hello", "天气"])
    plain = client.embeddings.create(model="tiny", input=["hello", "天气"], encoding_format="float")
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert sum(value * value for value in one.embedding) == pytest.approx(1.0, abs=1e-3)
    assert packed.usage.prompt_tokens > 0
    sent = {"model": "tiny", "input": ["a"], "encoding_format": "base64"}
    raw = httpx.post(f"{url}/v1/embeddings", json=sent, timeout=60, trust_env=False).json()
    assert isinstance(raw["data"][0]["embedding"], str)


def test_a_response_is_answered_whole_and_as_events(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="tiny", input=QUESTION, **GREEDY)
    assert (whole.output_text, whole.status) == (ANSWER, "completed")
    assert whole.usage is not None and whole.usage.output_tokens > 1
    events = list(client.responses.create(model="tiny", input=ASKED, stream=True, **GREEDY))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    last = events[-1]
    assert last.type == "response.completed" and last.response.output_text == ANSWER
    cut = client.responses.create(model="tiny", input=QUESTION, max_output_tokens=2, **GREEDY)
    assert cut.status == "incomplete" and cut.incomplete_details is not None


def test_a_message_is_answered_whole_and_as_events(url: str) -> None:
    body = {"model": "tiny", "max_tokens": 64, "messages": ASKED, "temperature": 0}
    whole = httpx.post(f"{url}/v1/messages", json=body, timeout=60, trust_env=False).json()
    assert whole["content"] == [{"type": "text", "text": ANSWER}] and whole["stop_reason"] == "end_turn"
    assert whole["usage"]["output_tokens"] > 1
    reply = httpx.post(f"{url}/v1/messages", json=body | {"stream": True}, timeout=60, trust_env=False)
    events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: ")]
    named = [line[7:] for line in reply.text.splitlines() if line.startswith("event: ")]
    assert named == [event["type"] for event in events]
    assert named[:2] == ["message_start", "content_block_start"]
    assert named[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    deltas = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(deltas) == ANSWER
    short = httpx.post(
        f"{url}/v1/messages", json=body | {"max_tokens": 2}, timeout=60, trust_env=False
    ).json()
    assert short["stop_reason"] == "max_tokens"


BAD: list[tuple[str, dict[str, Any], int]] = [
    ("/v1/chat/completions", {"model": "nothing", "messages": ASKED}, 404),
    ("/v1/chat/completions", {"model": "tiny", "messages": []}, 400),
    ("/v1/chat/completions", {"model": "tiny", "messages": ASKED, "n": 2}, 400),
    ("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "robot", "content": "a"}]}, 400),
    ("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400),
    ("/v1/chat/completions", {"model": "tiny", "messages": ASKED, "response_format": {"type": "xml"}}, 400),
    ("/v1/chat/completions", {"model": "tiny", "messages": ASKED, "temperature": "hot"}, 400),
    ("/v1/completions", {"model": "tiny", "prompt": [1, 2]}, 400),
    ("/v1/embeddings", {"model": "tiny", "input": [[1, 2]]}, 400),
    ("/v1/responses", {"model": "tiny"}, 400),
    ("/v1/responses", {"model": "tiny", "input": "a", "previous_response_id": "x"}, 400),
    ("/v1/messages", {"model": "tiny", "messages": ASKED}, 400),
    ("/v1/messages", {"model": "nothing", "messages": ASKED, "max_tokens": 5}, 404),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status"), BAD, ids=str)
def test_bad_input_has_the_shape_of_the_api(url: str, path: str, body: dict[str, Any], status: int) -> None:
    reply = httpx.post(url + path, json=body, timeout=60, trust_env=False)
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert error["message"] and "\n" not in error["message"] and error["type"]
    assert reply.json().get("type") == ("error" if path == "/v1/messages" else None)


def test_a_real_model_answers_ollamas_and_openais_clients_alike(smollm2_gguf: Path) -> None:
    asked: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
    with short_workspace() as ws:
        (ws.models / "smollm2.gguf").symlink_to(smollm2_gguf)
        with serving(ws) as url, openai.DefaultHttpxClient(trust_env=False) as http:
            theirs = ollama.Client(url, timeout=120, trust_env=False)
            limits = {"temperature": 0, "num_predict": 12}
            parts = list(theirs.chat("smollm2", asked, stream=True, options=limits))
            text = "".join(part.message.content or "" for part in parts)
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", http_client=http, timeout=120)
            reply = client.chat.completions.create(
                model="smollm2", messages=asked, temperature=0, max_tokens=12
            )
    assert len(text) > 12 and reply.choices[0].message.content == text
    assert (parts[-1].prompt_eval_count or 0) > 30, "the template's own system turn is part of the prompt"
