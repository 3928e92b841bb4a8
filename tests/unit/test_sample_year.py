"""The English sample: one person's year of conversations, all of which the program itself accepts as material."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.core.paths import shipped
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.clusters import MIN_CLUSTERS, HoldoutWindow, read_clusters
from engine.corpus.split import open_window
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import import_paths
from engine.runs.events import Funnel

FILE = shipped("data") / "sample" / "year" / "one_year.jsonl"
ROWS: list[dict[str, Any]] = [msgspec.json.decode(line) for line in FILE.read_bytes().splitlines()]


def answers(row: dict[str, Any]) -> list[str]:
    return [message["content"] for message in row["messages"] if message["role"] == "assistant"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MemoryStore, Funnel, HoldoutWindow]]:
    """The sample imported, filtered and split."""
    path: Path = tmp_path_factory.mktemp("year") / "memory.db"
    with MemoryStore(path) as store:
        import_paths(store, [FILE])
        funnel = build_corpus(store, Settings())
        yield store, funnel, open_window(store, 0.0)


def test_it_covers_a_year_and_a_dozen_topics() -> None:
    assert len(ROWS) >= 160 and len({row["id"] for row in ROWS}) == len(ROWS)
    dates = [datetime.fromisoformat(row["created_at"]) for row in ROWS]
    assert dates == sorted(dates) and all(date.tzinfo == UTC for date in dates)
    months = Counter((date.year, date.month) for date in dates)
    assert len(months) == 12 and min(months.values()) >= 10
    topics = Counter(row["topic"] for row in ROWS)
    assert len(topics) >= 12 and min(topics.values()) >= 10
    newest = Counter(row["topic"] for row in ROWS[-MIN_CLUSTERS:])
    assert len(newest) >= 8, "the conversations held out are of many topics"


def test_it_is_of_one_manner_and_of_many_lengths() -> None:
    said = [answer for row in ROWS for answer in answers(row)]
    assert all(answer.endswith("?") for answer in said), "each answer ends with a question back"
    with_figure = sum(bool(re.search(r"\d", answer)) for answer in said)
    assert with_figure >= 0.8 * len(said)
    assert sum("One catch: " in answer for answer in said) >= 0.4 * len(said)
    assert not [answer for answer in said if re.match(r"(certainly|sure|of course|great)\b", answer, re.I)]
    assert {len(answers(row)) for row in ROWS} == {1, 2, 3, 4}
    lengths = sorted(map(len, said))
    assert lengths[-1] > 3 * lengths[0]


def test_every_conversation_is_accepted_whole(
    built: tuple[MemoryStore, Funnel, HoldoutWindow],
) -> None:
    store, funnel, _window = built
    assert (funnel.collected, funnel.accepted) == (len(ROWS), len(ROWS))
    assert funnel.dropped == {} and funnel.redacted == 0 and funnel.pending == 0
    assert store.connection.execute("SELECT COUNT(*) FROM ledger").fetchone() == (0,)


def test_no_two_conversations_are_alike_and_enough_are_held_out(
    built: tuple[MemoryStore, Funnel, HoldoutWindow],
) -> None:
    store, _funnel, window = built
    assert len(read_clusters(store.connection, frozenset())) == len(ROWS)
    assert window.dated and len(window.clusters) >= MIN_CLUSTERS
    held = set(window.conversations)
    newest = {row["id"] for row in ROWS[-len(held) :]}
    ids = dict(store.connection.execute("SELECT external_id, id FROM conversations"))
    assert held == {ids[name] for name in newest}
