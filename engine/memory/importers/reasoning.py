"""The reasoning of a model inside the text of its answer.

Reasoning stands in one of three ways:

- Between an opening and a closing mark: `<think>` and other tags, `[THINK]`, `◁think▷`, `<|START_THINKING|>`,
  `<unused94>`, the channels of gpt-oss, a folded `<details>`. A template may have written the opening mark into the
  prompt: then all before the closing mark is reasoning. A cut answer has no closing mark: then all after it is.
- Between words: `analysis … assistantfinal …`, gpt-oss without its special tokens, and Granite's announcements.
- Below what a program shows above an answer: see `thought_lines`.

Marks in fenced or inline code or between quotes, and tags that a sentence speaks of, are text. Every function here is
linear in the length of any text.
"""

from __future__ import annotations

import re

from engine.memory.importers.reasoning_marks import Mark, find_marks
from engine.memory.importers.thought_lines import skip_shown_thought

REASONING = "reasoning"
TOOL = "tool message"

_QUICK = re.compile(
    r"(?:[<\[【◁]|&lt;)(?:[|｜]|unused9|/?details\b|channel\||/?思考|/?推理"
    r"|/?[ \t]?(?:[a-z0-9]{0,16}[:_-]|ant)?(?:deep_?)?(?:think|thought|reason|scratch|monologue|reflect|chain|cot\b))",
    re.IGNORECASE,
)
"""What stands in every text with a mark; looked for first because most answers have none."""
_LEAK_BEGIN = re.compile(r"\A\s*(?:assistant)?(?:analysis|commentary)(?=[A-Z\"'“]|[ \t]*\n)")
_LEAK_END = re.compile(r"(?<![`\"'“])assistantfinal(?![`\"'”a-z])")
_LEAK_END_ALONE = re.compile(r"(?<=[.!?。！？)\n…])assistantfinal(?=[^\sa-z`\"'])")
_LEAK_CUT = re.compile(r"\A\s*(?:assistant)?analysis(?=[A-Z][a-z]*['’]?[a-z]* )")
_GRANITE = re.compile(r"\A\s*Here(?:'s| is) my thought process\s*:", re.IGNORECASE)
_GRANITE_ANSWER = re.compile(r"Here(?:'s| is) my response\s*:", re.IGNORECASE)
_ANSWER = re.compile(
    r"\A\s*<(answer|response|output|final|final_answer|solution|\|begin_of_solution\||\|START_RESPONSE\|)>",
    re.IGNORECASE,
)
"""Around the answer, where the model marks both reasoning and answer."""
_ANALYSIS = re.compile(r"\A\s*<(analysis|rationale)>", re.IGNORECASE)
_ANSWER_ENDS = {"|begin_of_solution|": "<|end_of_solution|>", "|start_response|": "<|end_response|>"}
_TAG_WORD = re.compile(
    r"[ \t]{0,2}(?:(?:tags?|tokens?|blocks?|sections?|elements?|markers?|delimiters?|markup|syntax)\b"
    r"|标签|标记|标识|元素|區塊|標籤|タグ)",
    re.IGNORECASE,
)
_SPOKEN_OF = re.compile(
    _TAG_WORD.pattern
    + r"|[ \t]{1,2}(?:(?:is|are) (?:an?|the|used|not|just|also)\b|是(?:一个|一种|用))|[,，。;；、|)）:：]|\.(?!\.)",
    re.IGNORECASE,
)
"""What follows a mark that a sentence speaks of."""
_JOINING = frozenset(("and", "or", "to", "until", "和", "与", "或", "到", "、", "及", "und", "et", "y", "/"))
"""All that stands between two marks of which a sentence speaks."""
_GOES_ON = re.compile(r"[ \t]{1,4}\w")
_BLANKS = re.compile(r"\s*")
_LONGEST_INDENT = 40


def without_reasoning(text: str) -> tuple[str, list[str]]:
    """An answer without the reasoning of its model and without folded tool calls, and what was removed.

    Each removed block is one `REASONING` or `TOOL`. A text of which nothing was removed is returned as it is.
    """
    clean, removed = _without_shown(text.removeprefix("\ufeff"))
    clean, more = _without_named(clean)
    removed += more
    if _QUICK.search(clean):
        scanned, marked = _Scan(clean).run()
        if scanned != clean:
            clean, shown = _without_shown(scanned)
            removed += marked + shown
    if not removed and clean == text.removeprefix("\ufeff"):
        return clean, []
    return _without_answer_marks(clean).strip("\n"), removed


def _without_shown(text: str) -> tuple[str, list[str]]:
    end = skip_shown_thought(text)
    return (text[end:].lstrip("\n"), [REASONING]) if end else (text, [])


def _without_named(text: str) -> tuple[str, list[str]]:
    begins = _LEAK_BEGIN.match(text)
    if "assistantfinal" in text and (final := (_LEAK_END if begins else _LEAK_END_ALONE).search(text)):
        in_code = text.count("```", 0, final.start()) % 2 == 1
        if begins or not in_code:
            return text[final.end() :].lstrip(), [REASONING]
    if _LEAK_CUT.match(text):
        return "", [REASONING]
    if (analysis := _ANALYSIS.match(text)) and (end := text.lower().find(f"</{analysis[1].lower()}>")) > 0:
        answer_start = end + len(analysis[1]) + 3
        # Alone it may be what was asked for.
        if _ANSWER.match(text[answer_start : answer_start + 200]):
            return text[answer_start:].lstrip(), [REASONING]
    if _GRANITE.match(text) and (answer := _GRANITE_ANSWER.search(text)):
        return text[answer.end() :].lstrip(), [REASONING]
    return text, []


def _without_answer_marks(text: str) -> str:
    opening = _ANSWER.match(text)
    if not opening:
        return text
    name = opening[1].lower()
    end = _ANSWER_ENDS.get(name, f"</{name}>")
    body = text[opening.end() :].strip()
    if body[-len(end) :].lower() == end:
        return body[: -len(end)].strip()
    is_cut = end not in body.lower()
    return body if is_cut else text


class _Scan:
    """One pass over the marks of a text."""

    def __init__(self, text: str) -> None:
        self.text = text
        found = find_marks(text)
        self.marks, self.partners, self.nearest = found.all, found.partners, found.nearest
        self.kept: list[str] = []
        self.removed: list[str] = []
        self.text_end = len(text.rstrip())
        self.place = 0
        """Up to where the text is decided."""
        self.spoken_of: set[int] = set()
        self.in_channel = False

    def run(self) -> tuple[str, list[str]]:
        """The text without what its marks enclose, and what that was."""
        number = 0
        while number < len(self.marks):
            mark = self.marks[number]
            step = number + 1
            if mark.start < self.place or number in self.spoken_of:
                pass
            elif mark.kind == "fence":
                step = self._after_fence(number)
            elif mark.kind == "ticks":
                step = self.partners.get(number, number) + 1
            elif mark.kind == "channel":
                self._channel(number)
            elif mark.kind in ("stop", "start"):
                if self.in_channel:
                    self._drop(mark.start, mark.end)
            elif mark.kind == "details":
                self._details(number)
            elif mark.name == "empty":
                self._remove(mark.start, mark.end)
            elif mark.closes:
                self._closing(number)
            else:
                self._opening(number)
            number = step
        self.kept.append(self.text[self.place :])
        return "".join(self.kept), self.removed

    def _after_fence(self, number: int) -> int:
        opening = self.marks[number]
        for later in range(number + 1, len(self.marks)):
            mark = self.marks[later]
            if mark.kind == "fence" and mark.closes and mark.name.startswith(opening.name):
                return later + 1
        # Never closed: reasoning that was written without an opening mark may have left it open.
        for later in range(number + 1, len(self.marks)):
            mark = self.marks[later]
            if mark.closes and mark.kind not in ("fence", "details") and self._stands_alone(mark):
                return later
        return len(self.marks)

    def _stands_alone(self, mark: Mark) -> bool:
        return self._begins_line(mark) and self._ends_line(mark)

    def _channel(self, number: int) -> None:
        """A message of gpt-oss: only what it writes into `final`, and its words to the person before a call, is text."""
        mark = self.marks[number]
        self.in_channel = True
        if mark.name in ("final", "commentary"):
            self._drop(mark.start, mark.end)
            return
        after = (self.marks[n] for n in range(number + 1, len(self.marks)))
        end = next((later for later in after if later.kind in ("channel", "stop", "start")), None)
        stop = len(self.text) if end is None else end.end if end.kind == "stop" else end.start
        self._remove(mark.start, stop, TOOL if mark.name == "tool" else REASONING)

    def _details(self, number: int) -> None:
        mark = self.marks[number]
        if mark.closes or mark.name == "other":
            return
        closing = self.partners.get(number, self.nearest.get(number))
        if self._in_sentence(mark) and closing is not None and self.marks[closing].line == mark.line:
            return
        if closing is not None:
            self._remove(mark.start, self.marks[closing].end, TOOL if mark.name == "tool" else REASONING)
        elif self._begins_line(mark):
            self._remove(mark.start, len(self.text), TOOL if mark.name == "tool" else REASONING)

    def _opening(self, number: int) -> None:
        mark = self.marks[number]
        partner = self.partners.get(number)
        closing = self.nearest.get(number) if partner is None else partner
        if closing is None:
            # Only Magistral's own token is surely one: `[thinking]` alone may be any text.
            certain = mark.kind != "bracket" or mark.name == "THINK"
            if certain and self._begins_line(mark) and not _SPOKEN_OF.match(self.text, mark.end):
                self._remove(mark.start, len(self.text), REASONING)
        elif self._encloses(mark, self.marks[closing], is_partner=partner is not None):
            self.in_channel |= self.marks[closing].kind == "stop"
            self._remove(mark.start, self.marks[closing].end, REASONING)
        else:
            self.spoken_of |= {closing} if partner is not None else set()

    def _encloses(self, mark: Mark, closing: Mark, *, is_partner: bool) -> bool:
        """Whether reasoning stands between two marks; otherwise a sentence speaks of them."""
        text, same_line = self.text, mark.line == closing.line
        closes_line = self._ends_line(closing) or self._begins_line(closing)
        if self._begins_line(mark) and not same_line and closes_line:
            return True
        if _SPOKEN_OF.match(text, mark.end) or (
            closing.start - mark.end <= 8 and text[mark.end : closing.start].strip().lower() in _JOINING
        ):
            return False
        if not self._in_sentence(mark):
            dots = text[mark.end : min(closing.start, mark.end + 8)].strip()
            return not (dots in ("...", "…", "……") and _SPOKEN_OF.match(text, closing.end))
        if not same_line or not is_partner:
            return is_partner and closes_line and not self._in_sentence(closing)
        content = text[mark.end : min(closing.start, mark.end + 200)]
        apart = text[mark.end].isspace() and text[closing.start - 1].isspace()
        return (
            any(sign.isalnum() for sign in content)
            and not _TAG_WORD.match(text, closing.end)
            and not (apart and _GOES_ON.match(text, closing.end))
        )

    def _closing(self, number: int) -> None:
        """A closing mark without an opening one: the prompt ended with it, so that all before is reasoning."""
        mark = self.marks[number]
        goes_on = self.text[mark.end : mark.end + 1] in (" ", "\t") and not self._ends_line(mark)
        if _SPOKEN_OF.match(self.text, mark.end) or (goes_on and self._in_sentence(mark)):
            return
        if self.removed and mark.end >= self.text_end:
            self._drop(mark.start, mark.end)
            return
        self.kept.clear()
        self.place = mark.end
        self._remove(mark.end, mark.end, REASONING)

    def _begins_line(self, mark: Mark) -> bool:
        """Whether only blanks, signs of a quotation or removed text stand before it on its line."""
        start = max(mark.line_start, self.place)
        return mark.start - start <= _LONGEST_INDENT and not self.text[start : mark.start].strip(" \t>")

    def _ends_line(self, mark: Mark) -> bool:
        rest = self.text[mark.end : mark.end + _LONGEST_INDENT]
        return not rest.partition("\n")[0].strip()

    def _in_sentence(self, mark: Mark) -> bool:
        """Whether a word and a blank stand before it on its line; in Chinese, a word."""
        before = self.text[max(mark.line_start, self.place, mark.start - _LONGEST_INDENT) : mark.start]
        word = before.rstrip()[-1:]
        is_word = word.isalnum() or word in (",", "，", "、")
        return word != "" and is_word and (before[-1].isspace() or not word.isascii())

    def _drop(self, start: int, end: int) -> None:
        if start > self.place:
            self.kept.append(self.text[self.place : start])
        self.place = end

    def _remove(self, start: int, end: int, kind: str = "") -> None:
        """Removes a block, and the blanks after it unless they part the words around it."""
        self._drop(start, end)
        if kind:
            self.removed.append(kind)
        last = self.kept[-1][-1] if self.kept else "\n"
        if last.isspace() and (blanks := _BLANKS.match(self.text, end)):
            is_indented = last == "\n" and "\n" in blanks[0] and self.kept
            self.place = end + blanks[0].rfind("\n") + 1 if is_indented else blanks.end()
