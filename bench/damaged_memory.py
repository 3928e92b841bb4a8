"""Damaged copies of a memory: what reading tells, what the preflight finds, and whether a restore leads out.

"Silently wrong" counts copies that are read without an error and without a conversation named as damaged, although
a conversation differs from the original or is missing. Its target is 0.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.result import Benchmark, BenchResult, compare
from engine.core.chat import Role
from engine.core.errors import H2QError
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.health.grades import Grade
from engine.health.preflight import find_check
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.workspace.backup import create_backup, list_backups, restore_backup
from engine.workspace.open import open_workspace

COPIES = 200
WORDS = [
    "river",
    "stone",
    "market",
    "violin",
    "garden",
    "winter",
    "engine",
    "letter",
    "mountain",
    "bridge",
    "candle",
    "forest",
    "harbor",
    "island",
]
CONVERSATIONS = 150


@dataclass
class DamageCounts:
    """What happened to the damaged copies."""

    copies: int = 0
    unchanged: int = 0
    """Read as the original: the damage is in free space or in an index."""
    told: int = 0
    """An expected error, or the damaged conversations are named."""
    silent: int = 0
    unforeseen: int = 0
    """An exception of another kind while reading or checking."""
    found: int = 0
    """Copies of which the preflight says that they are damaged."""
    quoted: int = 0
    """Errors or findings that quote a text."""
    restored: int = 0
    backed_up_as_sound: int = 0
    """Backups of a copy whose `integrity_check` fails that are not marked as damaged."""
    examples: list[str] = field(default_factory=list)


def talk(number: int) -> Conversation:
    """A conversation of two to six turns with every field that can be damaged."""
    chance = random.Random(number)

    def text(words: int) -> str:
        return " ".join(chance.choices(WORDS, k=words))

    turns = [
        Turn(
            role=(Role.USER, Role.ASSISTANT)[position % 2],
            text=f"turn {number}.{position}: {text(12 + 30 * (position % 2))}.",
            time=1.7e9 + 1000 * number + position,
            external_id=f"m-{number}-{position}",
            alternatives=(text(9),) if position == 1 and number % 3 == 0 else (),
        )
        for position in range(2 + 2 * (number % 3))
    ]
    return Conversation.of(
        turns, source="bench", external_id=f"c-{number}", title=f"title {number} {text(3)}"
    )


@contextmanager
def damaged_workspace() -> Iterator[Workspace]:
    """A workspace with memory, corpus and one backup; the memory is one file without a WAL."""
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        workspace = open_workspace(Workspace(Path(folder) / "ws"))
        with MemoryStore(workspace.memory_db) as store:
            for start in range(0, CONVERSATIONS, 50):
                store.add((talk(number) for number in range(start, start + 50)), path=f"/x/{start}.json")
            grown = talk(3)
            longer = [*grown.turns, Turn(role=Role.USER, text="one more", time=1.8e9)]
            store.add(
                [Conversation.of(longer, source="bench", external_id=grown.external_id, title=grown.title)]
            )
            build_corpus(store, Settings(embedder=""))
        create_backup(workspace)
        single_file(workspace.memory_db)
        yield workspace


def single_file(memory: Path) -> None:
    """Moves the WAL into the file, so that its bytes can be changed."""
    with closing(sqlite3.connect(memory)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()


def flip_bytes(data: bytes, chance: random.Random) -> bytes:
    """One to eight bytes changed: anywhere, in the first page, or in a text so that it stays valid UTF-8."""
    changed = bytearray(data)
    letters = [at for at, byte in enumerate(data) if chr(byte).isalpha() and byte < 0x80]
    for _number in range(chance.choice((1, 1, 2, 8))):
        kind = chance.random()
        if kind < 0.4:
            changed[chance.choice(letters)] ^= chance.choice((1, 2, 4))
        else:
            changed[chance.randrange(len(changed)) if kind < 0.8 else chance.randrange(4096)] ^= (
                chance.randrange(1, 256)
            )
    return bytes(changed)


def try_copy(
    workspace: Workspace, damaged: bytes, wanted: dict[str, Conversation], counts: DamageCounts
) -> None:
    """Reads, checks, backs up and restores one damaged copy."""
    for path in workspace.memory_db.parent.iterdir():
        path.unlink()
    workspace.memory_db.write_bytes(damaged)
    backups = list_backups(workspace)
    (good,) = backups
    counts.copies += 1
    told, read, said = False, {}, []

    def attempt(action: Callable[[], object]) -> bool:
        try:
            action()
        except H2QError as error:
            said.append(str(error))
            return True
        except Exception as error:
            counts.unforeseen += 1
            counts.examples.append(f"{type(error).__name__}: {str(error)[:80]}")
            return True
        return False

    def read_all() -> None:
        nonlocal told, read
        with MemoryStore(workspace.memory_db, readonly=True) as store:
            read = {conversation.id: conversation for conversation in store.conversations()}
            told = bool(store.damaged)

    told = attempt(read_all) or told
    if told:
        counts.told += 1
    elif read == wanted:
        counts.unchanged += 1
    else:
        counts.silent += 1
        counts.examples.append(f"silent: {difference(read, wanted)}")

    result = find_check("store").run(workspace)
    counts.found += result.grade is Grade.FAIL
    said.append(result.detail)
    sound = is_sound(workspace.memory_db)
    attempt(lambda: create_backup(workspace, "weekly"))
    for made in list_backups(workspace):
        if made.path != good.path:
            counts.backed_up_as_sound += not sound and not made.damage
    counts.quoted += any(word in text for text in said for word in WORDS)
    if not attempt(lambda: restore_backup(workspace, Path(good.path))):
        with MemoryStore(workspace.memory_db, readonly=True) as store:
            counts.restored += {one.id: one for one in store.conversations()} == wanted
    for made in list_backups(workspace):
        if made.path != good.path:
            Path(made.path).unlink()


def difference(read: dict[str, Conversation], wanted: dict[str, Conversation]) -> str:
    """The fields that differ, without their texts."""
    fields = Counter[str]()
    for id_ in read.keys() ^ wanted.keys():
        fields["missing" if id_ in wanted else "extra"] += 1
    for id_ in read.keys() & wanted.keys():
        for name in Conversation.__struct_fields__:
            if getattr(read[id_], name) != getattr(wanted[id_], name):
                fields[name] += 1
    return ", ".join(f"{count} {name}" for name, count in fields.items())


def is_sound(memory: Path) -> bool:
    """Whether SQLite's `integrity_check` passes."""
    try:
        with closing(sqlite3.connect(memory)) as connection:
            return bool(connection.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok")
    except (sqlite3.Error, UnicodeDecodeError):
        return False


def try_copies(count: int, *, seed: int = 5) -> DamageCounts:
    """Damages `count` copies of one memory, each in another way."""
    counts, chance = DamageCounts(), random.Random(seed)
    with damaged_workspace() as workspace:
        with MemoryStore(workspace.memory_db, readonly=True) as store:
            wanted = {conversation.id: conversation for conversation in store.conversations()}
        single_file(workspace.memory_db)
        original = workspace.memory_db.read_bytes()
        kept = workspace.root / "kept.tar.gz"
        shutil.copy(list_backups(workspace)[0].path, kept)
        for _number in range(count):
            try_copy(workspace, flip_bytes(original, chance), wanted, counts)
    return counts


def damaged_copies(full: bool) -> list[BenchResult]:
    """200 copies at full length, 60 otherwise."""
    begin = time.perf_counter()
    counts = try_copies(COPIES if full else 60)
    about = (
        f"{counts.copies} copies in {time.perf_counter() - begin:.0f} s: {counts.unchanged} read as the original, "
        f"{counts.told} told, {counts.silent} silently wrong, {counts.unforeseen} unforeseen, {counts.found} found by "
        f"check, {counts.quoted} quoted a text, {counts.backed_up_as_sound} backed up as sound, "
        f"{counts.restored} restored"
    )
    right = counts.copies - counts.silent - counts.unforeseen - counts.quoted
    return [
        compare(
            "durability.damaged_memory.told",
            ours=max(0, right) / counts.copies,
            baseline=1.0,
            target=1.0,
            unit="share read right or told",
            lower_is_better=False,
            notes=about,
        ),
        compare(
            "durability.damaged_memory.restored",
            ours=(counts.restored - counts.backed_up_as_sound) / counts.copies,
            baseline=1.0,
            target=1.0,
            unit="share restored",
            lower_is_better=False,
            notes="by `backup restore`, with no damaged copy among the sound backups",
        ),
    ]


BENCHMARKS = (
    Benchmark("durability.damaged_memory", "reading and restoring damaged memories", damaged_copies, 20),
)
