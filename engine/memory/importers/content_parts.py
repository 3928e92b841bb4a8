"""Contents that are lists of typed parts, as most programs write them: which are said, which are not."""

from __future__ import annotations

from typing import Any

from engine.memory.records import Skipped

TOOL_PARTS = frozenset(
    ("tool_use", "tool_result", "tool-call", "tool_call", "tool", "toolCallRequest", "toolCallResult")
)
_REASONING = frozenset(("thinking", "reasoning", "redacted_thinking"))


def text_of(content: object) -> tuple[str, list[Skipped]]:
    """The text of a string or of a list of parts, and what else was in it. Parts without a type are text."""
    if content is None or isinstance(content, str):
        return content or "", []
    if not isinstance(content, list):
        return "", [Skipped(reason="message of another shape")]
    texts = []
    skipped = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, str):
            texts.append(part)
        elif kind in (None, "text", "input_text", "output_text") and isinstance(_text(part), str):
            texts.append(_text(part))
        else:
            skipped.append(Skipped(reason=reason_of(kind)))
    return "\n".join(text for text in texts if text), skipped


def reason_of(kind: object) -> str:
    """Why a part of that type is not text."""
    if not isinstance(kind, str):
        return "attachment"
    if kind in _REASONING:
        return "reasoning"
    if kind in TOOL_PARTS:
        return "tool message"
    return "image" if "image" in kind else "attachment"


def _text(part: object) -> Any:
    return part.get("text") if isinstance(part, dict) else None
