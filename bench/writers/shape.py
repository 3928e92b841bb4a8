"""What a writer is: the export of a program, from talks to files."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import msgspec

from bench.writers.talks import WholeTalk, holding

ExportFiles = dict[str, bytes]
"""The files of an export by their path in its folder."""


class ExportShape(msgspec.Struct, frozen=True, kw_only=True):
    """One form in which a program saves talks."""

    name: str
    format: str
    """The importer that must recognise it."""
    write: Callable[[list[WholeTalk], random.Random], ExportFiles]
    """Writes talks that `holds` returned; entries stand in any order where the program promises none."""
    holds: Callable[[WholeTalk], WholeTalk] = holding()
    """What the format keeps of a talk: what is not kept, its program does not write."""
    me: str = ""
    """The speaker who is the assistant, where the file does not say so (`--me`)."""
    noise: frozenset[str] = frozenset()
    """Reasons of what the program writes beside the talk; how often is not compared."""
    beside: frozenset[str] = frozenset()
    """Names of files that hold no talk and are read only beside others."""
    names_itself: bool = False
    """Whether the importer takes a title from elsewhere, such as the file name: titles are not compared."""
    thoughts_counted: bool = True
    """Whether each thought is one `reasoning` left out."""


def json_bytes(value: Any) -> bytes:
    """JSON in UTF-8, as most programs write it."""
    return json.dumps(value, ensure_ascii=False).encode()


def json_lines(values: Iterable[Any]) -> bytes:
    """One JSON value per line."""
    return b"".join(json_bytes(value) + b"\n" for value in values)


def one_file_each(
    name: Callable[[WholeTalk], str], content: Callable[[WholeTalk, random.Random], bytes]
) -> Callable[[list[WholeTalk], random.Random], ExportFiles]:
    """A writer of a program that keeps each talk in a file of its own."""
    return lambda talks, chance: {name(talk): content(talk, chance) for talk in talks}


def database(schema: str, rows: Iterable[tuple[str, tuple[Any, ...]]]) -> bytes:
    """An SQLite file with rows, each of a table and its values."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(schema)
        for table, values in rows:
            marks = ", ".join("?" * len(values))
            connection.execute(f"INSERT INTO {table} VALUES ({marks})", values)
        connection.commit()
        return connection.serialize()
