"""`/api/chat`, `/api/generate`, `/api/embed` and `/api/embeddings`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from engine.core.chat import ChatMessage
from engine.http.bodies import read_json
from engine.http.refused import bad_request
from engine.inference.language_model import Generated, Sampling
from engine.inference.protocol import Embed, Generate
from engine.serving.front import Answer, CalledTool, Front, chat_messages, request_to
from engine.serving.generate_context import context_of, turns_of
from engine.serving.names import ApiModel
from engine.serving.ollama_types import (
    AnswerRequest,
    ChatRequest,
    EmbedRequest,
    GenerateRequest,
    OllamaMessage,
    logprobs_json,
    metrics,
    nanoseconds,
    utc_now,
)
from engine.serving.options import keep_seconds, sampling_of
from engine.serving.replies import NDJSON, Items, StreamedReply, WholeReply, encode, json_reply, line
from engine.serving.tools import ToolAnswer, ToolTalk, tool_answer, tools_of, turn_of

Wrap = Callable[[str], dict[str, Any]]
"""The fields that carry the text in a reply of chat or generate."""


def routes(front: Front) -> APIRouter:
    """The routes of answers and embeddings."""
    router = APIRouter()

    @router.post("/api/chat")
    async def chat(request: Request) -> Response:
        body = await read_json(request, ChatRequest)
        model = await front.models.find(body.model or "")
        messages = body.messages or []
        _check(body, model, [image for turn in messages for image in turn.images or ()])
        if messages and (body.tools or any(turn.tool_calls for turn in messages)):
            talk = ToolTalk(turns=[_turn(turn) for turn in messages], tools=tools_of(body.tools))
            keep_s = keep_seconds(body.keep_alive)
            answer = await tool_answer(front, model, body.model or "", talk, _sampling(body, model), keep_s)
            return await _answered(front, model, body, answer.request, _chat_text, answer)
        turns = [(turn.role.lower(), turn.content or "") for turn in messages]
        return await _reply(front, model, body, chat_messages(turns) or None, _chat_text)

    @router.post("/api/generate")
    async def generate(request: Request) -> Response:
        body = await read_json(request, GenerateRequest)
        model = await front.models.find(body.model or "")
        _check(body, model, body.images)
        if body.raw and (body.template or body.system or body.context):
            raise bad_request("raw mode does not support template, system, or context")
        if body.suffix:
            raise bad_request(f"{body.model} does not support insert")
        if body.template:
            raise bad_request("a request cannot bring a template; raw sends a prompt as it is")
        return await _reply(front, model, body, _prompt(body), lambda text: {"response": text})

    @router.post("/api/embed")
    async def embed(request: Request) -> Response:
        started = time.monotonic()
        body = await read_json(request, EmbedRequest)
        model = await front.models.find(body.model or "")
        texts = texts_of(body.input)
        if not texts:
            await front.load(model, keep_seconds(body.keep_alive))
            return json_reply({"model": body.model, "embeddings": []})

        async def items() -> Items:
            embedded = await front.embed(_embedding(model, texts, body))
            vectors = [normalised(vector, body.dimensions) for vector in embedded.vectors]
            yield encode(
                {
                    "model": body.model,
                    "embeddings": vectors,
                    "total_duration": nanoseconds(time.monotonic() - started),
                    "load_duration": nanoseconds(embedded.load_s),
                    "prompt_eval_count": embedded.tokens,
                }
            )

        return WholeReply(items())

    @router.post("/api/embeddings")
    async def embeddings(request: Request) -> Response:
        body = await read_json(request, EmbedRequest)
        model = await front.models.find(body.model or "")
        if not body.prompt:
            await front.load(model, keep_seconds(body.keep_alive))
            return json_reply({"embedding": []})

        async def items() -> Items:
            embedded = await front.embed(_embedding(model, [body.prompt or ""], body))
            yield encode({"embedding": embedded.vectors[0]})

        return WholeReply(items())

    return router


def texts_of(value: Any) -> list[str]:
    """The texts of an embedding request: one, or a list. Raises RequestRefused."""
    texts = [value] if isinstance(value, str) and value else value or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise bad_request("invalid input type")
    return texts


def normalised(vector: Sequence[float], dimensions: int | None = None) -> list[float]:
    """A vector of length 1, of its first `dimensions` where that are fewer."""
    part = vector[:dimensions] if dimensions and dimensions > 0 else vector
    length = max(math.sqrt(sum(value * value for value in part)), 1e-12)
    return [value / length for value in part]


def _embedding(model: ApiModel, texts: list[str], body: EmbedRequest) -> Embed:
    return Embed(
        model=model.reference,
        texts=texts,
        truncate=body.truncate is not False,
        keep_s=keep_seconds(body.keep_alive),
    )


def _check(body: AnswerRequest, model: ApiModel, images: Sequence[Any] | None) -> None:
    if images:
        raise bad_request(f"{body.model} does not support images")
    if body.think and body.think != "false":
        raise bad_request(f'"{body.model}" does not support thinking')


def _prompt(body: GenerateRequest) -> list[ChatMessage] | str | None:
    if not body.prompt:
        return None
    if body.raw:
        return body.prompt
    before = turns_of(body.context) if body.context else []
    if body.system:
        before = [turn for turn in before if turn.role != "system"]
    system = [("system", body.system)] if body.system else []
    return [*chat_messages(system), *before, *chat_messages([("user", body.prompt)])]


def _chat_text(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}}


def _sampling(body: AnswerRequest, model: ApiModel) -> Sampling:
    return sampling_of(
        model.parameters_set | (body.options or {}),
        format_=body.format,
        logprobs=bool(body.logprobs),
        top_logprobs=body.top_logprobs or 0,
        truncate=body.truncate is not False,
    )


async def _reply(
    front: Front, model: ApiModel, body: AnswerRequest, prompt: list[ChatMessage] | str | None, wrap: Wrap
) -> Response:
    """The reply to chat or generate; without a prompt the model is loaded, or unloaded for `keep_alive: 0`."""
    head = {"model": body.model}
    keep_s = keep_seconds(body.keep_alive)
    if prompt is None:
        if keep_s == 0:
            await front.unload(model)
        else:
            await front.load(model, keep_s)
        reason = "unload" if keep_s == 0 else "load"
        done = {"created_at": utc_now(), **wrap(""), "done": True, "done_reason": reason}
        return json_reply(head | done)
    return await _answered(
        front, model, body, request_to(model, prompt, _sampling(body, model), keep_s), wrap
    )


async def _answered(
    front: Front,
    model: ApiModel,
    body: AnswerRequest,
    request: Generate,
    wrap: Wrap,
    tools: ToolAnswer | None = None,
) -> Response:
    head = {"model": body.model}
    if body.render_only:
        shown = await front.render(request)
        return json_reply(
            {
                **head,
                "created_at": utc_now(),
                "_debug_info": {"rendered_template": shown.text, "image_count": 0},
                "prompt_eval_count": shown.tokens,
                "dropped_messages": shown.dropped_turns,
                "context_length": shown.context,
            }
        )
    if body.stream is False:
        return WholeReply(_whole(front, request, head, wrap, tools))
    return StreamedReply(_streamed(front, request, head, wrap, tools), NDJSON)


def _context(request: Generate, fields: dict[str, Any], text: str) -> dict[str, Any]:
    """`context` of a reply to /api/generate; a raw one has none."""
    if "response" not in fields or request.raw is not None:
        return {}
    return {"context": context_of(request.messages, text)}


def _turn(turn: OllamaMessage) -> dict[str, Any]:
    return turn_of(
        turn.role.lower(),
        turn.content or "",
        turn.tool_calls,
        name=turn.tool_name or "",
        id_=turn.tool_call_id or "",
    )


def _call(called: CalledTool) -> dict[str, Any]:
    function = {"index": called.index, "name": called.call.name, "arguments": called.call.arguments}
    return {"id": called.id, "function": function}


async def _whole(
    front: Front, request: Generate, head: dict[str, Any], wrap: Wrap, tools: ToolAnswer | None
) -> Items:
    stream = front.answer(request)
    answer = await Answer().read(stream if tools is None else tools.parted(stream))
    fields = wrap(answer.text)
    if answer.calls:
        fields["message"]["tool_calls"] = [_call(called) for called in answer.calls]
    total_s = time.monotonic() - answer.started
    yield encode(
        {
            **head,
            "created_at": utc_now(),
            **fields,
            **_context(request, fields, answer.text),
            **metrics(answer.generated, total_s),
            **logprobs_json(answer.logprobs),
        }
    )


async def _streamed(
    front: Front, request: Generate, head: dict[str, Any], wrap: Wrap, tools: ToolAnswer | None
) -> Items:
    started, texts = time.monotonic(), list[str]()
    answer = front.answer(request)
    async with aclosing(answer if tools is None else tools.parted(answer)) as stream:
        async for item in stream:
            now = {**head, "created_at": utc_now()}
            if isinstance(item, Generated):
                fields = wrap("")
                context = _context(request, fields, "".join(texts))
                yield line(now | fields | context | metrics(item, time.monotonic() - started))
            elif isinstance(item, CalledTool):
                message = {"role": "assistant", "content": "", "tool_calls": [_call(item)]}
                yield line(now | {"message": message, "done": False})
            else:
                texts.append(item.text)
                yield line(now | wrap(item.text) | {"done": False} | logprobs_json(item.logprobs))
