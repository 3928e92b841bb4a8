"""Turns of a conversation with highlighted places, drawn line by line; text can grow at the end cheaply."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

from rich.cells import cell_len, get_character_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.strip import Strip

from tui.terminal.text import fit, plain
from tui.widgets.line_view import LineView

LABEL_CELLS = (7, 9)
"""Cells of the names at the left, at least and at most."""
LONGEST = 60_000
"""Characters of one block that are laid out; the rest of a longer one is counted, not drawn."""


class StyledSpan(NamedTuple):
    """Text from data in one style: "" (plain), "dim", "redacted", "success", "trained", "warning", "error", "head", or of a
    difference "removed" or "added"."""

    text: str
    kind: str = ""


class TextBlock(NamedTuple):
    """A turn or a remark: a short label at the left, styled text at the right."""

    label: str
    spans: tuple[StyledSpan, ...]
    kind: str = "dim"
    """Kind of the label."""


_NOT_FIRST = frozenset("，。、；：？！）》」』】”’…,.;:?!)]}")
"""Punctuation that begins no line."""


def wrap(text: str, width: int, start: int = 0) -> list[tuple[int, int]]:
    """CellLines of `text` from `start` on as (begin, end) in characters, none wider than `width` cells.

    Breaks at a space where the line has one, else between characters, so that Chinese fills its lines. A line break
    ends a line. Appending text changes only the last line.
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
        # A Latin word is not split, unless two thirds of the line are not enough for it.
        if (
            space > start
            and stop - space <= max(3, 2 * width // 3)
            and not _breaks(text[stop - 1], text[stop])
        ):
            stop = space + 1
        elif text[stop] in _NOT_FIRST and stop - start > 1 and text[stop - 1] not in _NOT_FIRST:
            stop -= 1
        lines.append((start, stop))
        # A space at which the line breaks is drawn at neither end.
        start = stop + 1 if text[stop] == " " else stop


def _breaks(before: str, after: str) -> bool:
    """Whether a line may end between two characters: next to a space or an East Asian character."""
    return before == " " or after == " " or ord(before) >= 0x2E80 or ord(after) >= 0x2E80


class _BlockLayout:
    """A block laid out for one width: its text, the start of each style, and the bounds of its lines."""

    def __init__(self, block: TextBlock, width: int) -> None:
        self.label = plain(block.label)
        self.label_kind = block.kind
        self.text = ""
        self.bounds: list[int] = []
        self.kinds: list[str] = []
        for span in block.spans:
            self._add(span)
        self.lines = wrap(self.text, width)

    def _add(self, span: StyledSpan) -> None:
        room = LONGEST - len(self.text)
        shown = plain(span.text[: max(0, room)])
        if not self.kinds or self.kinds[-1] != span.kind:
            self.bounds.append(len(self.text))
            self.kinds.append(span.kind)
        self.text += shown
        if len(span.text) > max(0, room) and room >= 0:
            self.text += f" … +{len(span.text) - max(0, room):,}"

    def grow(self, span: StyledSpan, width: int) -> int:
        """Appends text; returns the number of the first line that changed."""
        self._add(span)
        changed = len(self.lines) - 1
        begin = self.lines.pop()[0]
        self.lines += wrap(self.text, width, begin)
        return changed

    def cut(self, line: int) -> list[StyledSpan]:
        """One line as styled spans."""
        begin, end = self.lines[line]
        found: list[StyledSpan] = []
        for place, kind in enumerate(self.kinds):
            low = max(begin, self.bounds[place])
            high = min(end, self.bounds[place + 1] if place + 1 < len(self.bounds) else end)
            if low < high:
                found.append(StyledSpan(self.text[low:high], kind))
        return found


class ConversationView(LineView):
    """Blocks one below the other; scrolls with the keys of a list.

    Text from data is drawn, never read as markup. `append` redraws the changed lines, and follows the end only for a
    reader who is there.
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
        "conversation--removed",
        "conversation--added",
    }
    DEFAULT_CSS = """
    ConversationView > .conversation--dim { text-style: dim; }
    ConversationView > .conversation--redacted { color: $text-warning; text-style: bold; }
    ConversationView > .conversation--success { color: $text-success; }
    ConversationView > .conversation--trained { color: $text-success; text-style: underline; }
    ConversationView > .conversation--removed { color: $text-warning; text-style: underline; }
    ConversationView > .conversation--added { color: $text-success; text-style: underline; }
    ConversationView > .conversation--warning { color: $text-warning; }
    ConversationView > .conversation--error { color: $text-error; }
    ConversationView > .conversation--head { color: $text-accent; text-style: bold; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._blocks: list[TextBlock] = []
        self._layouts: list[_BlockLayout] = []
        self._starts: list[int] = []
        self._label_cells = LABEL_CELLS[0]

    @property
    def plain_text(self) -> str:
        """Labels and texts as drawn, without wrapping."""
        return "\n".join(f"{layout.label} {layout.text}".strip() for layout in self._layouts)

    def set_blocks(self, blocks: Iterable[TextBlock], *, end: bool = False) -> None:
        """Shows other blocks from their beginning, or from their end."""
        self._blocks = list(blocks)
        self._lay_out()
        self.scroll_to(y=self.max_scroll_y if end else 0, animate=False, force=True)

    def add_block(self, block: TextBlock) -> None:
        """Adds a block below the others."""
        follow = self.at_end
        self._blocks.append(block)
        if self._layout_width:
            self._starts.append(self._line_count)
            self._layouts.append(_BlockLayout(block, self._text_width))
            self._grown(self._starts[-1], follow)

    def append(self, text: str, kind: str = "") -> None:
        """Appends text to the last block."""
        if not self._blocks or not text:
            return
        follow = self.at_end
        last = self._blocks[-1]
        spans = last.spans
        if spans and spans[-1].kind == kind:
            spans = (*spans[:-1], StyledSpan(spans[-1].text + text, kind))
        else:
            spans = (*spans, StyledSpan(text, kind))
        self._blocks[-1] = last._replace(spans=spans)
        if self._layouts:
            changed = self._layouts[-1].grow(StyledSpan(text, kind), self._text_width)
            self._grown(self._starts[-1] + changed, follow)

    def show_block(self, index: int) -> None:
        """Scrolls so that a block stands at the top, as far as there is text below it; -1 is the last one."""
        if self._starts:
            self.scroll_to(y=self._starts[index], animate=False, force=True)

    @property
    def blocks(self) -> Sequence[TextBlock]:
        return self._blocks

    @property
    def _line_count(self) -> int:
        return self._starts[-1] + len(self._layouts[-1].lines) if self._layouts else 0

    @property
    def _text_width(self) -> int:
        return max(8, self._layout_width - self._label_cells - 1)

    def _lay_out(self) -> None:
        self._layout_width = self.scrollable_content_region.width
        self._layouts, self._starts = [], []
        if not self._layout_width:
            return
        longest = max((cell_len(plain(block.label)) for block in self._blocks), default=0)
        self._label_cells = max(LABEL_CELLS[0], min(longest, LABEL_CELLS[1]))
        height = 0
        for block in self._blocks:
            layout = _BlockLayout(block, self._text_width)
            self._starts.append(height)
            self._layouts.append(layout)
            height += len(layout.lines)
        self.virtual_size = Size(self._layout_width, height)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        width, number = self.scrollable_content_region.width, self.scroll_offset.y + y
        base = self.get_component_rich_style("conversation--plain")
        place = self._place(number)
        if place < 0:
            return Strip.blank(width, base)
        layout, line = self._layouts[place], number - self._starts[place]
        label = fit(layout.label if line == 0 else "", self._label_cells) + " "
        segments = [Segment(label, base + self._kind(layout.label_kind))]
        segments += [Segment(span.text, base + self._kind(span.kind)) for span in layout.cut(line)]
        cells = sum(cell_len(segment.text) for segment in segments)
        return Strip(segments, cells).adjust_cell_length(width, base)

    def _kind(self, kind: str) -> Style:
        return self.get_component_rich_style(f"conversation--{kind or 'plain'}", partial=True)

    def _place(self, number: int) -> int:
        """Index of the block of a line; -1 below the last."""
        if number >= self._line_count:
            return -1
        low, high = 0, len(self._starts)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._starts[middle] <= number else (low, middle)
        return low
