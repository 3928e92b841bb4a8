"""Prompt injection markers: text that tries to act on a chat template, a Modelfile or a model. Held for review.

Control tokens cannot act here, because text is encoded separately from them (`models.chatml`). Conversations are held
because the user may not want to train on them. In an export, control tokens get a full-width first character, because
other trainers tokenize text and control tokens together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.corpus.filters.normalise import INVISIBLE
from engine.corpus.filters.simplified_chinese import simplified

_CONTROL_TOKEN = re.compile(
    r"<\|[\w▁.-]{1,40}\|>|<｜[\w▁.-]{1,40}｜>"
    r"|<(?:s|/s)>\s*+(?:\[INST\]|$)|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_(?:turn|image)>"
    r"|\[/?(?:TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS|SYSTEM_PROMPT|gMASK)\]|<reserved_\d{1,4}>|<seed:\w{1,20}>",
    re.IGNORECASE,
)
_SENTENCE_TOKEN = re.compile(r"</?s>|<(?:bos|eos|pad|unk)>")
"""Tokens of other vocabularies that are common in HTML: neutralised, but not held."""
_WIDE = str.maketrans("<[", "＜［")
_MODELFILE = re.compile(
    r'^[ \t]*+"""[ \t]*+$|"""[^\S\n]*+\n\s*+(?:SYSTEM|MESSAGE|TEMPLATE|FROM|ADAPTER|PARAMETER|LICENSE)\b|^[ \t]*+(?:SYSTEM|TEMPLATE|MESSAGE\s++\w++)\s++"""',
    re.MULTILINE,
)
_TEMPLATE = re.compile(
    r"\{\{-?\s*+(?:(?:if|range|with|else if|and|or|not|eq|ne)\b[^{}\n]{0,80}?\s)?\$?\.(?:System|Prompt|Response|ToolCalls|Messages)\b[^{}\n]{0,80}\}\}"
)
"""Variables of an Ollama template."""
_LINE = re.compile(
    r"^[ \t]*(?:(FROM)[ \t]++[^\s,;()]++|(PARAMETER)[ \t]++[a-z_]{2,24}[ \t]++\S.*|(ADAPTER)[ \t]++\S++|(SYSTEM|TEMPLATE|LICENSE)[ \t]+\S.*"
    r"|(MESSAGE)[ \t]+(?:user|assistant|system)[ \t]+\S.*)[ \t]*$",
    re.MULTILINE,
)
"""A line of a Modelfile, with its keyword as a group; alone it may be of a Dockerfile, a query or a log."""
_OTHER_SYNTAX = re.compile(
    r"\b(?:SELECT|DELETE|INSERT|UPDATE)\b|^[ \t]*(?:RUN|CMD|COPY|ENTRYPOINT|WORKDIR|EXPOSE)\b",
    re.IGNORECASE | re.MULTILINE,
)
"""Keywords of SQL and Dockerfiles, which also have FROM lines."""

_BACK_EN = r"(?:previous|prior|above|earlier|preceding|foregoing|past)"
_SAID_EN = r"(?:instructions?|prompts?|rules?|messages?|directions?|directives?|guidelines?|commands?|orders?|context)"
_BACK = r"(?:之前|以上|先前|前面|上面|此前|上述|前述)"
_ALL = r"(?:的)?(?:所有|全部|一切)"
_SAID = r"(?:指令|指示|提示词?|规则|要求|设定)"
_INSTRUCTION = re.compile(
    r"\b(?:ignore|disregard|forget)\s+(?:all\s+|any\s+)?(?:of\s+)?(?:the\s+|your\s+|these\s+|those\s+)?"
    + _BACK_EN + r"\s+" + _SAID_EN + r"\b"
    r"|\b(?:ignore|disregard|forget)\s+(?:all\s+)?(?:the\s+|your\s+)?(?:instructions?|rules?|directions?|directives?|guidelines?)\s+(?:above|before|so far)\b"
    r"|\b(?:ignore|disregard|forget)\s+(?:everything|all)\s+(?:above|before this|you(?:'ve| have| were)? (?:been )?told)\b"
    r"|\b(?:ignore|disregard|forget)\s+(?:everything|anything|all|whatever)\s+(?:that\s+)?(?:i|we|you|they)(?:'ve|\s+have)?\s+"
    r"(?:said|told\s+you|wrote|written|typed|asked)\s+(?:before|above|earlier|so\s+far|previously|until\s+now|up\s+to\s+now)\b"
    r"|(?:忽略|无视|忘记|忘掉)(?:掉)?(?:你)?" + _BACK + r"(?:" + _ALL + r")?(?:的)?" + _SAID
    + r"|(?:忽略|无视|忘记|忘掉)(?:掉)?(?:你)?" + _BACK + _ALL + r"(?:的)?(?:内容|对话|消息|文字|话)"
    r"|(?:不要|别|不必|无需)(?:再)?(?:理会|遵守|遵循|执行|管)" + _BACK + r"(?:" + _ALL + r")?(?:的)?" + _SAID
    + r"|把" + _BACK + r"(?:" + _ALL + r")?(?:的)?" + _SAID + r"(?:都|全|全都|统统)?(?:忘|忽略|抛)"
    r"|" + _BACK + r"(?:" + _ALL + r")?(?:的)?(?:" + _SAID + r"(?:都|全都?|全部|统统|一律|均)(?:已经?)?|(?:指令|指示|提示词?)(?:已经?)?)(?:作废|无效|失效|取消|撤销|不算数?|不作数)",
    re.IGNORECASE,
)  # fmt: skip
_MODELFILE_WORD = re.compile(r"^[ \t]*+(?:SYSTEM|MESSAGE|TEMPLATE)\b", re.MULTILINE)
# Cheap necessary conditions of the patterns.
_BRACKET = re.compile(r"[<\[]")
_FORGET = ("ignor", "disre", "forg")
_IGNORING = (
    "忽略", "无视", "無視", "忘", "理会", "理會", "遵守", "遵循", "执行",
    "執行", "管", "把", "作废", "作廢", "无效", "無效", "失效", "取消", "撤销", "撤銷", "不算", "不作",
)  # fmt: skip
_ODD_CASE = re.compile("[\u0130\u0131\u017f]")
"""Letters that `re.IGNORECASE` matches with i and s, and that `str.lower` does not map."""


def _has_bracket(text: str) -> bool:
    return _BRACKET.search(text) is not None


def _has_triple_quotes(text: str) -> bool:
    return '"""' in text and _MODELFILE_WORD.search(text) is not None


def _may_instruct(text: str) -> bool:
    if any(map(text.lower().__contains__, _FORGET)):
        return True
    if text.isascii():
        return False
    # each word for "previous" has one of these two characters
    before = "前" in text or "上" in text
    return (before and any(map(text.__contains__, _IGNORING))) or _ODD_CASE.search(text) is not None


def find_markers(text: str) -> Iterator[tuple[str, int, int]]:
    """(type, start, end) of each marker, in code points of `text`.

    A `\"\"\"` alone on a line counts only with a Modelfile keyword in the same text: docstrings are ordinary code.
    """
    if _has_bracket(text):
        for start, end in _control_tokens(text):
            yield "control token", start, end
    if _has_triple_quotes(text):
        for match in _MODELFILE.finditer(text):
            yield "Modelfile", match.start(), match.end()
    if "{{" in text:
        for match in _TEMPLATE.finditer(text):
            yield "Modelfile", match.start(), match.end()
    if "FROM" in text or "PARAMETER" in text:
        for start, end in _modelfile_lines(text):
            yield "Modelfile", start, end
    if _may_instruct(text):
        for match in _INSTRUCTION.finditer(simplified(text)):
            yield "instruction", match.start(), match.end()


def _control_tokens(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of control tokens, including those with invisible characters inside, which a reader may strip."""
    if text.isascii() or not INVISIBLE.search(text):
        yield from (match.span() for match in _CONTROL_TOKEN.finditer(text))
        return
    positions = [position for position, character in enumerate(text) if not INVISIBLE.match(character)]
    for match in _CONTROL_TOKEN.finditer(INVISIBLE.sub("", text)):
        yield positions[match.start()], positions[match.end() - 1] + 1


def _modelfile_lines(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of FROM and PARAMETER lines with another Modelfile keyword, or with `\"\"\"` outside SQL and Dockerfiles."""
    lines = [(match.lastindex, match.span()) for match in _LINE.finditer(text)]
    words = {word for word, _span in lines}
    if len(words) > 1 or (words and '"""' in text and not _OTHER_SYNTAX.search(text)):
        yield from (span for word, span in lines if word in (1, 2))


def neutralise(text: str) -> str:
    """`text` without control tokens for any tokenizer, of the same length."""
    if not _BRACKET.search(text):
        return text
    for start, end in _control_tokens(text):
        text = text[:start] + text[start:end].translate(_WIDE) + text[end:]
    return _SENTENCE_TOKEN.sub(lambda match: match.group().translate(_WIDE), text)
