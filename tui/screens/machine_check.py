"""The sheet of the preflight: what is wrong with machine and workspace, what helps, and changes after asking.

The checks run in a process of their own (`h2q-tui check`): they load libraries that the app does not.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

import msgspec
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from engine.core.errors import H2QError
from engine.core.i18n import _, n_
from engine.core.paths import Workspace
from engine.health.grades import GRADE_NAMES, CheckResult, Fix, Grade, NotKnown
from engine.health.reading import run_program
from engine.health.terminal import COLOURS, TERMINAL
from tui.host.cli_call import change_json, cli_json
from tui.host.shutdown import uninterruptible
from tui.screens.ask import Confirm
from tui.terminal.text import fit, one_line, safe

SHEET_WIDTH = 100
_FRAME = 6
"""Cells of a line that are border, padding or scroll bar."""
_GRADE, _NAME = 9, 18
"""Cells of the first two columns."""
_STYLES = {
    Grade.FAIL: "$text-error",
    Grade.WARN: "$text-warning",
    Grade.UNKNOWN: "$foreground-muted",
    Grade.PASS: "$text-success",
}
_ORDER = (Grade.FAIL, Grade.WARN, Grade.UNKNOWN, Grade.PASS)
_CODES = (0, 5)
"""Exit codes of `check`: everything is in order, or a check failed."""


_OWN = {row.id: row for row in (TERMINAL, COLOURS)}
"""Checks of the terminal, by id. The other process has none: these are made, and changed, in this one."""


class _CheckOutput(msgspec.Struct):
    """What `check --json` prints."""

    items: list[CheckResult]


class MachineCheck(ModalScreen[None]):
    """Failures first. `f` makes the change under the cursor after asking, `r` checks again, `esc` closes."""

    DEFAULT_CSS = """
    MachineCheck { align: center middle; background: transparent; }
    MachineCheck OptionList, MachineCheck OptionList:focus { width: 100; max-width: 100%; height: 100%;
        border: round $accent; padding: 0 1; background: $surface; scrollbar-size-vertical: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", show=False),
        Binding("f,enter", "fix", show=False),
        Binding("r,R", "again", show=False),
        Binding("j", "down", show=False),
        Binding("k", "up", show=False),
    ]

    def __init__(self, workspace: Workspace, only: tuple[str, ...] = (), *, read_only: bool = False) -> None:
        """`only`: ids of checks; all without one. `read_only`: changes are refused."""
        super().__init__()
        self._read_only = read_only
        self._only = tuple(word for id_ in only for word in ("--only", id_))
        self.workspace = workspace
        self.items: list[CheckResult] = []
        """The results, failures first."""
        self.changing = ""
        """Id of the check whose change is being made."""
        self._list = OptionList(id="machine-check", markup=False)

    def compose(self) -> ComposeResult:
        self._list.border_title = safe(_("Check of this machine"))
        yield self._list

    def on_mount(self) -> None:
        self._check()

    def on_resize(self) -> None:
        self._draw()

    def _say(self, text: str) -> None:
        keys = _("f change  r again  esc back")
        self._list.border_subtitle = safe(f"{one_line(text)}   {keys}" if text else keys)

    @work(group="check", exclusive=True, exit_on_error=False)
    async def _check(self) -> None:
        self._say(_("checking …"))
        try:
            output = await cli_json(self.workspace, "check", *self._only, codes=_CODES)
            items = msgspec.json.decode(output, type=_CheckOutput).items
            own = {id_: await asyncio.to_thread(row.run, self.workspace) for id_, row in _OWN.items()}
            self._show([own.get(item.id, item) for item in items])
        except (H2QError, OSError, msgspec.DecodeError) as problem:
            self._say(str(problem))

    def _show(self, items: list[CheckResult]) -> None:
        self.items = sorted(items, key=lambda item: _ORDER.index(item.grade))
        wrong = sum(item.grade in (Grade.FAIL, Grade.WARN) for item in items)
        self._draw()
        self._say(
            n_("{n} thing to look at", "{n} things to look at", wrong).format(n=wrong)
            if wrong
            else _("everything is in order")
        )

    def _draw(self) -> None:
        place = self._list.highlighted
        width = min(SHEET_WIDTH, self.app.size.width) - _FRAME
        self._list.clear_options()
        self._list.add_options([Option(check_lines(item, width), id=item.id) for item in self.items])
        self._list.highlighted = min(place or 0, len(self.items) - 1) if self.items else None

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        message.stop()
        self.action_fix()

    def action_fix(self) -> None:
        place = self._list.highlighted
        if place is None or self.changing:
            return
        item = self.items[place]
        if item.fix is not None and self._read_only:
            self._say(_("read-only: {action}").format(action=item.fix.change))
        elif item.fix is None:
            self._say(item.hint or _("no change helps here"))
        else:
            self._ask(item)

    @work(group="fix", exclusive=True, exit_on_error=False)
    async def _ask(self, item: CheckResult) -> None:
        assert item.fix is not None
        if not await self.app.push_screen_wait(Confirm(f"{item.fix.change}? ({item.fix.hint})")):
            return
        self.changing = item.id
        self._say(_("changing: {what} …").format(what=item.fix.hint))
        try:
            after = await asyncio.to_thread(self._change, item.id, item.fix)
        except (H2QError, OSError, ValueError, NotKnown) as problem:
            self._say(str(problem))
        else:
            self._show([after if row.id == after.id else row for row in self.items])
            if after == item:
                self._say(item.fix.change)  # of windows to come: this one stays as it is
        finally:
            self.changing = ""

    def _change(self, id_: str, fix: Fix) -> CheckResult:
        """Makes a change and checks again; called in a thread. Raises H2QError, OSError, ValueError and NotKnown."""
        if id_ in _OWN:
            with uninterruptible():
                run_program(*fix.command)
            return _OWN[id_].run(self.workspace)
        words = ("check", "--only", id_, "--fix", "--yes", id_)
        output = change_json(self.workspace, *words, codes=_CODES)
        (after,) = msgspec.json.decode(output, type=_CheckOutput).items
        return after

    def action_again(self) -> None:
        if not self.changing:
            self._check()

    def action_close(self) -> None:
        self.dismiss(None)

    def action_down(self) -> None:
        self._list.action_cursor_down()

    def action_up(self) -> None:
        self._list.action_cursor_up()


def check_lines(item: CheckResult, width: int) -> Content:
    """`FAIL     secrets           others can read …`, the detail in its own column; below it the command."""
    style = _STYLES[item.grade]
    line = Content.assemble(
        (fit(_(GRADE_NAMES[item.grade]), _GRADE), style), fit(one_line(item.name), _NAME), " "
    )
    column = _GRADE + _NAME + 1
    wrapped = Content(one_line(item.detail)).wrap(max(16, width - column))
    line = line.append(Content("\n" + " " * column).join(wrapped))
    if item.hint:
        mark = "f " if item.fix is not None else "→ "
        hint = Content.styled(mark + one_line(item.hint), "$text-muted").wrap(max(16, width - column))
        line = line.append("\n" + " " * column).append(Content("\n" + " " * column).join(hint))
    return line
