"""The app imports no heavy library: checked in a fresh interpreter that has opened every tab."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "sentence_transformers", "sklearn", "scipy", "numpy", "peft", "plotext")
OPEN = """
import asyncio, sys
from pathlib import Path
from engine.core.paths import Workspace
from tui.app.app import H2QApp
from tui.tabs.registry import TABS

async def main():
    app = H2QApp(Workspace(Path(sys.argv[1])))
    async with app.run_test(size=(80, 24)) as pilot:
        for number in range(1, len(TABS) + 1):
            await pilot.press(str(number))
        await pilot.press("S", "escape", "1", "n", "escape", "question_mark", "escape")
        await pilot.pause()

asyncio.run(main())
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_the_app_imports_nothing_heavy(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "tui" in loaded
    assert not loaded & set(HEAVY)
