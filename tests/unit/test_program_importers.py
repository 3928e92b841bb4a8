"""Exports and databases of chat programs: each in the shape that its program writes, with entries that are damaged."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from engine.memory.importers.formats import detect_format
from engine.memory.importers.programs.sillytavern import parse_send_date
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import import_paths
from tests.unit.import_accounting import texts_read
from tests.unit.test_importers import read, role_texts, write

PROGRAMS = Path(__file__).parents[1] / "data" / "exports" / "programs"
FILES = [file for file in sorted(PROGRAMS.rglob("*")) if file.is_file() and file.name != "thread.json"]
JAN = PROGRAMS / "jan/threads/jan_1704487430/messages.jsonl"

COOKING = [("user", "怎么煮饭？"), ("assistant", "先洗米。")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_neither_thinking_nor_tools_nor_left_out_chats_are_read(file: Path) -> None:
    conversations, _ = read(file)
    assert conversations
    assert not any("SECRET" in text for text in texts_read(conversations))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_importing_a_file_twice_adds_nothing(file: Path, tmp_path: Path) -> None:
    with MemoryStore(tmp_path / "memory.db") as store:
        assert import_paths(store, [file]).added
        assert import_paths(store, [file]).added == 0


def test_ollama_reads_the_answers_between_tools() -> None:
    (rice,), skipped = read(PROGRAMS / "ollama_db.sqlite")
    assert role_texts(rice) == [
        ("user", "怎么煮饭？"),
        ("assistant", "先洗米，再煮。"),
        ("user", "看这张图"),
        ("assistant", "一碗饭。"),
    ]
    assert (rice.external_id, rice.title, rice.started_at) == ("9c", "米饭", 1785578400.5)
    assert [turn.time for turn in rice.turns[:2]] == [pytest.approx(1785578401.123), 1785578409]
    assert skipped == {
        "reasoning": 3,
        "tool message": 2,
        "empty message": 1,
        "attachment": 1,
        "unknown role: narrator": 1,
        "empty conversation": 1,
        "message without a conversation": 1,
    }


def test_an_older_database_of_ollama_is_read(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE settings (schema_version INTEGER);"
        "CREATE TABLE chats (id TEXT, title TEXT, created_at TIMESTAMP);"
        "CREATE TABLE messages (id INTEGER, chat_id TEXT, role TEXT, content TEXT, created_at TIMESTAMP);"
        "CREATE TABLE tool_calls (id INTEGER);"
        "INSERT INTO chats VALUES ('a', 'Old', '2025-08-01 10:00:00');"
        "INSERT INTO messages VALUES (2, 'a', 'assistant', 'Yes.', NULL), (1, 'a', 'user', 'Old?', NULL);"
    )
    connection.close()
    assert role_texts(read(path)[0][0]) == [("user", "Old?"), ("assistant", "Yes.")]


def test_a_database_that_its_program_has_open_is_read_with_its_wal(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    shutil.copyfile(PROGRAMS / "ollama_db.sqlite", path)
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode=WAL").fetchall()
    writer.execute("INSERT INTO messages (chat_id, role, content) VALUES ('9c', 'user', 'newest')")
    writer.commit()
    before = sorted(file.name for file in tmp_path.iterdir())
    assert read(path)[0][0].turns[-1].text == "newest"
    assert sorted(file.name for file in tmp_path.iterdir()) == before
    writer.close()


def test_grok_reads_the_newest_branch() -> None:
    (trip,), skipped = read(PROGRAMS / "prod-grok-backend.json")
    assert role_texts(trip) == [("user", "hi there?"), ("assistant", "Hey (2nd try)"), ("user", "draw it")]
    assert trip.turns[1].alternatives == ("Hello",)
    assert (trip.external_id, trip.title, trip.updated_at) == ("g1", "Trip", 1775718780)
    assert [turn.time for turn in trip.turns[:2]] == [1775718694.833, 1775718720]
    assert skipped == {
        "tool message": 1,
        "citation": 1,
        "attachment": 1,
        "image": 1,
        "message of another shape": 1,
        "temporary conversation": 1,
        "entry of another shape": 1,
    }


def test_grok_follows_the_leaf_that_its_export_names(tmp_path: Path) -> None:
    export = json.loads((PROGRAMS / "prod-grok-backend.json").read_text(encoding="utf-8"))
    export["conversations"][0]["conversation"]["leaf_response_id"] = "r2"
    (trip, *_), _ = read(write(tmp_path, "prod-grok-backend.json", export))
    assert role_texts(trip) == [("user", "hi there?"), ("assistant", "Hello")]


def test_grok_without_wrappers_is_read(tmp_path: Path) -> None:
    responses = [{"sender": "human", "message": "Mars?"}, {"sender": "assistant", "message": "Two moons."}]
    export = {
        "conversations": [{"conversation_id": "g", "create_time": 1767225600000, "responses": responses}]
    }
    (mars,), skipped = read(write(tmp_path, "grok.json", export))
    assert (role_texts(mars), mars.external_id) == ([("user", "Mars?"), ("assistant", "Two moons.")], "g")
    assert skipped == {}


COPILOT = PROGRAMS / "copilot-activity-history.csv"


def test_copilot_rows_are_put_in_order_by_title() -> None:
    (rivers, rice), skipped = read(COPILOT)
    assert role_texts(rice) == [
        ("user", "how do I boil rice"),
        ("assistant", "Use a pot."),
        ("user", "and then?"),
        ("assistant", 'Rinse it, "gently".\n\nThen boil.'),
    ]
    assert (rice.title, rice.turns[0].time) == ("Boil rice", 1764143004)
    assert role_texts(rivers) == [("user", "Name a river"), ("assistant", "The Rhine.")]
    assert skipped == {"unknown role: Narrator": 1}


def test_a_copilot_file_that_runs_forwards_gives_the_same(tmp_path: Path) -> None:
    rows = [
        "Conversation,Time,Author,Message",
        "Rivers,2026-01-01T00:00:00,Human,Name a river",
        "Rivers,2026-01-01T00:00:00,AI,The Rhine.",
        "Rivers,2026-01-01T00:00:01,Human,Length?",
    ]
    (rivers,), _ = read(write(tmp_path, "history.csv", "\n".join(rows)))
    assert [turn.text for turn in rivers.turns] == ["Name a river", "The Rhine.", "Length?"]


def test_qwen_takes_the_answer_phase() -> None:
    (rice,), skipped = read(PROGRAMS / "chat-export-1754000000000.json")
    assert role_texts(rice) == [("user", "怎么煮饭？"), ("assistant", "先洗米。\n再煮。"), ("user", "多久？")]
    assert rice.turns[1].alternatives == ("蒸。",)
    assert (rice.external_id, rice.title, rice.updated_at) == ("q1", "饭", 1754000060)
    assert skipped == {"attachment": 1, "reasoning": 1, "tool message": 1, "entry of another shape": 1}


def test_the_wrapper_and_the_list_of_qwen_give_the_same(tmp_path: Path) -> None:
    wrapped = PROGRAMS / "chat-export-1754000000000.json"
    listed = write(tmp_path, "list.json", json.loads(wrapped.read_text(encoding="utf-8"))["data"])
    assert detect_format(listed) == "qwen"
    assert read(listed)[0] == read(wrapped)[0]


def test_the_message_lists_of_chinese_sites_are_read() -> None:
    for name in ("tongyi.json", "kimi.json"):
        assert role_texts(read(PROGRAMS / name)[0][0]) == COOKING
    assert read(PROGRAMS / "kimi.json")[1] == {"message of another shape": 1, "reasoning": 1, "attachment": 1}
    assert read(PROGRAMS / "tongyi.json")[1] == {"tool message": 1}


def test_doubao_reads_the_blocks_of_a_page_that_runs_backwards() -> None:
    (rice,), skipped = read(PROGRAMS / "doubao.json")
    assert role_texts(rice) == [
        ("user", "怎么煮饭？"),
        ("assistant", "先洗米，\n再煮。"),
        ("user", "画一碗饭"),
    ]
    assert (rice.external_id, rice.turns[0].external_id, rice.turns[0].time) == ("db1", "d2", 1754000002)
    assert skipped == {"unknown role: 9": 1, "reasoning": 1, "deleted message": 1, "image": 1}


def test_pages_of_one_doubao_conversation_are_put_together(tmp_path: Path) -> None:
    page = json.loads((PROGRAMS / "doubao.json").read_text(encoding="utf-8"))
    messages = page["downlink_body"]["pull_singe_chain_downlink_body"]["messages"]
    pages = [
        {"downlink_body": {"pull_singe_chain_downlink_body": {"messages": part}}}
        for part in (messages[:3], messages[2:])
    ]
    assert read(write(tmp_path, "pages.json", pages))[0] == read(PROGRAMS / "doubao.json")[0]


def test_yuanbao_reads_both_sides() -> None:
    (rice,), skipped = read(PROGRAMS / "yuanbao.json")
    assert role_texts(rice) == [*COOKING, ("user", "这是什么？")]
    assert (rice.external_id, rice.title, rice.turns[0].time) == ("y1", "饭", 1754000001)
    assert skipped == {
        "message of another shape": 1,
        "citation": 1,
        "reasoning": 2,
        "tool message": 1,
        "image": 1,
    }


def test_librechat_reads_both_of_its_forms() -> None:
    (flat,), skipped = read(PROGRAMS / "librechat.json")
    assert role_texts(flat) == [
        ("user", "怎么煮饭？"),
        ("assistant", "蒸。"),
        ("user", "多久？"),
        ("assistant", "二十分钟。"),
    ]
    assert flat.turns[1].alternatives == ("煮。",)
    assert (flat.external_id, flat.title, flat.turns[0].time) == ("lc1", "Rice", 1785578400)
    (tree,), of_tree = read(PROGRAMS / "librechat_tree.json")
    assert tree == flat
    assert skipped == of_tree | {"message of another shape": 1}
    assert skipped["attachment"] == 1
    assert sum(skipped.values()) >= 3


def test_jan_reads_a_thread_with_the_file_beside_it(tmp_path: Path) -> None:
    (rice,), skipped = read(JAN)
    assert role_texts(rice) == [("system", "简短回答。"), *COOKING, ("user", "这是什么？")]
    assert (rice.external_id, rice.title, rice.started_at) == ("jan_1704487430", "米饭", 1704487430)
    assert [turn.time for turn in rice.turns[1:]] == [1704487440, 1704487450, 1704487460]
    assert skipped == {
        "message of another shape": 1,
        "failed answer": 1,
        "reasoning": 2,
        "tool message": 1,
        "image": 1,
    }
    alone = tmp_path / "messages.jsonl"
    shutil.copyfile(JAN, alone)
    assert role_texts(read(alone)[0][0]) == role_texts(rice)[1:]


def test_a_folder_of_jan_is_imported(tmp_path: Path) -> None:
    with MemoryStore(tmp_path / "memory.db") as store:
        report = import_paths(store, [PROGRAMS / "jan"])
    assert (report.added, [reason for reason in report.skipped if "file" in reason]) == (1, [])


def test_lobechat_reads_topics_and_the_talk_without_one() -> None:
    (topic, session), skipped = read(PROGRAMS / "lobechat.json")
    assert role_texts(topic) == [("system", "简短回答。"), ("user", "怎么煮饭？"), ("assistant", "蒸。")]
    assert topic.turns[2].alternatives == ("煮。",)
    assert (topic.external_id, topic.title, topic.turns[1].time) == ("t1", "米饭", 1722500001)
    assert (session.external_id, session.title) == ("s1", "厨师")
    assert role_texts(session)[1:] == [("user", "Hello?")]
    assert skipped == {
        "message of another shape": 1,
        "attachment": 1,
        "reasoning": 1,
        "tool message": 1,
        "failed answer": 1,
    }


def test_anythingllm_cuts_each_workspace_at_silence() -> None:
    (first, later, garden), skipped = read(PROGRAMS / "anythingllm_chats.json")
    assert role_texts(first) == [
        ("user", "how?"),
        ("assistant", "Boil."),
        ("user", "and then?"),
        ("assistant", "Rest it."),
    ]
    assert [c.turns[0].text for c in (later, garden)] == ["Unrelated, later?", "Other room?"]
    assert (first.title, first.external_id, first.turns[0].time) == ("Kitchen", "7", 1785578400)
    assert skipped == {"row of another shape": 1, "attachment": 1, "reasoning": 1}
    assert read(PROGRAMS / "anythingllm_chats.csv")[0] == [first, later, garden]


def test_sillytavern_takes_swipes_and_bears_no_loss_for_the_greeting() -> None:
    (chat,), skipped = read(PROGRAMS / "Chef - 2026-08-01.jsonl")
    assert role_texts(chat) == [
        ("assistant", "Welcome, Ann!"),
        ("user", "how, Chef?"),
        ("assistant", "Steam."),
        ("user", "thanks"),
    ]
    assert [turn.masked for turn in chat.turns] == [True, False, False, False]
    assert chat.turns[2].alternatives == ("Boil.",)
    assert (chat.title, chat.started_at) == ("Chef", 1785578400)
    assert skipped == {"reasoning": 1, "hidden message": 1, "message of another shape": 1}


@pytest.mark.parametrize(
    "text",
    [
        "2026-08-01T10:00:00.000Z",
        "2026-08-01@10h00m00s",
        "2026-08-01 @10h 0m 0s 0ms",
        "August 1, 2026 10:00am",
        1785578400000,
    ],
)
def test_the_times_of_sillytavern_are_read(text: object) -> None:
    assert parse_send_date(text) == 1785578400


def test_text_generation_webui_reads_the_internal_log() -> None:
    (chat,), skipped = read(PROGRAMS / "20260801-10-00-00.json")
    assert role_texts(chat) == [
        ("assistant", "Hello!"),
        ("user", "is a < b?"),
        ("assistant", "Steam."),
        ("user", "and?"),
    ]
    assert [turn.masked for turn in chat.turns] == [True, False, False, False]
    assert chat.turns[2].alternatives == ("Boil.",)
    assert (chat.started_at, chat.turns[2].time) == (1785578400, 1785578460)
    assert skipped == {"reasoning": 1, "empty message": 1, "message of another shape": 1}
    (old,), _ = read(PROGRAMS / "Chef_persistent.json")
    assert role_texts(old)[1:] == [("user", "how?"), ("assistant", "Steam.")]


LIBRECHAT_ROWS = (
    "sender,text,isCreatedByUser,error,unfinished,messageId,parentMessageId,createdAt\n"
    "User,Name a river,true,false,false,{first},00000000-0000-0000-0000-000000000000,2026-08-01T10:00:00Z\n"
    'GPT-4,"The Rhine,\nor the Elbe.",false,false,false,{second},{first},2026-08-01T10:00:05Z\n'
    "User,And a lake,true,false,false,{third},{second},2026-08-01T10:01:00Z\n"
    "GPT-4,{{}},false,true,false,{fourth},{third},2026-08-01T10:01:05Z\n"
)


@pytest.mark.parametrize("ids", ["abcd", "aaaa"], ids=["ids", "one id for all"])
def test_librechat_reads_its_table(tmp_path: Path, ids: str) -> None:
    names = dict(zip(("first", "second", "third", "fourth"), ids, strict=True))
    (conversation,), skipped = read(write(tmp_path, "x.csv", LIBRECHAT_ROWS.format(**names)))
    assert [text for _role, text in role_texts(conversation)] == [
        "Name a river",
        "The Rhine,\nor the Elbe.",
        "And a lake",
    ]
    assert skipped == {"failed answer": 1}
