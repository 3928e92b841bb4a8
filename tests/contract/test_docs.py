"""The docs name what is there: every path exists, and nothing cites a document from elsewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PLACE = re.compile(r"`((?:engine|tui|tests|bench|data|docs|styles)/[^`\s]*)`")
ELSEWHERE = re.compile(
    r"\b(?:DESIGN(?:\.md)?\s*\W?\s*\d|DESIGN\.md|UX\.md|STYLE\.md|HOUSE\.md|NAMES\.md|findings/|facts/)"
)


def tracked() -> list[Path]:
    """Text files of the repository, this one apart."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    kinds = {".py", ".md", ".toml", ".tcss", ".yml", ".yaml", ".sh", ".cpp", ""}
    paths = (ROOT / line for line in listed.splitlines())
    return [path for path in paths if path.suffix in kinds and path.is_file() and path != Path(__file__)]


def test_every_place_that_the_docs_name_exists() -> None:
    missing = []
    for doc in DOCS:
        for line in doc.read_text(encoding="utf-8").splitlines():
            if "not built yet" in line:
                continue
            for place in PLACE.findall(line):
                if "<" not in place and not (ROOT / place.partition(":")[0]).exists():
                    missing.append(f"{doc.relative_to(ROOT)}: {place}")
    assert missing == []


def test_a_package_that_the_layers_name_is_described() -> None:
    floors = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    packages = [path.name for path in (ROOT / "engine").iterdir() if (path / "__init__.py").exists()]
    assert [name for name in packages if f"| `{name}` |" not in floors] == []


def test_nothing_cites_a_document_that_is_not_here() -> None:
    cited = []
    for path in tracked():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if ELSEWHERE.search(line):
                cited.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert cited == []
