"""Turns of a conversation with highlighted places, drawn line by line; text can grow at the end cheaply."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

from rich.cells import cell_len, get_character_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.app.text import fit, plain

LABEL_CELLS = (7, 9)
"""Cells of the names at the left, at least and at most."""
LONGEST = 60_000
"""Characters of one block that are laid out; of longer ones the rest is counted, not drawn."""


class StyledSpan(NamedTuple):
    """Text from data in one kind: "" (as is), "dim", "redacted", "success", "trained", "warning", "error" or "head"."""

    text: str
    kind: str = ""


class TextBlock(NamedTuple):
    """A turn or a remark: a short label at the left, pieces at the right."""

    label: str
    pieces: tuple[StyledSpan, ...]
    kind: str = "dim"
    """Kind of the label."""


_NOT_FIRST = frozenset("，。、；：？！）》」』】”’…,.;:?!)]}")
"""Punctuation that begins no line."""


def wrap(text: str, width: int, start: int = 0) -> list[tuple[int, int]]:
    """CellLines of `text` from `start` on as (begin, end) in characters, none wider than `width` cells.

    Breaks at a space where the line has one and else between characters, so that Chinese fills its lines.
    A line break ends a line. Only the last line changes when text is put behind.
    """
    lines: list[tuple[int, int]] = []
    while True:
        stop = text.find("\n", start)
        end = len(text) if stop < 0 else stop
        _wrap_paragraph(text, start, end, max(2, width), lines)
        if stop < 0:
            return lines
        start = stop + 1


def _wrap_paragraph(text: str, start: int, end: int, width: int, lines: list[tuple[int, int]]) -> None:
    narrow = text.isascii()
    while True:
        if narrow:
            stop = min(end, start + width)
        else:
            used, stop = 0, start
            while stop < end:
                used += get_character_cell_size(text[stop])
                if used > width:
                    break
                stop += 1
        if stop >= end:
            lines.append((start, end))
            return
        space = text.rfind(" ", start, stop + 1)
        # A Latin word is not torn, but a word wider than a third of the line may be.
        if space > start and stop - space < max(3, width // 3) and not _breaks(text[stop - 1], text[stop]):
            stop = space + 1
        elif text[stop] in _NOT_FIRST and stop - start > 1 and text[stop - 1] not in _NOT_FIRST:
            stop -= 1
        lines.append((start, stop))
        # A space at which the line breaks is seen at neither end.
        start = stop + 1 if text[stop] == " " else stop


def _breaks(before: str, after: str) -> bool:
    """Whether a line may end between two characters: beside a space or an East Asian one."""
    return before == " " or after == " " or ord(before) >= 0x2E80 or ord(after) >= 0x2E80


class _BlockLayout:
    """A block laid out for one width: its whole text, where each kind begins, and the bounds of its lines."""

    def __init__(self, block: TextBlock, width: int) -> None:
        self.label = plain(block.label)
        self.label_kind = block.kind
        self.text = ""
        self.bounds: list[int] = []
        self.kinds: list[str] = []
        for piece in block.pieces:
            self._add(piece)
        self.lines = wrap(self.text, width)

    def _add(self, piece: StyledSpan) -> None:
        room = LONGEST - len(self.text)
        shown = plain(piece.text[: max(0, room)])
        if not self.kinds or self.kinds[-1] != piece.kind:
            self.bounds.append(len(self.text))
            self.kinds.append(piece.kind)
        self.text += shown
        if len(piece.text) > max(0, room) and room >= 0:
            self.text += f" … +{len(piece.text) - max(0, room):,}"

    def grow(self, piece: StyledSpan, width: int) -> int:
        """Puts text behind; returns the number of the first line that changed."""
        self._add(piece)
        changed = len(self.lines) - 1
        begin = self.lines.pop()[0]
        self.lines += wrap(self.text, width, begin)
        return changed

    def cut(self, line: int) -> list[StyledSpan]:
        """One line as pieces."""
        begin, end = self.lines[line]
        found: list[StyledSpan] = []
        for place, kind in enumerate(self.kinds):
            low = max(begin, self.bounds[place])
            high = min(end, self.bounds[place + 1] if place + 1 < len(self.bounds) else end)
            if low < high:
                found.append(StyledSpan(self.text[low:high], kind))
        return found


class ConversationView(ScrollView, can_focus=True):
    """Blocks one below the other; scrolls with the keys of a list.

    Text from data is only ever drawn, never read as markup. `append` draws anew what changed and stays
    at the end only for a reader who stands there.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "conversation--plain",
        "conversation--dim",
        "conversation--redacted",
        "conversation--success",
        "conversation--warning",
        "conversation--error",
        "conversation--head",
        "conversation--trained",
    }
    DEFAULT_CSS = """
    ConversationView { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    ConversationView > .conversation--dim { color: $text-muted; }
    ConversationView > .conversation--redacted { color: $text-warning; text-style: bold; }
    ConversationView > .conversation--success { color: $text-success; }
    ConversationView > .conversation--trained { color: $text-success; text-style: underline; }
    ConversationView > .conversation--warning { color: $text-warning; }
    ConversationView > .conversation--error { color: $text-error; }
    ConversationView > .conversation--head { color: $text-accent; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "scroll_lines(1)", show=False),
        Binding("up,k", "scroll_lines(-1)", show=False),
        Binding("pagedown", "scroll_lines(10)", show=False),
        Binding("pageup", "scroll_lines(-10)", show=False),
        Binding("home,g", "scroll_top", show=False),
        Binding("end,G", "scroll_bottom", show=False),
    ]

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._blocks: list[TextBlock] = []
        self._laid: list[_BlockLayout] = []
        self._starts: list[int] = []
        self._laid_width = 0
        self._label_cells = LABEL_CELLS[0]

    @property
    def at_end(self) -> bool:
        """Whether the last line is on the screen."""
        return self.scroll_offset.y >= self.max_scroll_y

    @property
    def plain_text(self) -> str:
        """Everything as drawn, without its wrapping: labels and texts (for copying and for tests)."""
        return "\n".join(f"{laid.label} {laid.text}".strip() for laid in self._laid)

    def set_blocks(self, blocks: Iterable[TextBlock], *, end: bool = False) -> None:
        """Shows other blocks from their beginning, or from their end."""
        self._blocks = list(blocks)
        self._lay_out()
        self.scroll_to(y=self.max_scroll_y if end else 0, animate=False, force=True)

    def add_block(self, block: TextBlock) -> None:
        """Puts a block below the others."""
        follow = self.at_end
        self._blocks.append(block)
        if self._laid_width:
            self._starts.append(self._height)
            self._laid.append(_BlockLayout(block, self._text_width))
            self._grown(self._starts[-1], follow)

    def append(self, text: str, kind: str = "") -> None:
        """Puts text behind the last block."""
        if not self._blocks or not text:
            return
        follow = self.at_end
        last = self._blocks[-1]
        pieces = last.pieces
        if pieces and pieces[-1].kind == kind:
            pieces = (*pieces[:-1], StyledSpan(pieces[-1].text + text, kind))
        else:
            pieces = (*pieces, StyledSpan(text, kind))
        self._blocks[-1] = last._replace(pieces=pieces)
        if self._laid:
            changed = self._laid[-1].grow(StyledSpan(text, kind), self._text_width)
            self._grown(self._starts[-1] + changed, follow)

    def show_block(self, index: int) -> None:
        """Scrolls so that a block stands at the top, as far as there is text below it; -1 is the last one."""
        if self._starts:
            self.scroll_to(y=self._starts[index], animate=False, force=True)

    @property
    def blocks(self) -> Sequence[TextBlock]:
        return self._blocks

    @property
    def _height(self) -> int:
        return self._starts[-1] + len(self._laid[-1].lines) if self._laid else 0

    @property
    def _text_width(self) -> int:
        return max(8, self._laid_width - self._label_cells - 1)

    def _grown(self, line: int, follow: bool) -> None:
        if self._height != self.virtual_size.height:
            self.virtual_size = Size(self._laid_width, self._height)
        self.refresh_lines(line, self._height - line)
        if follow:
            self.scroll_to(y=self.max_scroll_y, animate=False, force=True)

    def _lay_out(self) -> None:
        self._laid_width = self.scrollable_content_region.width
        self._laid, self._starts = [], []
        if not self._laid_width:
            return
        longest = max((cell_len(plain(block.label)) for block in self._blocks), default=0)
        self._label_cells = max(LABEL_CELLS[0], min(longest, LABEL_CELLS[1]))
        height = 0
        for block in self._blocks:
            laid = _BlockLayout(block, self._text_width)
            self._starts.append(height)
            self._laid.append(laid)
            height += len(laid.lines)
        self.virtual_size = Size(self._laid_width, height)
        self.refresh()

    def on_resize(self) -> None:
        if self.scrollable_content_region.width != self._laid_width:
            share = self.scroll_offset.y / max(1, self._height)
            at_end = self.at_end and self._height > self.size.height
            self._lay_out()
            self.scroll_to(
                y=self.max_scroll_y if at_end else round(share * self._height), animate=False, force=True
            )

    def action_scroll_lines(self, by: int) -> None:
        self.scroll_to(y=self.scroll_offset.y + by, animate=False, force=True)

    def action_scroll_top(self) -> None:
        self.scroll_to(y=0, animate=False, force=True)

    def action_scroll_bottom(self) -> None:
        self.scroll_to(y=self.max_scroll_y, animate=False, force=True)

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        width, number = self.scrollable_content_region.width, self.scroll_offset.y + y
        base = self.get_component_rich_style("conversation--plain")
        place = self._place(number)
        if place < 0:
            return Strip.blank(width, base)
        laid, line = self._laid[place], number - self._starts[place]
        label = fit(laid.label if line == 0 else "", self._label_cells) + " "
        segments = [Segment(label, base + self._kind(laid.label_kind))]
        segments += [Segment(piece.text, base + self._kind(piece.kind)) for piece in laid.cut(line)]
        cells = sum(cell_len(segment.text) for segment in segments)
        return Strip(segments, cells).adjust_cell_length(width, base)

    def _kind(self, kind: str) -> Style:
        return self.get_component_rich_style(f"conversation--{kind or 'plain'}", partial=True)

    def _place(self, number: int) -> int:
        """Which block holds a line; -1 below the last."""
        if number >= self._height:
            return -1
        low, high = 0, len(self._starts)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._starts[middle] <= number else (low, middle)
        return low
