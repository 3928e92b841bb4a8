"""The READMEs: their commands exist, and both languages have the same content."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.commands import problem_of
from tests.contract.readme import CHINESE, ENGLISH, ROOT, blocks, rows

FILES = pytest.mark.parametrize("file", [ENGLISH, CHINESE], ids=["en", "zh"])


def commands(file: Path) -> list[str]:
    lines = [line for block in blocks(file) for line in block]
    return [line[line.index("h2q-tui") :] for line in lines if re.match(r"(ssh -t \S+ )?h2q-tui\b", line)]


@FILES
def test_every_command_exists(file: Path) -> None:
    assert len(commands(file)) > 8
    assert [problem for line in commands(file) if (problem := problem_of(line))] == []


@FILES
def test_every_make_target_exists(file: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = {
        word for block in blocks(file) for line in block for word in re.findall(r"\bmake ([a-z-]+)", line)
    }
    assert {"demo", "test", "install"} <= shown
    assert [target for target in shown if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


@FILES
def test_every_local_link_has_a_target(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert ["make demo", "make test"] in blocks(ENGLISH)
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_both_languages_have_the_same_commands() -> None:
    english, chinese = blocks(ENGLISH), blocks(CHINESE)
    # The Chinese one has one more block: a package mirror.
    extra = [block for block in chinese if block not in english]
    assert [block for block in english if block not in chinese] == []
    assert len(extra) == 1 and any("PIP_INDEX_URL" in line or "index-url" in line for line in extra[0])


def test_both_languages_have_the_same_table() -> None:
    def bare(file: Path) -> list[tuple[list[str], list[str], bool]]:
        return [(re.findall(r"`([^`]+)`", row.there), row.code, row.built) for row in rows(file)]

    assert bare(ENGLISH) == bare(CHINESE)


def test_the_first_steps_run_as_printed(tmp_path: Path) -> None:
    (steps,) = blocks(ENGLISH, "sh run")
    environment = {
        **os.environ,
        "H2Q_DATA_DIR": str(tmp_path / "workspace"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    for step in steps:
        command = [sys.executable, "-m", "tui.cli.main", *step.split()[1:]]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        assert done.returncode == 0, f"{step}: {done.stderr}"
    assert (tmp_path / "workspace" / "memory" / "memory.db").exists()
