"""Source code as styled lines: keywords bold, comments dim. Colour would mean something else here."""

from __future__ import annotations

from tui.widgets.conversation import StyledSpan

MOST = 20_000
"""Characters of a code block that are highlighted; a longer one is drawn plain."""


def code_lines(code: str, language: str) -> list[list[StyledSpan]]:
    """The lines of `code`; plain where Pygments has no lexer of that name."""
    spans = _highlighted(code, language) if language and len(code) <= MOST else [StyledSpan(code, "block")]
    lines: list[list[StyledSpan]] = [[]]
    for text, kind in spans:
        first, *others = text.split("\n")
        lines[-1].append(StyledSpan(first, kind))
        lines += [[StyledSpan(other, kind)] for other in others]
    return lines


def _highlighted(code: str, language: str) -> list[StyledSpan]:
    from pygments.lexers import get_lexer_by_name
    from pygments.token import Comment, Keyword
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return [StyledSpan(code, "block")]
    spans = []
    for token, text in lexer.get_tokens(code):
        kind = "block strong" if token in Keyword else "block dim" if token in Comment else "block"
        spans.append(StyledSpan(text, kind))
    # A lexer that loses characters must not lose them for the reader.
    whole = "".join(text for text, _kind in spans)
    return spans if whole == code else [StyledSpan(code, "block")]
