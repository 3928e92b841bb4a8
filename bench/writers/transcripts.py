"""Transcripts of which lines name who speaks, as browser exporters and people write them."""

from __future__ import annotations

import random

from bench.writers.shape import ExportFiles, ExportShape, one_file_each
from bench.writers.talks import ASSISTANT, SYSTEM, USER, WholeTalk, holding

_COLONS = (
    {USER: "User: ", ASSISTANT: "Assistant: ", SYSTEM: "System: "},
    {USER: "Human: ", ASSISTANT: "AI: ", SYSTEM: "System: "},
    {USER: "用户：", ASSISTANT: "助手：", SYSTEM: "系统："},
)
_HEADINGS = (
    {USER: "## User\n\n", ASSISTANT: "## Assistant\n\n"},
    {USER: "### You\n\n", ASSISTANT: "### ChatGPT\n\n"},
    {USER: "**You**\n\n", ASSISTANT: "**Claude**\n\n"},
    {USER: "**User:**\n\n", ASSISTANT: "**Assistant:**\n\n"},
)


def colons(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """`User: …` and `Assistant: …`, the talks apart by `---`."""
    labels = chance.choice(_COLONS)
    blocks = ["\n\n".join(labels[turn.role] + turn.text for turn in talk.turns) for talk in talks]
    return {"talks.txt": ("\n\n---\n\n".join(blocks) + "\n").encode()}


def headings(talk: WholeTalk, chance: random.Random) -> bytes:
    """Markdown of a browser exporter: the title, then a heading or a bold name for each message."""
    labels = chance.choice(_HEADINGS)
    blocks = [f"# {talk.title}", *(labels[turn.role] + turn.text for turn in talk.turns)]
    return ("\n\n".join(blocks) + "\n").encode()


SHAPES = (
    ExportShape(
        name="text, names with colons",
        format="text",
        write=colons,
        holds=holding(times=0, others=False, thoughts=False, titles=False),
    ),
    ExportShape(
        name="text, Markdown",
        format="text",
        write=one_file_each(lambda talk: f"{talk.id}.md", headings),
        holds=holding(times=0, others=False, thoughts=False, system=False),
    ),
)
