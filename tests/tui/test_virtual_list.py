"""The virtual list: it draws only what is seen, and its cursor belongs to a row."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult

from tui.terminal.glyphs import ASCII, UNICODE, Glyphs
from tui.widgets.virtual_list import GLYPH_COLUMN, LOOK_AHEAD, ListCell, ListRow, VirtualList


class ListApp(App[None]):
    """A list whose rows say their own id."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.seen: list[str] = []
        self.asked = 0

    def compose(self) -> ComposeResult:
        yield VirtualList((0, 8))

    def on_mount(self) -> None:
        self.query_one(VirtualList).set_ids([f"id{n}" for n in range(self.count)])

    def on_virtual_list_rows_requested(self, message: VirtualList.RowsRequested) -> None:
        self.asked += len(message.ids)
        message.table.set_rows(
            ListRow(row_id, (ListCell(f"text of {row_id}"), ListCell("kept", "success")))
            for row_id in message.ids
        )

    def on_virtual_list_highlighted(self, message: VirtualList.Highlighted) -> None:
        self.seen.append(message.row_id)


def screen_text(app: App[None]) -> str:
    """What the terminal would show, without colours."""
    widget = app.query_one(VirtualList)
    return "\n".join(widget.render_line(y).text for y in range(widget.size.height))


async def test_a_long_list_requests_only_visible_rows() -> None:
    app = ListApp(100_000)
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.pause()
        assert "▸ text of id0" in screen_text(app)
        await pilot.press("G")
        await pilot.pause()
        assert app.query_one(VirtualList).cursor_id == "id99999"
        assert "▸ text of id99999" in screen_text(app)
        assert app.asked <= 600
        await pilot.press("g")
        assert app.seen[-2:] == ["id99999", "id0"]


async def test_the_cursor_stays_on_its_row_and_line_when_rows_arrive_above_it() -> None:
    app = ListApp(300)
    async with app.run_test(size=(60, 20)) as pilot:
        table = app.query_one(VirtualList)
        for _ in range(30):
            await pilot.press("j")
        await pilot.pause()
        line = table.index - table.scroll_offset.y
        table.set_ids([f"new{n}" for n in range(50)] + list(table.ids))
        await pilot.pause()
        assert table.cursor_id == "id30"
        assert table.index == 80
        assert table.index - table.scroll_offset.y == line


async def test_when_the_row_under_the_cursor_is_gone_the_next_one_takes_its_place() -> None:
    app = ListApp(10)
    async with app.run_test(size=(60, 20)) as pilot:
        table = app.query_one(VirtualList)
        await pilot.press("j", "j")
        table.set_ids([row_id for row_id in table.ids if row_id != "id2"])
        await pilot.pause()
        assert table.cursor_id == "id3"
        table.set_ids([])
        await pilot.pause()
        assert table.cursor_id == ""
        await pilot.press("j", "G", "pagedown")
        assert app.seen[-1] == ""


async def test_every_line_is_as_wide_as_the_list_with_chinese_and_control_characters() -> None:
    app = ListApp(3)
    async with app.run_test(size=(40, 10)) as pilot:
        table = app.query_one(VirtualList)
        table.set_rows(
            [
                ListRow(
                    "id0",
                    (ListCell("怎么重置我的密码和手机号码以及其他所有的东西呢"), ListCell("待定", "warning")),
                ),
                ListRow("id1", (ListCell("a\x1b[2Jb[red]c\nd\u202ee"), ListCell(""))),
            ]
        )
        await pilot.pause()
        for y in range(10):
            assert table.render_line(y).cell_length == table.scrollable_content_region.width
        drawn = screen_text(app)
        assert "\x1b" not in drawn
        assert "\u202e" not in drawn
        assert "[red]" in drawn


@pytest.mark.parametrize(("glyphs", "line"), [(ASCII, "> ok kept"), (UNICODE, "▸ ✓ kept")])
async def test_a_glyph_is_never_cut(glyphs: Glyphs, line: str) -> None:
    class SignsApp(App[None]):
        def compose(self) -> ComposeResult:
            yield VirtualList((GLYPH_COLUMN, 0))

        def on_mount(self) -> None:
            self.glyphs = glyphs
            self.query_one(VirtualList).set_ids(["a"])

        def on_virtual_list_rows_requested(self, message: VirtualList.RowsRequested) -> None:
            message.table.set_rows([ListRow("a", (ListCell(glyphs.done), ListCell("kept")))])

    app = SignsApp()
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.pause()
        assert screen_text(app).startswith(line)


async def test_rows_ahead_of_the_cursor_stay_visible_except_at_the_ends_and_under_the_mouse() -> None:
    app = ListApp(100)
    async with app.run_test(size=(60, 20)) as pilot:
        rows = app.query_one(VirtualList)

        def around() -> tuple[int, int]:
            line = rows.index - rows.scroll_offset.y
            return line, rows.size.height - 1 - line

        assert around()[0] == 0
        for _n in range(30):
            await pilot.press("j")
            await pilot.pause()
            assert around()[1] >= LOOK_AHEAD
        for _n in range(10):
            await pilot.press("k")
            await pilot.pause()
            assert around()[0] >= LOOK_AHEAD
        await pilot.press("G")
        await pilot.pause()
        assert around()[1] == 0
        top = rows.scroll_offset.y
        await pilot.click(VirtualList, offset=(5, 0))
        await pilot.pause()
        assert (rows.index, rows.scroll_offset.y) == (top, top)


async def test_a_list_that_scrolls_by_a_part_moves_seldom_and_keeps_the_cursor_visible() -> None:
    class PartList(VirtualList):
        SCROLL_PART = 1 / 3

    class PartApp(ListApp):
        def compose(self) -> ComposeResult:
            yield PartList((0, 8))

    app = PartApp(100)
    async with app.run_test(size=(60, 20)) as pilot:
        rows = app.query_one(PartList)
        for by, moves in ((1, 17), (-1, 17)):
            tops = []
            for _row in range(99):
                # As `j` and `k` do: a key that is pressed waits a twentieth of a second.
                rows.action_move(by)
                await pilot.pause()
                line = rows.index - rows.scroll_offset.y
                assert 0 <= line < rows.size.height
                assert rows.index in (0, 99) or min(rows.index, LOOK_AHEAD) <= line
                tops.append(rows.scroll_offset.y)
            assert 2 < len(set(tops)) < moves
