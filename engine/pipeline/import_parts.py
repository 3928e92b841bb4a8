"""Conversations that an earlier import took in part, because it did not know the roles of all speakers.

"unknown role, see --map: bing" leaves conversations without Bing's turns in memory. The import with `--map` reads the
whole ones: each replaces its part. The parts are what the same file gives without the map.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.memory.importers.fields import ImportOptions
from engine.memory.importers.formats import Importer
from engine.memory.importers.readers.json_stream import tolerating
from engine.memory.records import Conversation, ImportItem, Replaced

_AHEAD = 64
"""Parts that are searched for the one that belongs to a conversation."""


def read_replacing_parts(
    importer: Importer, path: Path, options: ImportOptions, items: Iterable[ImportItem]
) -> Iterator[ImportItem]:
    """`items`, which `importer` reads with `options`, and which of their conversations replace a part of them."""
    parts = _parts(importer, path, options)
    waiting: deque[Conversation] = deque()
    part_ids: list[str] = []
    whole_ids: list[str] = []
    matched: list[tuple[str, str]] = []
    for item in items:
        yield item
        if not isinstance(item, Conversation):
            continue
        whole_ids.append(item.id)
        for part in islice(parts, _AHEAD - len(waiting)):
            waiting.append(part)
            part_ids.append(part.id)
        place = next((n for n, part in enumerate(waiting) if _is_part(part, item)), None)
        if place is not None:
            matched.append((waiting[place].id, item.id))
            for _n in range(place + 1):
                waiting.popleft()
    part_ids += [part.id for part in parts]
    # Without a map, a text has the speaker's name and words at the end of another turn: no part by its turns.
    pairs = zip(part_ids, whole_ids, strict=True) if len(part_ids) == len(whole_ids) else matched
    yield from (Replaced(id=part, by=whole) for part, whole in pairs if part != whole)


def _parts(importer: Importer, path: Path, options: ImportOptions) -> Iterator[Conversation]:
    items = iter(importer.read(path, msgspec.structs.replace(options, roles={})))
    while True:
        try:
            # Broken lines are named when the file itself is read.
            with tolerating(lambda _error: None):
                item = next(items, None)
        except BadInput:
            return
        if item is None:
            return
        if isinstance(item, Conversation):
            yield item


def _is_part(part: Conversation, whole: Conversation) -> bool:
    """Whether the turns of `part` are turns of `whole`, in this order."""
    if part.external_id != whole.external_id:
        return False
    turns = iter(whole.turns)
    return all(
        any(turn.role == other.role and turn.text == other.text for other in turns) for turn in part.turns
    )
