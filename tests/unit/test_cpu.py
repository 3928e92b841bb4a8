"""Which processors a run may use, and how much of them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import UsageProblem
from engine.machine.cpu import Throttle, parse_cpu_list, set_cpu_affinity, throttle_pause

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("", {0, 1, 2, 3}), ("0-2", {0, 1, 2}), ("3", {3}), ("0, 2-3", {0, 2, 3}), ("auto", {0, 1, 2, 3})],
)
def test_lists_and_ranges_are_parsed(tmp_path: Path, text: str, chosen: set[int]) -> None:
    assert parse_cpu_list(text, {0, 1, 2, 3}, tmp_path) == chosen


@pytest.mark.parametrize("text", ["4", "0-9", "a", "1-", "-1", "2-1", ","])
def test_invalid_and_forbidden_processors_are_rejected(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageProblem, match="cpu_affinity"):
        parse_cpu_list(text, {0, 1, 2, 3}, tmp_path)


def test_auto_uses_one_thread_of_each_physical_core(tmp_path: Path) -> None:
    for number in range(4):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number % 2},{number % 2 + 2}\n")
    assert parse_cpu_list("auto", {0, 1, 2, 3}, tmp_path) == {0, 1}
    assert parse_cpu_list("auto", {1, 2, 3}, tmp_path) == {1, 2}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no affinity here")
def test_existing_threads_are_bound_too() -> None:
    one = min(os.sched_getaffinity(0))
    program = (
        "import os, threading, time\n"
        "over = threading.Event()\n"
        "thread = threading.Thread(target=over.wait)\n"
        "thread.start()\n"
        "from engine.machine.cpu import set_cpu_affinity\n"
        f"set_cpu_affinity('{one}')\n"
        "print([sorted(os.sched_getaffinity(int(task))) for task in os.listdir('/proc/self/task')])\n"
        "over.set()"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    bound = ast.literal_eval(process.stdout)
    assert len(bound) > 1
    assert all(processors == [one] for processors in bound)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity here")
def test_compute_threads_stay_on_the_chosen_processors() -> None:
    one = min(os.sched_getaffinity(0))
    program = (
        "import os\n"
        "from engine.machine.cpu import set_cpu_affinity\n"
        f"set_cpu_affinity('{one}')\n"
        "from engine.training.devices import physical_cores\n"
        "print(sorted(os.sched_getaffinity(0)), physical_cores())"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert process.stdout.split("\n")[0] == f"[{one}] 1"


def test_systems_without_affinity_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert "does not support" in set_cpu_affinity("0")
    assert set_cpu_affinity("") == ""


@given(
    cpu=st.just(0.0) | st.floats(1e-6, 1e4),
    wall=st.floats(0, 1e4),
    processors=st.integers(1, 64),
    percent=st.floats(1, 100),
)
def test_the_pause_yields_the_configured_share(
    cpu: float, wall: float, processors: int, percent: float
) -> None:
    pause = throttle_pause(cpu, wall, processors, percent)
    share = 100 * cpu / (processors * max(wall + pause, 1e-12))
    assert pause == 0 or share == pytest.approx(percent, rel=1e-6)
    assert share <= percent * (1 + 1e-6) or wall + pause == 0


def test_steps_are_throttled_and_a_stop_ends_the_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    now, spent = [100.0], [7.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    throttle = Throttle(25.0, clock=lambda: now[0], cpu=lambda: spent[0], sleep=sleep)
    for _step in range(50):
        now[0], spent[0] = now[0] + 0.2, spent[0] + 0.8  # four busy processors
        throttle.pause(lambda: False)
    assert (spent[0] - 7.0) / (4 * (now[0] - 100.0)) == pytest.approx(0.25, rel=0.02)
    spent[0] += 100.0
    before = now[0]
    throttle.pause(lambda: True)
    assert now[0] == before
    assert Throttle(100.0, sleep=sleep).pause(lambda: False) == 0.0


def test_a_real_process_stays_within_its_share() -> None:
    share = 100 * 0.25 / (os.cpu_count() or 1)
    program = (
        "import time\n"
        "from engine.machine.cpu import Throttle\n"
        f"throttle = Throttle({share})\n"
        "began, spent = time.monotonic(), time.process_time()\n"
        "while time.process_time() - spent < 0.3:\n"
        "    sum(range(20000))\n"
        "    throttle.pause(lambda: False)\n"
        "print((time.process_time() - spent) / (time.monotonic() - began))"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert float(process.stdout) < 0.3
