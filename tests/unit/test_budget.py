from __future__ import annotations

from pathlib import Path

from engine.machine.budget import Budget, cgroup_limit_bytes, effective_budget


def kernel(root: Path, own: str, **limits: str) -> Path:
    """A root with `/proc/self/cgroup` and limit files; keys are paths with `__` for `/`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    for name, value in limits.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("DOT", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value + "\n")
    return root


def test_the_tightest_cgroup_on_the_way_up_counts(tmp_path: Path) -> None:
    root = kernel(
        tmp_path, "0::/a/b\n", a__b__memoryDOTmax="max", a__memoryDOTmax="1073741824", memoryDOTmax="max"
    )
    assert cgroup_limit_bytes(root) == 1 << 30


def test_version_one_of_cgroups_is_read_too(tmp_path: Path) -> None:
    root = kernel(
        tmp_path,
        "5:cpu,cpuacct:/\n4:memory:/job\n0::/\n",
        memory__job__memoryDOTlimit_in_bytes="536870912",
        memory__memoryDOTlimit_in_bytes="9223372036854771712",
    )
    assert cgroup_limit_bytes(root) == 512 << 20


def test_a_container_whose_path_is_not_visible_has_the_limit_at_the_top(tmp_path: Path) -> None:
    root = kernel(tmp_path, "0::/system.slice/docker-1.scope\n", memoryDOTmax="2147483648")
    assert cgroup_limit_bytes(root) == 2 << 30


def test_without_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    assert cgroup_limit_bytes(tmp_path) is None
    assert cgroup_limit_bytes(kernel(tmp_path, "0::/\nbroken line\n", memoryDOTmax="max")) is None


def test_the_smallest_bound_gives_the_budget_and_its_reason(tmp_path: Path) -> None:
    assert effective_budget(0.1, root=tmp_path) == Budget(102.4, "max_memory_gb")
    limited = kernel(tmp_path, "0::/\n", memoryDOTmax=str(50 << 20))
    assert effective_budget(0.1, root=limited) == Budget(50.0, "cgroup")
    assert effective_budget(1e6, root=tmp_path / "none").reason == "available"
