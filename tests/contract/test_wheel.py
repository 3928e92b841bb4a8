"""The wheel contains styles and data, and the program finds them there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["data", "styles"])
def test_an_installed_wheel_finds_its_data(wheel: Path, name: str) -> None:
    shipped = [file.relative_to(ROOT) for file in (ROOT / name).rglob("*") if file.is_file()]
    assert len(shipped) > 0
    code = f"from engine.core.paths import shipped; print(shipped({name!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=wheel,
        env={"PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
    )
    found = Path(done.stdout.strip())
    assert found.is_relative_to(wheel)
    # Only the READMEs use the pictures.
    expected = [file for file in shipped if not str(file).startswith("data/pictures/")]
    missing = [file for file in expected if not (found.parent / file).exists()]
    assert missing == []


def test_the_wheel_contains_both_packages_and_no_tests(wheel: Path) -> None:
    assert {"tui", "engine"} <= {path.name for path in wheel.iterdir()}
    assert not (wheel / "tests").exists() and not (wheel / "bench").exists()
