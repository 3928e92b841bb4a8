"""Chat of VS Code (Copilot): a session as JSON ("Chat: Export Session…", `chatSessions/<id>.json`) or as the log
`<id>.jsonl` of its changes.

A request holds the user's message and the parts of the answer, of which those with a `kind` are mostly tools and
progress. A reference to a file stands inside a sentence as a part of its own. The log as written by VS Code's source
(`objectMutationLog.ts`); the fields of version 3 as third-party schema notes describe them; older ones not verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.agents.agent_text import typed_text
from engine.memory.importers.fields import ImportOptions, build_conversation, parse_time, text_or_empty
from engine.memory.importers.readers.files import OnBytes, ignore_bytes
from engine.memory.importers.readers.logs import log_values
from engine.memory.importers.turns import text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "vscode"

_INITIAL, _SET, _PUSH, _DELETE = range(4)
_FENCE = re.compile(r"^[ \t]{0,3}(`{3,}|~{3,})(?P<info>[^\n`]{0,100})$", re.MULTILINE)


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if value.get("kind") == _INITIAL and isinstance(value.get("v"), dict):
        value = value["v"]
    names = ("responderUsername", "requesterUsername", "creationDate", "initialLocation")
    return isinstance(value.get("requests"), list) and any(name in value for name in names)


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """The session of the file. Raises BadInput."""
    state: dict[str, Any] = {}
    is_log = False
    for _line, value in log_values(path, on_bytes):
        if isinstance(value, dict) and isinstance(value.get("requests"), list):
            yield from _session(value, path)
        elif isinstance(value, dict) and value.get("kind") == _INITIAL and isinstance(value.get("v"), dict):
            state, is_log = value["v"], True
        elif not is_log or not isinstance(value, dict) or not _applied(state, value):
            yield Skipped(reason="entry of another shape")
    if is_log:
        yield from _session(state, path)


def _applied(state: dict[str, Any], change: dict[str, Any]) -> bool:
    """Whether the change could be made to the state."""
    path, kind = change.get("k"), change.get("kind")
    if not isinstance(path, list) or not path or kind not in (_SET, _PUSH, _DELETE):
        return False
    *parents, last = path
    target: Any = state
    for key in parents:
        if isinstance(target, dict) and isinstance(key, str):
            target = target.get(key)
        elif isinstance(target, list) and isinstance(key, int) and 0 <= key < len(target):
            target = target[key]
        else:
            return False
    if isinstance(target, list):
        if not isinstance(last, int) or not 0 <= last <= len(target):
            return False
        if last == len(target):
            target.append(None)
    elif not isinstance(target, dict) or not isinstance(last, str):
        return False
    if kind == _SET:
        target[last] = change.get("v")
    elif kind == _DELETE:
        if isinstance(target, dict) and last not in target:
            return False
        del target[last]
    else:
        if not isinstance(target, list) and last not in target:
            target[last] = []
        entries, added, at = target[last], change.get("v"), change.get("i")
        if not isinstance(entries, list):
            return False
        if isinstance(at, int) and at >= 0:
            del entries[at:]
        entries += added if isinstance(added, list) else []
    return True


def _session(session: dict[str, Any], path: Path) -> Iterator[Conversation | Skipped]:
    requests = session.get("requests")
    yield from build_conversation(
        (item for request in (requests if isinstance(requests, list) else []) for item in _turns(request)),
        source=NAME,
        external_id=text_or_empty(session.get("sessionId")),
        title=text_or_empty(session.get("customTitle")),
        started_at=parse_time(session.get("creationDate")),
        updated_at=parse_time(session.get("lastMessageDate")),
    )


def _turns(request: object) -> Iterator[Turn | Skipped]:
    if not isinstance(request, dict):
        yield Skipped(reason="message of another shape")
        return
    answer, skipped = _answer(request.get("response"))
    if request.get("isHidden") or request.get("shouldBeRemovedOnSend"):
        yield Skipped(reason="hidden message", count=1 + bool(answer))
        return
    time = parse_time(request.get("timestamp"))
    yield from text_turn(
        Role.USER,
        typed_text(_question(request.get("message"))),
        time=time,
        external_id=text_or_empty(request.get("requestId")),
    )
    result = request.get("result")
    if not answer.strip() and isinstance(result, dict) and result.get("errorDetails"):
        skipped.append(Skipped(reason="failed answer"))
    if answer.strip() or request.get("response"):
        yield from text_turn(
            Role.ASSISTANT,
            answer,
            time=time,
            external_id=text_or_empty(request.get("responseId")),
            skipped=skipped,
        )
    else:
        yield from skipped


def _question(message: object) -> str:
    if isinstance(message, dict):
        parts = message.get("parts")
        texts = (
            [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        )
        message = message.get("text") or "".join(text for text in texts if isinstance(text, str))
    return message if isinstance(message, str) else ""


def _answer(response: object) -> tuple[str, list[Skipped]]:
    """The text of the parts, which continue one another, and what is no text."""
    texts, skipped = [], []
    for part in response if isinstance(response, list) else [response]:
        kind = part.get("kind") if isinstance(part, dict) else None
        if isinstance(part, dict) and kind == "inlineReference":
            texts.append(_reference(part.get("inlineReference")) or text_or_empty(part.get("name")))
        elif kind == "thinking":
            skipped.append(Skipped(reason="reasoning"))
        elif isinstance(kind, str) and "tool" in kind.lower():
            skipped.append(Skipped(reason="tool message"))
        elif kind in (None, "markdownContent", "markdownVuln"):
            texts.append(_markdown(part))
    text = "".join(texts)
    return _without_empty_fences(text) if "```" in text else text, skipped


def _without_empty_fences(text: str) -> str:
    """The text without code blocks of blanks: they stood around an edit of a file, which is a part of its own."""
    kept: list[str] = []
    place = 0
    opening: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opening is None:
            opening = fence
        elif fence[1].startswith(opening[1]) and not fence["info"].strip():
            if not text[opening.end() : fence.start()].strip():
                kept.append(text[place : opening.start()].removesuffix("\n"))
                place = fence.end()
            opening = None
    return "".join((*kept, text[place:]))


def _markdown(part: object) -> str:
    for name in ("value", "content", "value"):
        if isinstance(part, dict):
            part = part.get(name, part)
    return part if isinstance(part, str) else ""


def _reference(target: object) -> str:
    """The name of a symbol, or of the file of an address."""
    if not isinstance(target, dict):
        return ""
    name = text_or_empty(target.get("name"))
    uri = target.get("uri") if isinstance(target.get("uri"), dict) else target
    path = text_or_empty(uri.get("path") or uri.get("fsPath")) if isinstance(uri, dict) else ""
    return name or path.replace("\\", "/").rpartition("/")[2]
