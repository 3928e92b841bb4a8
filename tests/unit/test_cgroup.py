from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.machine.cgroup import limitable_cgroup, limited_memory


def kernel(root: Path, line: str, *files: str) -> Path:
    """A `/` with the cgroup files of a kernel."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(line)
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("")
    return root


def test_the_run_cgroup_is_a_child_in_v1_and_a_sibling_in_v2(tmp_path: Path) -> None:
    one = kernel(tmp_path / "1", "4:cpu:/\n3:memory:/a/b\n0::/\n")
    found = limitable_cgroup(one)
    assert found is not None
    assert found.run_cgroup(7) == one / "sys/fs/cgroup/memory/a/b/h2q-7"
    two = kernel(tmp_path / "2", "0::/user/a.scope\n", "sys/fs/cgroup/user/a.scope/memory.max")
    found = limitable_cgroup(two)
    assert found is not None
    assert (found.run_cgroup(7), found.limit_file) == (two / "sys/fs/cgroup/user/h2q-7", "memory.max")
    assert limitable_cgroup(kernel(tmp_path / "3", "0::/\n")) is None
    assert limitable_cgroup(tmp_path / "none") is None


def test_without_permission_the_reason_is_returned_and_nothing_is_left(tmp_path: Path) -> None:
    root = kernel(tmp_path, "3:memory:/a\n")  # no such folder
    with limited_memory(100, root) as reason:
        assert reason
    assert list(root.rglob("h2q-*")) == []


def test_the_kernel_kills_a_process_above_the_limit_and_one_below_leaves_its_cgroup() -> None:
    home = limitable_cgroup()
    if home is None or not os.access(home.run_cgroup().parent, os.W_OK):
        pytest.skip("no cgroup may be made here")
    program = (
        "import sys\n"
        "from engine.machine.cgroup import limitable_cgroup, limited_memory\n"
        "before = open('/proc/self/cgroup').read()\n"
        "with limited_memory(64) as reason:\n"
        "    if reason: sys.exit(77)\n"
        "    assert open('/proc/self/cgroup').read() != before\n"
        "    held = bytearray(int(sys.argv[1]) << 20)\n"
        "    held[::4096] = b'x' * len(held[::4096])\n"
        "assert open('/proc/self/cgroup').read() == before\n"
        "assert not limitable_cgroup().run_cgroup().exists()\n"
    )
    codes = []
    for mb in (16, 256):
        child = subprocess.Popen([sys.executable, "-c", program, str(mb)], cwd=Path(__file__).parents[2])
        codes.append(child.wait(60))
        left = home.run_cgroup().with_name(f"h2q-{child.pid}")
        if left.exists():
            left.rmdir()
    if 77 in codes:
        pytest.skip("no cgroup may be made here")
    assert codes == [0, -9]
