"""The table of processes: what each is, whose it is, and never what it was given to read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from engine.machine.processes import ProcessTable, parse_stat, program_name

NAMES = [
    (["/usr/bin/ollama", "serve"], "ollama", "ollama"),
    (["/usr/bin/python3", "-P", "-m", "engine", "run", "/home/me/runs/1"], "python3", "engine run"),
    (["python3", "-P", "-m", "engine", "rank", "/home/me/meet", "1", "2"], "python3", "engine rank"),
    (["python3", "-P", "-m", "engine", "gate"], "python3", "engine gate"),
    (["python", "-m", "engine", "--secret"], "python", "engine"),
    (["python", "-u", "-X", "dev", "/home/me/train.py", "--key", "sk-1"], "python", "train.py"),
    (["python", "-m", "http.server", "--token", "sk-1"], "python", "http.server"),
    (["python", "-c", "password = 'sk-1'"], "python", "python"),
    (["python", "-", "sk-1"], "python", "python"),
    (["python", "--unknown", "sk-1"], "python", "python"),
    (["bash", "--rcfile", "sk-1"], "bash", "bash"),
    (["bash", "./run.sh", "sk-1"], "bash", "run.sh"),
    (["-zsh"], "zsh", "zsh"),
    (["/opt/a very long program name", "x"], "a very long pro", "a very long program name"),
    (["python"], "python", "python"),
    (["curl", "-u", "me:sk-1"], "curl", "curl"),
    ([], "kworker/0:1", "kworker/0:1"),
    (["nginx: worker process"], "nginx", "nginx"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "name", "shown"), NAMES, ids=[str(row[0]) for row in NAMES])
def test_a_process_is_named_after_its_program_and_never_after_an_argument(
    arguments: list[str], name: str, shown: str
) -> None:
    assert program_name(arguments, name) == shown
    assert "sk-1" not in program_name(arguments, name)


def test_a_name_with_blanks_and_brackets_is_read(tmp_path: Path) -> None:
    fields = ["S", "7", *["0"] * 9, "250", "50", *["0"] * 6, "900", "1", "25"]
    found = parse_stat(f"42 (a) b (c)) {' '.join(fields)}")
    assert (found.pid, found.parent, found.name, found.started) == (42, 7, "a) b (c)", 900.0)
    ticks = os.sysconf("SC_CLK_TCK")
    assert found.cpu_s == 300 / ticks and found.memory == 25 * os.sysconf("SC_PAGE_SIZE")
    for damaged in ("", "42", "42 (x", "42 (x) S"):
        with pytest.raises((ValueError, IndexError)):
            parse_stat(damaged)


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_this_process_and_its_child_are_found_with_their_run(platform: str) -> None:
    if platform == "linux" and not sys.platform.startswith("linux"):
        pytest.skip("needs /proc")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        table = ProcessTable(platform=platform)
        table.read({os.getpid(): "1121-0000"})
        rows = {row.pid: row for row in table.read({os.getpid(): "1121-0000"}, limit=10_000)}
        mine = rows[os.getpid()]
        assert mine.run_id == rows[child.pid].run_id == "1121-0000"
        assert mine.memory == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
        assert rows[os.getppid()].run_id == ""
        first = list(rows)[: sum(row.run_id != "" for row in rows.values())]
        assert all(rows[pid].run_id for pid in first)
    finally:
        child.communicate(b"\n")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_share_of_the_processor_is_not_known_before_the_second_reading(platform: str) -> None:
    if platform == "linux" and not sys.platform.startswith("linux"):
        pytest.skip("needs /proc")
    times = iter([100.0, 110.0])
    table = ProcessTable(clock=lambda: next(times), platform=platform)
    assert {row.cpu_percent for row in table.read(limit=10_000)} == {None}
    began = time.process_time()
    while time.process_time() - began < 0.5:
        pass
    mine = next(row for row in table.read(limit=10_000) if row.pid == os.getpid())
    assert mine.cpu_percent == pytest.approx(5.0, abs=3.0)
