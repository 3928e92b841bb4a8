"""Where the marks of reasoning and of code stand in a text, and which of them belong together.

The marks are those of the reasoning parsers of vLLM, SGLang and llama.cpp, of model cards, and of programs that fold
reasoning into Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from engine.memory.importers.thought_lines import is_thought_title

_NAME = (
    r"(?:[a-z][a-z0-9]{0,15}[:_-]|ant)?"
    r"(?:(?:deep_?)?think(?:ing)?|thoughts?|reasoning|scratch[_-]?pad|monologue|reflection|chain[_-]of[_-]thoughts?|cot)"
    r"(?:[_-](?:process|content|steps?|trace|block|log))?"
)
_BRACKET_NAME = r"think(?:ing)?|thoughts?|reasoning|思考(?:过程)?|推理(?:过程)?"
_PIPE_NAME = r"/?[a-z_▁]{0,12}?(?:think(?:ing)?|thoughts?|reasoning)(?:[_▁][a-z]{1,10})?"
_PATTERN = re.compile(
    r"^[ \t>]{0,20}(?P<item>(?:[-*+]|\d{1,9}[.)])[ \t]{1,4})?(?P<fence>`{3,}|~{3,})(?P<info>[^\n`]*)$"
    r"|(?P<ticks>`+)"
    rf"|(?:\\?<|&lt;)(?P<tag_close>/?)[ \t]?(?P<tag>{_NAME})(?:\s[^<>]{{0,500}}?)?[ \t]?(?P<empty>/?)(?:\\?>|&gt;)"
    rf"|(?:\[|【)(?P<bracket_close>/?)(?P<bracket>{_BRACKET_NAME})(?:\]|】)(?![(\[:])"
    r"|◁(?P<kimi_close>/?)(?P<kimi>think(?:ing)?)▷"
    rf"|<[|｜](?P<pipe>{_PIPE_NAME})[|｜]>"
    r"|<\|inner_(?P<inner>prefix|suffix)\|>"
    r"|<unused9(?P<unused>[45])>(?:thought\b)?"
    r"|(?P<gemma><\|channel>[ \t]*(?:thought|thinking|analysis)\b|<channel\|>)"
    r"|(?:(?:<\|start\|>(?P<author>[^<\n]{0,80}))?(?:assistant)?<\|channel\|>|\A\s*+)[ \t]*+(?P<channel>[a-z]{1,20})"
    r"(?P<recipient>[^<\n]{0,200}(?:<\|constrain\|>[^<\n]{0,40})?)<\|message\|>"
    r"|(?P<stop><\|(?:end|return|call)\|>)"
    r"|(?P<start><\|(?:start|begin)\|>assistant(?:<\|content\|>)?)"
    r"|<(?P<details_close>/?)(?P<details>details)\b(?P<attributes>[^<>]{0,500})>",
    re.IGNORECASE | re.MULTILINE,
)
_BLOCKS = ("tag", "bracket", "kimi", "pipe", "inner", "unused", "gemma")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "「": "」", "『": "』", "«": "»", "`": "`"}
_SUMMARY = re.compile(
    r"\s{0,40}<summary[^<>]{0,200}>([^<]{0,200}(?:<[^<>]{0,40}>[^<]{0,200}){0,4})</summary>", re.I
)
_DETAILS_TYPE = re.compile(r"""\btype=["']?(\w{1,40})""", re.IGNORECASE)
_DETAILS_CLASS = re.compile(
    r"""\bclass=["']?[^"']{0,80}\b(?:thinking|reasoning|thoughts?)\b""", re.IGNORECASE
)
_TOOL_DETAILS = frozenset(("tool_calls", "code_interpreter"))
"""Types into which Open WebUI folds tool calls."""


class Mark(msgspec.Struct, frozen=True):
    """A place that may begin or end reasoning, a message of gpt-oss, or code."""

    start: int
    end: int
    kind: str
    """`fence`, `ticks`, `channel`, `stop`, `start`, `details`, or the kind of a block."""
    name: str
    """The name of a tag, the signs of a fence, the channel, or what a `<details>` folds: reasoning, tool, other."""
    closes: bool
    """Whether it may end what another mark began."""
    line: int
    line_start: int
    """Where its line begins."""


class Marks(msgspec.Struct, frozen=True):
    """The marks of a text in their order, and the number of each one's partner."""

    all: Sequence[Mark]
    partners: dict[int, int]
    """Of an opening mark the closing one, nested ones within each other; of a backtick the next one of its line."""
    nearest: dict[int, int]
    """Of an opening mark the next closing one of its kind, whatever it belongs to."""


def find_marks(text: str) -> Marks:
    """The marks of a text; linear in its length. A mark between quotes is none: the text speaks of it."""
    marks = list(_marks(text))
    partners: dict[int, int] = {}
    nearest: dict[int, int] = {}
    open_marks: dict[tuple[str, str], list[int]] = {}
    for number, mark in enumerate(marks):
        if mark.kind not in (*_BLOCKS, "details"):
            continue
        opened = open_marks.setdefault((mark.kind, "" if mark.kind == "details" else mark.name), [])
        if not mark.closes:
            opened.append(number)
        elif opened:
            partners[opened.pop()] = number
    next_closing: dict[str, int] = {}
    next_ticks: dict[tuple[int, int], int] = {}
    for number in range(len(marks) - 1, -1, -1):
        mark = marks[number]
        if mark.kind == "ticks":
            key = (mark.line, mark.end - mark.start)
            if key in next_ticks:
                partners[number] = next_ticks[key]
            next_ticks[key] = number
        elif mark.kind == "stop":
            # Solar ends its reasoning as gpt-oss ends a message.
            next_closing["pipe"] = number
        elif mark.closes:
            next_closing[mark.kind] = number
        elif mark.kind in next_closing:
            nearest[number] = next_closing[mark.kind]
    return Marks(marks, partners, nearest)


def _marks(text: str) -> Iterator[Mark]:
    line = line_start = counted = 0
    for match in _PATTERN.finditer(text):
        start, end = match.span()
        if (newlines := text.count("\n", counted, start)) > 0:
            line += newlines
            line_start = text.rfind("\n", counted, start) + 1
        counted = start
        kind = next(
            kind
            for kind in (*_BLOCKS, "channel", "stop", "start", "details", "fence", "ticks")
            if match[kind]
        )
        quoted = start > 0 and _QUOTES.get(text[start - 1]) == text[end : end + 1] != ""
        if quoted and kind not in ("fence", "ticks"):
            continue
        name, closes = _name(kind, match, text)
        yield Mark(start, end, kind, name, closes, line, line_start)


def _name(kind: str, match: re.Match[str], text: str) -> tuple[str, bool]:
    """The `name` of a mark and whether it closes."""
    found = match[kind]
    if kind in ("tag", "bracket", "kimi"):
        name = "empty" if kind == "tag" and match["empty"] else found if kind == "bracket" else found.lower()
        return name, bool(match[f"{kind}_close"])
    if kind == "pipe":
        return "", found.startswith("/") or "end" in found.lower()
    if kind in ("inner", "unused", "gemma"):
        return "", found.lower() in ("suffix", "5", "<channel|>")
    if kind == "channel":
        author = (match["author"] or "").removeprefix("assistant").strip()
        is_call = author or "to=" in match["recipient"]
        return "tool" if is_call else found.lower(), False
    if kind == "fence":
        return found, not match["info"].strip() and not match["item"]
    if kind == "details":
        return _folded(match["attributes"], text, match.end()), bool(match["details_close"])
    return "", False


def _folded(attributes: str, text: str, end: int) -> str:
    """What a `<details>` folds: reasoning, tool or other."""
    if type_ := _DETAILS_TYPE.search(attributes):
        name = type_[1].lower()
        return "tool" if name in _TOOL_DETAILS else name if name == "reasoning" else "other"
    if _DETAILS_CLASS.search(attributes):
        return "reasoning"
    summary = _SUMMARY.match(text, end)
    return "reasoning" if summary and is_thought_title(summary[1].strip()) else "other"
