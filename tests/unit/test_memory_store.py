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


def test_what_goes_in_comes_out_whole(store: MemoryStore) -> None:
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


def test_a_transcript_without_ids_supersedes_its_own_beginning(store: MemoryStore) -> None:
    store.add([talk(PAIRS[0])])
    store.add([talk(*PAIRS)])
    assert store.add([talk(*PAIRS[:2])]).unchanged == 1
    assert [len(c.turns) for c in store.conversations()] == [6]


def test_the_same_words_from_two_numbered_conversations_are_two(store: MemoryStore) -> None:
    assert store.add([talk(PAIRS[0], external_id="a"), talk(PAIRS[0], external_id="b")]).added == 2


def test_a_broken_import_leaves_nothing_and_hides_nothing(store: MemoryStore) -> None:
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


def test_rows_of_a_killed_import_are_unseen_and_swept_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    with MemoryStore(path) as store:
        store.add([talk(PAIRS[0], external_id="c", at=1)])
        store.add([talk(*PAIRS, external_id="c", at=2)])
        # As if the process had died before the last transaction of the second import.
        store.connection.execute("UPDATE imports SET completed_at = NULL WHERE rowid = 2")
    with MemoryStore(path, readonly=True) as store:
        assert [len(c.turns) for c in store.conversations()] == [2]
    with MemoryStore(path) as store:
        assert [len(c.turns) for c in store.conversations()] == [2]
        assert store.connection.execute("SELECT COUNT(*) FROM turns").fetchone()[0] == 2


def test_a_live_import_is_not_swept_and_a_second_one_is_refused(
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


def test_no_write_transaction_is_long(store: MemoryStore) -> None:
    texts = [talk(*((f"q{n}.{m} " * 40, f"a{m} " * 40) for m in range(10))) for n in range(400)]
    result = store.add(texts)
    # The budget is spent between statements; what a slow disk adds to the commit is not ours to test.
    assert result.transactions > 10
    rows = 400 * 20
    assert rows / result.transactions < 1500
    assert store.count() == 400


def test_skipped_things_are_counted_by_reason(store: MemoryStore) -> None:
    result = store.add([Skipped(reason="image", count=3), Skipped(reason="image"), talk(("", ""))])
    assert result.skipped == {"image": 4, "empty conversation": 1}


@pytest.mark.parametrize("wanted", ["重置", "ＰＡＧＩＮＧ", "密码"])
def test_search_finds_words_of_two_characters_and_of_any_width(store: MemoryStore, wanted: str) -> None:
    store.add([talk(pair) for pair in PAIRS])
    assert len(store.search(wanted)) == 1
    assert store.search("") == []


def test_forgetting_erases_the_text_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    secret = "hunter2-" * 200
    with MemoryStore(path) as store:
        store.add([talk((secret, "noted"), external_id="c", at=1), talk(PAIRS[0])])
        store.add([talk((secret, "noted"), PAIRS[1], external_id="c", at=2)])
        grown = next(c for c in store.conversations() if c.external_id)
        assert len(store.forget([grown.id, "unknown"])) == 2
        for file in path.parent.iterdir():
            assert b"hunter2-" not in file.read_bytes()
        assert store.count() == 1


def test_a_forgotten_conversation_stays_out_until_it_is_asked_for(store: MemoryStore) -> None:
    conversation = talk(PAIRS[0], external_id="c", at=1)
    store.add([conversation])
    store.forget([conversation.id])
    assert store.add([talk(*PAIRS, external_id="c", at=2)]).skipped == {"forgotten earlier": 1}
    assert store.add([conversation], again=True).added == 1
    store.forget([conversation.id])


def test_a_reader_of_nothing_makes_no_file(tmp_path: Path) -> None:
    with MemoryStore(tmp_path / "none.db", readonly=True) as store:
        assert store.count() == 0
        assert store.stats().conversations == 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    path.write_bytes(b"not a database at all, but long enough to be read as one" * 10)
    with pytest.raises(BadInput, match=r"memory\.db → h2q-tui backup restore"):
        MemoryStore(path)


def test_a_backup_is_not_the_mend_for_a_sound_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "memory.db").mkdir()
    with pytest.raises(BadInput, match=r"memory\.db → h2q-tui check"):
        MemoryStore(tmp_path / "memory.db")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    MemoryStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=999")
    connection.close()
    for readonly in (False, True):
        with pytest.raises(BadInput, match="999"):
            MemoryStore(path, readonly=readonly)


def test_ids_are_found_by_their_beginning(store: MemoryStore) -> None:
    store.add([talk(PAIRS[0])])
    (only,) = store.conversations()
    assert store.resolve_id(only.id[:6]) == only.id
    for unknown in ("", "zz"):
        with pytest.raises(BadInput):
            store.resolve_id(unknown)


any_text = st.text(st.characters(), max_size=20)


@given(any_text)
def test_texts_become_what_utf8_can_carry_and_nothing_else_changes(text: str) -> None:
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
def test_order_and_chunks_do_not_matter(
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
