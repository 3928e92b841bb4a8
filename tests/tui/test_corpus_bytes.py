"""What the Corpus tab sends to a terminal of 120 by 40: a slow line carries some kilobytes a second."""

from __future__ import annotations

from pathlib import Path

from engine.core.paths import Workspace
from engine.workspace.open import open_workspace
from tests.tui.corpus_workspace import build
from tests.tui.terminal import Terminal, terminal

MOVE_BYTES = 4_000
"""For one row; where the list scrolls, on average."""
TAB_BYTES = 15_000
REREAD_BYTES = 300
"""For a list that is read again and has not changed."""
QUIET_S = 0.6
BETWEEN_MOVES_S = 0.25
"""For moves one after the other: what comes later is counted with the next one."""
LONGEST_S = 30.0


def bytes_of(opened: Terminal, key: bytes, *, silent: bool = False, quiet_s: float = QUIET_S) -> int:
    """What a key makes the app send, until nothing comes for `quiet_s`; `silent` where it may be nothing at all."""
    opened.press(key)
    count, waited = 0, 0.0
    while waited < LONGEST_S:
        sent = len(opened.read(quiet_s))
        count, waited = count + sent, waited + quiet_s
        if not sent and (count or silent):
            return count
    raise AssertionError("the app never draws, or never stops")


def test_moving_changing_the_tab_and_reading_again_send_few_bytes(tmp_path: Path) -> None:
    ws = open_workspace(Workspace(tmp_path))
    (ws.config / "h2q.toml").write_text("first_start_done = true\n", encoding="utf-8")
    topics = ("autumn rain", "烟袋斜街的酒店", "an operating system", "重置密码的办法", "the kitchen router")
    build(ws, [f"Question {n * n} about {topics[n % 5]}, number {n}? " * (1 + n % 6) for n in range(80)])
    with terminal(ws.root, size=(120, 40)) as opened:  # type: ignore[arg-type]
        opened.read(30.0, until=b"keys")
        bytes_of(opened, b"", silent=True)
        first = bytes_of(opened, b"2")
        assert b"reviewed" in opened.output
        moves = [bytes_of(opened, b"j", quiet_s=BETWEEN_MOVES_S) for _n in range(5)]
        opened.press(b"j" * 28)
        bytes_of(opened, b"j")
        scrolling = [bytes_of(opened, b"j", quiet_s=BETWEEN_MOVES_S) for _n in range(11)]
        scrolling.append(bytes_of(opened, b"j"))
        again = bytes_of(opened, b"R", silent=True)
        away, back = bytes_of(opened, b"1"), bytes_of(opened, b"2")
    assert max(moves) < MOVE_BYTES and min(moves) > 0
    assert sum(scrolling) / len(scrolling) < MOVE_BYTES
    assert again < REREAD_BYTES
    assert max(first, away, back) < TAB_BYTES and min(first, away, back) > 1000
