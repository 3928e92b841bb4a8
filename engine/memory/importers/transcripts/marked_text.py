"""Texts that hold a whole dialogue with marks of the speakers, as rows of data sets do.

`\\n\\nHuman: …\\n\\nAssistant: …` (Anthropic's HH), `### Human: …### Assistant: …` (Guanaco), `### Instruction:` (Alpaca's
template), ChatML, `<|user|>` (Zephyr, Phi, GLM), `[INST] … [/INST]` (Llama 2), and the templates of Llama 3, Gemma and DeepSeek. Only a
text that begins with a mark is one.
"""

from __future__ import annotations

import re

from engine.core.chat import Role

_NAMES = {
    **dict.fromkeys(("human", "user", "instruction", "question", "prompter"), Role.USER),
    **dict.fromkeys(("assistant", "response", "answer", "bot", "gpt"), Role.ASSISTANT),
    "system": Role.SYSTEM,
}
_ANY = "|".join(_NAMES)
_BY_NAME = {**_NAMES, "model": Role.ASSISTANT}
"""Gemma's name is a word elsewhere."""
_STYLES = (
    re.compile(r"\n\n(?P<name>Human|Assistant|System)[:：] ?"),
    re.compile(r"\n(?P<name>Human|Assistant|System)[:：] ?"),
    re.compile(rf"\s?###[ ]?(?P<name>{_ANY})[:：]\s?", re.IGNORECASE),
    re.compile(rf"(?:<\|im_end\|>\n?)?<\|im_start\|>(?P<name>{_ANY})\n", re.IGNORECASE),
    re.compile(rf"(?:</s>\n?)?<\|(?P<name>{_ANY})\|>\n?", re.IGNORECASE),
    re.compile(rf"<\|start_header_id\|>(?P<name>{_ANY})<\|end_header_id\|>\n{{0,4}}", re.IGNORECASE),
    re.compile(r"<start_of_turn>(?P<name>user|model|system)\n"),
    re.compile(r"<｜(?P<name>User|Assistant)｜>"),
)
_BEGINNING = re.compile(
    r"\s*+(?:(?:<\|begin_of_text\|>|<bos>|\[gMASK\]|<sop>|<｜begin▁of▁sentence｜>)\s*+){0,4}"
)
_ENDS = (
    *("<|im_end|>", "<|endoftext|>", "<|end|>", "</s>", "<eos>"),
    *("<|end_of_text|>", "<|eot_id|>", "<end_of_turn>", "<｜end▁of▁sentence｜>"),
)
_LLAMA = re.compile(r"(?:<s>)?\s?(?P<end>\[/?INST\])\s?")
_LLAMA_SYSTEM = re.compile(r"\A\s{0,9}<<SYS>>(.{0,100000}?)<</SYS>>", re.DOTALL)


def marked_turns(text: str) -> list[tuple[Role, str]] | None:
    """The turns of a text that begins with the mark of a speaker; None for any other text.

    A mark with nothing behind it, which invites the model to answer, is no turn.
    """
    start = _BEGINNING.sub("", text, count=1)
    if start.startswith(("[INST]", "<s>[INST]", "<s> [INST]")):
        return _llama_turns(start)
    if not start.startswith(("Human", "Assistant", "System", "###", "<|", "<start_of", "<｜")):
        return None
    whole = f"\n\n{start}"
    found = [list(style.finditer(whole)) for style in _STYLES]
    found = [marks for marks in found if marks and not whole[: marks[0].start()].strip()]
    # Where paragraphs do not separate the speakers, lines do.
    marks = next((marks for marks in found if len(marks) > 1), found[0] if found else [])
    if not marks:
        return None
    ends = [*(mark.start() for mark in marks[1:]), len(whole)]
    turns = [
        (_BY_NAME[mark["name"].lower()], _without_end(whole[mark.end() : end]))
        for mark, end in zip(marks, ends, strict=True)
    ]
    return [(role, words) for role, words in turns if words]


def _without_end(text: str) -> str:
    text = text.strip()
    for end in _ENDS:
        text = text.removesuffix(end).rstrip()
    return text


def _llama_turns(text: str) -> list[tuple[Role, str]]:
    turns: list[tuple[Role, str]] = []
    marks = list(_LLAMA.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=True):
        words = text[mark.end() : end]
        role = Role.USER if mark["end"] == "[INST]" else Role.ASSISTANT
        if role is Role.USER and (system := _LLAMA_SYSTEM.match(words)):
            turns.append((Role.SYSTEM, system[1].strip()))
            words = words[system.end() :]
        turns.append((role, _without_end(words)))
    return [(role, words) for role, words in turns if words]
