"""Markdown as styled lines of a given width: pure, incremental for an answer that grows, and never markup of ours.

markdown-it-py parses; HTML stays the text that it is, links are never followed. Each kind of a span names the styles
that it carries, separated by spaces ("strong code").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.cells import cell_len

from tui.terminal.text import plain
from tui.widgets.conversation import StyledSpan, wrap
from tui.widgets.markdown_code import code_lines
from tui.widgets.markdown_table import table_lines

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

StyledLine = tuple[StyledSpan, ...]
LONGEST = 60_000
"""Characters of one text that are laid out; the rest of a longer one is counted, not drawn."""
NARROWEST = 8
"""Cells that a nested block has at least."""
_UNDERLINE = frozenset("=-")


@dataclass(frozen=True)
class MarkdownSigns:
    """The characters that Markdown draws: bullet, bar beside code and quotes, rule."""

    bullet: str = "•"
    bar: str = "│"
    rule: str = "─"


ASCII_SIGNS = MarkdownSigns("*", "|", "-")


@cache
def _parser() -> MarkdownIt:
    # Imported with the first answer: 80 ms that the start of the app need not wait for. A definition of a reference
    # could change blocks that are drawn already; it stays text.
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("reference")


def markdown_lines(text: str, width: int, signs: MarkdownSigns = MarkdownSigns()) -> list[StyledLine]:
    """The lines of a whole text."""
    document = MarkdownDocument(width, signs)
    document.append(text)
    document.finish()
    return document.lines


class MarkdownDocument:
    """A text that grows: only its last block is parsed again."""

    def __init__(self, width: int, signs: MarkdownSigns) -> None:
        self.lines: list[StyledLine] = []
        self._width = width
        self._signs = signs
        self._tail = ""
        """The source from the last block on."""
        self._settled = 0
        """Lines of the blocks before the tail, which no later text changes."""
        self._characters = 0
        self._left_out = 0
        self._held = ""
        """A carriage return whose line feed may follow."""

    def append(self, text: str) -> int:
        """Adds text; returns the number of the first line that changed."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        text = text.removesuffix("\r")
        room = LONGEST - self._characters
        self._characters += len(text)
        if len(text) > room:
            self._left_out += len(text) - max(0, room)
            text = text[: max(0, room)]
        self._tail += text
        return self._draw(growing=True)

    def finish(self) -> int:
        """Says that no text follows; returns the number of the first line that changed."""
        return self._draw(growing=False)

    def _draw(self, *, growing: bool) -> int:
        changed = self._settled
        del self.lines[changed:]
        source = _normalised(self._tail)
        rendered = _BlockRenderer(self._width, self._signs)
        blocks = _top_level(_parser().parse(_without_underline(source) if growing else source))
        last = _last_sure_block(blocks, source) if growing else 0
        for place, block in enumerate(blocks):
            if self.lines:
                self.lines.append(())
            if place == last > 0:
                self._settled = len(self.lines) - 1
                self._tail = "\n".join(source.split("\n")[_first_line(block) :])
            self.lines += rendered.lines(block)
        if self._left_out:
            self.lines.append((StyledSpan(f"… +{self._left_out:,}", "dim"),))
        return changed


def _first_line(block: Sequence[Token]) -> int:
    return (block[0].map or [0])[0]


def _last_sure_block(blocks: Sequence[Sequence[Token]], source: str) -> int:
    """The last block whose first line is whole: "*" may begin a list, or go on as a word of the paragraph before."""
    whole = source.count("\n")
    return max((place for place, block in enumerate(blocks) if _first_line(block) < whole), default=0)


def _normalised(text: str) -> str:
    """Line ends as Markdown counts them; every other control character as a visible mark."""
    return plain(text.replace("\r\n", "\n").replace("\r", "\n"))


def _without_underline(source: str) -> str:
    """Without a last line of dashes: it would make a heading of the paragraph above until its list item is there."""
    before, newline, last = source.rpartition("\n")
    return before if newline and last and set(last.strip()) <= _UNDERLINE else source


def _top_level(tokens: Sequence[Token]) -> list[list[Token]]:
    """The tokens of each block of the outermost level."""
    blocks: list[list[Token]] = []
    for token in tokens:
        if token.level == 0 and token.nesting >= 0:
            blocks.append([])
        blocks[-1].append(token)
    return blocks


class _BlockRenderer:
    """Lays out the tokens of one block, with the marks of the lists and quotes around it before each line."""

    def __init__(self, width: int, signs: MarkdownSigns) -> None:
        self._width = width
        self._signs = signs

    def lines(self, tokens: Sequence[Token]) -> list[StyledLine]:
        """All lines of a block."""
        lines: list[StyledLine] = []
        before: list[str] = []
        """Marks of the containers around, outermost first."""
        numbers: list[int] = []
        """Number of the next item of each list around; -1 for bullets."""
        pending = ""
        """The bullet or number that stands before the next line alone."""
        place = 0
        while place < len(tokens):
            token = tokens[place]
            place += 1
            match token.type:
                case "bullet_list_open":
                    numbers.append(-1)
                case "ordered_list_open":
                    numbers.append(int(token.attrGet("start") or 1) if token.attrs else 1)
                case "bullet_list_close" | "ordered_list_close":
                    numbers.pop()
                case "list_item_open":
                    mark = f"{numbers[-1]}. " if numbers[-1] >= 0 else f"{self._signs.bullet} "
                    numbers[-1] += numbers[-1] >= 0
                    pending = "".join(before) + mark
                    before.append(" " * len(mark))
                case "blockquote_open":
                    before.append(f"{self._signs.bar} ")
                case "list_item_close":
                    if pending:
                        lines.append((StyledSpan(pending.rstrip(), "dim"),))
                    pending = ""
                    before.pop()
                case "blockquote_close":
                    before.pop()
                case "paragraph_close" | "heading_close" if (
                    not token.hidden and before and place < len(tokens)
                ):
                    if tokens[place].nesting >= 0:
                        lines.append((StyledSpan("".join(before), "dim"),))
                case "table_open":
                    end = next(i for i in range(place, len(tokens)) if tokens[i].type == "table_close")
                    body = table_lines(
                        _cells(tokens[place:end]), self._room(before), self._signs.bar, self._signs.rule
                    )
                    lines += self._marked(body, before, pending)
                    pending, place = "", end + 1
                case _:
                    body = list(
                        self._leaf(token, tokens[place - 2] if place > 1 else token, self._room(before))
                    )
                    if body:
                        lines += self._marked(body, before, pending)
                        pending = ""
        return lines

    def _room(self, before: Sequence[str]) -> int:
        return max(NARROWEST, self._width - sum(map(len, before)))

    def _marked(
        self, body: Sequence[StyledLine], before: Sequence[str], pending: str
    ) -> Iterator[StyledLine]:
        plain_mark = "".join(before)
        for number, line in enumerate(body):
            mark = pending if pending and number == 0 else plain_mark
            yield (StyledSpan(mark, "dim"), *line) if mark else line

    def _leaf(self, token: Token, opening: Token, room: int) -> Iterator[StyledLine]:
        match token.type:
            case "inline":
                spans = inline_spans(token)
                if opening.type == "heading_open":
                    mark = "#" * int(opening.tag[1:]) + " "
                    spans = [
                        StyledSpan(mark, "dim"),
                        *(StyledSpan(text, _with(kind, "strong")) for text, kind in spans),
                    ]
                yield from wrapped(spans, room)
            case "fence" | "code_block":
                bar = StyledSpan(f"{self._signs.bar} ", "dim")
                language = token.info.split()[0] if token.info.split() else ""
                if language:
                    yield (bar, StyledSpan(language, "dim"))
                for spans in code_lines(token.content.removesuffix("\n"), language):
                    for line in wrapped(list(spans), max(NARROWEST, room - 2), code=True):
                        yield (bar, *line)
            case "hr":
                yield (StyledSpan(self._signs.rule * room, "dim"),)


def inline_spans(token: Token) -> list[StyledSpan]:
    """The text of an inline token in its styles. Code keeps its backticks, a link its address."""
    spans: list[StyledSpan] = []
    styles: list[str] = []
    links: list[tuple[str, int]] = []
    for child in token.children or ():
        match child.type:
            case "strong_open" | "em_open" | "s_open":
                styles.append(child.type.removesuffix("_open"))
            case "strong_close" | "em_close" | "s_close":
                styles.remove(child.type.removesuffix("_close"))
            case "link_open":
                links.append((str(child.attrGet("href") or ""), len(spans)))
            case "link_close":
                address, start = links.pop()
                shown = "".join(text for text, _kind in spans[start:])
                if address and plain(address) != shown:
                    spans.append(StyledSpan(f" ({plain(address)})", "dim"))
            case "image":
                spans.append(StyledSpan(f"{child.content} ({plain(str(child.attrGet('src') or ''))})", "dim"))
            case "code_inline":
                spans.append(StyledSpan(f"`{child.content}`", " ".join([*styles, "code"])))
            case "softbreak" | "hardbreak":
                # Models write poems and addresses with single line ends.
                spans.append(StyledSpan("\n"))
            case _:
                spans.append(StyledSpan(plain(child.content), " ".join(styles)))
    return spans


def _with(kind: str, style: str) -> str:
    return kind if style in kind.split() else f"{kind} {style}".strip()


def wrapped(spans: Sequence[StyledSpan], width: int, *, code: bool = False) -> list[StyledLine]:
    """Styled text in lines of at most `width` cells; code breaks at the edge, its spaces kept."""
    text = "".join(span.text for span in spans)
    bounds = _hard_wrap(text, width) if code else wrap(text, width)
    lines: list[StyledLine] = []
    place, offset = 0, 0
    for begin, end in bounds:
        line: list[StyledSpan] = []
        while place < len(spans) and offset + len(spans[place].text) <= begin:
            offset += len(spans[place].text)
            place += 1
        at, start = place, offset
        while at < len(spans) and start < end:
            piece, kind = spans[at]
            low, high = max(begin - start, 0), min(end - start, len(piece))
            if low < high:
                line.append(StyledSpan(piece[low:high], kind))
            start += len(piece)
            at += 1
        lines.append(tuple(line))
    return lines


def _hard_wrap(text: str, width: int) -> list[tuple[int, int]]:
    bounds: list[tuple[int, int]] = []
    start = 0
    for line in text.split("\n"):
        end = start + len(line)
        begin, used = start, 0
        if line.isascii():
            while end - begin > width:
                bounds.append((begin, begin + width))
                begin += width
        else:
            for at in range(start, end):
                size = cell_len(text[at])
                if used + size > width:
                    bounds.append((begin, at))
                    begin, used = at, 0
                used += size
        bounds.append((begin, end))
        start = end + 1
    return bounds


def _cells(tokens: Sequence[Token]) -> list[list[tuple[list[StyledSpan], str]]]:
    """The rows of a table: (styled text, alignment) of each cell."""
    rows: list[list[tuple[list[StyledSpan], str]]] = []
    for before, token in pairwise(tokens):
        if before.type == "tr_open":
            rows.append([])
        if token.type == "inline" and before.type in ("th_open", "td_open"):
            align = str(before.attrGet("style") or "").removeprefix("text-align:")
            rows[-1].append((inline_spans(token), align))
    return rows
