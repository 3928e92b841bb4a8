"""Requests of the Gemini API: rows of `contents`, as Vertex AI takes for tuning and batches.

`{"systemInstruction": {"parts": [{"text"}]}, "contents": [{"role": "user" or "model", "parts": [{"text"}]}]}`; a row of
a batch has them under `request`, and its answer under `response.candidates`. Shape as Google documents it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    build_conversation,
    parse_role,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.turns import text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "gemini_api"

_CALLS = ("functionCall", "functionResponse", "function_call", "function_response", "executableCode")


def detect(path: Path, value: Any) -> bool:
    return _contents(_request(value)) is not None


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per row. Raises BadInput."""
    for _line, row in json_values(path, on_bytes):
        request = _request(row)
        contents = _contents(request)
        if contents is None:
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        system = request.get("systemInstruction", request.get("system_instruction"))
        turns = [] if system is None else [*_turn(system, "system", options.roles)]
        for content in [*contents, *_answer(row)]:
            turns += _turn(content, content.get("role") or "user", options.roles)
        yield from build_conversation(turns, source=NAME)


def _request(value: Any) -> dict[str, Any]:
    inner = value.get("request") if isinstance(value, dict) else None
    found = inner if isinstance(inner, dict) else value
    return found if isinstance(found, dict) else {}


def _contents(request: dict[str, Any]) -> list[dict[str, Any]] | None:
    contents = request.get("contents")
    if isinstance(contents, dict):
        contents = [contents]
    if not isinstance(contents, list) or not contents:
        return None
    are_messages = all(isinstance(one, dict) and isinstance(one.get("parts"), list) for one in contents)
    return contents if are_messages else None


def _answer(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The first candidate of an answer, as a message of the model."""
    response = row.get("response")
    candidates = response.get("candidates") if isinstance(response, dict) else None
    first = candidates[0] if isinstance(candidates, list) and candidates else None
    content = first.get("content") if isinstance(first, dict) else None
    return [{**content, "role": "model"}] if isinstance(content, dict) else []


def _turn(content: Any, name: object, roles: RoleMap) -> Iterator[Turn | Skipped]:
    role = parse_role(name, roles)
    parts = content.get("parts") if isinstance(content, dict) else None
    if role is None:
        yield unknown_role(name)
        return
    texts: list[str] = []
    skipped: list[Skipped] = []
    for part in parts if isinstance(parts, list) else []:
        text = part.get("text") if isinstance(part, dict) else None
        if isinstance(part, dict) and part.get("thought"):
            skipped.append(Skipped(reason="reasoning"))
        elif isinstance(text, str):
            texts.append(text)
        else:
            is_call = isinstance(part, dict) and any(key in part for key in _CALLS)
            skipped.append(Skipped(reason="tool message" if is_call else "attachment"))
    if role is Role.SYSTEM and not any(text.strip() for text in texts):
        return
    yield from text_turn(role, "\n".join(texts), skipped=skipped)
