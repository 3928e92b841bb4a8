"""The terminal of the benchmarks: when a program counts as gone."""

from __future__ import annotations

import os
import sys

from bench.terminal import PtyProcess


def test_a_program_that_lets_go_of_its_terminal_is_waited_for() -> None:
    leaving = "import os, time; [os.close(fd) for fd in (0, 1, 2)]; time.sleep(0.5); os._exit(7)"
    with PtyProcess([sys.executable, "-c", leaving], {}) as terminal:
        terminal.read(60.0, until=None)
        assert terminal.wait(60.0)[0] == 7


def test_a_program_that_stays_has_no_exit_code() -> None:
    with PtyProcess([sys.executable, "-c", "input()"], {}) as terminal:
        assert terminal.wait(0.3)[0] is None
        os.write(terminal.master, b"\n")
        assert terminal.wait(60.0)[0] == 0
