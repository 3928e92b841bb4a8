"""Whether the files that a writer makes of talks are read back as those talks."""

from __future__ import annotations

import random
import shutil
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import msgspec

from bench.writers.shape import ExportFiles, ExportShape
from bench.writers.talks import SpokenTurn, WholeTalk
from engine.core.errors import BadInput
from engine.memory.importers.fields import ImportOptions
from engine.memory.importers.formats import find_importer, import_files
from engine.memory.importers.readers.unpack import OtherFile, UnreadableFile
from engine.memory.records import Conversation, Skipped

WAYS = ("files", "folder", "zip")
"""How an export is handed over: file by file, as a folder, or inside a zip."""

_IN_ARCHIVE = "Export [1] 50%"
"""The folder inside an archive, with signs that patterns give a meaning to."""
TurnFacts = tuple[str, str, float, tuple[str, ...]]
"""Role, text, time (0 for none) and the sorted other answers of a turn."""
TalkFacts = tuple[str, tuple[TurnFacts, ...]]
"""Title and turns of a talk."""


class ReadBack(msgspec.Struct, frozen=True, kw_only=True):
    """What an import gives."""

    talks: list[TalkFacts]
    """Sorted."""
    left_out: Counter[str]
    ids: set[str]
    formats: set[str]


def written(shape: ExportShape, talks: list[WholeTalk]) -> list[TalkFacts]:
    """What an import of the talks in this shape must give, sorted."""
    return sorted(
        (
            "" if shape.names_itself else talk.title,
            tuple((turn.role, turn.text, turn.time, tuple(sorted(turn.others))) for turn in talk.turns),
        )
        for talk in map(shape.holds, talks)
    )


def expected_left_out(shape: ExportShape, talks: list[WholeTalk]) -> Counter[str]:
    """What an import must count as left out, without the noise of the program."""
    turns: list[SpokenTurn] = [turn for talk in map(shape.holds, talks) for turn in talk.turns]
    thoughts = sum(bool(turn.thought) for turn in turns)
    return Counter(reasoning=thoughts) if thoughts and shape.thoughts_counted else Counter()


def read_back(shape: ExportShape, talks: list[WholeTalk], way: str, chance: random.Random) -> ReadBack:
    """Writes the talks and imports them. Raises BadInput for a file that cannot be read."""
    files = shape.write([shape.holds(talk) for talk in talks], chance)
    with tempfile.TemporaryDirectory() as folder:
        return _imported(shape, _handed_over(files, way, Path(folder) / "export"), Path(folder) / "scratch")


def _handed_over(files: ExportFiles, way: str, root: Path) -> list[Path]:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if way == "files":
        return [root / name for name in files]
    if way == "folder":
        return [root]
    archive = root.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(f"{_IN_ARCHIVE}/{name}", content)
    shutil.rmtree(root)
    return [archive]


def _imported(shape: ExportShape, paths: list[Path], scratch: Path) -> ReadBack:
    back = ReadBack(talks=[], left_out=Counter(), ids=set(), formats=set())
    for path in paths:
        if path.name in shape.beside:
            continue
        scratch.mkdir(exist_ok=True)
        for entry in import_files(path, "auto", scratch):
            if isinstance(entry, UnreadableFile):
                raise entry.error
            if isinstance(entry, OtherFile):
                continue
            back.formats.add(entry.format)
            for item in find_importer(entry.format).read(entry.file.path, ImportOptions(me=shape.me)):
                if isinstance(item, Conversation):
                    back.talks.append(_facts(shape, item))
                    back.ids.add(item.id)
                elif isinstance(item, Skipped) and item.reason not in shape.noise:
                    back.left_out[item.reason] += item.count
    back.talks.sort()
    return back


def _facts(shape: ExportShape, conversation: Conversation) -> TalkFacts:
    turns = tuple(
        (str(turn.role), turn.text, turn.time or 0, tuple(sorted(turn.alternatives)))
        for turn in conversation.turns
    )
    return ("" if shape.names_itself else conversation.title), turns


def share_read_back(shape: ExportShape, talks: list[WholeTalk], way: str, chance: random.Random) -> float:
    """The share of the talks that come back exactly; 0 where the file or what is left out of it is misjudged."""
    try:
        back = read_back(shape, talks, way, chance)
    except BadInput:
        return 0.0
    if back.formats != {shape.format} or back.left_out != expected_left_out(shape, talks):
        return 0.0
    expected = Counter(written(shape, talks))
    return (expected & Counter(back.talks)).total() / max(expected.total(), len(back.talks))
