"""Answers that went wrong at their end: a model that fell into a loop, and a text that was cut off.

Both are told from signs that a finished text does not show. A missing full stop is one only in an answer that
closes all its other sentences.
"""

from __future__ import annotations

import re

_TAIL = 1_000
_SEED = 12
"""Characters at the end whose earlier places give the period of a loop."""
_TIMES = 4
"""Rounds of a loop; a refrain or a table comes back less often in a row."""
_LOOP_LEAST = 40
_LOOP_SHARE = 0.25
_NO_LOOP = (0.0, 0)
_CUT_LEAST = 80
"""Code points from which an answer that stops in the middle was cut: a shorter one may be a form to fill in."""

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_HANGING = re.compile(
    r"(?:[，、,；（(「『“《\[{]|\n[ \t]*(?:[-*•]|\d{1,3}[.)、．])"
    r"|(?:以及|并且|而且|但是|因为|所以|如果|例如|比如|包括|或者)"
    r"|(?<![A-Za-z])(?:and|or|but|because|the|an?|of|to|with|for|is|are|that|which|if|such as|including))$"
)

_ENDS = ("。", "！", "？", "!", "?", "…")
"""After these nothing hangs in the air."""

_HAN = re.compile(r"[\u3400-\u9fff]")
_INDENTED = ("    ", "\t")
"""Code without a fence."""
_MARKER = re.compile(r"\s*(?:[-*•+>]|\d{1,3}[.)、．]|[（(]?[一二三四五六七八九十\d]{1,3}[)）、])\s*")
_NO_SENTENCE = re.compile(
    r"(?:等|等等|谢谢|etc|[A-Z]{2,}|[A-Za-z]\.[A-Za-z]+|[^\s\u3400-\u9fff]*[/\\@_=#<>$&%][^\s\u3400-\u9fff]*)\Z"
)
"""Ends without a full stop that are whole: "and so on", an abbreviation, an address, a piece of code."""
_STOP = re.compile(
    r"[。！？][”」』）)]?(?=.)|(?<=[a-z0-9)\]\"'`*][a-z0-9)\]\"'`*])[.!?][\"')*”]*\s+(?=[\"“'(*`]?[A-Z])"
)
"""The end of a sentence after which another one begins."""
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
_LONG_LINE = (20, 50)
_LONG_CLAUSE = (6, 15)
_LONG_REST = (8, 40)
"""Characters from which a line, the rest of a sentence and a line without a full stop say anything: of a text
with 汉字, of any other."""


def loop_share(text: str) -> float:
    """Share of `text` that is one phrase over and over up to its end; 0.0 when it does not end in a loop."""
    return loop(text)[0]


def loop(text: str) -> tuple[float, int]:
    """As `loop_share`, and how many rounds the loop takes."""
    tail = text.rstrip()
    size = len(tail)
    if size < _LOOP_LEAST:
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
    if looped < _TIMES * period or looped < _LOOP_LEAST or looped < _LOOP_SHARE * size:
        return _NO_LOOP
    return looped / size, looped // period


def is_cut(text: str) -> bool:
    """Whether a long answer stops in the middle: within a block of code, a list, a bracket or a sentence."""
    if len(text) < _CUT_LEAST:
        return False
    end = text.rstrip()
    fenced = ("```" in end or "~~~" in end) and len(_FENCE.findall(end)) % 2
    if fenced or (not end.endswith(_ENDS) and _HANGING.search(end, max(0, len(end) - 40))):
        return True
    last = end[end.rfind("\n") + 1 :]
    if last.startswith(_INDENTED):
        return False
    if last.lstrip().startswith("|"):
        return last.count("|") > 1 and not last.endswith("|") and "|\n" in end
    if not end[-1:].isalnum():
        return False
    marker = _MARKER.match(last)
    said = last[marker.end() :] if marker else last
    return _open(said) or _unfinished(end, said, listed=marker is not None)


def _open(line: str) -> bool:
    """Whether a bracket, a quotation or an emphasis was opened and not closed."""
    return (
        any(line.count(pair[0]) > line.count(pair[1]) for pair in _PAIRS)
        or line.count("(") + line.count("（") > line.count(")") + line.count("）")
        or line.count("**") % 2 == 1
        or line.count("`") % 2 == 1
    )


def _unfinished(end: str, said: str, *, listed: bool) -> bool:
    """Whether `said`, the last line, lacks its full stop in a text that closes all its other sentences.

    Only a text that keeps the habit tells: where another long line ends without a stop, nothing is said.
    """
    tail = said[-_TAIL:]
    if _NO_SENTENCE.search(tail):
        return False
    lines = [line for line in end.split("\n")[:-1] if _is_prose(line)]
    if not all(_CLOSED.search(line.rstrip()) for line in lines):
        return False
    if _NEVER_LAST.search(tail, max(0, len(tail) - 40)) and _ANY_STOP.search(end):
        return True
    begins = 0
    for stop in _STOP.finditer(said):
        begins = stop.end()
    if begins:
        rest = said[begins:]
        return len(rest) >= _LONG_CLAUSE[not _HAN.search(rest)]
    alike = [line for line in lines if bool(_MARKER.match(line)) == listed]
    if len(alike) < 2 or not all(_FULL_STOP.search(line.rstrip()) for line in alike):
        return False
    return listed or len(said) >= _LONG_REST[not _HAN.search(said)]


def _is_prose(line: str) -> bool:
    return (
        len(line.strip()) >= _LONG_LINE[not _HAN.search(line)]
        and not line.startswith(_INDENTED)
        and not line.lstrip().startswith(("|", "#"))
    )
