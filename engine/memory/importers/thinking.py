"""Reasoning that programs write into the text of an answer, taken out of it."""

from __future__ import annotations

import re

from engine.memory.points import Role, Skipped

_THINK = re.compile(r"\A\s*<(think|thinking)>.*?(?:</\1>\s*|\Z)", re.DOTALL)
_DETAILS = re.compile(
    r'<details type="(reasoning|tool_calls|code_interpreter)"[^>]*>.*?</details>\s*', re.DOTALL
)
"""Open WebUI folds reasoning and the calls of tools into the answer."""


def spoken(text: str, role: Role) -> tuple[str, tuple[Skipped, ...]]:
    """The text of an answer without what the model thought, and what was left out; other roles as they are."""
    if role is not Role.ASSISTANT:
        return text, ()
    skipped = []
    if "<details" in text:
        skipped += [
            Skipped(reason="reasoning" if match[1] == "reasoning" else "tool message")
            for match in _DETAILS.finditer(text)
        ]
        text = _DETAILS.sub("", text)
    if match := _THINK.match(text):
        skipped.append(Skipped(reason="reasoning"))
        text = text[match.end() :]
    return text.strip("\n") if skipped else text, tuple(skipped)
