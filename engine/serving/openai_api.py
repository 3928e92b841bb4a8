"""OpenAI's API: `/v1/models`, `/v1/chat/completions`, `/v1/completions` and `/v1/embeddings`.

A prompt of `/v1/completions` is a question, as in Ollama: it is put into the model's chat template.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from engine.http.bodies import read_json
from engine.http.refused import bad_request
from engine.inference.language_model import Generated, TokenLogProb
from engine.inference.protocol import Embed, Generate
from engine.serving.front import Answer, CalledTool, Front, chat_messages, request_to
from engine.serving.names import ApiModel
from engine.serving.ollama_answers import normalised, texts_of
from engine.serving.openai_types import (
    FINGERPRINT,
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingsRequest,
    OpenAIMessage,
    OpenAIRequest,
    chat_logprobs,
    completion_logprobs,
    content_text,
    finish_reason,
    new_id,
    now,
    role_of,
    sampling_of_openai,
    schema_of_format,
    usage,
)
from engine.serving.options import keep_seconds
from engine.serving.replies import (
    END_OF_EVENTS,
    SSE,
    Items,
    StreamedReply,
    WholeReply,
    encode,
    event,
    json_reply,
)
from engine.serving.tools import ToolAnswer, ToolTalk, choose, tool_answer, tools_of, turn_of

CALLED = "tool_calls"
"""Why an answer ended that calls tools."""
Choice = Callable[[str, Sequence[TokenLogProb], str | None], dict[str, Any]]
"""A choice of a reply, from its text, log-probabilities and reason to end."""


def routes(front: Front) -> APIRouter:
    """The routes of OpenAI's older APIs."""
    router = APIRouter()

    @router.api_route("/v1/models", methods=["GET", "HEAD"])
    async def models() -> Response:
        return json_reply({"object": "list", "data": [_model(one) for one in await front.models.all()]})

    @router.api_route("/v1/models/{name:path}", methods=["GET", "HEAD"])
    async def model(name: str) -> Response:
        return json_reply(_model(await front.models.find(name)) | {"id": name})

    @router.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await read_json(request, ChatCompletionRequest)
        model = await front.models.find(body.model)
        messages = body.messages or []
        if not messages:
            raise bad_request("[] is too short - 'messages'")
        sampling = sampling_of_openai(
            body,
            max_tokens=body.max_completion_tokens or body.max_tokens,
            schema=schema_of_format(body.response_format),
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        )
        keep_s, tools = keep_seconds(body.keep_alive), None
        if body.tools or any(turn.tool_calls for turn in messages):
            talk = choose(ToolTalk(turns=_tool_turns(messages), tools=tools_of(body.tools)), body.tool_choice)
            tools = await tool_answer(front, model, body.model, talk, sampling, keep_s)
            asked = tools.request
        else:
            turns = [(role_of(turn.role), content_text(turn.content)) for turn in messages]
            asked = request_to(model, chat_messages(turns), sampling, keep_s)
        if body.stream:
            return _events(front, asked, body, "chat.completion.chunk", "chatcmpl-", _chat_delta, tools)
        return WholeReply(_document(front, asked, body, "chat.completion", "chatcmpl-", _chat_choice, tools))

    @router.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body = await read_json(request, CompletionRequest)
        model = await front.models.find(body.model)
        prompt = body.prompt[0] if isinstance(body.prompt, list) and len(body.prompt) == 1 else body.prompt
        if not isinstance(prompt, str) or not prompt:
            raise bad_request("prompt must be one text")
        if body.suffix or body.echo:
            raise bad_request("suffix and echo are not supported")
        sampling = sampling_of_openai(body, max_tokens=body.max_tokens, logprobs=body.logprobs)
        asked = request_to(model, chat_messages([("user", prompt)]), sampling, keep_seconds(body.keep_alive))
        if body.stream:
            return _events(front, asked, body, "text_completion", "cmpl-", _text_choice)
        return WholeReply(_document(front, asked, body, "text_completion", "cmpl-", _text_choice))

    @router.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        body = await read_json(request, EmbeddingsRequest)
        model = await front.models.find(body.model)
        texts = texts_of(body.input)
        if not texts:
            raise bad_request("input must be a text or a list of texts")
        if body.encoding_format not in (None, "float", "base64"):
            raise bad_request("encoding_format is float or base64")

        async def items() -> Items:
            embedded = await front.embed(Embed(model=model.reference, texts=texts))
            rows = [normalised(vector, body.dimensions) for vector in embedded.vectors]
            packed = body.encoding_format == "base64"
            data = [
                {"object": "embedding", "index": number, "embedding": _packed(row) if packed else row}
                for number, row in enumerate(rows)
            ]
            tokens = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
            yield encode({"object": "list", "data": data, "model": body.model, "usage": tokens})

        return WholeReply(items())

    return router


def _model(model: ApiModel) -> dict[str, Any]:
    created = int(datetime.fromisoformat(model.modified_at).timestamp())
    return {"id": model.tag, "object": "model", "created": created, "owned_by": "library"}


def _packed(vector: Sequence[float]) -> str:
    """float32, little-endian, in base64, which OpenAI's client asks for."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _tool_turns(messages: Sequence[OpenAIMessage]) -> list[dict[str, Any]]:
    """Turns with calls; the result of a call gets the name of its tool."""
    turns: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for turn in messages:
        id_ = turn.tool_call_id or ""
        made = turn_of(
            role_of(turn.role), content_text(turn.content), turn.tool_calls,
            name=turn.name or names.get(id_, ""), id_=id_,
        )  # fmt: skip
        names |= {call["id"]: call["function"]["name"] for call in made.get("tool_calls", ()) if "id" in call}
        turns.append(made)
    return turns


def _call(called: CalledTool) -> dict[str, Any]:
    function = {"name": called.call.name, "arguments": called.arguments_json}
    return {"id": called.id, "type": "function", "function": function}


def _chat_choice(text: str, logprobs: Sequence[TokenLogProb], reason: str | None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"index": 0, "message": message, "logprobs": chat_logprobs(logprobs), "finish_reason": reason}


def _chat_delta(text: str, logprobs: Sequence[TokenLogProb], reason: str | None) -> dict[str, Any]:
    delta = {"role": "assistant", "content": text} if reason is None else {}
    return {"index": 0, "delta": delta, "logprobs": chat_logprobs(logprobs), "finish_reason": reason}


def _text_choice(text: str, logprobs: Sequence[TokenLogProb], reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": completion_logprobs(logprobs), "finish_reason": reason}


async def _document(
    front: Front,
    asked: Generate,
    body: OpenAIRequest,
    kind: str,
    prefix: str,
    choice: Choice,
    tools: ToolAnswer | None = None,
) -> Items:
    stream = front.answer(asked)
    answer = await Answer().read(stream if tools is None else tools.parted(stream))
    done = answer.generated
    chosen = choice(answer.text, answer.logprobs, finish_reason(done))
    if answer.calls:
        chosen["message"] |= {
            "content": answer.text or None,
            "tool_calls": [_call(called) for called in answer.calls],
        }
        chosen["finish_reason"] = CALLED
    yield encode(
        {
            **_head(body, kind, new_id(prefix), now()),
            "choices": [chosen],
            "usage": usage(done),
        }
    )


def _events(
    front: Front,
    asked: Generate,
    body: OpenAIRequest,
    kind: str,
    prefix: str,
    choice: Choice,
    tools: ToolAnswer | None = None,
) -> StreamedReply:
    async def items() -> Items:
        head = _head(body, kind, new_id(prefix), now())
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        answer, called = front.answer(asked), False
        async with aclosing(answer if tools is None else tools.parted(answer)) as stream:
            async for item in stream:
                if isinstance(item, CalledTool):
                    called = True
                    delta = {"role": "assistant", "tool_calls": [{"index": item.index, **_call(item)}]}
                    chosen = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
                    yield event(head | {"choices": [chosen]})
                elif isinstance(item, Generated):
                    reason = CALLED if called else finish_reason(item)
                    yield event(head | {"choices": [choice("", (), reason)]})
                    if with_usage:
                        yield event(head | {"choices": [], "usage": usage(item)})
                else:
                    yield event(head | {"choices": [choice(item.text, item.logprobs, None)]})
        yield END_OF_EVENTS

    return StreamedReply(items(), SSE, failed=event)


def _head(body: OpenAIRequest, kind: str, id_: str, created: int) -> dict[str, Any]:
    return {
        "id": id_,
        "object": kind,
        "created": created,
        "model": body.model,
        "system_fingerprint": FINGERPRINT,
    }
