"""Broken ends of answers: repetition loops and truncation.

A missing full stop is evidence of truncation only in an answer that ends all its other sentences with one.
"""

from __future__ import annotations

import re

_TAIL = 1_000
_SEED = 12
"""Characters at the end whose previous occurrence gives the period of a loop."""
_MIN_LOOP_ROUNDS = 4
"""Repetitions of a loop; refrains and tables have fewer."""
_MIN_LOOP_LENGTH = 40
_MIN_LOOP_SHARE = 0.25
_NO_LOOP = (0.0, 0)
_MIN_TRUNCATED_LENGTH = 80
"""Code points from which an answer can be truncated: a shorter one may be a form to fill in."""

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_DANGLING_END = re.compile(
    r"(?:[，、,；（(「『“《\[{]|\n[ \t]*(?:[-*•]|\d{1,3}[.)、．])"
    r"|(?:以及|并且|而且|但是|因为|所以|如果|例如|比如|包括|或者)"
    r"|(?<![A-Za-z])(?:and|or|but|because|the|an?|of|to|with|for|is|are|that|which|if|such as|including))$"
)

_SENTENCE_ENDS = ("。", "！", "？", "!", "?", "…")
"""Characters that end a sentence."""

_HAN = re.compile(r"[\u3400-\u9fff]")
_INDENTED = ("    ", "\t")
"""Prefixes of indented code."""
_LIST_MARKER = re.compile(r"\A\s*+(?:[-*•+>]|\d{1,3}[.)、．]|[（(]?[一二三四五六七八九十\d]{1,3}[)）、])\s*+")
_COMPLETE_WITHOUT_STOP = re.compile(r"(?:等|谢谢|etc|[A-Z]{2}|[A-Za-z]\.[A-Za-z]{1,24})\Z")
"""Complete ends without a full stop: "and so on", an abbreviation."""
_CODE_SIGNS = frozenset("/\\@_=#<>$&%")
_STOP = re.compile(
    r"[。！？][”」』）)]?(?=.)|(?<=[a-z0-9)\]\"'`*][a-z0-9)\]\"'`*])[.!?][\"')*”]*\s+(?=[\"“'(*`]?[A-Z])"
)
"""The end of a sentence followed by another one."""
_CLOSED = re.compile(r"[。！？!?.…:：;；)）\"”’'」』》】`*|~～]\Z")
_ANY_STOP = re.compile(r"[。！？]|[.!?]\s")
_FULL_STOP = re.compile(r"[。！？.!?]\Z")
_NEVER_LAST = re.compile(
    r"(?:[和与在把被从对为以及或向跟由将使让并且而则其这那每各第更最很若虽因所还也都就又]|[^是么目]的"
    r"|(?<![A-Za-z])(?:and|or|but|nor|because|the|an?|of|to|with|for|is|are|was|were|be|been|being|has|have|had"
    r"|that|which|who|whose|if|when|where|while|since|than|as|by|from|into|onto|upon|between|through|during|without"
    r"|within|at|in|on|your|his|its|their|our|my|this|these|those|can|could|will|would|should|may|might|must|not"
    r"|very|more|most|such|each|every|some|any|both|either))\Z",
    re.DOTALL,
)
_PAIRS = ("“”", "「」", "《》", "【】")
_MIN_LINE = (20, 50)
_MIN_CLAUSE = (6, 15)
_MIN_REST = (8, 40)
"""Characters from which a line, the rest of a sentence, and a line without a full stop are evidence: (in a text with
Chinese characters, in others)."""


def loop_share(text: str) -> float:
    """Share of `text` that is one repeated phrase up to its end; 0.0 when it does not end in a loop."""
    return find_loop(text)[0]


def find_loop(text: str) -> tuple[float, int]:
    """(`loop_share`, number of repetitions)."""
    tail = text.rstrip()
    size = len(tail)
    if size < _MIN_LOOP_LENGTH:
        return _NO_LOOP
    before = tail.rfind(tail[-_SEED:], max(0, size - _TAIL), size - 1)
    if before < 0:
        return _NO_LOOP
    period = size - _SEED - before
    unit = tail[-period:]
    letters = list(filter(str.isalpha, unit))
    if len(letters) < 2 or (len(set(unit)) < 3 and len(set(letters)) < 2):
        return _NO_LOOP
    start = size - period
    while start >= period and tail[start - period : start] == unit:
        start -= period
    while start > 0 and tail[start - 1] == tail[start - 1 + period]:
        start -= 1
    looped = size - start
    if looped < _MIN_LOOP_ROUNDS * period or looped < _MIN_LOOP_LENGTH or looped < _MIN_LOOP_SHARE * size:
        return _NO_LOOP
    return looped / size, looped // period


def is_truncated(text: str) -> bool:
    """Whether a long answer stops within a code block, a list, a bracket or a sentence."""
    if len(text) < _MIN_TRUNCATED_LENGTH:
        return False
    end = text.rstrip()
    fenced = ("```" in end or "~~~" in end) and len(_FENCE.findall(end)) % 2
    if fenced or (not end.endswith(_SENTENCE_ENDS) and _DANGLING_END.search(end, max(0, len(end) - 40))):
        return True
    last = end[end.rfind("\n") + 1 :]
    if last.startswith(_INDENTED):
        return False
    if last.lstrip().startswith("|"):
        return last.count("|") > 1 and not last.endswith("|") and "|\n" in end
    if not end[-1:].isalnum():
        return False
    marker = _LIST_MARKER.match(last)
    last_line = last[marker.end() :] if marker else last
    return _has_open_bracket(last_line) or _is_unfinished(end, last_line, listed=marker is not None)


def _has_open_bracket(line: str) -> bool:
    """Whether a bracket, quotation or emphasis is not closed."""
    return (
        any(line.count(pair[0]) > line.count(pair[1]) for pair in _PAIRS)
        or line.count("(") + line.count("（") > line.count(")") + line.count("）")
        or line.count("**") % 2 == 1
        or line.count("`") % 2 == 1
    )


def _is_unfinished(end: str, last_line: str, *, listed: bool) -> bool:
    """Whether the last line lacks a full stop in a text that ends all its other sentences with one.

    Where another long line also ends without a full stop, it is no evidence.
    """
    tail = last_line[-_TAIL:]
    if _COMPLETE_WITHOUT_STOP.search(tail) or _ends_in_code(tail):
        return False
    lines = [line for line in end.split("\n")[:-1] if _is_prose(line)]
    if not all(_CLOSED.search(line.rstrip()) for line in lines):
        return False
    if _NEVER_LAST.search(tail, max(0, len(tail) - 40)) and _ANY_STOP.search(end):
        return True
    begins = 0
    for stop in _STOP.finditer(last_line):
        begins = stop.end()
    if begins:
        rest = last_line[begins:]
        return len(rest) >= _MIN_CLAUSE[not _HAN.search(rest)]
    similar = [line for line in lines if bool(_LIST_MARKER.match(line)) == listed]
    if len(similar) < 2 or not all(_FULL_STOP.search(line.rstrip()) for line in similar):
        return False
    return listed or len(last_line) >= _MIN_REST[not _HAN.search(last_line)]


def _ends_in_code(tail: str) -> bool:
    """Whether the last word is an address or code."""
    words = tail.split()
    return bool(words) and not _CODE_SIGNS.isdisjoint(_HAN.split(words[-1])[-1])


def _is_prose(line: str) -> bool:
    """Whether a line is neither short, code, a table nor a heading."""
    return (
        len(line.strip()) >= _MIN_LINE[not _HAN.search(line)]
        and not line.startswith(_INDENTED)
        and not line.lstrip().startswith(("|", "#"))
    )
