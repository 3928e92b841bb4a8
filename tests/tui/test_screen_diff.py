"""The terminal shows the same after the differences as after Textual's own updates. Both are read by pyte, a terminal."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pyte
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from tui.terminal.screen_diff import ScreenDiff

WIDTH, HEIGHT = 12, 3
STYLES = [
    Style(),
    Style(color="red"),
    Style(bgcolor="#102030"),
    Style(color="#405060", bgcolor="#102030", bold=True),
    Style(color="#405060", dim=True, italic=True),
    Style(reverse=True, color="green"),
    Style(underline=True, bgcolor="blue"),
    Style(strike=True),
]
CHARACTERS = [*"ab  ─│·é", "中", "！", "あ"]


def strip(cells: list[tuple[str, int]]) -> Strip:
    """A line of exactly WIDTH cells."""
    segments, room = [], WIDTH
    for character, style in cells:
        width = 2 if character in "中！あ" else 1
        if width > room:
            break
        segments.append(Segment(character, STYLES[style]))
        room -= width
    return Strip([*segments, Segment(" " * room, STYLES[0])], WIDTH)


lines = st.lists(
    st.tuples(st.sampled_from(CHARACTERS), st.integers(0, len(STYLES) - 1)), min_size=WIDTH, max_size=WIDTH
).map(strip)
frames = st.lists(lines, min_size=HEIGHT, max_size=HEIGHT)


@dataclass(frozen=True)
class Change:
    """A span of a line that changes to the cells of another line."""

    y: int
    start: int
    end: int
    line: Strip

    def update(self) -> ChopsUpdate:
        left, piece, right = (
            self.line.crop(0, self.start),
            self.line.crop(self.start, self.end),
            self.line.crop(self.end, WIDTH),
        )
        chops: list[dict[int, Strip | None]] = [{} for _row in range(HEIGHT)]
        ends: list[list[int]] = [[] for _row in range(HEIGHT)]
        for x, part, end in ((0, left, self.start), (self.start, piece, self.end), (self.end, right, WIDTH)):
            if end > x:
                chops[self.y][x] = part
                ends[self.y].append(end)
        return ChopsUpdate(chops, [(self.y, self.start, self.end)], ends)

    def as_layout(self) -> LayoutUpdate:
        """The same span in Textual's own bytes."""
        region = Region(self.start, self.y, self.end - self.start, 1)
        return LayoutUpdate([[self.line.crop(self.start, self.end)]], region)


changes = st.builds(
    lambda y, a, b, line: Change(y, min(a, b), max(a, b) + 1, line),
    st.integers(0, HEIGHT - 1),
    st.integers(0, WIDTH - 1),
    st.integers(0, WIDTH - 1),
    lines,
)


class Screen:
    """A terminal of HEIGHT lines."""

    def __init__(self) -> None:
        self.screen = pyte.Screen(WIDTH, HEIGHT)
        self.stream = pyte.Stream(self.screen)

    def cells(self) -> list[list[tuple[object, ...]]]:
        """What is seen of each cell."""
        return [[_seen(self.screen.buffer[y][x]) for x in range(WIDTH)] for y in range(HEIGHT)]


def _seen(cell: pyte.screens.Char) -> tuple[object, ...]:
    lines_ = (cell.underscore, cell.strikethrough, cell.reverse)
    if cell.data in ("", " "):
        # The second half of a wide character, and blanks: colours of the text are seen only in lines and reverse.
        return ("", cell.bg, *lines_, cell.fg if any(lines_) else "") if cell.data else ("half",)
    return (cell.data, cell.fg, cell.bg, cell.bold, cell.italics, *lines_)


def layout(frame: list[Strip]) -> LayoutUpdate:
    return LayoutUpdate([[line] for line in frame], Region(0, 0, WIDTH, HEIGHT))


def console() -> Console:
    return Console(file=io.StringIO(), color_system="truecolor", force_terminal=True)


@settings(max_examples=40, deadline=None)
@given(frames, st.lists(frames | changes, max_size=6))
@example([strip([("中", 0)] * 6)] * 3, [Change(0, 1, 3, strip([("a", 0)] * 12))])
def test_the_terminal_shows_what_textual_would_draw(
    first: list[Strip], rest: list[list[Strip] | Change]
) -> None:
    ours, theirs, diff, out = Screen(), Screen(), ScreenDiff(), console()
    for step in [first, *rest]:
        update: CompositorUpdate = step.update() if isinstance(step, Change) else layout(step)
        sent = diff.encode(update, out, (WIDTH, HEIGHT))
        assert sent is not None
        ours.stream.feed(sent)
        whole = step.as_layout() if isinstance(step, Change) else update
        theirs.stream.feed(
            whole.render_segments(out).replace("\n", "\r\n")
            if whole is update
            else whole.render_segments(out)
        )
        assert ours.cells() == theirs.cells()


@given(frames)
def test_the_same_frame_again_sends_nothing(frame: list[Strip]) -> None:
    diff, out = ScreenDiff(), console()
    diff.encode(layout(frame), out, (WIDTH, HEIGHT))
    assert diff.encode(layout(frame), out, (WIDTH, HEIGHT)) == ""


@given(frames)
def test_a_forgotten_or_resized_terminal_is_drawn_anew(frame: list[Strip]) -> None:
    diff, out = ScreenDiff(), console()
    first = diff.encode(layout(frame), out, (WIDTH, HEIGHT))
    diff.forget()
    assert diff.encode(layout(frame), out, (WIDTH, HEIGHT)) == first
    assert diff.encode(layout(frame), out, (WIDTH + 1, HEIGHT)) == first


def test_one_changed_cell_is_sent_alone() -> None:
    diff, out = ScreenDiff(), console()
    before, after = strip([("a", 3)] * 12), strip([*[("a", 3)] * 5, ("b", 3), *[("a", 3)] * 6])
    diff.encode(layout([before] * 3), out, (WIDTH, HEIGHT))
    sent = diff.encode(layout([before, after, before]), out, (WIDTH, HEIGHT))
    assert sent == "\x1b[2;6H\x1b[1;38;2;64;80;96;48;2;16;32;48mb\x1b[m"


def test_after_a_character_of_uncertain_width_the_rest_of_the_piece_is_drawn() -> None:
    diff, out = ScreenDiff(), console()
    emoji, other = Strip([Segment("😀abc")], 5), Strip([Segment("😁abc")], 5)
    region = Region(0, 0, 5, 1)
    diff.encode(LayoutUpdate([[emoji]], region), out, (WIDTH, HEIGHT))
    assert diff.encode(LayoutUpdate([[other]], region), out, (WIDTH, HEIGHT)) == "\x1b[1;1H😁abc"
    assert diff.encode(LayoutUpdate([[other]], region), out, (WIDTH, HEIGHT)) == ""


@pytest.mark.parametrize("gap", range(1, 10))
def test_unchanged_cells_between_two_changes_are_skipped(gap: int) -> None:
    terminal, diff, out = Screen(), ScreenDiff(), console()
    before = [("a", 1)] * WIDTH
    after = [("b", 1), *before[:gap], ("c", 1), *before[gap + 2 :]]
    for cells in (before, after):
        sent = diff.encode(layout([strip(cells)] * HEIGHT), out, (WIDTH, HEIGHT))
        assert sent is not None
        terminal.stream.feed(sent)
    assert terminal.screen.display == ["".join(character for character, _style in after)] * HEIGHT


@pytest.mark.parametrize(
    ("shown", "wanted", "sent"),
    [
        ("xabcx", "yabcy", "yabcy"),
        ("xa─cx", "ya─cy", "y\x1b[3Cy"),
        ("xabcdx", "yabcdy", "y\x1b[4Cy"),
        ("✓ xa", "✓ ya", "\x1b[1;3Hy"),
    ],
    ids=["a short gap is written again", "not a wider byte", "a long gap is skipped", "after a check mark"],
)
def test_the_cheaper_way_over_unchanged_cells_is_taken(shown: str, wanted: str, sent: str) -> None:
    diff, out = ScreenDiff(), console()
    for text in (shown, wanted):
        region = Region(0, 0, len(text), 1)
        last = diff.encode(LayoutUpdate([[Strip([Segment(text)], len(text))]], region), out, (WIDTH, HEIGHT))
    assert last is not None and last.removeprefix("\x1b[1;1H") == sent
