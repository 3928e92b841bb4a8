"""Branched talks through every importer of trees: what was shown comes back, every other message is accounted for."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from bench.branched_talks import DATABASES, JSON_EXPORTS, random_talk, write_talk
from bench.result import Benchmark, BenchResult, compare
from engine.memory.importers.fields import ImportOptions
from engine.memory.importers.formats import detect_format, find_importer
from engine.memory.records import Conversation, Skipped


def round_trips(full: bool) -> list[BenchResult]:
    chance = random.Random(7)
    talks = [random_talk(chance) for _talk in range(400 if full else 60)]
    messages = sum(len(talk.messages) for talk in talks)
    shapes = (*JSON_EXPORTS, *DATABASES)
    whole = accounted = 0
    with tempfile.TemporaryDirectory() as folder:
        for shape in shapes:
            for number, talk in enumerate(talks):
                path = Path(folder) / f"{len(shape)}-{number}.export"
                path.unlink(missing_ok=True)
                order = list(range(len(talk.messages)))
                chance.shuffle(order)
                write_talk(shape, talk, order, path)
                shown, found = _imported(path)
                whole += shown == talk.shown()
                accounted += found if shown == talk.shown() else 0
    return [
        compare(
            "import.round_trips",
            ours=whole / (len(talks) * len(shapes)),
            baseline=1.0,
            target=1.0,
            unit="share of talks",
            lower_is_better=False,
            notes=f"{len(talks)} branched talks in {len(shapes)} shapes, messages in any order: the shown branch is read",
        ),
        compare(
            "import.accounted",
            ours=accounted / (messages * len(shapes)),
            baseline=1.0,
            target=1.0,
            unit="share of messages",
            lower_is_better=False,
            notes="messages in the file that are turns, alternatives or counted as left out",
        ),
    ]


def _imported(path: Path) -> tuple[list[str], int]:
    """The texts of the conversation in a file, and the number of messages that are accounted for."""
    texts: list[str] = []
    found = 0
    for item in find_importer(detect_format(path)).read(path, ImportOptions()):
        if isinstance(item, Skipped):
            found += item.count
        elif isinstance(item, Conversation):
            texts += [turn.text for turn in item.turns]
            found += sum(1 + len(turn.alternatives) for turn in item.turns)
    return texts, found


BENCHMARKS = (
    Benchmark(
        "import.round_trips", "branched talks in the shape of each program, read back", round_trips, 10.0
    ),
)
