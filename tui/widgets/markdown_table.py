"""Tables of Markdown as styled lines: columns as wide as their texts, wrapped where the table is too wide."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from tui.widgets.conversation import StyledSpan, wrap

TableCell = tuple[list[StyledSpan], str]
"""Styled text and "left", "right", "center" or ""."""
NARROWEST_COLUMN = 5


def table_lines(
    rows: Sequence[Sequence[TableCell]], width: int, bar: str, rule: str
) -> list[tuple[StyledSpan, ...]]:
    """The first row is the head. Where the columns do not fit, each row becomes lines of "head: text"."""
    count = max(map(len, rows), default=0)
    if not count:
        return []
    rows = [[*row, *[([], "")] * (count - len(row))] for row in rows]
    natural = [max(cell_len(_text(row[column])) for row in rows) for column in range(count)]
    room = width - 3 * (count - 1)
    if room < NARROWEST_COLUMN * count:
        return _listed(rows, width)
    widths = _shares(natural, room)
    between = StyledSpan(f" {bar} ", "dim")
    lines: list[tuple[StyledSpan, ...]] = []
    for number, row in enumerate(rows):
        parts = [_cell_lines(cell, size) for cell, size in zip(row, widths, strict=True)]
        for at in range(max(map(len, parts))):
            line: list[StyledSpan] = []
            for column, (part, size) in enumerate(zip(parts, widths, strict=True)):
                text = part[at] if at < len(part) else ""
                line += [between] if column else []
                line.append(StyledSpan(_aligned(text, size, row[column][1]), "strong" if number == 0 else ""))
            lines.append(tuple(line))
        if number == 0:
            lines.append(
                (
                    StyledSpan(
                        f"{rule}{bar if bar == '|' else '┼'}{rule}".join(rule * size for size in widths),
                        "dim",
                    ),
                )
            )
    return lines


def _text(cell: TableCell) -> str:
    return "".join(span.text for span in cell[0]).replace("\n", " ")


def _shares(natural: Sequence[int], room: int) -> list[int]:
    """Widths of at most `room` cells together: the widest columns give way."""
    widths = [max(1, size) for size in natural]
    while sum(widths) > room:
        widest = max(widths)
        second = max((size for size in widths if size < widest), default=NARROWEST_COLUMN)
        wide = [at for at, size in enumerate(widths) if size == widest]
        target = max(second, NARROWEST_COLUMN, widest - -(-(sum(widths) - room) // len(wide)))
        for at in wide:
            widths[at] = target
        if target == widest:
            break
    return widths


def _cell_lines(cell: TableCell, width: int) -> list[str]:
    text = _text(cell)
    return [text[begin:end] for begin, end in wrap(text, width)]


def _aligned(text: str, width: int, align: str) -> str:
    free = max(0, width - cell_len(text))
    left = free if align == "right" else free // 2 if align == "center" else 0
    return " " * left + text + " " * (free - left)


def _listed(rows: Sequence[Sequence[TableCell]], width: int) -> list[tuple[StyledSpan, ...]]:
    head, *others = rows
    lines: list[tuple[StyledSpan, ...]] = []
    for row in others or [head]:
        for name, cell in zip(head, row, strict=True):
            text = f"{_text(name)}: {_text(cell)}" if others else _text(cell)
            lines += [(StyledSpan(text[begin:end]),) for begin, end in wrap(text, width)]
        lines.append(())
    return lines[:-1]
