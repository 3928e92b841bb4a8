"""Whether an import adds up: every message of a file is taken, an alternative of a taken one, or counted as left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from engine.memory.importers.fields import ImportOptions
from engine.memory.importers.formats import find_importer, import_files
from engine.memory.importers.readers.unpack import OtherFile, UnreadableFile
from engine.memory.records import Conversation, Skipped


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What an import of a path reads, in messages."""

    conversations: int
    taken: int
    alternatives: int
    """Regenerated answers that are kept beside the taken one."""
    left_out: dict[str, int]
    """Messages and their parts, by reason."""
    entries_left_out: dict[str, int]
    """Whole conversations and files, by reason; their messages are not counted."""

    def accounted(self, parts: Mapping[str, int]) -> int:
        """The messages of the file that the import accounts for.

        `parts` are the reasons that count parts of taken messages, such as the image beside a text, with how many.
        """
        return self.taken + self.alternatives + sum(self.left_out.values()) - sum(parts.values())


def account(path: Path, options: ImportOptions | None = None) -> Account:
    """Imports a file, folder or archive and counts. Raises BadInput for any file that cannot be read."""
    conversations: list[Conversation] = []
    left_out, entries = Counter[str](), Counter[str]()
    with TemporaryDirectory() as scratch:
        for entry in import_files(path, "auto", Path(scratch)):
            if isinstance(entry, UnreadableFile):
                raise entry.error
            if isinstance(entry, OtherFile):
                entries[entry.reason] += 1
                continue
            for item in find_importer(entry.format).read(entry.file.path, options or ImportOptions()):
                if isinstance(item, Conversation):
                    conversations.append(item)
                elif isinstance(item, Skipped):
                    (entries if item.is_conversation else left_out)[item.reason] += item.count
    # A question of which nothing was imported keeps its place, and is counted as left out.
    turns = [turn for conversation in conversations for turn in conversation.turns if turn.text.strip()]
    return Account(
        conversations=len(conversations),
        taken=len(turns),
        alternatives=sum(len(turn.alternatives) for turn in turns),
        left_out=dict(left_out),
        entries_left_out=dict(entries),
    )


def assert_adds_up(path: Path, messages: int, parts: Mapping[str, int] | None = None) -> Account:
    """Asserts that the import accounts for exactly the `messages` that the file holds; returns the counts."""
    counts = account(path)
    assert counts.accounted(parts or {}) == messages, (messages, counts)
    return counts


def texts_read(conversations: Iterable[Conversation]) -> list[str]:
    """Every text that was read, other versions of answers included."""
    return [
        text
        for conversation in conversations
        for turn in conversation.turns
        for text in (turn.text, *turn.alternatives)
    ]
