"""Exports in the shapes that programs write today: every message is taken, an alternative, or counted by its reason."""

from __future__ import annotations

import json
import sqlite3
import zipfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.memory.importers.formats import detect_format
from engine.memory.importers.programs.chatgpt import strip_markup
from engine.memory.records import Conversation
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import import_paths
from tests.unit.test_importers import node, read, role_texts, write

EXPORTS = Path(__file__).parents[1] / "data" / "exports"


class Account(NamedTuple):
    """Where the messages of an export are."""

    messages: int
    taken: int
    alternatives: int
    gaps: int
    """Questions of which nothing was taken; an empty turn keeps their place."""
    left_out: dict[str, int]
    """Whole messages by reason."""
    parts: dict[str, int]
    """Parts of messages, and whole conversations, by reason."""


ACCOUNTS = {
    "openwebui_0.11.json": Account(
        6, 4, 1, 0, {"message without a role": 1}, {"reasoning": 1, "tool message": 2}
    ),
    "claude_2026.json": Account(
        8, 5, 1, 1, {"message of another branch": 1}, {"reasoning": 2, "tool message": 1, "attachment": 1}
    ),
    "chatgpt_2026.json": Account(
        10,
        5,
        1,
        0,
        {"hidden message": 1, "tool message": 1, "empty message": 2},
        {"empty conversation": 1},
    ),
    "llamacpp_conversations.jsonl": Account(7, 6, 1, 0, {}, {"reasoning": 1, "image": 1}),
    "llamacpp_conversations.json": Account(3, 2, 1, 0, {}, {"tool message": 1}),
    "chat-5d0c6c7e.json": Account(5, 4, 1, 0, {}, {"citation": 1, "attachment": 1, "tool message": 1}),
    "llm-0.36-fragments.logs.db": Account(13, 13, 0, 0, {}, {}),
    "deepseek_conversations.json": Account(
        5, 4, 1, 0, {}, {"tool message": 1, "reasoning": 1, "attachment": 1, "empty conversation": 1}
    ),
}


@pytest.mark.parametrize("name", ACCOUNTS)
def test_every_message_of_an_export_is_accounted_for(name: str, tmp_path: Path) -> None:
    account = ACCOUNTS[name]
    conversations, skipped = read(EXPORTS / name)
    turns = [turn for one in conversations for turn in one.turns]
    assert sum(bool(turn.text) for turn in turns) == account.taken
    assert sum(not turn.text for turn in turns) == account.gaps
    assert sum(len(turn.alternatives) for turn in turns) == account.alternatives
    assert Counter(skipped) == Counter(account.left_out) + Counter(account.parts)
    found = account.taken + account.alternatives + account.gaps + sum(account.left_out.values())
    assert found == account.messages
    with MemoryStore(tmp_path / "memory.db") as store:
        first = import_paths(store, [EXPORTS / name])
        again = import_paths(store, [EXPORTS / name])
    assert (first.added, again.added) == (len(conversations), 0)


def only(name: str) -> Conversation:
    (conversation, *_others), _skipped = read(EXPORTS / name)
    return conversation


def test_open_webui_answers_in_output_are_read() -> None:
    talk = only("openwebui_0.11.json")
    assert role_texts(talk) == [
        ("user", "Which tool?"),
        ("assistant", "Let me search.\n\nUse a hammer."),
        ("user", "Which size?"),
        ("assistant", "The large one."),
    ]
    assert talk.turns[3].alternatives == ("The small one.",)


@pytest.mark.parametrize(
    ("content", "output", "expected"),
    [
        ("", "All of it.", "All of it."),
        ("All", "All of it.", "All of it."),
        ("Edited by me.", "All of it.", "Edited by me."),
        ('<details type="reasoning" done="true">x</details>\nAll of it.', "All of it.", "All of it."),
        ('<details type="tool_calls" done="true">x</details>', "All of it.", "All of it."),
    ],
)
def test_open_webui_content_and_output_give_one_answer(
    tmp_path: Path, content: str, output: str, expected: str
) -> None:
    message = {
        "role": "assistant",
        "parentId": "1",
        "content": content,
        "output": [{"type": "message", "content": [{"type": "output_text", "text": output}]}],
    }
    question = {"role": "user", "parentId": None, "content": "Q"}
    chat = {"history": {"messages": {"1": question, "2": message}, "currentId": "2"}}
    (talk,), _skipped = read(write(tmp_path, "c.json", [{"id": "x", "chat": chat}]))
    assert role_texts(talk) == [("user", "Q"), ("assistant", expected)]


def test_the_list_of_an_open_webui_chat_repairs_its_tree(tmp_path: Path) -> None:
    def message(id_: str, role: str, parent: str | None) -> dict[str, Any]:
        return {"id": id_, "role": role, "parentId": parent, "content": id_}

    branch = [
        message("q1", "user", None),
        message("a1", "assistant", "q1"),
        message("q2", "user", None),
        message("a2", "assistant", "q2"),
    ]
    history = {"messages": {one["id"]: one for one in branch}, "currentId": "a2"}
    for listed, expected in ((branch, ["q1", "a1", "q2", "a2"]), ([], ["q2", "a2"])):
        path = write(tmp_path, "c.json", [{"id": "x", "chat": {"history": history, "messages": listed}}])
        (talk,), _skipped = read(path)
        assert [turn.text for turn in talk.turns] == expected


def open_webui_database(
    path: Path, chat: object, rows: Sequence[tuple[object, ...]], current: str | None
) -> Path:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("""
            CREATE TABLE user (id TEXT);
            CREATE TABLE auth (id TEXT);
            CREATE TABLE chat (id TEXT, title TEXT, chat JSON, created_at BIGINT, updated_at BIGINT,
                current_message_id TEXT);
            CREATE TABLE chat_message (id TEXT, chat_id TEXT, user_id TEXT, role TEXT, parent_id TEXT, content JSON,
                output JSON, files JSON, error JSON, created_at BIGINT);
            INSERT INTO chat VALUES ('c0', 'Before', '{"history": {"messages": {}}}', 1, 1, NULL);
        """)
        connection.execute(
            "INSERT INTO chat VALUES ('c', 'T', ?, 1760000000, 1760000009, ?)", (json.dumps(chat), current)
        )
        connection.executemany(
            "INSERT INTO chat_message VALUES (?, 'c', 'u', ?, ?, ?, ?, NULL, NULL, ?)", rows
        )
        connection.commit()
    return path


OUTPUT = json.dumps([{"type": "message", "content": [{"type": "output_text", "text": "A1"}]}])
ROWS = [
    ("c-1", "user", None, '"Q1"', None, 1760000001),
    ("c-2", "assistant", "1", '""', OUTPUT, 1760000002),
    ("c-3", "user", "2", '[{"type": "text", "text": "Q2"}]', None, 1760000003),
    ("c-4", "assistant", "3", '"A2"', None, 1760000004),
    ("c-4b", "assistant", "3", '"A2b"', None, 1760000005),
]


def test_the_rows_of_open_webui_complete_the_json_of_a_chat(tmp_path: Path) -> None:
    def texts(chat: object, current: str | None = None) -> list[str]:
        ((talk,), _skipped) = read(open_webui_database(tmp_path / "webui.db", chat, ROWS, current))
        return [turn.text for turn in talk.turns]

    assert texts({"history": {}}, "4") == ["Q1", "A1", "Q2", "A2"]
    assert texts(None) == ["Q1", "A1", "Q2", "A2b"]
    messages = {
        "1": {"id": "1", "role": "user", "content": "Q1"},
        "2": {"id": "2", "content": ""},
        "3": {"id": "3", "parentId": None, "role": "user", "content": "Q2, edited"},
        "4": {"id": "4", "parentId": "3", "role": "assistant", "content": "A2"},
    }
    history = {"messages": messages, "currentId": "4"}
    # Messages that the JSON lacks were deleted.
    assert texts({"history": history}) == ["Q1", "A1", "Q2, edited", "A2"]


def test_an_open_webui_answer_without_role_and_link_is_read_from_its_output(tmp_path: Path) -> None:
    output = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A"}]}]
    messages = {
        "1": {"id": "1", "role": "user", "content": "Q", "parentId": None, "childrenIds": []},
        "2": {"id": "2", "output": output, "done": True},
    }
    chat = {"history": {"messages": messages, "currentId": "2"}}
    (talk,), skipped = read(write(tmp_path, "c.json", [{"id": "x", "chat": chat}]))
    assert (role_texts(talk), skipped) == ([("user", "Q"), ("assistant", "A")], {})


def test_open_webui_shows_what_follows_the_current_message(tmp_path: Path) -> None:
    messages = {
        "1": {"id": "1", "role": "user", "content": "Q", "parentId": None},
        "2": {"id": "2", "role": "assistant", "content": "A", "parentId": "1"},
        "3": {"id": "3", "role": "user", "content": "More?", "parentId": "2"},
    }
    chat = {"history": {"messages": messages, "currentId": "2"}}
    (talk,), skipped = read(write(tmp_path, "c.json", [{"id": "x", "chat": chat}]))
    assert ([turn.text for turn in talk.turns], skipped) == (["Q", "A", "More?"], {})


def test_claude_pastes_voice_notes_and_artifacts_are_read_in_the_order_of_parents() -> None:
    talk = only("claude_2026.json")
    assert role_texts(talk) == [
        ("user", "paste.txt\nHello all"),
        ("assistant", "I will build it.\n\n```html\n<h1>Hello all</h1>\n```\n\nDone."),
        ("user", ""),
        ("assistant", "A nice page."),
        ("user", "Make it blue"),
        ("assistant", "It is blue."),
    ]
    assert talk.turns[1].alternatives == ("Red?",)


def claude(*messages: dict[str, Any], **conversation: Any) -> list[dict[str, Any]]:
    return [{"uuid": "c", "name": "", "chat_messages": list(messages), **conversation}]


def test_claude_messages_without_parents_are_read_by_time(tmp_path: Path) -> None:
    messages = [
        {"uuid": "2", "sender": "assistant", "text": "A1", "created_at": "2024-01-01T00:00:05Z"},
        {"uuid": "1", "sender": "human", "text": "Q1", "created_at": "2024-01-01T00:00:05Z"},
        {"uuid": "4", "sender": "assistant", "text": "A2", "created_at": "2024-01-01T00:00:09Z"},
        {"uuid": "3", "sender": "human", "text": "Q2", "created_at": "2024-01-01T00:00:07Z"},
    ]
    (talk,), skipped = read(write(tmp_path, "c.json", claude(*messages)))
    assert [turn.text for turn in talk.turns] == ["Q1", "A1", "Q2", "A2"]
    assert skipped == {}


def test_an_edit_of_an_artifact_is_read_on_its_own_branch(tmp_path: Path) -> None:
    def answer(id_: str, parent: str, **call: str) -> dict[str, Any]:
        part = {"type": "tool_use", "name": "artifacts", "input": {"id": "p", **call}}
        return {"uuid": id_, "parent_message_uuid": parent, "sender": "assistant", "content": [part]}

    def question(id_: str, parent: str) -> dict[str, Any]:
        return {"uuid": id_, "parent_message_uuid": parent, "sender": "human", "text": id_}

    messages = [
        answer("a2", "q2", command="update", old_str="red", new_str="blue"),
        question("q2", "a1"),
        answer("b1", "q1", command="create", content="a red wall", type="text/plain"),
        answer("a1", "q1", command="create", content="a red page", type="text/plain"),
        question("q1", "-"),
    ]
    exported = claude(*messages, current_leaf_message_uuid="a2")
    (talk,), skipped = read(write(tmp_path, "c.json", exported))
    assert [turn.text for turn in talk.turns] == ["q1", "a red page", "q2", "a blue page"]
    assert (talk.turns[1].alternatives, skipped) == (("a red wall",), {})


def test_a_long_text_pasted_into_open_webui_is_part_of_the_question(tmp_path: Path) -> None:
    files = [
        {"type": "file", "name": "Pasted_Text_17.txt", "file": {"data": {"content": "A long text"}}},
        {"type": "file", "name": "book.pdf", "file": {"data": {"content": "A book"}}},
    ]
    messages = [
        {"role": "user", "content": "Shorten:", "files": files},
        {"role": "assistant", "content": "A"},
    ]
    (talk,), skipped = read(write(tmp_path, "c.json", [{"chat": {"messages": messages}}]))
    assert (talk.turns[0].text, skipped) == ("Shorten:\n\nA long text", {"attachment": 1})


def test_old_claude_artifacts_are_part_of_the_answer(tmp_path: Path) -> None:
    text = (
        'Sure.\n\n<antArtifact identifier="box" type="image/svg+xml" title="Box"><svg/></antArtifact>\n\n'
        '<antArtifact identifier="n" type="text/markdown" title="N">\n# Note\n</antArtifact>'
    )
    messages = ({"sender": "human", "text": "Draw"}, {"sender": "assistant", "text": text})
    (talk,), _skipped = read(write(tmp_path, "c.json", claude(*messages)))
    assert talk.turns[1].text == "Sure.\n\n```svg\n<svg/>\n```\n\n# Note"


@pytest.mark.parametrize(
    ("tool", "call", "expected"),
    [
        (
            "artifacts",
            {"id": "a", "command": "create", "type": "application/vnd.ant.code", "language": "python", "content": "x"},
            "```python\nx\n```",
        ),
        ("artifacts", {"id": "a", "command": "rewrite", "content": "x\n```\ny"}, "x\n```\ny"),
        (
            "artifacts",
            {"id": "a", "command": "create", "type": "text/html", "content": "```"},
            "````html\n```\n````",
        ),
        ("artifacts", {"id": "a", "command": "update", "old_str": "x", "new_str": "y"}, None),
        ("create_file", {"path": "/mnt/user-data/outputs/a.py", "file_text": "x = 1"}, "```py\nx = 1\n```"),
        ("create_file", {"path": "/mnt/user-data/outputs/a.md", "file_text": "# A"}, "# A"),
        ("create_file", {"path": "/home/claude/a.py", "file_text": "x = 1"}, None),
        ("web_search", {"query": "x"}, None),
    ],
)  # fmt: skip
def test_documents_that_the_export_holds_are_the_answer(
    tmp_path: Path, tool: str, call: dict[str, Any], expected: str | None
) -> None:
    parts = [{"type": "tool_use", "name": tool, "input": call}, {"type": "text", "text": "Done."}]
    messages = ({"sender": "human", "text": "Write"}, {"sender": "assistant", "content": parts})
    (talk,), skipped = read(write(tmp_path, "c.json", claude(*messages)))
    assert talk.turns[1].text == ("Done." if expected is None else f"{expected}\n\nDone.")
    assert skipped == ({"tool message": 1} if expected is None else {})


def test_chatgpt_without_times_children_and_current_node_reads_the_last_branch() -> None:
    talk = only("chatgpt_2026.json")
    assert role_texts(talk) == [
        ("user", "Write a poem"),
        ("assistant", "Roses are red"),
        ("assistant", "I put the poem in the canvas."),
        ("user", "And a mail"),
        ("assistant", "Here:\n\nDear all,\n\nit is cold.\n\n```md\n:::note{a=1}\n:::\n```"),
    ]
    assert talk.turns[1].alternatives == ("An old poem",)


def test_the_analysis_of_a_chatgpt_answer_is_reasoning(tmp_path: Path) -> None:
    mapping = {
        "u": node("u", None, ["t"], "user", "q"),
        "t": node("t", "u", ["a"], "assistant", "Hm.", channel="analysis"),
        "a": node("a", "t", [], "assistant", "A", channel="final"),
    }
    (talk,), skipped = read(write(tmp_path, "c.json", [{"mapping": mapping, "current_node": "a"}]))
    assert (role_texts(talk), skipped) == ([("user", "q"), ("assistant", "A")], {"reasoning": 1})


def test_chatgpt_counts_every_message_of_an_edited_question(tmp_path: Path) -> None:
    mapping = {
        "r": {"id": "r", "message": None, "parent": None, "children": ["u", "v"]},
        "u": node("u", "r", ["a"], "user", "first"),
        "a": node("a", "u", ["u2"], "assistant", "answer"),
        "u2": node("u2", "a", ["a2"], "user", "more"),
        "a2": node("a2", "u2", [], "assistant", "more of it"),
        "v": node("v", "r", ["b"], "user", "second"),
        "b": node("b", "v", [], "assistant", "other"),
    }
    (talk,), skipped = read(write(tmp_path, "c.json", [{"mapping": mapping, "current_node": "b"}]))
    assert role_texts(talk) == [("user", "second"), ("assistant", "other")]
    assert skipped == {"message of another branch": 4}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n:::writing{variant=\"email\"}\nb\n:::\nc", "a\nb\nc"),
        (":::note\nb\n:::", ":::note\nb\n:::"),
        ("```\n:::writing{a=1}\n```", "```\n:::writing{a=1}\n```"),
        (":::writing{a=1}\n```\n:::\n```\n:::", "```\n:::\n```"),
        ("a ::: b", "a ::: b"),
    ],
)  # fmt: skip
def test_writing_directives_are_removed_outside_of_code(text: str, expected: str) -> None:
    assert strip_markup(text) == (expected, [])


@pytest.mark.parametrize(
    ("call", "recipient", "expected"),
    [
        ({"name": "n", "type": "code/python", "content": "x = 1"}, "canmore.create_textdoc", "```python\nx = 1\n```"),
        ({"updates": [{"pattern": ".*", "replacement": "New"}]}, "canmore.update_textdoc", "New"),
        ({"updates": [{"pattern": "a", "replacement": "b"}]}, "canmore.update_textdoc", None),
        ({"comments": []}, "canmore.comment_textdoc", None),
        ([], "canmore.create_textdoc", None),
    ],
)  # fmt: skip
def test_a_canvas_that_the_export_holds_whole_is_the_answer(
    tmp_path: Path, call: object, recipient: str, expected: str | None
) -> None:
    mapping = {
        "u": node("u", None, ["a"], "user", "q"),
        "a": node("a", "u", ["b"], "assistant", json.dumps(call), recipient=recipient),
        "b": node("b", "a", [], "assistant", "Done."),
    }
    (talk,), skipped = read(write(tmp_path, "c.json", [{"mapping": mapping, "current_node": "b"}]))
    answers = [turn.text for turn in talk.turns[1:]]
    assert answers == (["Done."] if expected is None else [expected, "Done."])
    assert skipped == ({"tool message": 1} if expected is None else {})


def test_deepseek_citations_are_removed_from_answers_only(tmp_path: Path) -> None:
    def message(kind: str, text: str) -> dict[str, Any]:
        return {"fragments": [{"type": kind, "content": text}], "inserted_at": "2026-01-01T00:00:00Z"}

    mapping = {
        "root": {"id": "root", "parent": None, "children": ["1"], "message": None},
        "1": {"parent": "root", "children": ["2"], "message": message("REQUEST", "What is [citation:1]?")},
        "2": {"parent": "1", "children": [], "message": message("RESPONSE", "A mark [citation:1][citation:12].")},
    }  # fmt: skip
    (talk,), skipped = read(write(tmp_path, "d.json", [{"id": "x", "inserted_at": "", "mapping": mapping}]))
    assert role_texts(talk) == [("user", "What is [citation:1]?"), ("assistant", "A mark.")]
    assert skipped == {"citation": 2}


def test_llama_cpp_reads_the_current_branch_of_each_session() -> None:
    (first, second), _skipped = read(EXPORTS / "llamacpp_conversations.jsonl")
    assert role_texts(first) == [
        ("user", "What does a scheduler do?"),
        ("assistant", "It lowers the learning rate."),
        ("user", "Explain this:\n\nPasted.txt\nlr = 0.1"),
        ("assistant", "It sets the rate."),
    ]
    assert (first.external_id, first.title, first.updated_at) == ("c-1", "Scheduler", 1785000009.0)
    assert (first.turns[0].time, second.title) == (1785000001.0, "你好")
    (talk,), skipped = read(EXPORTS / "llamacpp_conversations.json")
    assert role_texts(talk)[1] == ("assistant", "Let me look.\n\nEight gigabytes.")
    assert (talk.turns[1].alternatives, skipped) == (("A lot.",), {"tool message": 1})


def test_llama_cpp_messages_without_their_session_line_are_read(tmp_path: Path) -> None:
    lines = (EXPORTS / "llamacpp_conversations.jsonl").read_text(encoding="utf-8").splitlines()
    path = write(tmp_path, "x.jsonl", "\n".join(line for line in lines if '"message": {' in line))
    assert detect_format(path) == "llamacpp"
    assert [len(one.turns) for one in read(path)[0]] == [4, 2]


def test_llama_cpp_messages_belong_to_the_session_before_them(tmp_path: Path) -> None:
    def lines(text: str) -> list[dict[str, Any]]:
        message = {
            "id": "m",
            "convId": "elsewhere",
            "type": "text",
            "role": "user",
            "content": text,
            "parent": "r",
        }
        return [
            {"harness": "llama.app", "type": "session", "id": "c"},
            {"type": "message", "message": message},
        ]

    path = write(tmp_path, "x.jsonl", "\n".join(map(json.dumps, [*lines("one"), *lines("two")])))
    assert [(one.external_id, one.turns[0].text) for one in read(path)[0]] == [("c", "one"), ("c", "two")]


def test_le_chat_is_read_by_time_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    talk = only("chat-5d0c6c7e.json")
    assert role_texts(talk) == [
        ("user", "What is an epoch?"),
        ("assistant", "One pass over the data."),
        ("user", "And a micro-batch?"),
        ("assistant", "A batch of one step."),
    ]
    assert talk.turns[1].alternatives == ("A time.",)
    assert (talk.external_id, talk.started_at) == ("lc-1", 1769940000.0)
    messages = json.loads((EXPORTS / "chat-5d0c6c7e.json").read_text(encoding="utf-8"))
    path = write(tmp_path, "c.json", messages[::-1])
    assert read(path)[0] == [talk]
    two = [*messages, {**messages[1], "chatId": "lc-2", "content": "Another chat"}]
    assert [one.external_id for one in read(write(tmp_path, "c.json", two))[0]] == ["lc-1", "lc-2"]


def test_fragments_are_part_of_the_question_in_both_schemas_of_llm(tmp_path: Path) -> None:
    texts = {turn.text for one in read(EXPORTS / "llm-0.36-fragments.logs.db")[0] for turn in one.turns}
    assert "Only a fragment: what is the capital of Peru?" in texts
    assert "System fragment text" in texts
    assert any(text.startswith("FRAGMENT") and text.endswith("\nSummarise this please") for text in texts)
    path = tmp_path / "logs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("""
            CREATE TABLE _llm_migrations (name TEXT);
            CREATE TABLE conversations (id TEXT, name TEXT);
            CREATE TABLE responses (id TEXT, prompt TEXT, system TEXT, response TEXT, conversation_id TEXT,
                datetime_utc TEXT);
            CREATE TABLE fragments (id INTEGER, content TEXT);
            CREATE TABLE prompt_fragments (response_id TEXT, fragment_id INTEGER, "order" INTEGER);
            CREATE TABLE system_fragments (response_id TEXT, fragment_id INTEGER, "order" INTEGER);
            INSERT INTO conversations VALUES ('c', 'Old');
            INSERT INTO responses VALUES ('1', 'Shorten it.', '', 'Walrus.', 'c', '2025-05-01T10:00:00');
            INSERT INTO responses VALUES ('2', '', 'Be brief.', 'Lima.', 'c', '2025-05-01T10:01:00');
            INSERT INTO responses VALUES ('3', '', 'Be brief.', 'Nothing was asked.', 'c', '2025-05-01T10:02:00');
            INSERT INTO fragments VALUES (1, 'a walrus'), (2, 'is big'), (3, 'Capital of Peru?'), (4, 'Be kind.');
            INSERT INTO prompt_fragments VALUES ('1', 2, 1), ('1', 1, 0), ('2', 3, 0);
            INSERT INTO system_fragments VALUES ('1', 4, 0);
        """)
    (talk,), skipped = read(path)
    assert role_texts(talk) == [
        ("system", "Be kind."),
        ("user", "a walrus\nis big\nShorten it."),
        ("assistant", "Walrus."),
        ("system", "Be brief."),
        ("user", "Capital of Peru?"),
        ("assistant", "Lima."),
        ("user", ""),
        ("assistant", "Nothing was asked."),
    ]
    assert skipped == {"empty message": 1}


@pytest.mark.parametrize("root", ["root", "system", "user"])
@pytest.mark.parametrize("spelling", ["camel", "snake"])
def test_the_database_of_cherry_studio_2_is_read_along_the_active_branch(
    tmp_path: Path, spelling: str, root: str
) -> None:
    def column(name: str) -> str:
        return name if spelling == "camel" else "".join(f"_{c.lower()}" if c.isupper() else c for c in name)

    def data(*parts: dict[str, Any]) -> str:
        return json.dumps({"parts": parts})

    def text(words: str) -> str:
        return data({"type": "text", "text": words})

    path = tmp_path / "cherrystudio.sqlite"
    topic = ", ".join(map(column, ("id", "name", "activeNodeId", "createdAt", "updatedAt", "deletedAt")))
    message = ", ".join(
        map(column, ("id", "parentId", "topicId", "role", "data", "status", "siblingsGroupId", "createdAt", "deletedAt"))
    )  # fmt: skip
    start = 1_785_000_000_000
    picture = data({"type": "file", "mediaType": "image/png", "url": "x"})
    blocks = json.dumps(
        {"blocks": [{"type": "thinking", "content": "Hm."}, {"type": "main_text", "content": "Old."}]}
    )
    thought = data({"type": "reasoning", "text": "Hm."}, {"type": "text", "text": "Steam."})
    rows = [
        ("m3", "m1", "t1", "assistant", thought, "success", 1, start + 3, None),
        ("m2", "m1", "t1", "assistant", text("Boil."), "success", 1, start + 2, None),
        ("m1", "r", "t1", "user", text("How?"), "success", 0, start + 1, None),
        ("r", None, "t1", root, "{}", "success", 0, start, None),
        ("m4", "m3", "t1", "user", picture, "success", 0, start + 4, None),
        ("m5", "m4", "t1", "assistant", blocks, "success", 0, start + 5, None),
        ("m6", "m5", "t1", "user", data(), "success", 0, start + 6, start + 7),
        ("x1", None, "t2", "user", text("Deleted"), "success", 0, start, None),
    ]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE topic ({topic})")
        connection.execute(f"CREATE TABLE message ({message})")
        connection.execute("INSERT INTO topic VALUES ('t1', 'Rice', 'm5', ?, ?, NULL)", (start, start + 9))
        connection.execute("INSERT INTO topic VALUES ('t2', 'Gone', 'x1', ?, ?, ?)", (start, start, start))
        connection.executemany("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        connection.commit()
    assert detect_format(path) == "cherry"
    (talk,), skipped = read(path)
    assert role_texts(talk) == [
        ("user", "How?"),
        ("assistant", "Steam."),
        ("user", ""),
        ("assistant", "Old."),
    ]
    assert (talk.title, talk.external_id, talk.turns[1].alternatives) == ("Rice", "t1", ("Boil.",))
    assert (talk.started_at, talk.turns[0].time) == (1_785_000_000.0, 1_785_000_000.001)
    assert skipped == {"reasoning": 2, "image": 1}


def test_the_sessions_of_a_chatbox_backup_are_read(tmp_path: Path) -> None:
    def message(id_: str, role: str, *parts: dict[str, Any]) -> dict[str, Any]:
        return {"id": id_, "role": role, "contentParts": list(parts), "timestamp": 1_785_000_000_000}

    text = {"type": "text", "text": "A batch."}
    session = {
        "id": "s1",
        "type": "chat",
        "name": "Batches",
        "messages": [
            message("q", "user", {"type": "text", "text": "What is it?"}),
            message(
                "a",
                "assistant",
                {"type": "reasoning", "text": "Hm."},
                {"type": "info", "text": "Retried"},
                text,
            ),
        ],
        "threads": [{"id": "t", "name": "Before", "messages": [message("b", "user", text)]}],
    }
    manifest = {
        "format": "chatbox-backup",
        "formatVersion": 2,
        "sessions": [{"id": "s1", "path": "sessions/s1/session.json", "meta": {"name": "Batches"}}],
    }
    path = tmp_path / "backup.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        archive.writestr("settings.json", '{"providers": {}}')
        archive.writestr("sessions/s1/session.json", json.dumps(session))
    with MemoryStore(tmp_path / "memory.db") as store:
        report = import_paths(store, [path])
        again = import_paths(store, [path])
        talks = {talk.external_id: talk for talk in store.conversations()}
    assert (report.added, again.added, [file.format for file in report.files]) == (2, 0, ["chatbox"])
    assert role_texts(talks["s1"]) == [("user", "What is it?"), ("assistant", "A batch.")]
    assert (talks["s1"].title, talks["s1/t"].title) == ("Batches", "Before")
    assert (report.skipped["reasoning"], report.skipped["notice of the program"]) == (1, 1)


def test_every_message_of_the_other_branches_of_chatbox_and_lm_studio_is_counted(tmp_path: Path) -> None:
    def message(id_: str, role: str, text: str) -> dict[str, Any]:
        return {"id": id_, "role": role, "contentParts": [{"type": "text", "text": text}]}

    other = [
        message("b", "assistant", "Other"),
        message("c", "user", "More"),
        message("d", "assistant", "It"),
    ]
    session = {
        "id": "s",
        "messages": [message("q", "user", "Q"), message("a", "assistant", "A")],
        "messageForksHash": {
            "q": {"position": 0, "lists": [{"id": "1", "messages": []}, {"id": "2", "messages": other}]},
            "a": {"lists": [{"messages": [message("e", "user", "Left")]}]},
        },
    }
    (talk,), skipped = read(write(tmp_path, "c.json", {"session:s": session}))
    assert talk.turns[1].alternatives == ("Other",)
    assert skipped == {"message of another branch": 3}

    def version(text: str) -> dict[str, Any]:
        return {"type": "singleStep", "role": "assistant", "content": [{"type": "text", "text": text}]}

    question = {"type": "singleStep", "role": "user", "content": [{"type": "text", "text": "Q"}]}
    versions = [version("A"), version("A"), version(""), version("B")]
    chat = {
        "messages": [
            {"versions": [question], "currentlySelected": 0},
            {"versions": versions, "currentlySelected": 0},
        ]
    }
    (talk,), skipped = read(write(tmp_path, "l.conversation.json", chat))
    assert talk.turns[1].alternatives == ("B",)
    assert skipped == {"message of another branch": 2}


@pytest.mark.parametrize(
    "value",
    [
        [{"mapping": {"u": {"parent": None, "message": {"author": {"role": "user"}, "content": {
            "content_type": "multimodal_text", "parts": [{"content_type": "image_asset_pointer"}]}}},
          "a": {"parent": "u", "message": {"author": {"role": "assistant"}, "content": {
            "content_type": "text", "parts": ["A cat."]}}}}}],
        [{"inserted_at": "2026-01-01T00:00:00Z", "mapping": {
            "1": {"parent": None, "message": {"fragments": [{"type": "FILE"}]}},
            "2": {"parent": "1", "message": {"fragments": [{"type": "RESPONSE", "content": "A cat."}]}}}}],
        [{"chat_messages": [{"sender": "human", "text": "", "files": [{"file_name": "a.png"}]},
                            {"sender": "assistant", "text": "A cat."}]}],
        [{"chat": {"messages": [{"role": "user", "content": "", "files": [{"type": "image"}]},
                                {"role": "assistant", "content": "A cat."}]}}],
        {"session:s": {"id": "s", "messages": [
            {"id": "1", "role": "user", "contentParts": [{"type": "image"}]},
            {"id": "2", "role": "assistant", "contentParts": [{"type": "text", "text": "A cat."}]}]}},
        {"chat-next-web-store": {"sessions": [{"id": "s", "messages": [
            {"role": "user", "content": [{"type": "image_url"}]}, {"role": "assistant", "content": "A cat."}]}]}},
        [{"chatId": "c", "role": "user", "content": "", "canvas": [], "files": [{"type": "image"}], "createdAt": "2026-01-01T00:00:00Z"},
         {"chatId": "c", "role": "assistant", "content": "A cat.", "canvas": [], "createdAt": "2026-01-01T00:00:05Z"}],
        {"conv": {"id": "c"}, "messages": [
            {"id": "1", "role": "user", "content": "", "parent": "root", "extra": [{"type": "IMAGE", "base64Url": "x"}]},
            {"id": "2", "role": "assistant", "content": "A cat.", "parent": "1"}]},
        {"messages": [
            {"versions": [{"type": "singleStep", "role": "user", "content": [{"type": "file"}]}], "currentlySelected": 0},
            {"versions": [{"type": "singleStep", "role": "assistant", "content": [{"type": "text", "text": "A cat."}]}],
             "currentlySelected": 0}]},
    ],
    ids=["chatgpt", "deepseek", "claude", "openwebui", "chatbox", "nextchat", "lechat", "llamacpp", "lmstudio"],
)  # fmt: skip
def test_a_question_of_an_image_alone_leaves_a_gap(tmp_path: Path, value: object) -> None:
    (talk,), skipped = read(write(tmp_path, "c.json", value))
    assert role_texts(talk) == [("user", ""), ("assistant", "A cat.")]
    assert sum(skipped.values()) == 1
