"""The widgets of the Health tab: a panel of lines that are laid out for its size, and the table of processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual import events
from textual.content import Content

from engine.core.i18n import N_, _, with_percent
from engine.machine.processes import ProcessRow
from tui.terminal.text import safe
from tui.widgets.cell_lines import CellLines
from tui.widgets.virtual_list import LOOK_AHEAD, ListCell, ListRow, VirtualList

SHOWN = 30
"""Processes in the table while it is not filtered."""
LinesFor = Callable[[int, int], Sequence[Content]]
_NAMES = {
    "engine run": N_("training"),
    "engine serve": N_("inference service"),
    "engine watch": N_("watcher"),
    "engine deliver": N_("sends alerts"),
    "engine llama": N_("llama.cpp"),
}
"""What the processes of this program are called."""


class LinePanel(CellLines, can_focus=True):
    """A box whose lines are made for its width and height, for another size again."""

    def __init__(self, title: str, *, id: str) -> None:
        super().__init__(id=id, classes="panel")
        self.border_title = safe(title)
        self._lines_for: LinesFor | None = None

    def show(self, lines_for: LinesFor) -> None:
        """Draws the lines of `lines_for`; nothing while the box has no size."""
        self._lines_for = lines_for
        width, height = self.size
        if width > 0 and height > 0:
            self.set_lines(list(lines_for(width, height))[:height])

    def on_resize(self, event: events.Resize) -> None:
        if self._lines_for is not None:
            self.show(self._lines_for)
        else:
            super().on_resize(event)


class ProcessList(VirtualList):
    """The processes, those of runs first; the cursor stays on its process."""

    def __init__(self, *, id: str) -> None:
        super().__init__((7, 0, 6, 8), id=id, classes="panel")
        self.processes: dict[str, ProcessRow] = {}
        self.words = ""
        """Only processes with these words are shown."""
        self.chosen = False
        """The person has moved the cursor; before, it stays on the first row."""
        self.retitle()

    def retitle(self, note: str = "") -> None:
        """The title, with the filter as a chip and a note about it."""
        chip = f"/{self.words}" if self.words else ""
        self.border_title = safe("  ".join(filter(None, (_("Processes"), chip, note))))

    def set_filter(self, words: str) -> None:
        """Shows only the processes whose row has `words`, whatever their case; "" shows all."""
        self.words = words.strip()
        self.retitle()
        self.show(list(self.processes.values()))

    def show(self, rows: Sequence[ProcessRow]) -> None:
        """Draws `rows` in their order."""
        self.processes = {str(row.pid): row for row in rows}
        wanted = self.words.casefold()
        found = [row for row in rows if wanted in f"{row.pid} {what_it_is(row)} {row.name}".casefold()]
        # As many each time: another length is another layout of the whole screen.
        shown = found if wanted else found[:SHOWN]
        self.set_ids([str(row.pid) for row in shown])
        self.set_rows(process_row(row) for row in shown)
        if not self.chosen:
            super().move_to(0)
        if self.words and not shown:
            self.retitle(_("no process has these words"))

    def move_to(self, index: int, *, ahead: int = LOOK_AHEAD) -> None:
        self.chosen = True
        super().move_to(index, ahead=ahead)

    @property
    def current(self) -> ProcessRow | None:
        """The process under the cursor."""
        return self.processes.get(self.cursor_id)


def what_it_is(row: ProcessRow) -> str:
    """The program of a process, and its run where it belongs to one."""
    known = "engine run" if row.is_run else row.name
    name = _(_NAMES[known]) if known in _NAMES else row.name
    return f"{name}  {row.run_id[:9]}" if row.run_id else name


def process_row(row: ProcessRow) -> ListRow:
    """`4711  training  1121-0000   97 %   2.1 GB`; shares of one core."""
    size = row.memory / 2**20
    memory = (
        _("{n} MB").format(n=f"{size:.0f}") if size < 1024 else _("{n} GB").format(n=f"{size / 1024:.1f}")
    )
    share = "–" if row.cpu_percent is None else with_percent(f"{row.cpu_percent:.0f}")
    return ListRow(
        str(row.pid),
        (
            ListCell(str(row.pid), "dim"),
            ListCell(what_it_is(row), "success" if row.run_id else ""),
            ListCell(share.rjust(5)),
            ListCell(memory.rjust(7)),
        ),
    )
