"""Marks of layout in prose: bold type, bullets, headings, links, dashes. They say nothing; the same signs in a formula do.

A mark is layout where words stand beside it, never beside a figure, a single letter or an operator. Code is not given to
these functions.
"""

from __future__ import annotations

import html
import re

from engine.corpus.filters.folding import CJK

_WORD = rf"(?:[^\W\d_]{{2}}|[{CJK}]|[AIa] [^\W_]{{2}}|[aI]['’])"
"""The start of a word."""
_SIGNS = "*#-–—─[<&•●▪◦·"
"""A text of one line without these has no marks of layout."""
_BOLD = re.compile(
    rf"(?<![A-Za-z0-9)\]*])(?P<mark>\*{{1,3}})(?=[\"“'‘(（《]?{_WORD})(?P<inside>[^*\n=+/<>\\^|]{{1,200}}?)(?P<last>[^\W_]|[.,!?:;)）》\"”'’，。！？：；])(?P=mark)(?![A-Za-z0-9(\[*])"
)
_HEADING = re.compile(
    rf"^[ ]{{0,3}}#{{1,6}}[ \t]+(?=[\"“*]{{0,3}}{_WORD})([^\n=;{{}}\\$<>]*?)[ \t]*#*$", re.MULTILINE
)
_HEADING_NUMBERED = re.compile(
    rf"^[ ]{{0,3}}#{{1,6}}[ \t]+(?=\d{{1,4}}(?:[.、)）] ?\S| ?[{CJK}]| [^\W\d_]{{2}}|, ))", re.MULTILINE
)
_BULLET = re.compile(rf"^[ \t]*[-*•●▪◦·–—][ \t]+(?=[\"“'‘(（\[《【*]{{0,4}}{_WORD})", re.MULTILINE)
_LIST = re.compile(r"^[ \t]*(?P<mark>[-*•●▪◦·])[ \t]+(?=\S)", re.MULTILINE)
_DIFF = re.compile(r"^(?:\+|@@|---|\+\+\+|[<>]) ", re.MULTILINE)
"""Lines of a comparison of two files, whose signs say what was added and left out."""
_ITEM = re.compile(
    rf"^[ \t]*(?:#{{1,6}}[ \t]+)?(?P<number>\d{{1,2}})(?:[.)）](?:[ \t]+(?=\S)|(?=[*{CJK}]))|、[ \t]*(?=\S))",
    re.MULTILINE,
)
_ITEM_ZH = re.compile(
    rf"^[ \t]*(?:(?P<number>[一二三四五六七八九十])、|[（(](?P<inner>[1-9一二三四五六七八九十])[)）])[ \t]*(?=[\"“'‘《【*]{{0,4}}{_WORD})",
    re.MULTILINE,
)
_NUMERALS = {numeral: value for value, numeral in enumerate("一二三四五六七八九十", 1)}
_RULE = re.compile(r"^[ \t]*(?:-{3,}|\*{3,}|_{3,}|={3,}|(?:[-*] ){2,}[-*])[ \t]*$", re.MULTILINE)
_TABLE_RULE = re.compile(
    r"^[ \t]*+\|?[ \t]*+:?-{2,}+:?[ \t]*+(?:\|[ \t]*+:?-{2,}+:?[ \t]*+){1,30}\|?[ \t]*+$\n?", re.MULTILINE
)
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]\n]{1,200})\]\((?P<url>https?://[^\s()]{1,500})\)")
_URL_BRACKETS = re.compile(r"[<(（](https?://[^\s()<>（）]{1,500})[>)）]")
_DASH = re.compile(
    rf"(?:(?<=[^\W\d_][^\W\d_])|(?<=[{CJK}])|(?<=[a-z\"”’')）,.!?;:]))(?<![A-Z][\"”’')）,.!?;:])[ ]-{{1,2}}[ ](?=[\"“‘'(（]?{_WORD})"
)
_CAPITALS = re.compile(r"\b[A-Z]\w*$")
_TIGHT_DASH = re.compile(r"(?<=[a-z]{2})--(?=[a-z]{2})")
_CJK_DASH = re.compile(rf"(?<=[{CJK}])[ ]?(?:-{{2,}}|—+|–+|─+)[ ]?(?=[{CJK}])")
_CURLY = re.compile("[“”„]")
_QUOTES = dict.fromkeys(map(ord, "“”„"), '"')
_NEAR = 30
"""Characters around a dash in which another sign makes a formula."""
_FORMULA = re.compile(r"[=+^{}$\\|]|\d\s*[-*/<>]|[-*/<>]\s*\d")
_HTML = re.compile(
    r"&(?:nbsp|quot|apos|amp|lt|gt|hellip|mdash|ndash|rsquo|lsquo|rdquo|ldquo|middot|bull|copy|deg|eacute|#39|#34|#160|#x27);"
)
_TAGS = re.compile(r"<(?P<tag>b|i|em|strong|u|p|h[1-6]|li)>(?P<inside>[^<>]{1,2000})</(?P=tag)>")
_BREAK = re.compile(r"<br ?/?>")
_ABOUT_HTML = re.compile(r"html|xml|entit|escap|\btags?\b|markup|markdown|转义|实体|标签|标记", re.IGNORECASE)


def without_layout(prose: str) -> str:
    """Prose without marks of layout, each replaced by space or nothing, and with plain quotation marks."""
    prose = prose.translate(_QUOTES) if not prose.isascii() and _CURLY.search(prose) else prose
    if "\n" not in prose and not any(sign in prose for sign in _SIGNS):
        return prose
    text = prose
    if ("&" in text or "<" in text) and not _ABOUT_HTML.search(text):
        text = _HTML.sub(lambda found: html.unescape(found[0]), text)
        text = _TAGS.sub(r"\g<inside>", _BREAK.sub("\n", text))
    if "http" in text:
        text = _URL_BRACKETS.sub(r" \1 ", _LINK.sub(r"\g<text> \g<url> ", text))
    if "*" in text and not _about_marks(text):
        text = _BOLD.sub(r"\g<inside>\g<last>", text)
    if "#" in text and not _about_marks(text):
        text = _HEADING_NUMBERED.sub("", _HEADING.sub(r"\1", text))
    if "\n" in text:
        text = _without_numbers(text)
    if not _DIFF.search(text):
        text = _without_bullets(text)
    if "--" in text or "**" in text or "==" in text or "__" in text or "- -" in text:
        text = _TABLE_RULE.sub("", text) if "|" in text else text
        text = _RULE.sub("", text)
    return _without_dashes(text)


def _about_marks(text: str) -> bool:
    return _ABOUT_HTML.search(text) is not None


def _without_numbers(text: str) -> str:
    """Without the numbers of a list, where they count its items from the first on."""
    for pattern in (_ITEM, _ITEM_ZH):
        found = list(pattern.finditer(text))
        if len(found) < 2:
            continue
        numbers = [_value(item) for item in found]
        if all(now in (1, before + 1) for before, now in zip([0, *numbers], numbers, strict=False)):
            text = pattern.sub("", text)
    return text


def _without_bullets(text: str) -> str:
    """Without the marks before words. In a list with such an item, marks stand before figures too; elsewhere a dash before a
    figure is its sign."""
    marks = {found[0].strip() for found in _BULLET.finditer(text)}
    if not marks:
        return text
    lines = text.split("\n")
    items = [found["mark"] if (found := _LIST.match(line)) else "" for line in lines]
    around = zip(["", *items], items, [*items[1:], ""], strict=False)
    listed = [mark in marks and mark in (before, after) for before, mark, after in around]
    return _BULLET.sub(
        "",
        "\n".join(
            _LIST.sub("", line) if of_list else line for line, of_list in zip(lines, listed, strict=True)
        ),
    )


def _value(item: re.Match[str]) -> int:
    number = item["number"] or item["inner"]
    return _NUMERALS.get(number) or int(number)


def _without_dashes(text: str) -> str:
    if "-" not in text and "—" not in text and "–" not in text and "─" not in text:
        return text

    def plain(found: re.Match[str]) -> str:
        start, end = found.span()
        # Between names a dash is a range, or the way from one to the other.
        range_ = _CAPITALS.search(text[max(0, start - _NEAR) : start]) and text[end : end + 1].isupper()
        formula = _FORMULA.search(text[max(0, start - _NEAR) : end + _NEAR])
        return found[0] if range_ or formula else " "

    return _CJK_DASH.sub(" ", _TIGHT_DASH.sub(" ", _DASH.sub(plain, text)))
