"""Reasoning that programs write into the text of an answer, taken out of it."""

from __future__ import annotations

import re

from engine.core.chat import Role
from engine.memory.records import Skipped

_THINK = re.compile(r"\A\s*<(think|thinking)>.*?(?:</\1>\s*|\Z)", re.DOTALL)
_DETAILS = re.compile(r'<details type="(reasoning|tool_calls|code_interpreter)"[^<>]*>')
"""Open WebUI folds reasoning and the calls of tools into the answer."""
_END = "</details>"


def spoken(text: str, role: Role) -> tuple[str, tuple[Skipped, ...]]:
    """The text of an answer without what the model thought, and what was left out; other roles as they are."""
    if role is not Role.ASSISTANT:
        return text, ()
    skipped: list[Skipped] = []
    if "<details" in text:
        text, kinds = _unfolded(text)
        skipped += [Skipped(reason="reasoning" if kind == "reasoning" else "tool message") for kind in kinds]
    if match := _THINK.match(text):
        skipped.append(Skipped(reason="reasoning"))
        text = text[match.end() :]
    return text.strip("\n") if skipped else text, tuple(skipped)


def _unfolded(text: str) -> tuple[str, list[str]]:
    """The text without what is folded away in it, and the kinds of that; one pass, whatever the text is."""
    kept, kinds, place = [], [], 0
    while (opening := _DETAILS.search(text, place)) and (end := text.find(_END, opening.end())) >= 0:
        kept.append(text[place : opening.start()])
        kinds.append(opening[1])
        place = end + len(_END)
        while text[place : place + 1].isspace():
            place += 1
    return "".join((*kept, text[place:])), kinds
