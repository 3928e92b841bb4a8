from __future__ import annotations

from pathlib import Path

from engine.health.limits import find_limits
from engine.machine.budget import Budget, limit_to_cgroup, requested_budget, resolve_budget
from engine.machine.cgroup import memory_limit_bytes


def kernel(root: Path, own: str, **limits: str) -> Path:
    """A root with `/proc/self/cgroup` and limit files; keys are paths with `__` for `/`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    for name, value in limits.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("DOT", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value + "\n")
    return root


def test_the_lowest_limit_of_all_parent_cgroups_applies(tmp_path: Path) -> None:
    root = kernel(
        tmp_path, "0::/a/b\n", a__b__memoryDOTmax="max", a__memoryDOTmax="1073741824", memoryDOTmax="max"
    )
    assert memory_limit_bytes(root) == 1 << 30


def test_cgroup_v1_limits_are_read(tmp_path: Path) -> None:
    root = kernel(
        tmp_path,
        "5:cpu,cpuacct:/\n4:memory:/job\n0::/\n",
        memory__job__memoryDOTlimit_in_bytes="536870912",
        memory__memoryDOTlimit_in_bytes="9223372036854771712",
    )
    assert memory_limit_bytes(root) == 512 << 20


def test_a_container_without_a_visible_path_uses_the_limit_at_the_mount_point(tmp_path: Path) -> None:
    root = kernel(tmp_path, "0::/system.slice/docker-1.scope\n", memoryDOTmax="2147483648")
    assert memory_limit_bytes(root) == 2 << 30


def test_without_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    assert memory_limit_bytes(tmp_path) is None
    assert memory_limit_bytes(kernel(tmp_path, "0::/\nbroken line\n", memoryDOTmax="max")) is None


def test_the_smallest_bound_is_the_budget_and_its_reason(tmp_path: Path) -> None:
    assert resolve_budget(0.1, root=tmp_path) == Budget(102.4, "max_memory_gb")
    limited = kernel(tmp_path, "0::/\n", memoryDOTmax=str(50 << 20))
    assert resolve_budget(0.1, root=limited) == Budget(50.0, "cgroup")
    assert resolve_budget(1e6, root=tmp_path / "none").reason == "available"


def test_the_health_tab_shows_the_budget_that_a_run_gets(tmp_path: Path) -> None:
    nested = kernel(
        tmp_path, "0::/user.slice/app.scope\n", **{"user.slice__app.scope__memory.max": str(96 << 20)}
    )
    shown = find_limits(4.0, root=nested)
    assert Budget(shown.budget_mb, shown.budget_reason) == resolve_budget(4.0, root=nested)
    assert (shown.budget_mb, shown.budget_reason) == (96.0, "cgroup")


def test_the_flag_replaces_the_setting(tmp_path: Path) -> None:
    assert resolve_budget(4.0, 0.1, root=tmp_path) == Budget(102.4, "max_memory_gb")
    assert requested_budget(4.0) == Budget(4096.0, "max_memory_gb")


def test_the_cgroup_of_the_run_itself_does_not_lower_its_budget(tmp_path: Path) -> None:
    own = kernel(
        tmp_path, "0::/a/h2q-7\n", a__memoryDOTmax=str(200 << 20), **{"a__h2q-7__memory.max": str(50 << 20)}
    )
    requested = Budget(300.0, "max_memory_gb")
    assert limit_to_cgroup(requested, exclude="h2q-7", root=own) == Budget(200.0, "cgroup")
    assert limit_to_cgroup(Budget(100.0, "max_memory_gb"), exclude="h2q-7", root=own).mb == 100.0
