"""Calls of tools that a model writes into its answer: the two forms that are read, and their reader.

A chat template is trusted with tools only where a call that it renders is read back as the same call (`syntax_of`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_BEGINS = tuple(OPEN[:length] for length in range(len(OPEN) - 1, 0, -1))
_BLANKS = re.compile(r"\s*")
_AFTER = re.compile(f".*?(?:{CLOSE}|(?={OPEN})|\\Z)", re.DOTALL)
"""What may stand between a call and the rest of the answer: control tokens of a template, too."""
_ARGUMENTS = ("arguments", "parameters")


class ToolSyntax(StrEnum):
    """How a model writes a call."""

    TAGGED = "tagged"
    """`<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as Hermes and Qwen do."""
    BARE = "bare"
    """The whole answer is `{"name": …, "parameters": {…}}`, as Llama 3 does."""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call."""

    name: str
    arguments: dict[str, Any]


class CallReader:
    """Parts a streamed answer into text and calls; only calls of known tools count."""

    def __init__(self, syntax: ToolSyntax, names: Collection[str], begun: str = "") -> None:
        """`begun` is what the prompt has already written of the answer."""
        self._syntax, self._names, self._held = syntax, names, begun

    def push(self, text: str) -> str:
        """The part of the answer so far that is surely text and was not given yet."""
        self._held += text
        at = self._call_at()
        free, self._held = self._held[:at], self._held[at:]
        return free

    def end(self) -> tuple[str, list[ToolCall]]:
        """The rest of the text, and the calls."""
        held, self._held = self._held, ""
        if self._syntax is ToolSyntax.BARE:
            call, _end = _read(held, 0, self._names)
            return (held, []) if call is None else ("", [call])
        calls: list[ToolCall] = []
        texts: list[str] = []
        at = 0
        while (begin := held.find(OPEN, at)) >= 0:
            inside = begin + len(OPEN)
            call, end = _read(held, inside, self._names)
            if call is None:
                texts.append(held[at:inside])
                at = inside
            else:
                texts.append(held[at:begin])
                calls.append(call)
                after = _AFTER.match(held, end)
                at = after.end() if after else end
        rest = "".join([*texts, held[at:]])
        return (rest.rstrip() if calls else rest), calls

    def _call_at(self) -> int:
        """Where in the held text a call begins, or may begin."""
        if self._syntax is ToolSyntax.BARE:
            return 0 if not self._held.strip() or self._held.lstrip().startswith("{") else len(self._held)
        at = self._held.find(OPEN)
        if at < 0:
            begin = next((begin for begin in _BEGINS if self._held.endswith(begin)), "")
            at = len(self._held) - len(begin)
        # Blanks before a call belong to neither, so they wait for what follows them.
        return len(self._held[:at].rstrip())


def syntax_of(render: Callable[[Sequence[Mapping[str, Any]], Sequence[Any]], str]) -> ToolSyntax | None:
    """The form in which a template writes calls, found by reading one that it renders; None where it is neither.

    `render` gives the prompt of turns and tools, or the conversation where its last turn is an answer. It may raise.
    """
    call = ToolCall(name="probe_tool", arguments={"city": "b c", "number": 3, "deep": {"list": [True, None]}})
    tools = [tool_definition(call.name, "what it does")]
    asked: list[dict[str, Any]] = [{"role": "user", "content": "a question"}]
    answer = {"role": "assistant", "content": "plain words"}
    plain = render([*asked, answer, {"role": "user", "content": "another question"}], tools)
    if call.name not in plain or "what it does" not in plain:
        return None
    result = [{"role": "tool", "name": call.name, "content": "the result"}]
    answered = [*asked, {"role": "assistant", "content": "", "tool_calls": [call_json(call)]}]
    whole = render([*answered, *result], tools)
    # Not where the prompt ends: it may end with an empty thought, which earlier answers do not have.
    begin = next(
        (at for at, (one, other) in enumerate(zip(plain, whole, strict=False)) if one != other), len(plain)
    )
    if "the result" not in whole[begin:]:
        return None
    written = whole[begin : whole.rindex("the result")]
    for syntax in ToolSyntax:
        reader = CallReader(syntax, [call.name])
        if reader.push(written).strip() == "" and reader.end()[1] == [call]:
            return syntax
    return None


def capabilities(template: str) -> list[str]:
    """What a model can do, in Ollama's words, by its chat template."""
    written = OPEN in template or '"parameters": ' in template
    return ["completion", *(["tools"] if "tools" in template and written else [])]


def tool_definition(name: str, description: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """A tool as clients define it."""
    function = {
        "name": name,
        "description": description,
        "parameters": parameters or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}


def call_json(call: ToolCall) -> dict[str, Any]:
    """A call as templates take it."""
    return {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def forced_schema(syntax: ToolSyntax, tools: Sequence[Mapping[str, Any]], name: str = "") -> str:
    """The JSON schema of a call of one of `tools`, or of `name` alone; as JSON."""
    field = _ARGUMENTS[syntax is ToolSyntax.BARE]
    functions = [tool["function"] for tool in tools if not name or tool["function"]["name"] == name]
    definitions, calls = {}, []
    for number, function in enumerate(functions):
        place = f"#/$defs/{number}"
        parameters = {"additionalProperties": False, **(function.get("parameters") or {"type": "object"})}
        definitions[str(number)] = _moved(parameters, place)
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": function["name"]}, field: {"$ref": place}},
                "required": ["name", field],
                "additionalProperties": False,
            }
        )
    return json.dumps({"anyOf": calls, "$defs": definitions})


def _moved(schema: Any, place: str) -> Any:
    """A schema that stands at `place` of another one: what it refers to within itself is below that."""
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, place) for key, value in schema.items()}
    target = moved.get("$ref")
    return moved | {"$ref": place + target[1:]} if isinstance(target, str) and target[:1] == "#" else moved


def _read(text: str, at: int, names: Collection[str]) -> tuple[ToolCall | None, int]:
    """(the call that stands at `at` of a text, where it ends). Its end is not looked for: arguments may spell it."""
    begin = _BLANKS.match(text, at)
    try:
        value, end = json.JSONDecoder().raw_decode(text, begin.end() if begin else at)
    except (ValueError, RecursionError):
        return None, at
    if not isinstance(value, dict) or value.get("name") not in names:
        return None, at
    arguments: Any = next((value[field] for field in _ARGUMENTS if field in value), {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None, at
    return (ToolCall(name=value["name"], arguments=arguments) if isinstance(arguments, dict) else None), end
