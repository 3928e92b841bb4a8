"""A list of any length that draws only the lines on the screen; its cursor belongs to a row, not to a position."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.terminal.text import fit, plain

PAGE = 200
"""Rows requested together."""
CACHED_ROWS = 4000
"""Rows kept; older ones are requested again."""
LOOK_AHEAD = 3
"""Rows that stay visible above and below the cursor, as `scrolloff` of vim."""
GLYPH_COLUMN = -1
"""Width of a column for one glyph: the ASCII glyph `ok` takes two cells."""


class ListCell(NamedTuple):
    """Text of one column; `kind` is "", "dim", "heading", "accent", "success", "warning" or "error" and picks the colour."""

    text: str
    kind: str = ""


class ListRow(NamedTuple):
    """The cells of a line. The cursor keeps the `id`."""

    id: str
    cells: tuple[ListCell, ...]


class VirtualList(ScrollView, can_focus=True):
    """Rows by id in a fixed order; their cells come page by page through `RowsRequested` and `set_rows`.

    The widget knows all ids and few rows, so 100,000 rows cost one list. Cells are fitted to `widths`:
    numbers of terminal cells, where 0 shares the remaining width and GLYPH_COLUMN is as wide as a glyph.
    """

    SCROLL_PART: ClassVar[float] = 0.0
    """The part of its height by which the list scrolls when the cursor comes near an edge; 0 for one row. A list beside
    other panels cannot be scrolled by the terminal: every row is sent again."""
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--cursor",
        "table--dim",
        "table--heading",
        "table--accent",
        "table--success",
        "table--warning",
        "table--error",
        "table--plain",
    }
    DEFAULT_CSS = """
    VirtualList { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    VirtualList > .table--cursor { background: $block-cursor-blurred-background; color: $block-cursor-blurred-foreground; }
    VirtualList:focus > .table--cursor {
        background: $block-cursor-background; color: $block-cursor-foreground; text-style: bold;
    }
    VirtualList > .table--dim { text-style: dim; }
    VirtualList > .table--heading { text-style: bold; color: $text-accent; }
    VirtualList > .table--accent { color: $text-accent; }
    VirtualList > .table--success { color: $text-success; }
    VirtualList > .table--warning { color: $text-warning; }
    VirtualList > .table--error { color: $text-error; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", show=False),
        Binding("up,k", "move(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("home,g", "end(0)", show=False),
        Binding("end,G", "end(-1)", show=False),
    ]

    class Highlighted(Message):
        """The cursor is on another row, or on none (`row_id` is "")."""

        def __init__(self, table: VirtualList, row_id: str, index: int) -> None:
            super().__init__()
            self.table = table
            self.row_id = row_id
            self.index = index

        @property
        def control(self) -> VirtualList:
            return self.table

    class RowsRequested(Message):
        """The rows with these ids are about to be drawn; answer with `set_rows`."""

        def __init__(self, table: VirtualList, ids: Sequence[str]) -> None:
            super().__init__()
            self.table = table
            self.ids = ids

        @property
        def control(self) -> VirtualList:
            return self.table

    def __init__(self, widths: Sequence[int], *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._widths = tuple(widths)
        self._ids: Sequence[str] = ()
        self._rows: OrderedDict[str, ListRow] = OrderedDict()
        self._outdated: set[str] = set()
        """Rows that are drawn as they were until they are read again."""
        self._requested: set[int] = set()
        self._cursor = 0
        self._anchor: int | None = None
        self.headings: frozenset[str] = frozenset()
        """Ids of rows over which the cursor steps."""

    # Rows

    @property
    def ids(self) -> Sequence[str]:
        """All ids, in order."""
        return self._ids

    @property
    def index(self) -> int:
        """Position of the cursor, 0 when the list is empty."""
        return self._cursor

    @property
    def cursor_id(self) -> str:
        """Id under the cursor, "" when the list is empty."""
        return self._ids[self._cursor] if self._ids else ""

    @property
    def selected(self) -> Sequence[str]:
        """Ids of the selected range, in order; empty without a selection."""
        if self._anchor is None:
            return ()
        low, high = sorted((self._anchor, self._cursor))
        return self._ids[low : high + 1]

    def set_selecting(self, on: bool) -> None:
        """Starts a range at the cursor, or ends the selection."""
        self._anchor = self._cursor if on and self._ids else None
        self.refresh()

    def set_ids(self, ids: Sequence[str]) -> None:
        """Replaces the ids. The cursor stays on its row and the row on its line of the screen; where the row is gone, the cursor
        keeps its position."""
        before, line = self.cursor_id, self._cursor - self.scroll_offset.y
        if ids == self._ids:
            return
        self._ids = ids
        self._anchor = None
        self._requested.clear()
        if before and before in ids:
            self._cursor = ids.index(before)
        self._cursor = self._off_heading(max(0, min(self._cursor, len(ids) - 1)), 1)
        self.virtual_size = Size(self.scrollable_content_region.width, len(ids))
        self.scroll_to(y=max(0, self._cursor - max(0, line)), animate=False, force=True)
        self._keep_visible()
        self.refresh()
        if self.cursor_id != before:
            self.post_message(self.Highlighted(self, self.cursor_id, self._cursor))

    def set_rows(self, rows: Iterable[ListRow]) -> None:
        """Sets the cells of rows; those on the screen are redrawn where they changed."""
        first = self.scroll_offset.y
        shown = {row_id: line for line, row_id in enumerate(self._ids[first : first + self.size.height])}
        for row in rows:
            changed = self._rows.get(row.id) != row
            self._rows[row.id] = row
            self._rows.move_to_end(row.id)
            self._outdated.discard(row.id)
            if changed and row.id in shown:
                self.refresh_line(first + shown[row.id])
        while len(self._rows) > CACHED_ROWS:
            self._rows.popitem(last=False)
            self._requested.clear()

    def row(self, row_id: str) -> ListRow | None:
        """The cells of a row, where they are known."""
        return self._rows.get(row_id)

    def request_rows_again(self) -> None:
        """Requests each row again before it is drawn next; until then it is drawn as it was."""
        self._outdated.update(self._rows)
        self._requested.clear()
        self.refresh()

    # The cursor

    def move_to(self, index: int, *, ahead: int = LOOK_AHEAD) -> None:
        """Puts the cursor on a position, clamped to the list, and keeps `ahead` rows visible around it."""
        if not self._ids:
            return
        index = max(0, min(index, len(self._ids) - 1))
        index = self._off_heading(index, 1 if index >= self._cursor else -1)
        if index == self._cursor:
            return
        before, self._cursor = self._cursor, index
        if self._anchor is not None:
            self.refresh()
        self.refresh_line(before)
        self.refresh_line(index)
        self._keep_visible(ahead)
        self.post_message(self.Highlighted(self, self.cursor_id, index))

    def _off_heading(self, index: int, step: int) -> int:
        """`index`, or the next row in this direction that is no heading, or the next one in the other."""
        for direction in (step, -step):
            at = index
            while 0 <= at < len(self._ids) and self._ids[at] in self.headings:
                at += direction
            if 0 <= at < len(self._ids):
                return at
        return index

    def move_to_id(self, row_id: str) -> bool:
        """Puts the cursor on a row; False when the list does not have it."""
        if row_id not in self._ids:
            return False
        self.move_to(self._ids.index(row_id))
        return True

    def action_move(self, by: int) -> None:
        self.move_to(self._cursor + by)

    def action_page(self, by: int) -> None:
        self.move_to(self._cursor + by * max(1, self.size.height - 1))

    def action_end(self, which: int) -> None:
        self.move_to(len(self._ids) - 1 if which < 0 else 0)

    def _keep_visible(self, ahead: int = LOOK_AHEAD) -> None:
        top, height = self.scroll_offset.y, max(1, self.size.height)
        ahead = min(ahead, (height - 1) // 2)
        first, last = max(0, self._cursor - ahead), min(len(self._ids) - 1, self._cursor + ahead)
        more = min(int(height * self.SCROLL_PART), height - 1 - 2 * ahead) if ahead else 0
        if first < top:
            self.scroll_to(y=max(0, first - more), animate=False, force=True)
        elif last >= top + height:
            self.scroll_to(y=last - height + 1 + more, animate=False, force=True)

    def on_click(self, event: events.Click) -> None:
        # The row that was clicked stays under the mouse.
        self.move_to(self.scroll_offset.y + event.y, ahead=0)

    def on_resize(self) -> None:
        self.virtual_size = Size(self.scrollable_content_region.width, len(self._ids))
        self._keep_visible()

    # Drawing

    def render_line(self, y: int) -> Strip:
        """One line of the screen; a row whose cells are not known yet is requested and drawn empty."""
        index, width = self.scroll_offset.y + y, self.scrollable_content_region.width
        base = self.get_component_rich_style("table--plain")
        if index >= len(self._ids):
            return Strip.blank(width, base)
        at_cursor = index == self._cursor
        over = self.get_component_rich_style("table--cursor", partial=True) if at_cursor else None
        row_id = self._ids[index]
        row = self._rows.get(row_id)
        lead = f"{self._sign} " if at_cursor else "+ " if self._in_range(index) else "  "
        if row is None or row_id in self._outdated:
            self._request(index)
        if row is None:
            return Strip([Segment(fit(lead + "…", width), base)], width)
        segments = [Segment(lead, base)]
        for place, (cell, cells) in enumerate(zip(row.cells, self._measure(width - 2), strict=False)):
            if cells <= 0:
                continue
            style = (
                base + self.get_component_rich_style(f"table--{cell.kind}", partial=True)
                if cell.kind
                else base
            )
            gap = " " if place + 1 < len(row.cells) else ""
            segments.append(Segment(fit(plain(cell.text), cells - len(gap)) + gap, style))
        if over is not None:
            segments = [Segment(text, (style or base) + over) for text, style, _control in segments]
        return Strip(segments).adjust_cell_length(width, base + over if over is not None else base)

    @property
    def _sign(self) -> str:
        glyphs = getattr(self.app, "glyphs", None)
        return glyphs.cursor if glyphs is not None else "▸"

    def _in_range(self, index: int) -> bool:
        if self._anchor is None:
            return False
        low, high = sorted((self._anchor, self._cursor))
        return low <= index <= high

    def _measure(self, width: int) -> list[int]:
        """Width of each column. Fixed columns are dropped from the right when little is left for the flexible ones."""
        glyphs = getattr(self.app, "glyphs", None)
        sign = 3 if glyphs is not None and glyphs.ascii else 2
        widths = [sign if cells == GLYPH_COLUMN else cells for cells in self._widths]
        fixed = list(widths)
        flexible = fixed.count(0) or 1
        for place in range(len(fixed) - 1, -1, -1):
            if width - sum(fixed) >= 10 * flexible:
                break
            if widths[place]:
                fixed[place] = 0
        share = max(0, width - sum(fixed)) // flexible
        return [
            cells if given and cells else (0 if given else share)
            for given, cells in zip(widths, fixed, strict=True)
        ]

    def _request(self, index: int) -> None:
        page = index // PAGE
        if page in self._requested:
            return
        self._requested.add(page)
        # Drawing runs in the context of the screen; a message made there would count as the screen's own.
        self.call_next(self._post_request, self._ids[page * PAGE : (page + 1) * PAGE])

    def _post_request(self, ids: Sequence[str]) -> None:
        self.post_message(self.RowsRequested(self, ids))
