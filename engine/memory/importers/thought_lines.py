"""Lines and titles by which chat programs show that a model thought: `Thought for 12 seconds`, `已深度思考（用时 5 秒）`.

They stand above an answer when it was copied from a page or exported as Markdown, some with the reasoning in a quote
or a fence below them.
"""

from __future__ import annotations

import re

_LINE_LENGTH = 120
_NUMBER = r"(?:\d{1,6}(?:[.,:]\d{1,3})?|an?|one|a few|a couple of|a couple|several|some|less than a|under a)"
_UNIT = r"(?:ms|s|secs?|seconds?|m|mins?|minutes?|h|hours?|moments?)"
_DURATION = rf"(?:about |around |~ ?)?{_NUMBER} ?{_UNIT}(?:(?: and|,)? ?\d{{1,4}} ?{_UNIT})?"
_HAN_DURATION = (
    r"(?:\d{1,6}(?:\.\d{1,3})? ?(?:秒钟?|分钟?|小时|s|m|秒間|分)(?: ?\d{1,4} ?(?:秒钟?|s))?|几秒钟?|片刻)"
)
_SPENT = rf"(?:[（(]? ?(?:用时|耗時|耗时|用時|共)?了? ?[:：]? ?{_HAN_DURATION} ?[)）]?)"
_THOUGHT = re.compile(
    rf"(?:thought|thinking|reasoned|reasoning|pondered|mused|worked)(?: (?:about|on|through) [^\n]{{1,60}}?)?"
    rf"(?: for {_DURATION}| ?\({_DURATION}\))"
    r"|(?:show|hide|view|expand|collapse) (?:thinking|reasoning|thoughts|thought process)"
    rf"|(?:finished|done|stopped|completed) (?:thinking|reasoning)|(?:thinking|reasoning) (?:completed?|finished|done)(?: ?[·,–-] ?{_DURATION})?"
    r"|thinking ?(?:\.{2,}|…)"
    rf"|(?:已|已经|已經)?(?:深度|完成)?(?:思考|推理)(?:完成|完毕|完畢)?了? ?{_SPENT}"
    rf"|(?:思考|推理)(?:用时|耗时|時間|用時) ?[:：]? ?{_HAN_DURATION}"
    r"|(?:已|已经|已經)(?:完成)?(?:深度)?(?:思考|推理)(?:完成|完毕|过程)?|(?:深度|正在)?思考(?:完成|完毕|中|(?<=正在思考))(?: ?(?:\.{2,}|…+))?"
    r"|(?:显示|隐藏|查看|展开|收起|顯示)(?:思路|思考过程|推理过程|思考過程)"
    r"|\d{1,5} ?秒間?(?:思考しました|考えました)|\d{1,5} ?초 ?동안 ?생각(?:함|했습니다)?"
    r"|(?:nachgedacht für|dachte) \d{1,5} ?(?:sekunden?|minuten?|s)(?: (?:lang )?nach)?"
    r"|\d{1,5} ?(?:sekunden?|minuten?|s) (?:lang )?nachgedacht"
    r"|(?:a réfléchi|réflexion|réfléchi) (?:pendant|durant) \d{1,5} ?(?:secondes?|minutes?|s)"
    r"|(?:pensó|pensado|razonó|razonado) (?:durante|por) \d{1,5} ?(?:segundos?|minutos?|s)"
    r"|(?:pensou|raciocinou) (?:por|durante) \d{1,5} ?(?:segundos?|minutos?|s)",
    re.IGNORECASE,
)
_TITLE = re.compile(
    r"(?:the |my |model |ai |internal |deep |hidden |assistant'?s? |click to (?:show|view|expand) )?"
    r"(?:think(?:ing)?|thoughts?|reasoning|chain[- ]of[- ]thoughts?|inner monologue|scratchpad)"
    r"(?: (?:process|content|chain|steps?|trace|block|summary|log))?"
    r"|(?:点击)?(?:查看|展开|显示)?(?:模型|深度|内部|内心)?(?:思考|推理|思维)(?:过程|过程|過程|内容|链|鏈|步骤|プロセス|摘要)?|思路|思維鏈|推論過程"
    r"|gedankengang|denkprozess|raisonnement|réflexion|pensamiento|razonamiento|raciocínio|생각(?: ?과정)?|추론(?: ?과정)?",
    re.IGNORECASE,
)
_ASIDE = re.compile(r" ?[(（][^()（）]{1,30}[)）]$")
_CALLOUT = re.compile(r"\[![\w-]{1,20}\][+-]?")
_BEGUN, _DONE = (
    re.compile(r"\A\s{0,20}Thinking\.\.\.[ \t]{0,20}\n"),
    re.compile(r"^\.\.\.done thinking\.[ \t]*$", re.MULTILINE),
)
"""Around the reasoning in the terminal of Ollama."""
_DECORATION = re.compile(r"^[\W_]+|[^\w)）.…]+$|(?<!\.)[.:：]$")
_MARKUP = re.compile(r"</?(?:b|i|u|em|strong|small|span|font|p|code)\b[^<>\n]{0,100}>", re.IGNORECASE)
_FENCE = re.compile(r"\s{0,20}(`{3,}|~{3,})\s*([^\s`]{0,40})[^\n`]{0,100}")
_FENCE_NAMES = frozenset(("think", "thinking", "thought", "thoughts", "reasoning", "reason"))
_HEADING = re.compile(r"\s{0,3}#{1,6}\s|\s{0,3}\*\*")
_ANSWER_HEADINGS = frozenset(
    (
        "final response",
        "final answer",
        "response",
        "answer",
        "回答",
        "最终回答",
        "最终回复",
        "正式回答",
        "回复",
        "答案",
    )
)
_THOUGHT_HEADINGS = frozenset(
    (
        "thinking",
        "thinking process",
        "thought process",
        "thoughts",
        "思考",
        "思考过程",
        "思考過程",
        "深度思考",
        "思维链",
    )
)


def is_thought_line(line: str) -> bool:
    """Whether a whole line says that the model thought, and for how long; decoration around it does not count."""
    return len(line) <= _LINE_LENGTH and bool(_THOUGHT.fullmatch(_plain(line)))


def is_thought_title(line: str) -> bool:
    """Whether a whole line is the title of a model's reasoning: `Thinking`, `思考过程`, or a thought line."""
    plain = _plain(line) if len(line) <= _LINE_LENGTH else ""
    return bool(_TITLE.fullmatch(_ASIDE.sub("", plain)) or _THOUGHT.fullmatch(plain))


def skip_shown_thought(text: str) -> int:
    """Where the answer begins behind what a program shows of the reasoning at the beginning of a text; 0 without.

    That is: a thought line and a quote right below it, a quote or a fence that begins with one, a fence whose language
    is `thinking`, and a heading `Thinking` up to the heading of the answer.
    """
    if _BEGUN.match(text) and (done := _DONE.search(text)):
        return done.end()
    start = len(text) - len(text.lstrip())
    line, after = _line(text, start)
    if line.lstrip().startswith(">"):
        return _quote_end(text, start) if is_thought_title(line) else 0
    if fence := _FENCE.fullmatch(line):
        return _fence_end(text, after, fence[1], fence[2].lower())
    if is_thought_line(line):
        below = after + len(text[after:]) - len(text[after:].lstrip())
        if _line(text, below)[0].lstrip().startswith(">"):
            return _quote_end(text, below)
        return after
    if _HEADING.match(line) and _plain(line).lower() in _THOUGHT_HEADINGS:
        return _answer_heading(text, after)
    return 0


def _plain(line: str) -> str:
    bare = _CALLOUT.sub("", _MARKUP.sub("", line), count=1).strip()
    for _side in range(3):
        bare = _DECORATION.sub("", bare).strip()
    return " ".join(bare.split())


def _line(text: str, start: int) -> tuple[str, int]:
    """The line at `start`, without its end, and where the next one begins."""
    end = text.find("\n", start)
    return (text[start:], len(text)) if end < 0 else (text[start:end], end + 1)


def _quote_end(text: str, start: int) -> int:
    while start < len(text):
        line, after = _line(text, start)
        if not line.lstrip().startswith(">"):
            break
        start = after
    return start


def _fence_end(text: str, start: int, fence: str, language: str) -> int:
    """The end of a fenced block that holds reasoning; 0 for one that is part of the answer."""
    first, after = _line(text, start)
    place = start
    while place < len(text):
        line, place = _line(text, place)
        if line.strip() == fence:
            is_only_line = text[after:place].strip() == fence
            return place if language in _FENCE_NAMES or (is_only_line and is_thought_line(first)) else 0
    return 0


def _answer_heading(text: str, start: int) -> int:
    while start < len(text):
        line, start = _line(text, start)
        if _HEADING.match(line) and _plain(line).lower() in _ANSWER_HEADINGS:
            return start
    return 0
