"""Anthropic's `/v1/messages`: one answer to a conversation, whole or as events."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from engine.http.bodies import read_json
from engine.http.refused import bad_request
from engine.inference.language_model import Finish, Generated, Sampling
from engine.inference.protocol import Generate
from engine.serving.front import Answer, Front, chat_messages, request_to
from engine.serving.openai_types import OpenAIMessage, content_text, new_id
from engine.serving.options import UNLIMITED
from engine.serving.replies import SSE, Items, StreamedReply, WholeReply, encode, event


class MessagesRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: str = ""
    messages: list[OpenAIMessage] | None = None
    system: Any = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    tools: list[Any] | None = None


def routes(front: Front) -> APIRouter:
    """The route of messages."""
    router = APIRouter()

    @router.post("/v1/messages")
    async def messages(request: Request) -> Response:
        body = await read_json(request, MessagesRequest)
        model = await front.models.find(body.model)
        if body.tools:
            raise bad_request(f"{body.model} does not support tools")
        if body.max_tokens is None or body.max_tokens < 1:
            raise bad_request("max_tokens is required and must be positive")
        if not body.messages:
            raise bad_request("messages is required")
        system = content_text(body.system)
        turns = [(turn.role, content_text(turn.content)) for turn in body.messages]
        sampling = Sampling(
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            top_k=max(body.top_k or 0, 0),
            stop=body.stop_sequences or [],
            max_bytes=UNLIMITED,
            max_tokens=body.max_tokens,
        )
        asked = request_to(
            model, chat_messages([*([("system", system)] if system else []), *turns]), sampling
        )
        message = _message(body.model)
        if body.stream:
            return StreamedReply(
                _events(front, asked, message), SSE, failed=lambda body: event(body, "error")
            )
        return WholeReply(_document(front, asked, message))

    return router


def _message(model: str) -> dict[str, Any]:
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }


def _end(done: Generated) -> dict[str, Any]:
    reasons = {Finish.LENGTH: "max_tokens", Finish.STOP_STRING: "stop_sequence"}
    return {"stop_reason": reasons.get(done.finish, "end_turn"), "stop_sequence": None}


def _usage(done: Generated) -> dict[str, int]:
    return {"input_tokens": done.prompt_tokens, "output_tokens": done.tokens}


async def _document(front: Front, asked: Generate, message: dict[str, Any]) -> Items:
    answer = await Answer().read(front.answer(asked))
    content = [{"type": "text", "text": answer.text}]
    yield encode(message | {"content": content, "usage": _usage(answer.generated)} | _end(answer.generated))


async def _events(front: Front, asked: Generate, message: dict[str, Any]) -> Items:
    begun = False

    def sent(kind: str, **fields: Any) -> bytes:
        return event({"type": kind, **fields}, kind)

    async with aclosing(front.answer(asked)) as stream:
        async for item in stream:
            if not begun:
                begun = True
                yield sent("message_start", message=message)
                yield sent("content_block_start", index=0, content_block={"type": "text", "text": ""})
            if not isinstance(item, Generated):
                yield sent("content_block_delta", index=0, delta={"type": "text_delta", "text": item.text})
                continue
            yield sent("content_block_stop", index=0)
            yield sent("message_delta", delta=_end(item), usage=_usage(item))
            yield sent("message_stop")
