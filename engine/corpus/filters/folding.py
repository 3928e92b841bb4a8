"""The form in which texts are equal: everything that may change the meaning is part of it.

Ignored are case in prose, width, space where it separates no words, and the punctuation of sentences. Signs stay: operators,
`C++`, `.NET`, `!done`, decimal points, brackets, emoji. In code (fenced, indented or between backticks) only trailing blanks
are ignored. Stored text is never folded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.corpus.filters.normalise import INVISIBLE, nfkc

CJK = "\u2e80-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Ranges of a character class: scripts that put no space between words. (Korean does.)"""
_FENCE = re.compile(r" {0,3}(`{3,}+|~{3,}+)")
_INDENTED = re.compile(r"(?: {2}|\t)\s*+\S")
_CODE_SIGN = re.compile(r"[=(){}\[\];#<>]")
_CJK = re.compile(f"[{CJK}]")
_INLINE_CODE = re.compile(r"(`[^`\n]++`)")

_DISTINCT = re.compile("([\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209f\u2150-\u215f\u2460-\u24ff])")
"""Raised and lowered figures, fractions and circled figures, which NFKC makes plain: 10² is not 102."""
_QUOTE = "\x01"
_FORMS = {
    **dict.fromkeys("。、…¿¡—", " "),
    **dict.fromkeys("“”„«»「」『』〝〞", _QUOTE),
    **dict.fromkeys("‘’ʼ", "'"),
    **dict.fromkeys("\u2010\u2011\u2012\u2212", "-"),
    "–": " ",
}
"""Punctuation that is never a sign, and other forms of one sign."""
_FORM = re.compile(f"[{''.join(_FORMS)}](?:(?<=–)([0-9]))?")
_WIDE_PUNCTUATION = re.compile("[，：！？；](?:(?![=＝])(?<![，：])|(?![0-9０-９])|(?<![0-9０-９].))")
"""Wide marks are punctuation, but for those between figures and in a wide "！＝"."""
# Each pattern begins with a plain character, so that a text without it is scanned quickly.
_PUNCTUATION = re.compile(
    # After a word, a sign or a bracket, and before space, a closing quote or bracket, or a script without spaces.
    # An exclamation mark before an operator, after a small figure is a factorial, a colon before a bracket a slice.
    rf"""[.,;:!?~](?:(?<=[^\s.,;:!?~].)[.,;:!?]*+(?<!~)(?!(?<=!)\s?[=+*/^]|(?<=(?<![0-9.,])[0-9]!)|(?<=(?<![0-9.,])[0-9]{{2}}!)|(?<=:)[\])}}])(?=["')\]}}{_QUOTE}]*+(?:\s|\Z)|[{CJK}])"""
    rf"|(?<=[{CJK}][,;:!?~])[,;:!?~]*+(?![=0-9])"
    # Between two spaces.
    r"|(?<=\s[,;])(?=\s|\Z)"
    # In French a space stands before the mark.
    r"|(?<=[ \t][!?])[!?]*+(?m:(?=[ \t]*+$)))"
)
_NAME_DOT = re.compile(rf"[·•‧・](?<=[{CJK}].)[·•‧・]{{0,8}}+(?=[{CJK}])")
"""The dot between the parts of a foreign name in Chinese."""
_CJK_QUOTES = re.compile(rf"""["'](?:(?<=[{CJK}].)|(?=[{CJK}]))""")
_NEEDLESS_SPACE = re.compile(rf" (?:(?![^\W{CJK}])|(?<![^\W{CJK}] )|(?<=[0-9] )(?=[^\W0-9]))")
_CASED = re.compile(
    r"[0-9]\s?([mM](?:[glLWVAJNsmBb]|Hz|Pa|[bB]ps)|[kKGTP]i?[bB](?:ps)?)(?![A-Za-z])|(\\[A-Za-z])|\[(\^?[A-Za-z]-[^\]\s]{1,40})\]"
)
"""Units and regular expressions whose case is part of their meaning: mW and MW, Mb and MB, \\d and \\D, [a-z] and [A-Z]."""


def fold(text: str) -> str:
    """The form in which texts are compared for equality. A text of nothing but punctuation folds to its NFKC form."""
    if may_hold_code(text):
        parts = code_and_prose(text)
        folded = "".join(_fold_code(part) if code else _fold_prose(part) for code, part in parts)
    else:
        folded = _fold_prose(text)
    return folded or nfkc(text).strip()


def may_hold_code(text: str) -> bool:
    """False where `code_and_prose` finds no code; it costs little."""
    return "`" in text or "\n  " in text or "\n\t" in text or "~~~" in text


def fold_turns(folded: list[str]) -> str:
    """One text of the folded turns of a conversation."""
    return "\x1e".join(folded)


def code_and_prose(text: str) -> Iterator[tuple[bool, str]]:
    """The parts of a text in order, each with whether it is code: fenced, indented, or between backticks."""
    if "```" not in text and "~~~" not in text and "\n  " not in text and "\n\t" not in text:
        yield from _inline_code(text)
        return
    fence = ""
    code: list[str] = []
    prose: list[str] = []
    for number, line in enumerate(text.splitlines()):
        mark = _FENCE.match(line)
        if fence:
            code.append(line)
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            continue
        if mark:
            fence = mark[1]
        if mark or (number and is_indented_code(line)):
            if prose:
                yield from _inline_code("\n".join(prose))
                prose = []
            code.append(line)
        else:
            if code:
                yield True, "\n".join(code)
                code = []
            prose.append(line)
    if code:
        yield True, "\n".join(code)
    if prose:
        yield from _inline_code("\n".join(prose))


def is_indented_code(line: str) -> bool:
    """Whether a line, not the first of its text, is indented as code is. Paragraphs in Chinese are indented too."""
    return _INDENTED.match(line) is not None and (
        _CODE_SIGN.search(line) is not None or _CJK.search(line) is None
    )


def _inline_code(text: str) -> Iterator[tuple[bool, str]]:
    if "`" not in text:
        yield False, text
        return
    for place, part in enumerate(_INLINE_CODE.split(text)):
        if part:
            yield place % 2 == 1, part


def _fold_code(text: str) -> str:
    return "\n" + "\n".join(line.rstrip() for line in text.splitlines()).rstrip("\n") + "\n"


def _fold_prose(text: str) -> str:
    units = ["".join(found) for found in _CASED.findall(text)]
    text = _NEEDLESS_SPACE.sub("", " ".join(without_punctuation(text).casefold().split()))
    return f"{text}\x1f{' '.join(units)}" if units else text


def _plain_form(found: re.Match[str]) -> str:
    # An en dash before a figure is a minus or "up to".
    return f"-{found[1]}" if found[1] else _FORMS[found[0]]


def without_punctuation(prose: str) -> str:
    """Prose without the punctuation of its sentences, in NFKC but for raised and circled figures; case is kept."""
    text = prose
    if not text.isascii():
        text = _WIDE_PUNCTUATION.sub(" ", INVISIBLE.sub("", text))
        text = _FORM.sub(_plain_form, text)
        if _DISTINCT.search(text):
            text = "".join(
                part if place % 2 else nfkc(part) for place, part in enumerate(_DISTINCT.split(text))
            )
        else:
            text = nfkc(text)
        text = _NAME_DOT.sub("", _CJK_QUOTES.sub(" ", text))
    return _PUNCTUATION.sub(" ", text).replace(_QUOTE, " ")
