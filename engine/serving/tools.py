"""Tools in requests: their turns, the prompt with them, and the calls in an answer."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from engine.http.refused import bad_request
from engine.inference.language_model import Generated, Sampling
from engine.inference.protocol import Generate, Render, TextDelta
from engine.models.tool_calls import (
    OPEN,
    CallReader,
    ToolCall,
    ToolSyntax,
    call_json,
    forced_schema,
    tool_definition,
)
from engine.serving.front import ROLES, CalledTool, Front, request_to
from engine.serving.names import ApiModel

MAX_TOOLS = 128


class ToolTalk(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation in which tools are offered, or were called."""

    turns: list[dict[str, Any]]
    """As OpenAI's API writes them, arguments as objects."""
    tools: list[dict[str, Any]] = []
    forced: bool = False
    """Whether the answer must be a call."""
    name: str = ""
    """The tool that must be called; "" for any."""

    @property
    def names(self) -> list[str]:
        """Of the tools."""
        return [tool["function"]["name"] for tool in self.tools]


def tools_of(value: Any) -> list[dict[str, Any]]:
    """The definitions of a request. Raises RequestRefused."""
    tools = value or []
    if not isinstance(tools, list) or len(tools) > MAX_TOOLS:
        raise bad_request(f"tools is a list of at most {MAX_TOOLS} definitions")
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if (
            not isinstance(function, dict)
            or not isinstance(function.get("name"), str)
            or not function["name"]
        ):
            raise bad_request('a tool is {"type": "function", "function": {"name": …, "parameters": …}}')
        if not isinstance(function.get("parameters") or {}, dict):
            raise bad_request(f"parameters of {function['name']} are no JSON schema")
    return [
        tool_definition(function["name"], str(function.get("description") or ""), function.get("parameters"))
        for function in (tool["function"] for tool in tools)
    ]


def turn_of(role: str, content: str, calls: Any = None, *, name: str = "", id_: str = "") -> dict[str, Any]:
    """One turn, with the calls that an answer made. Raises RequestRefused."""
    if role not in ROLES:
        raise bad_request(f"invalid role: {role!r}; roles are {', '.join(ROLES)}")
    turn: dict[str, Any] = {"role": role, "content": content}
    if calls:
        if not isinstance(calls, list):
            raise bad_request("tool_calls is a list")
        turn["tool_calls"] = [_called(call) for call in calls]
    if name:
        turn["name"] = name
    if id_:
        turn["tool_call_id"] = id_
    return turn


def choose(talk: ToolTalk, choice: Any) -> ToolTalk:
    """The talk with a `tool_choice` of OpenAI's API. Raises RequestRefused."""
    if choice in (None, "auto"):
        return talk
    if choice == "none":
        return msgspec.structs.replace(talk, tools=[])
    name = ""
    if isinstance(choice, dict):
        function = choice.get("function")
        name = str(function.get("name") or "") if isinstance(function, dict) else ""
    elif choice != "required":
        raise bad_request("tool_choice is none, auto, required or a function")
    if not talk.tools or (isinstance(choice, dict) and name not in talk.names):
        raise bad_request("tool_choice names no tool of this request")
    return msgspec.structs.replace(talk, forced=True, name=name)


class ToolAnswer:
    """The answer to a talk with tools: the request for it, and its stream parted into text and calls."""

    def __init__(self, request: Generate, reader: CallReader) -> None:
        self.request = request
        self._reader = reader

    async def parted(
        self, stream: AsyncGenerator[TextDelta | Generated, None]
    ) -> AsyncGenerator[TextDelta | CalledTool | Generated, None]:
        """The stream of an answer to `request`."""
        async with aclosing(stream):
            async for item in stream:
                if isinstance(item, TextDelta):
                    text = self._reader.push(item.text)
                    if text or item.logprobs:
                        yield TextDelta(text=text, logprobs=item.logprobs)
                    continue
                rest, calls = self._reader.end()
                if rest:
                    yield TextDelta(text=rest)
                for index, call in enumerate(calls):
                    yield CalledTool(id=f"call_{secrets.token_hex(6)}", index=index, call=call)
                yield item


async def tool_answer(
    front: Front, model: ApiModel, name: str, talk: ToolTalk, sampling: Sampling, keep_s: float | None
) -> ToolAnswer:
    """The request for an answer to `talk`. Raises RequestRefused for a model that takes no tools; `name` is its name."""
    shown = await front.render_tools(Render(model=model.reference, turns=talk.turns, tools=talk.tools))
    syntax = shown.tool_syntax
    if syntax is None:
        raise bad_request(f"{name} does not support tools")
    prompt, begun = shown.text, ""
    # What does not fit is refused: cutting a prompt would cut the tools.
    sampling = msgspec.structs.replace(sampling, truncate=False)
    if talk.forced:
        begun = f"{OPEN}\n" if syntax is ToolSyntax.TAGGED else ""
        sampling = msgspec.structs.replace(sampling, json_schema=forced_schema(syntax, talk.tools, talk.name))
    request = request_to(model, prompt + begun, sampling, keep_s)
    return ToolAnswer(request, CallReader(syntax, talk.names, begun))


def _called(call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise bad_request('a tool call is {"function": {"name": …, "arguments": …}}')
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except msgspec.DecodeError as problem:
            raise bad_request(f"arguments of {function['name']} are not valid JSON") from problem
    if not isinstance(arguments, dict):
        raise bad_request(f"arguments of {function['name']} are no object")
    id_ = call.get("id")
    named = {"id": id_} if isinstance(id_, str) else {}
    return named | call_json(ToolCall(name=function["name"], arguments=arguments))
