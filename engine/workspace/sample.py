"""Copies the bundled sample data, conversations and text, to a folder of the user's choice."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.files import write_bytes
from engine.core.i18n import _
from engine.core.outputs import check_output_file, check_output_parent
from engine.core.paths import shipped


class SampleReport(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of `sample --json`."""

    folder: str
    memory: str
    """Folder of Chinese conversations in three formats."""
    year: str
    """Folder of English conversations: one person's year with an assistant."""
    text: str
    """Folder of plain text for training from scratch."""
    written: list[str]
    unchanged: list[str]

    def conversations(self, language: str) -> str:
        """The folder of conversations for a person who reads `language`: "zh", else English."""
        return self.memory if language == "zh" else self.year


def write_sample(folder: Path) -> SampleReport:
    """Copies the sample with its licences into `folder`; identical files are left alone.

    Raises BadInput or UsageProblem, before anything is written, when a file of the same name has other content or
    something else stands in its place; OSError.
    """
    data = shipped("data")
    sources = {
        **{
            file.relative_to(data / "sample"): file
            for file in sorted((data / "sample").rglob("*"))
            if file.is_file()
        },
        **{file.relative_to(data): file for file in sorted((data / "LICENSES").iterdir())},
        Path("README.md"): data / "README.md",
    }
    if folder.exists() and not folder.is_dir():
        raise BadInput(_("The sample needs a folder, but this is a file"), path=folder)
    check_output_parent(folder, hint="h2q-tui sample DIR")
    written, unchanged = [], []
    for name, source in sources.items():
        target = folder / name
        check_output_file(target, hint="h2q-tui sample DIR")
        if not target.exists():
            written.append(name)
        elif target.is_file() and target.read_bytes() == source.read_bytes():
            unchanged.append(name)
        else:
            raise BadInput(
                _("A different file of this name exists; choose an empty folder"),
                path=target,
                hint="h2q-tui sample DIR",
            )
    for name in written:
        write_bytes(folder / name, sources[name].read_bytes())
    return SampleReport(
        folder=str(folder),
        memory=str(folder / "memory"),
        year=str(folder / "year"),
        text=str(folder / "text"),
        written=[str(name) for name in written],
        unchanged=[str(name) for name in unchanged],
    )
