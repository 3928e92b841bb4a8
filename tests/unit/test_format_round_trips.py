"""Any talks, written in the shape of each program: the turns that went in come out, however the export is handed over."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.round_trips import WAYS, expected_left_out, read_back, written
from bench.writers.registry import SHAPES
from bench.writers.shape import ExportShape
from bench.writers.talks import ASSISTANT, USER, SpokenTurn, WholeTalk, random_talks
from engine.memory.importers.fields import ImportOptions
from engine.memory.importers.formats import FORMATS
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import import_paths


def test_every_format_has_a_writer() -> None:
    assert {shape.format for shape in SHAPES} == set(FORMATS)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_turns_in_are_turns_out(shape: ExportShape, seed: int) -> None:
    talks = random_talks(random.Random(seed), 3)
    ids = []
    for way in WAYS:
        back = read_back(shape, talks, way, random.Random(seed))
        assert back.formats == {shape.format}
        assert back.talks == written(shape, talks)
        assert back.left_out == expected_left_out(shape, talks)
        ids.append(back.ids)
    # Another way to hand over the same export adds nothing.
    assert ids[0] == ids[1] == ids[2]


TELLING = (
    '["a", "b", "c"]',
    '{"text": "x"}',
    "[1, 2, 3]",
    "NaN",
    "007",
    "null",
    "```\na\n```\n\n```\nb\n```",
    "if a < b && c > d: R&D &amp; more",
    "<p>HTML</p>",
    "User: hello",
    "a\n\n\n\nb",
    "**You**",
    "[01/02/2024, 10:11:12] Carl: quoted",
)
"""Texts that a reader may take for something else than text."""


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_texts_that_look_like_something_else_stay_texts(shape: ExportShape) -> None:
    texts = TELLING
    talks = [
        WholeTalk(
            f"t{number}",
            f"Talk {number}",
            (
                SpokenTurn(USER, texts[number - 1], 1_750_000_000 + number * 200_000),
                SpokenTurn(ASSISTANT, text, 1_750_000_060 + number * 200_000, (texts[number - 2],)),
            ),
        )
        for number, text in enumerate(texts)
    ]
    assert read_back(shape, talks, "files", random.Random(1)).talks == written(shape, talks)


TRIMMING = frozenset(("gemini", "chat_text", "imessage", "text"))
"""Formats in which the blanks before a message cannot be told from its frame, or carry nothing."""


@pytest.mark.parametrize(
    "shape", [shape for shape in SHAPES if shape.format not in TRIMMING], ids=lambda shape: shape.name
)
def test_code_keeps_the_indent_of_its_first_line(shape: ExportShape) -> None:
    code = "    if x:\n        return 1"
    turns = (SpokenTurn(USER, code, 1_750_000_000), SpokenTurn(ASSISTANT, code, 1_750_000_060))
    talks = [WholeTalk("t-0", "Talk", turns)]
    assert read_back(shape, talks, "files", random.Random(1)).talks == written(shape, talks)


def test_a_second_import_adds_nothing(tmp_path: Path) -> None:
    chance = random.Random(1)
    for number, shape in enumerate(SHAPES):
        # Only some formats keep ids: the talks of one shape must not repeat those of another.
        talks = [shape.holds(talk) for talk in random_talks(random.Random(number), 2)]
        for name, content in shape.write(talks, chance).items():
            path = tmp_path / "exports" / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    added = []
    with MemoryStore(tmp_path / "memory.db") as store:
        for _time in range(2):
            reports = [
                import_paths(store, [tmp_path / "exports" / str(number)], options=ImportOptions(me=shape.me))
                for number, shape in enumerate(SHAPES)
            ]
            added.append(sum(report.added for report in reports))
    assert added == [2 * len(SHAPES), 0]
