"""Every writer, in groups of programs of one kind."""

from __future__ import annotations

from bench.writers import (
    agents,
    backups,
    chat_apps,
    chat_sites,
    data_sets,
    message_lists,
    people_chats,
    transcripts,
)
from bench.writers.shape import ExportShape

GROUPS: dict[str, tuple[ExportShape, ...]] = {
    "chat sites": (*chat_sites.SHAPES, *message_lists.SHAPES),
    "chat programs": (*chat_apps.SHAPES, *backups.SHAPES),
    "coding agents": agents.SHAPES,
    "data sets": data_sets.SHAPES,
    "chats between people": people_chats.SHAPES,
    "transcripts": transcripts.SHAPES,
}
SHAPES = tuple(shape for group in GROUPS.values() for shape in group)
