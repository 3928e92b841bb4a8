"""Text that tries to act on the template, the Modelfile or the trainer. It is held for the person to see.

Nothing here is what keeps a marker from acting here: contents are encoded apart from control tokens
(`models/template`). A held conversation is one that the person may not want to teach; accepted, its control
tokens leave in an export with a wide first character, because other trainers read text and tokens together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.corpus.filters.normalise import INVISIBLE
from engine.corpus.filters.simplified_chinese import simplified

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
_TEMPLATE = re.compile(
    r"\{\{-?\s*(?:(?:if|range|with|else if|and|or|not|eq|ne)\b[^{}\n]{0,80}?\s)?\$?\.(?:System|Prompt|Response|ToolCalls|Messages)\b[^{}\n]{0,80}\}\}"
)
"""Variables of an Ollama template."""
_LINE = re.compile(
    r"^[ \t]*(?:(FROM)[ \t]+[^\s,;()]+|(PARAMETER)[ \t]+[a-z_]{2,24}[ \t]+\S.*|(ADAPTER)[ \t]+\S+|(SYSTEM|TEMPLATE|LICENSE)[ \t]+\S.*"
    r"|(MESSAGE)[ \t]+(?:user|assistant|system)[ \t]+\S.*)[ \t]*$",
    re.MULTILINE,
)
"""A line of a Modelfile, its word as a group: alone it may be of a Dockerfile, a query or a log."""
_OTHER_TONGUE = re.compile(
    r"\b(?:SELECT|DELETE|INSERT|UPDATE)\b|^[ \t]*(?:RUN|CMD|COPY|ENTRYPOINT|WORKDIR|EXPOSE)\b",
    re.IGNORECASE | re.MULTILINE,
)
"""Words of a query or a Dockerfile, which has FROM lines too."""

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
_MODELFILE_WORD = re.compile(r"^\s*(?:SYSTEM|MESSAGE|TEMPLATE)\b", re.MULTILINE)
# Cheap signs without which a pattern finds nothing.
_BRACKET = re.compile(r"[<\[]")
_FORGET = ("ignor", "disre", "forg")
_IGNORING = (
    "忽略", "无视", "無視", "忘", "理会", "理會", "遵守", "遵循", "执行",
    "執行", "管", "把", "作废", "作廢", "无效", "無效", "失效", "取消", "撤销", "撤銷", "不算", "不作",
)  # fmt: skip
_ODD_CASE = re.compile("[\u0130\u0131\u017f]")
"""Letters that `re` takes for i and s without case, and `str.lower` does not."""


def _bracketed(text: str) -> bool:
    return _BRACKET.search(text) is not None


def _quoted(text: str) -> bool:
    return '"""' in text and _MODELFILE_WORD.search(text) is not None


def _ignoring(text: str) -> bool:
    if any(map(text.lower().__contains__, _FORGET)):
        return True
    if text.isascii():
        return False
    # each word for what came before has one of these two
    before = "前" in text or "上" in text
    return (before and any(map(text.__contains__, _IGNORING))) or _ODD_CASE.search(text) is not None


def find(text: str) -> Iterator[tuple[str, int, int]]:
    """Kind and range of each marker in code points of `text`. A `\"\"\"` alone on a line counts only with a
    Modelfile word in the same text: docstrings are ordinary code."""
    if _bracketed(text):
        for start, end in _control_tokens(text):
            yield "control token", start, end
    if _quoted(text):
        for match in _MODELFILE.finditer(text):
            yield "Modelfile", match.start(), match.end()
    if "{{" in text:
        for match in _TEMPLATE.finditer(text):
            yield "Modelfile", match.start(), match.end()
    if "FROM" in text or "PARAMETER" in text:
        for start, end in _modelfile_lines(text):
            yield "Modelfile", start, end
    if _ignoring(text):
        for match in _INSTRUCTION.finditer(simplified(text)):
            yield "instruction", match.start(), match.end()


def _control_tokens(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of control tokens, also of those with invisible characters inside: whoever strips them has the token."""
    if text.isascii() or not INVISIBLE.search(text):
        yield from (match.span() for match in _CONTROL_TOKEN.finditer(text))
        return
    places = [place for place, character in enumerate(text) if not INVISIBLE.match(character)]
    for match in _CONTROL_TOKEN.finditer(INVISIBLE.sub("", text)):
        yield places[match.start()], places[match.end() - 1] + 1


def _modelfile_lines(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of FROM and PARAMETER lines beside another word of a Modelfile, or beside `\"\"\"` outside of queries and Dockerfiles."""
    lines = [(match.lastindex, match.span()) for match in _LINE.finditer(text)]
    words = {word for word, _span in lines}
    if len(words) > 1 or (words and '"""' in text and not _OTHER_TONGUE.search(text)):
        yield from (span for word, span in lines if word in (1, 2))


def neutralise(text: str) -> str:
    """`text` in which no tokenizer finds a control token; as long as before."""
    if not _BRACKET.search(text):
        return text
    for start, end in _control_tokens(text):
        text = text[:start] + text[start:end].translate(_WIDE) + text[end:]
    return _SENTENCE_TOKEN.sub(lambda match: match.group().translate(_WIDE), text)
