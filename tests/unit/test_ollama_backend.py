"""The Ollama backend against a server with Ollama's responses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, ServiceUnreachable, UsageProblem
from engine.inference.backends.ollama import OllamaModel
from engine.inference.language_model import (
    Finish,
    Generated,
    Sampling,
    Unsupported,
    conversation_nll,
    generate_text,
)
from engine.inference.model_cache import AsyncLanguageModel

QUESTION = [ChatMessage(role="user", content="天为什么是蓝的？")]


def line(content: str, **more: object) -> bytes:
    """One line of a stream, as `/api/chat` writes it."""
    row: dict[str, object] = {
        "model": "qwen3:0.6b",
        "created_at": "2026-08-21T09:00:00.123456789Z",
        "message": {"role": "assistant", "content": content},
        "done": False,
    }
    return json.dumps(row | more, ensure_ascii=False).encode() + b"\n"


END = line(
    "",
    done=True,
    done_reason="stop",
    total_duration=5_000_000,
    load_duration=1_000_000,
    prompt_eval_count=11,
    prompt_eval_duration=1_000_000,
    eval_count=3,
    eval_duration=2_000_000,
)


@dataclass
class Heard:
    bodies: list[dict[str, object]] = field(default_factory=list)


@asynccontextmanager
async def ollama(
    lines: list[bytes], *, status: str = "200 OK", heard: Heard | None = None, hang: bool = False
) -> AsyncIterator[str]:
    """The address of a loopback server that answers every request with `lines`, then closes unless `hang`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(row.split(b":")[1])
            for row in head.split(b"\r\n")
            if row.lower().startswith(b"content-length")
        )
        body = await reader.readexactly(length)
        if heard is not None:
            heard.bodies.append(json.loads(body))
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n".encode()
        )
        for row in lines:
            writer.write(row)
            await writer.drain()
        if hang:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def collect(host: str, sampling: Sampling) -> tuple[str, Generated]:
    return await asyncio.to_thread(generate_text, OllamaModel("qwen3:0.6b", host), QUESTION, sampling)


async def test_text_is_streamed_and_options_are_sent() -> None:
    heard = Heard()
    async with ollama([line("因为"), line("散射"), line("。"), END], heard=heard) as host:
        text, how = await collect(
            host, Sampling(temperature=0.2, top_p=0.8, seed=3, stop=["用户:"], max_bytes=99)
        )
    assert (text, how.finish, how.bytes, how.seed) == ("因为散射。", Finish.STOP, 15, 3)
    body = heard.bodies[0]
    assert body["messages"] == [{"role": "user", "content": "天为什么是蓝的？"}]
    assert body["options"] == {
        "temperature": 0.2,
        "top_p": 0.8,
        "seed": 3,
        "num_predict": 99,
        "stop": ["用户:"],
    }


async def test_an_answer_ends_at_max_bytes_between_characters() -> None:
    async with ollama([line("因为"), line("散射"), END]) as host:
        text, how = await collect(host, Sampling(max_bytes=8))
    assert (text, how.finish) == ("因为", Finish.LENGTH)
    assert how.bytes <= 8


async def test_an_unknown_model_hints_at_ollama_pull() -> None:
    async with ollama([b'{"error":"model \'qwen3:0.6b\' not found"}'], status="404 Not Found") as host:
        with pytest.raises(BadInput, match=r"Ollama has no model qwen3:0\.6b") as problem:
            await collect(host, Sampling())
    assert problem.value.hint == "ollama pull qwen3:0.6b"


async def test_an_error_in_the_stream_raises() -> None:
    async with ollama([line("因"), b'{"error":"llama runner process has terminated"}\n']) as host:
        with pytest.raises(ServiceUnreachable, match="llama runner process has terminated"):
            await collect(host, Sampling())


async def test_no_server_raises_service_unreachable() -> None:
    async with ollama([]) as host:
        pass
    with pytest.raises(ServiceUnreachable, match="does not answer") as problem:
        await collect(host, Sampling())
    assert problem.value.exit_code == 4


def test_likelihoods_are_unsupported() -> None:
    with pytest.raises(Unsupported):
        conversation_nll(OllamaModel("x", "127.0.0.1:1"), QUESTION)
    with pytest.raises(Unsupported):
        OllamaModel("x", "127.0.0.1:1").nll_and_entropy("text")
    with pytest.raises(Unsupported):
        OllamaModel("x", "127.0.0.1:1").next_token_log_probs([1])


async def test_cancelling_ends_the_wait_for_a_silent_server() -> None:
    async with ollama([line("因为")], hang=True) as host:
        model = AsyncLanguageModel(OllamaModel("qwen3:0.6b", host))
        async with aclosing(model.generate(QUESTION, Sampling())) as stream:
            assert await anext(stream) == "因为"


async def test_embeddings_come_from_the_embedding_endpoint() -> None:
    async with ollama([json.dumps({"model": "x", "embeddings": [[0.5, 1.0]]}).encode()]) as host:
        vectors = await asyncio.to_thread(OllamaModel("x", host).embed, ["天"])
    assert vectors == [[0.5, 1.0]]


@pytest.mark.parametrize(
    ("lines", "status", "sentence"),
    [
        ([line("因为")], "200 OK", "ended within"),
        ([], "200 OK", "ended within"),
        ([b"<html>It works!</html>"], "200 OK", "not understood"),
        ([line("因"), b'{"message":\n'], "200 OK", "not understood"),
        ([b'{"message": 3}\n'], "200 OK", "not understood"),
        ([b"<html>Bad gateway</html>"], "502 Bad Gateway", "Bad gateway"),
        ([b'{"error":"requires a newer version"}'], "412 Precondition Failed", "requires a newer version"),
    ],
)
async def test_a_broken_answer_is_one_sentence(lines: list[bytes], status: str, sentence: str) -> None:
    async with ollama(lines, status=status) as host:
        with pytest.raises(ServiceUnreachable, match=sentence) as problem:
            await collect(host, Sampling())
    assert "\n" not in str(problem.value)


async def test_a_silent_ollama_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OllamaModel, "timeout_s", 0.1)
    async with ollama([], hang=True) as host:
        with pytest.raises(ServiceUnreachable, match="ReadTimeout"):
            await collect(host, Sampling())


async def test_a_redirection_is_not_followed() -> None:
    heard = Heard()
    async with (
        ollama([END], heard=heard) as other,
        ollama([], status=f"307 Temporary Redirect\r\nLocation: http://{other}/api/chat") as host,
    ):
        with pytest.raises(ServiceUnreachable):
            await collect(host, Sampling())
    assert heard.bodies == []


async def test_no_proxy_of_the_environment_hears_a_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Heard()
    async with ollama([END], heard=proxy) as address, ollama([line("a"), END]) as host:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{address}")
        assert (await collect(host, Sampling()))[0] == "a"
    assert proxy.bodies == []


async def test_text_that_utf8_cannot_write_is_sent_with_replacements() -> None:
    heard = Heard()
    asked = [ChatMessage(role="user", content="a\udc80b")]
    async with ollama([END], heard=heard) as host:
        model = OllamaModel("x", host)
        await asyncio.to_thread(generate_text, model, asked, Sampling(stop=["\ud800"]))
    assert heard.bodies[0]["messages"] == [{"role": "user", "content": "a?b"}]


async def test_fewer_vectors_than_texts_are_an_error() -> None:
    async with ollama([json.dumps({"model": "x", "embeddings": [[0.5]]}).encode()]) as host:
        with pytest.raises(ServiceUnreachable, match="not understood"):
            await asyncio.to_thread(OllamaModel("x", host).embed, ["a", "b"])


def test_an_empty_conversation_is_refused() -> None:
    with pytest.raises(BadInput, match="no message"):
        generate_text(OllamaModel("x", "127.0.0.1:1"), [], Sampling())


@pytest.mark.parametrize(
    "host", ["example.com", "http://10.0.0.1:11434", "https://[2001:db8::1]", "127.0.0.1.example.com"]
)
def test_no_other_machine_is_asked(host: str) -> None:
    with pytest.raises(UsageProblem):
        OllamaModel("x", host)
