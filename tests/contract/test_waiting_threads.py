"""Every process has set how its threads wait before it loads torch: the library reads it once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.export_models import write_arch, write_gguf

ROOT = Path(__file__).parents[2]
WATCH = """
import os, runpy, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            found = [os.environ.get(name, "not set") for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")]
            os.write(output, ", ".join(found).encode())
            os._exit(0)

output = os.dup(1)  # a run sends what it prints to its log
sys.meta_path.insert(0, Watch())
module, *sys.argv[1:] = sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return write_gguf(folder / "tiny.gguf", write_arch(folder / "tiny", "llama"))


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--mode", "lora", "--min-corpus", "1", "--data", "TEXT", "--model", "GGUF"],
        ["train", "--mode", "scratch", "--data", "TEXT"],
        ["validate", "--base", "GGUF", "--new", "GGUF"],
        ["export", "GGUF", "--to", "hf", "--output", "OUT"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
@pytest.mark.parametrize(("own", "expected"), [("", "PASSIVE, 1000"), ("ACTIVE", "ACTIVE, not set")])
def test_a_command_lets_waiting_threads_sleep(
    tmp_path: Path, gguf: Path, command: list[str], own: str, expected: str
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("One line after the other.\n" * 2_000, encoding="utf-8")
    places = {"GGUF": str(gguf), "TEXT": str(text), "OUT": str(tmp_path / "out")}
    words = [places.get(word, word) for word in command]
    found = _watch(
        ["tui.cli.main", "--lang", "en", "--data-dir", str(tmp_path / "ws"), *words],
        {"OMP_WAIT_POLICY": own} if own else {},
    )
    assert found == expected


def _watch(words: list[str], environment: dict[str, str]) -> str:
    others = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    done = subprocess.run(
        [sys.executable, "-c", WATCH, *words],
        cwd=ROOT,
        env=others | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr
