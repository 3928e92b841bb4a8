"""The dataset of a cycle: every real conversation, and new rows beside them as far as the floor of real data lets."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import msgspec

from engine.core.i18n import _
from engine.corpus.contamination import Overlap
from engine.corpus.dataset import write_lines
from engine.evolution import augmentation
from engine.evolution.apart import HeldText
from engine.evolution.self_answers import answered
from engine.evolution.synthetic import REAL_FLOOR, Made, MaterialFigures, Way
from engine.inference.language_model import LanguageModel
from engine.models.card import Lineage
from engine.training.chat_batches import read_dataset

SHARES = {Way.ANSWERED: 0.4, Way.RETRIEVED: 0.35, Way.RECOMBINED: 0.25}
"""Of the room for new rows; what one way leaves the next ones take."""
LEAST_ROOM = 48
"""Trained bytes below which no further row is looked for."""
AT_ONCE, MOST_TRIED = 128, 8192
"""Rows compared with what is held back at once, and in all."""
TEXT_EVERY = 3
"""Of so many recombined rows one is a passage of a text."""


@dataclass(frozen=True)
class Mixed:
    """A written dataset, as `train_native` reads it."""

    path: Path
    sha256: str
    lineage: Lineage
    figures: MaterialFigures

    @classmethod
    def of(cls, path: Path, sha256: str, lineage: Lineage, figures: MaterialFigures) -> Mixed:
        """`lineage` is that of the real conversations; the new rows were made from these alone."""
        named = msgspec.structs.replace(lineage, dataset=path.name, dataset_sha256=sha256)
        return cls(path, sha256, named, figures)


def mix(
    real: Path,
    lineage: Lineage,
    texts: Sequence[Path],
    held: HeldText,
    champion: LanguageModel,
    out: Path,
    *,
    real_share: float,
    answers: int,
    seed: int,
    step: Callable[[int, int], None] | None = None,
) -> Mixed:
    """Writes `out` from the real dataset at `real`.

    `real_share` of the trained bytes is real, `REAL_FLOOR` at least; `step(done, total)` counts the answers
    asked of the champion and may raise to stop. Raises Overlap when a new row touches what is held back
    after all, BadInput for a broken dataset, OSError.
    """
    rows = list(read_dataset(real))
    chance = random.Random(seed)
    trained = sum(augmentation.trained_bytes(row.messages) for row in rows)
    share = max(real_share, REAL_FLOOR)
    room = int(trained * (1 - share) / share)
    asked = answered(champion, rows, answers if room else 0, chance, step=step)
    sources: dict[Way, Iterator[Made]] = {
        Way.ANSWERED: iter(asked.made),
        Way.RETRIEVED: augmentation.retrieved(rows, chance),
        Way.RECOMBINED: _mingled(
            augmentation.recombined(rows, chance), augmentation.from_texts(texts, chance)
        ),
    }
    made: list[Made] = []
    left, overlapping = room, 0
    for way, part in SHARES.items():
        kept, touching = _apart(sources[way], held, int(left if way is Way.RECOMBINED else part * room))
        overlapping += touching
        left -= sum(augmentation.trained_bytes(row.messages) for row in kept)
        made += kept
    found = held.touching(made)
    if found.rows:
        raise Overlap(
            _("new material shares words with what is kept back: {ids}").format(
                ids=", ".join(made[number].id for number in sorted(found.rows)[:8])
            ),
            hint="h2q-tui evolve",
        )
    new = sum(augmentation.trained_bytes(row.messages) for row in made)
    sha256 = write_lines(out, (msgspec.json.encode(row) + b"\n" for row in chain(rows, made)))
    return Mixed.of(
        out,
        sha256,
        lineage,
        MaterialFigures(
            real=len(rows),
            made={way.value: count for way in Way if (count := sum(row.way is way for row in made))},
            asked=asked.answers,
            questions=asked.questions,
            sound=len(asked.made),
            refused=asked.refused,
            overlapping=overlapping,
            real_share=trained / (trained + new) if trained else 1.0,
            overlap_exact=len(found.exact),
            overlap_near=len(found.near | found.quoting),
        ),
    )


def _apart(candidates: Iterator[Made], held: HeldText, room: int) -> tuple[list[Made], int]:
    """(rows that fill `room` and touch nothing held back, rows left out for that), each once by its words."""
    kept: list[Made] = []
    seen: set[str] = set()
    left_out = tried = 0
    while room >= LEAST_ROOM and tried < MOST_TRIED:
        batch = _filling(candidates, room, seen)
        if not batch:
            break
        touching = held.touching(batch).rows
        free = [row for number, row in enumerate(batch) if number not in touching]
        kept += free
        room -= sum(augmentation.trained_bytes(row.messages) for row in free)
        left_out += len(touching)
        tried += len(batch)
    return kept, left_out


def _filling(candidates: Iterator[Made], room: int, seen: set[str]) -> list[Made]:
    """The next rows that fit into `room` together, up to `AT_ONCE`; their words go into `seen`."""
    found: list[Made] = []
    for row in candidates:
        size, words = augmentation.trained_bytes(row.messages), augmentation.words_of(row)
        if not 0 < size <= room or words in seen:
            continue
        seen.add(words)
        found.append(row)
        room -= size
        if room < LEAST_ROOM or len(found) == AT_ONCE:
            break
    return found


def _mingled(rows: Iterator[Made], passages: Iterator[Made]) -> Iterator[Made]:
    """Rows of conversations with a passage of a text after every few of them."""
    for number, row in enumerate(rows, start=1):
        yield row
        if number % TEXT_EVERY == 0:
            yield from islice(passages, 1)
    yield from passages
