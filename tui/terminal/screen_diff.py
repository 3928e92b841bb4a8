"""What the terminal shows, so that an update sends only the cells that differ from it, with the fewest codes.

Textual sends every widget region that was touched, each piece of text with all codes of its style. Over SSH that is most
of the traffic. Curses has compared cells since 1980; this does the same behind Textual's compositor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.color import ColorSystem
from rich.console import Console
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.strip import Strip

from tui.terminal.cells import CONTINUATION, DRAWN_ON_BLANKS, PLAIN, Cell, Look, Piece, cells_of

_OFF = {
    **dict.fromkeys(("1", "2"), "22"),
    **dict.fromkeys(("4", "21"), "24"),
    **dict.fromkeys(("5", "6"), "25"),
    **dict.fromkeys(("51", "52"), "54"),
    "3": "23",
    "7": "27",
    "8": "28",
    "9": "29",
    "53": "55",
}
"""The code that ends an attribute (ECMA-48, SGR)."""
_SHORT_GAP = 3
"""Unchanged cells that cost no more bytes than moving the cursor over them."""


class ScreenDiff:
    """The cells that the terminal shows. `encode` turns an update of the compositor into bytes and applies it."""

    def __init__(self) -> None:
        self._rows: list[list[Cell | None]] = []
        self._size = (0, 0)

    def forget(self) -> None:
        """The terminal may show anything: another program had it, or it was resized."""
        self._rows = []
        self._size = (0, 0)

    def encode(self, update: CompositorUpdate, console: Console, size: tuple[int, int]) -> str | None:
        """The sequences that bring the terminal from what it shows to `update`; None for an unknown kind of update.

        `size` is that of the terminal in columns and rows.
        """
        if size != self._size:
            self._rows = [[None] * size[0] for _row in range(size[1])]
            self._size = size
        if isinstance(update, LayoutUpdate):
            strips = _layout_pieces(update)
        elif isinstance(update, ChopsUpdate):
            strips = _chop_pieces(update)
        else:
            return None
        colors = console._color_system or ColorSystem.TRUECOLOR
        writer = _Writer()
        for x, y, strip in strips:
            if 0 <= y < len(self._rows):
                self._draw(writer, Piece(x, y, *cells_of(strip, colors)))
        return writer.finish()

    def _draw(self, writer: _Writer, piece: Piece) -> None:
        row, x, y = self._rows[piece.y], piece.x, piece.y
        cells = piece.cells[: max(0, len(row) - x)]
        shown: Sequence[Cell | None] = row[x : x + len(cells)]
        if not piece.certain and any(cell.differs(old) for cell, old in zip(cells, shown, strict=True)):
            # Terminals disagree about the width of some character: the rest of the strip is drawn from where it ends.
            shown = [None] * len(cells)
        at, written = 0, 0
        while at < len(cells):
            end = at + 1
            while end < len(cells) and cells[end].text == CONTINUATION:
                end += 1
            if any(cell.differs(old) for cell, old in zip(cells[at:end], shown[at:end], strict=True)):
                if 0 < at - written <= _SHORT_GAP and piece.certain:
                    writer.repeat(x + written, y, cells[written:at])
                writer.write(x + at, y, cells[at], end - at)
                written = end
            at = end
        if not piece.certain:
            writer.lose_cursor()
        if cells:
            _break_wide(row, x)
            _break_wide(row, x + len(cells))
            row[x : x + len(cells)] = cells


def _break_wide(row: list[Cell | None], x: int) -> None:
    """Forgets both halves of a wide character that the border before column `x` divides: writing to one half erases
    the other."""
    if 0 < x < len(row) and (cell := row[x]) is not None and cell.text == CONTINUATION:
        row[x - 1] = row[x] = None


class _Writer:
    """Collects the sequences of one update. It begins and ends with the plain look."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._look = PLAIN
        self._x = self._y = -1
        """Where the cursor is; unknown at first."""

    def write(self, x: int, y: int, cell: Cell, width: int) -> None:
        """Writes one character at a cell."""
        if (x, y) != (self._x, self._y):
            if y == self._y and x - self._x > 0:
                gap = x - self._x
                self._parts.append("\x1b[C" if gap == 1 else f"\x1b[{gap}C")
            else:
                self._parts.append(f"\x1b[{y + 1};{x + 1}H")
        blank = cell.text == " "
        if not (blank and self._has_look_of(cell)):
            self._set_look(cell.look.of_blank() if blank else cell.look, keep_text=blank)
        self._parts.append(cell.text)
        self._x, self._y = x + width, y

    def repeat(self, x: int, y: int, cells: Sequence[Cell]) -> None:
        """Writes unchanged cells again where the cursor is before them and they need no codes."""
        if (x, y) == (self._x, self._y) and all(
            cell.text.isascii() and cell.text != CONTINUATION and self._has_look_of(cell) for cell in cells
        ):
            self._parts += [cell.text for cell in cells]
            self._x += len(cells)

    def _has_look_of(self, cell: Cell) -> bool:
        """Whether the cell can be written without a code."""
        if cell.text == " ":
            return self._look.of_blank() == cell.look.of_blank()
        return self._look == cell.look

    def lose_cursor(self) -> None:
        """The cursor may be anywhere."""
        self._x = self._y = -1

    def _set_look(self, look: Look, *, keep_text: bool) -> None:
        """Changes the look; with `keep_text`, what is not seen on a blank stays as it is."""
        before = self._look
        if keep_text:
            unseen = before.attributes - DRAWN_ON_BLANKS
            foreground = look.foreground if look.attributes else before.foreground
            look = Look(look.attributes | unseen, foreground, look.background, look.link)
        if look == before:
            return
        if look.link != before.link:
            self._parts.append(f"\x1b]8;;{look.link}\x1b\\")
        codes: list[str] = []
        removed = before.attributes - look.attributes
        codes += sorted({_OFF[code] for code in removed if code in _OFF})
        # One code ends both bold and dim, so what stays of them is set again.
        ended = {code for code in look.attributes if _OFF.get(code) in codes}
        codes += sorted((look.attributes - before.attributes) | ended)
        if look.foreground != before.foreground:
            codes.append(look.foreground or "39")
        if look.background != before.background:
            codes.append(look.background or "49")
        if codes:
            sequence = ";".join(codes)
            whole = ";".join(
                ["0", *sorted(look.attributes), *filter(None, (look.foreground, look.background))]
            )
            shorter = min(sequence, whole, key=len) if look != PLAIN else "0"
            self._parts.append(f"\x1b[{'' if shorter == '0' else shorter}m")
        self._look = look

    def finish(self) -> str:
        """The sequences; the terminal is left in its plain look."""
        self._set_look(PLAIN, keep_text=False)
        return "".join(self._parts)


def _layout_pieces(update: LayoutUpdate) -> Iterator[tuple[int, int, Strip]]:
    """The strips of a region, each with the column and row of its first cell."""
    for y, strips in enumerate(update.strips, update.region.y):
        x = update.region.x
        for strip in strips:
            yield x, y, strip
            x += strip.cell_length


def _chop_pieces(update: ChopsUpdate) -> Iterator[tuple[int, int, Strip]]:
    """The strips of the changed spans, cut at both ends, each with the column and row of its first cell."""
    for y, start, end in update.spans:
        for chop_end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is None or x >= end or chop_end <= start:
                continue
            left, right = max(x, start), min(chop_end, end)
            yield left, y, strip if (left, right) == (x, chop_end) else strip.crop(left - x, right - x)


class DiffUpdate(CompositorUpdate):
    """An update of the compositor that is sent as its difference from what the terminal shows."""

    def __init__(self, update: CompositorUpdate, diff: ScreenDiff, size: tuple[int, int]) -> None:
        self._update = update
        self._diff = diff
        self._size = size

    def render_segments(self, console: Console) -> str:
        """The bytes for the terminal."""
        sequences = self._diff.encode(self._update, console, self._size)
        if sequences is None:
            self._diff.forget()
            return self._update.render_segments(console)
        return sequences
