"""The requests of Ollama's API that are answered by a model, and its replies. Unknown fields are ignored, as there."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from engine.inference.language_model import Finish, Generated, TokenLogProb


class OllamaMessage(msgspec.Struct, frozen=True, kw_only=True):
    role: str = ""
    content: str | None = ""
    images: list[Any] | None = None
    tool_calls: Any = None
    tool_name: str | None = None
    """Of the result of a call."""
    tool_call_id: str | None = None


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What every request that loads a model has."""

    model: str | None = ""
    options: dict[str, Any] | None = None
    keep_alive: Any = None
    truncate: bool | None = None


class AnswerRequest(ModelRequest, frozen=True, kw_only=True):
    """Common fields of chat and generate."""

    stream: bool | None = None
    format: Any = None
    think: Any = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    shift: bool | None = None
    """Answers always end with the context, as with `false`."""
    render_only: bool | None = msgspec.field(name="_debug_render_only", default=None)


class ChatRequest(AnswerRequest, frozen=True, kw_only=True):
    messages: list[OllamaMessage] | None = None
    tools: Any = None


class GenerateRequest(AnswerRequest, frozen=True, kw_only=True):
    prompt: str | None = ""
    suffix: str | None = ""
    system: str | None = ""
    template: str | None = ""
    context: list[int] | None = None
    raw: bool | None = None
    images: list[Any] | None = None


class EmbedRequest(ModelRequest, frozen=True, kw_only=True):
    input: Any = None
    prompt: str | None = None
    """Of the older `/api/embeddings`."""
    dimensions: int | None = None


def utc_now() -> str:
    """RFC 3339 with nanoseconds, as Ollama writes it."""
    return datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


def metrics(generated: Generated, total_s: float) -> dict[str, Any]:
    """The end of an answer: its reason and Ollama's figures, in nanoseconds."""
    return {
        "done": True,
        "done_reason": "length" if generated.finish is Finish.LENGTH else "stop",
        "total_duration": nanoseconds(total_s),
        "load_duration": nanoseconds(generated.load_s),
        "prompt_eval_count": generated.prompt_tokens,
        "prompt_eval_duration": nanoseconds(generated.first_token_s),
        "eval_count": generated.tokens,
        "eval_duration": nanoseconds(generated.seconds - generated.first_token_s),
    }


def logprobs_json(tokens: list[TokenLogProb]) -> dict[str, Any]:
    """`{"logprobs": […]}` of tokens; empty without any."""

    def one(token: TokenLogProb) -> dict[str, Any]:
        return {"token": token.text, "logprob": token.logprob, "bytes": token.bytes}

    if not tokens:
        return {}
    rows = [
        one(token) | ({"top_logprobs": [one(t) for t in token.top]} if token.top else {}) for token in tokens
    ]
    return {"logprobs": rows}
