"""Text that tries to act on the template, the Modelfile or the trainer. It is held for the person to see.

Nothing here is what keeps a marker from acting here: contents are encoded apart from control tokens
(`models/template`). A held conversation is one that the person may not want to teach; accepted, its control
tokens leave in an export with a wide first character, because other trainers read text and tokens together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_CONTROL_TOKEN = re.compile(
    r"<\|[\w▁.-]{1,40}\|>|<｜[\w▁.-]{1,40}｜>"
    r"|<(?:s|/s)>\s*(?:\[INST\]|$)|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_(?:turn|image)>"
    r"|\[/?(?:TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS|SYSTEM_PROMPT|gMASK)\]|<reserved_\d{1,4}>|<seed:\w{1,20}>",
    re.IGNORECASE,
)
_SENTENCE_TOKEN = re.compile(r"</?s>|<(?:bos|eos|pad|unk)>")
"""Tokens of other vocabularies that are ordinary in HTML: not held, neutralised."""
_WIDE = str.maketrans("<[", "＜［")
_MODELFILE = re.compile(
    r'^\s*"""\s*$|"""\s*\n\s*(?:SYSTEM|MESSAGE|TEMPLATE|FROM|ADAPTER|PARAMETER|LICENSE)\b|^\s*(?:SYSTEM|TEMPLATE|MESSAGE\s+\w+)\s+"""',
    re.MULTILINE,
)
_INSTRUCTION = re.compile(
    r"\b(?:ignore|disregard|forget)\s+(?:all\s+|any\s+)?(?:of\s+)?(?:the\s+|your\s+)?(?:previous|prior|above|earlier)\s+(?:instructions?|prompts?|rules?|messages?)\b"
    r"|\b(?:ignore|disregard|forget)\s+(?:all\s+)?(?:the\s+|your\s+)?(?:instructions?|rules?)\s+(?:above|before|so far)\b"
    r"|\b(?:ignore|disregard|forget)\s+(?:everything|all)\s+(?:above|before this|you(?:'ve| have| were)? (?:been )?told)\b"
    r"|(?:忽略|无视|忘记|忘掉)(?:掉)?(?:你)?(?:之前|以上|先前|前面|上面|此前)(?:的)?(?:所有|全部|一切)?(?:的)?(?:指令|指示|提示|规则|要求|设定)"
    r"|(?:不要|别|不必|无需)(?:再)?(?:理会|遵守|遵循|执行|管)(?:之前|以上|先前|前面|上面|此前)(?:的)?(?:所有|全部|一切)?(?:的)?(?:指令|指示|提示|规则|要求|设定)"
    r"|把(?:之前|以上|先前|前面|上面)(?:的)?(?:所有|全部|一切)?(?:的)?(?:指令|指示|提示|规则|要求|设定)(?:都|全|全都|统统)?(?:忘|忽略|抛)",
    re.IGNORECASE,
)
_MODELFILE_WORD = re.compile(r"^\s*(?:SYSTEM|MESSAGE|TEMPLATE)\b", re.MULTILINE)
# Cheap signs without which a pattern finds nothing.
_BRACKET = re.compile(r"[<\[]")
_IGNORING = (
    "ignor",
    "disre",
    "forg",
    "忽略",
    "无视",
    "忘记",
    "忘掉",
    "理会",
    "遵守",
    "遵循",
    "执行",
    "管",
    "把",
)
_ODD_CASE = re.compile("[\u0130\u0131\u017f]")
"""Letters that `re` takes for i and s without case, and `str.lower` does not."""


def _bracketed(text: str) -> bool:
    return _BRACKET.search(text) is not None


def _quoted(text: str) -> bool:
    return '"""' in text and _MODELFILE_WORD.search(text) is not None


def _ignoring(text: str) -> bool:
    found = any(map(text.lower().__contains__, _IGNORING))
    return found or (not text.isascii() and _ODD_CASE.search(text) is not None)


_PATTERNS = (
    ("control token", _bracketed, _CONTROL_TOKEN),
    ("Modelfile", _quoted, _MODELFILE),
    ("instruction", _ignoring, _INSTRUCTION),
)


def find(text: str) -> Iterator[tuple[str, int, int]]:
    """Kind and range of each marker in code points of `text`. A `\"\"\"` alone on a line counts only with a
    Modelfile word in the same text: docstrings are ordinary code."""
    for kind, sign, pattern in _PATTERNS:
        if sign(text):
            for match in pattern.finditer(text):
                yield kind, match.start(), match.end()


def neutralise(text: str) -> str:
    """`text` in which no tokenizer finds a control token; as long as before."""
    if not _BRACKET.search(text):
        return text
    for pattern in (_CONTROL_TOKEN, _SENTENCE_TOKEN):
        text = pattern.sub(lambda match: match.group().translate(_WIDE), text)
    return text
