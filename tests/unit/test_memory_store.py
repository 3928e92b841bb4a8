from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.chat import Role
from engine.core.errors import BadInput, Busy
from engine.memory import import_batch
from engine.memory.records import Conversation, Skipped, Turn, replace_surrogates
from engine.memory.store import MemoryStore

PAIRS = (("怎么重置密码？", "在设置里。"), ("Explain paging", "It maps pages."), ("谢谢", "不客气"))


def talk(
    *pairs: tuple[str, str], source: str = "text", external_id: str = "", at: float | None = None
) -> Conversation:
    turns = [
        Turn(role=role, text=text)
        for pair in pairs
        for role, text in zip((Role.USER, Role.ASSISTANT), pair, strict=True)
    ]
    return Conversation.of(turns, source=source, external_id=external_id, updated_at=at)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MemoryStore]:
    with MemoryStore(tmp_path / "memory" / "memory.db") as opened:
        yield opened


def test_a_conversation_is_stored_unchanged(store: MemoryStore) -> None:
    given_ = Conversation.of(
        [
            Turn(role=Role.SYSTEM, text="\0\x1b[2J", time=1.5, external_id="m1"),
            Turn(role=Role.ASSISTANT, text="a\u202eb", alternatives=("other", "第二")),
        ],
        source="chatgpt",
        external_id="c1",
        title="标题",
        started_at=1.0,
        updated_at=9.0,
    )
    assert store.add([given_], "chatgpt", "x.json").added == 1
    assert list(store.conversations()) == [given_]
    assert store.get(given_.id) == given_


def test_importing_twice_adds_nothing(store: MemoryStore) -> None:
    first = store.add([talk(pair) for pair in PAIRS])
    second = store.add([talk(pair) for pair in PAIRS])
    assert (first.added, first.unchanged) == (3, 0)
    assert (second.added, second.unchanged) == (0, 3)
    assert store.count() == 3


def test_a_grown_conversation_supersedes_its_shorter_form(store: MemoryStore) -> None:
    short, long = talk(PAIRS[0], external_id="c", at=1), talk(*PAIRS[:2], external_id="c", at=2)
    store.add([short])
    result = store.add([long])
    assert (result.added, result.superseded) == (1, 1)
    assert [c.id for c in store.conversations()] == [long.id]
    assert store.add([short]).unchanged == 1
    assert [c.id for c in store.conversations()] == [long.id]


@pytest.mark.parametrize("answer", [f"Answer {number}." for number in range(8)])
def test_what_newer_importers_read_from_the_same_file_supersedes_what_older_ones_read(
    store: MemoryStore, answer: str
) -> None:
    old = talk(("Question?", "<think>secret</think>Answer."), ("And?", "invented"), external_id="c", at=5.0)
    store.add([old])
    store.connection.execute("UPDATE imports SET importers = importers - 1")
    assert store.add([talk(("Question?", answer), external_id="c", at=5.0)]).superseded == 1
    (current,) = store.conversations()
    assert [turn.text for turn in current.turns] == ["Question?", answer]
    assert store.add([old]).added == 0


def test_a_transcript_without_ids_supersedes_its_own_beginning(store: MemoryStore) -> None:
    store.add([talk(PAIRS[0])])
    store.add([talk(*PAIRS)])
    assert store.add([talk(*PAIRS[:2])]).unchanged == 1
    assert [len(c.turns) for c in store.conversations()] == [6]


def test_equal_texts_with_different_external_ids_are_two_conversations(store: MemoryStore) -> None:
    assert store.add([talk(PAIRS[0], external_id="a"), talk(PAIRS[0], external_id="b")]).added == 2


def test_a_failed_import_leaves_no_rows(store: MemoryStore) -> None:
    short = talk(PAIRS[0], external_id="c", at=1)
    store.add([short])

    def breaks() -> Iterator[Conversation]:
        yield talk(*PAIRS, external_id="c", at=2)
        yield from (talk((f"question {n} " * 2000, "answer")) for n in range(50))
        raise BadInput("line 51 is broken")

    with pytest.raises(BadInput):
        store.add(breaks())
    assert [c.id for c in store.conversations()] == [short.id]
    assert store.connection.execute("SELECT COUNT(*) FROM conversations").fetchone()[0] == 1
    assert store.connection.execute("SELECT COUNT(*) FROM imports").fetchone()[0] == 1


def test_rows_of_a_killed_import_are_invisible_and_deleted_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    with MemoryStore(path) as store:
        store.add([talk(PAIRS[0], external_id="c", at=1)])
        store.add([talk(*PAIRS, external_id="c", at=2)])
        # As if the process had been killed before the last transaction of the second import.
        store.connection.execute("UPDATE imports SET completed_at = NULL, taken = 0 WHERE rowid = 2")
    with MemoryStore(path, readonly=True) as store:
        assert [len(c.turns) for c in store.conversations()] == [2]
    with MemoryStore(path) as store:
        assert [len(c.turns) for c in store.conversations()] == [2]
        assert store.connection.execute("SELECT COUNT(*) FROM turns").fetchone()[0] == 2


def test_a_running_import_keeps_its_rows_and_blocks_a_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_batch, "_LOCK_WAIT_S", 0.0)
    path = tmp_path / "memory.db"
    with MemoryStore(path) as store:

        def slow() -> Iterator[Conversation]:
            yield talk(("long " * 50_000, "answer"))
            with MemoryStore(path) as other, pytest.raises(Busy):
                other.add([talk(PAIRS[0])])
            yield talk(PAIRS[1])

        assert store.add(slow()).added == 2


def test_write_transactions_are_short(store: MemoryStore) -> None:
    texts = [talk(*((f"q{n}.{m} " * 40, f"a{m} " * 40) for m in range(10))) for n in range(400)]
    result = store.add(texts)
    assert result.transactions > 10
    rows = 400 * 20
    assert rows / result.transactions < 1500
    assert store.count() == 400


def test_skipped_content_is_counted_by_reason(store: MemoryStore) -> None:
    result = store.add([Skipped(reason="image", count=3), Skipped(reason="image"), talk(("", ""))])
    assert result.skipped == {"image": 4, "empty conversation": 1}


@pytest.mark.parametrize("wanted", ["重置", "ＰＡＧＩＮＧ", "密码"])
def test_search_finds_two_character_words_in_any_width(store: MemoryStore, wanted: str) -> None:
    store.add([talk(pair) for pair in PAIRS])
    assert len(store.search(wanted)) == 1
    assert store.search("") == []


def test_forgetting_deletes_the_text_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    secret = "hunter2-" * 200
    with MemoryStore(path) as store:
        store.add([talk((secret, "noted"), external_id="c", at=1), talk(PAIRS[0])])
        store.add([talk((secret, "noted"), PAIRS[1], external_id="c", at=2)])
        grown = next(c for c in store.conversations() if c.external_id)
        assert len(store.forget([grown.id, "unknown"]).ids) == 2
        for file in path.parent.iterdir():
            assert b"hunter2-" not in file.read_bytes()
        assert store.count() == 1


def test_a_forgotten_conversation_is_imported_only_with_again(store: MemoryStore) -> None:
    conversation = talk(PAIRS[0], external_id="c", at=1)
    store.add([conversation])
    store.forget([conversation.id])
    assert store.add([talk(*PAIRS, external_id="c", at=2)]).skipped == {"forgotten earlier": 1}
    assert store.add([conversation], again=True).added == 1
    store.forget([conversation.id])


def test_a_readonly_store_creates_no_file(tmp_path: Path) -> None:
    with MemoryStore(tmp_path / "none.db", readonly=True) as store:
        assert store.count() == 0
        assert store.stats().conversations == 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_a_database_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    path.write_bytes(b"not a database at all, but long enough to be read as one" * 10)
    with pytest.raises(BadInput, match=r"memory\.db → h2q-tui backup restore"):
        MemoryStore(path)


def test_an_intact_file_that_cannot_be_opened_gives_no_restore_hint(tmp_path: Path) -> None:
    (tmp_path / "memory.db").mkdir()
    with pytest.raises(BadInput, match=r"memory\.db → h2q-tui check"):
        MemoryStore(tmp_path / "memory.db")


def test_a_newer_schema_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    MemoryStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=999")
    connection.close()
    for readonly in (False, True):
        with pytest.raises(BadInput, match="999"):
            MemoryStore(path, readonly=readonly)


def test_ids_are_resolved_by_prefix(store: MemoryStore) -> None:
    store.add([talk(PAIRS[0])])
    (only,) = store.conversations()
    assert store.resolve_id(only.id[:6]) == only.id
    for unknown in ("", "zz"):
        with pytest.raises(BadInput):
            store.resolve_id(unknown)


any_text = st.text(st.characters(), max_size=20)


@given(any_text)
def test_lone_surrogates_are_replaced_and_nothing_else(text: str) -> None:
    clean = replace_surrogates(text)
    clean.encode("utf-8")
    assert len(clean) == len(text)
    assert all(
        a == b or (b == "\ufffd" and 0xD800 <= ord(a) < 0xE000) for a, b in zip(text, clean, strict=True)
    )


# A program that numbers its conversations dates all of them ("a") or none ("b").
conversations = st.builds(
    lambda n, numbered: talk(*PAIRS[:n], external_id=numbered[0], at=numbered[1]),
    st.integers(1, 3),
    st.sampled_from([("", None), ("", 1.0), ("", 2.0), ("a", 1.0), ("a", 2.0), ("a", 3.0), ("b", None)]),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.lists(conversations, max_size=8))
def test_import_order_and_chunking_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, items: list[Conversation]
) -> None:
    shuffled = data.draw(st.permutations(items))
    cut = data.draw(st.integers(0, len(items)))
    seen = []
    for parts in ([items], [shuffled[:cut], shuffled[cut:], items]):
        with MemoryStore(tmp_path_factory.mktemp("m") / "memory.db") as store:
            for part in parts:
                store.add(part)
            seen.append(list(store.conversations()))
    assert seen[0] == seen[1]
