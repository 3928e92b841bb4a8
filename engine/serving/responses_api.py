"""OpenAI's `/v1/responses`: one answer to an input, whole or as events. Nothing is stored between requests."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from engine.http.bodies import read_json
from engine.http.refused import bad_request
from engine.inference.language_model import Finish, Generated
from engine.inference.protocol import Generate
from engine.serving.front import Answer, Front, chat_messages, request_to
from engine.serving.openai_types import OpenAIRequest, content_text, new_id, now, role_of, schema_of_format
from engine.serving.openai_types import sampling_of_openai as sampling_of
from engine.serving.replies import SSE, Items, StreamedReply, WholeReply, encode, event


class ResponsesRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: str = ""
    input: Any = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    text: dict[str, Any] | None = None
    tools: list[Any] | None = None
    previous_response_id: str | None = None
    metadata: dict[str, Any] | None = None


def routes(front: Front) -> APIRouter:
    """The route of responses."""
    router = APIRouter()

    @router.post("/v1/responses")
    async def responses(request: Request) -> Response:
        body = await read_json(request, ResponsesRequest)
        model = await front.models.find(body.model)
        if body.tools:
            raise bad_request(f"{body.model} does not support tools")
        if body.previous_response_id:
            raise bad_request("previous_response_id is not supported: nothing is stored between requests")
        format_ = (body.text or {}).get("format")
        if format_ is not None and not isinstance(format_, dict):
            raise bad_request("text.format must be an object")
        limits = OpenAIRequest(temperature=body.temperature, top_p=body.top_p)
        sampling = sampling_of(limits, max_tokens=body.max_output_tokens, schema=schema_of_format(format_))
        asked = request_to(model, chat_messages(_turns(body)), sampling)
        response = _Response(body)
        if body.stream:
            return StreamedReply(_events(front, asked, response), SSE, failed=_failed)
        return WholeReply(_document(front, asked, response))

    return router


def _turns(body: ResponsesRequest) -> list[tuple[str, str]]:
    turns = [("system", body.instructions)] if body.instructions else []
    if isinstance(body.input, str):
        turns.append(("user", body.input))
    elif isinstance(body.input, list):
        for item in body.input:
            if not isinstance(item, dict) or item.get("type", "message") != "message":
                raise bad_request("input items are messages; others are not supported")
            role = item.get("role", "user")
            if not isinstance(role, str):
                raise bad_request("a message's role is a text")
            turns.append((role_of(role), content_text(item.get("content"))))
    if not any(role != "system" for role, _text in turns):
        raise bad_request("input must be a text or a list of messages")
    return turns


class _Response:
    """The object of one response in its states."""

    def __init__(self, body: ResponsesRequest) -> None:
        self._body = body
        self._id, self._created = new_id("resp_"), now()
        self.item_id = new_id("msg_")

    def part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def item(self, text: str | None) -> dict[str, Any]:
        """The message of the output; None while it is empty."""
        content = [] if text is None else [self.part(text)]
        status = "in_progress" if text is None else "completed"
        return {
            "id": self.item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def object(self, text: str | None = None, done: Generated | None = None) -> dict[str, Any]:
        """The response; complete with `done`."""
        cut = done is not None and done.finish is Finish.LENGTH
        used = None
        if done is not None:
            used = {
                "input_tokens": done.prompt_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": done.tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": done.prompt_tokens + done.tokens,
            }
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": "in_progress" if done is None else "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "error": None,
            "model": self._body.model,
            "instructions": self._body.instructions,
            "max_output_tokens": self._body.max_output_tokens,
            "metadata": self._body.metadata or {},
            "output": [] if text is None else [self.item(text)],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "temperature": self._body.temperature,
            "top_p": self._body.top_p,
            "tool_choice": "none",
            "tools": [],
            "store": False,
            "text": self._body.text or {"format": {"type": "text"}},
            "usage": used,
        }


async def _document(front: Front, asked: Generate, response: _Response) -> Items:
    answer = await Answer().read(front.answer(asked))
    yield encode(response.object(answer.text, answer.generated))


async def _events(front: Front, asked: Generate, response: _Response) -> Items:
    number = -1

    def sent(kind: str, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        return event({"type": kind, "sequence_number": number, **fields}, kind)

    place = {"item_id": response.item_id, "output_index": 0, "content_index": 0}
    parts: list[str] = []
    async with aclosing(front.answer(asked)) as stream:
        async for item in stream:
            if number < 0:
                yield sent("response.created", response=response.object())
                yield sent("response.in_progress", response=response.object())
                yield sent("response.output_item.added", output_index=0, item=response.item(None))
                yield sent("response.content_part.added", **place, part=response.part(""))
            if not isinstance(item, Generated):
                parts.append(item.text)
                yield sent("response.output_text.delta", **place, delta=item.text, logprobs=[])
                continue
            text = "".join(parts)
            yield sent("response.output_text.done", **place, text=text, logprobs=[])
            yield sent("response.content_part.done", **place, part=response.part(text))
            yield sent("response.output_item.done", output_index=0, item=response.item(text))
            kind = "incomplete" if item.finish is Finish.LENGTH else "completed"
            yield sent(f"response.{kind}", response=response.object(text, item))


def _failed(body: dict[str, Any]) -> bytes:
    return event({"type": "error", "code": None, "param": None, "message": body["error"]["message"]}, "error")
