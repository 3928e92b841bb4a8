"""The requests of OpenAI's API that are answered by a model, and the parts of its replies. Unknown fields are ignored."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from engine.http.refused import bad_request
from engine.inference.language_model import Finish, Generated, Sampling, TokenLogProb
from engine.serving.options import JSON_OBJECT, UNLIMITED, schema_of, top_of

FINGERPRINT = "fp_h2q"


class OpenAIMessage(msgspec.Struct, frozen=True, kw_only=True):
    role: str
    content: Any = None
    """A text, or a list of parts."""
    tool_calls: Any = None
    tool_call_id: str | None = None
    name: str | None = None


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    include_usage: bool | None = None


class OpenAIRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What chat and completions have in common."""

    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    n: int | None = None
    keep_alive: Any = None


class ChatCompletionRequest(OpenAIRequest, frozen=True, kw_only=True):
    messages: list[OpenAIMessage] | None = None
    max_completion_tokens: int | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: Any = None
    tool_choice: Any = None


class CompletionRequest(OpenAIRequest, frozen=True, kw_only=True):
    prompt: Any = ""
    suffix: str | None = None
    logprobs: int | None = None
    echo: bool | None = None


class EmbeddingsRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: str = ""
    input: Any = None
    encoding_format: str | None = None
    dimensions: int | None = None


def content_text(content: Any) -> str:
    """The text of a message: a string, or its parts of text. Raises RequestRefused for pictures and sounds."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise bad_request("a message's content is a text or a list of parts")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) else part
        if kind not in (None, "text", "input_text", "output_text") or not isinstance(text, str):
            raise bad_request(f"content of type {kind!r} is not supported: the models read text only")
        texts.append(text)
    return "\n".join(texts)


def role_of(role: str) -> str:
    """A role of OpenAI's API as chat templates name it."""
    return {"developer": "system", "function": "tool"}.get(role, role)


def sampling_of_openai(
    body: OpenAIRequest,
    *,
    max_tokens: int | None,
    schema: str = "",
    logprobs: int | None = None,
) -> Sampling:
    """The sampling of a request, with OpenAI's defaults. Raises RequestRefused."""
    if body.n is not None and body.n != 1:
        raise bad_request("n must be 1: one answer to a request")
    if max_tokens is not None and max_tokens < 1:
        raise bad_request("max_tokens must be at least 1")
    stops = [body.stop] if isinstance(body.stop, str) else body.stop
    return Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        seed=body.seed,
        stop=stops or [],
        max_bytes=UNLIMITED,
        max_tokens=max_tokens,
        json_schema=schema,
        logprobs=None if logprobs is None else top_of(logprobs),
    )


def schema_of_format(value: dict[str, Any] | None) -> str:
    """The JSON schema of a `response_format`, or of the `format` of `text`; "" for free text. Raises RequestRefused."""
    if not value:
        return ""
    kind = value.get("type", "text")
    if kind == "text":
        return ""
    if kind == "json_object":
        return JSON_OBJECT
    if kind == "json_schema":
        named = value.get("json_schema", value)
        schema = named.get("schema") if isinstance(named, dict) else None
        if isinstance(schema, dict):
            return schema_of(schema)
    raise bad_request("response_format is text, json_object or json_schema with a schema")


def new_id(prefix: str) -> str:
    """An id of a reply."""
    return prefix + secrets.token_hex(12)


def now() -> int:
    """Seconds since the epoch."""
    return int(time.time())


def finish_reason(generated: Generated) -> str:
    """OpenAI's word for the end of an answer."""
    return "length" if generated.finish is Finish.LENGTH else "stop"


def usage(generated: Generated) -> dict[str, int]:
    """Tokens of prompt and answer."""
    return {
        "prompt_tokens": generated.prompt_tokens,
        "completion_tokens": generated.tokens,
        "total_tokens": generated.prompt_tokens + generated.tokens,
    }


def chat_logprobs(tokens: Sequence[TokenLogProb]) -> dict[str, Any] | None:
    """The log-probabilities of a chat; None for an answer without any."""

    def one(token: TokenLogProb) -> dict[str, Any]:
        return {"token": token.text, "logprob": token.logprob, "bytes": token.bytes}

    rows = [one(token) | {"top_logprobs": [one(top) for top in token.top]} for token in tokens]
    return {"content": rows} if rows else None


def completion_logprobs(tokens: Sequence[TokenLogProb]) -> dict[str, Any] | None:
    """The older form, of completions."""
    if not tokens:
        return None
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{top.text: top.logprob for top in token.top} for token in tokens],
    }
