"""Sessions of coding agents: what a person typed and what the model said, and nothing that programs wrote."""

from __future__ import annotations

import json
import sqlite3
from itertools import pairwise
from pathlib import Path

import pytest

from engine.memory.importers.agents.agent_text import typed_text
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import import_paths
from tests.unit.import_accounting import texts_read
from tests.unit.test_importers import read, role_texts, write

AGENTS = Path(__file__).parents[1] / "data" / "exports" / "agents"
FILES = sorted(AGENTS.iterdir())
CLAUDE_CODE = AGENTS / "claude_code.jsonl"
CODEX = AGENTS / "rollout-2026-09-01T10-00-00-019a.jsonl"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_that_a_program_wrote_is_read(file: Path) -> None:
    conversations, _ = read(file)
    assert conversations
    assert not any("SECRET" in text for text in texts_read(conversations))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_questions_and_answers_take_turns(file: Path) -> None:
    for conversation in read(file)[0]:
        roles = [turn.role for turn in conversation.turns]
        assert all(a != b for a, b in pairwise(roles))


def test_claude_code_follows_the_tree_over_tools_and_a_compaction() -> None:
    (conversation,), skipped = read(CLAUDE_CODE)
    assert role_texts(conversation) == [
        ("user", "fix the parser"),
        ("assistant", "I will look at it.\n\nFixed: the loop ended early."),
        ("user", "now add a test"),
        ("assistant", "Added."),
        ("user", ""),
        ("assistant", "A screenshot of the log."),
    ]
    assert (conversation.title, conversation.turns[0].external_id) == ("Fix the parser", "u1")
    assert conversation.turns[0].time == 1785574804
    assert skipped == {
        "message of another branch": 2,
        "message joined to one answer": 1,
        "record without a message": 4,
        "text added by the program": 5,
        "reasoning": 1,
        "tool message": 4,
        "message of a sub-agent": 2,
        "failed answer": 1,
        "entry of another shape": 1,
        "image": 1,
    }


def claude_code_lines(*turns: str, session: str) -> str:
    lines, parent = [], None
    for number, text in enumerate(turns):
        role = ("user", "assistant")[number % 2]
        line = {
            "type": role,
            "uuid": f"u{number}",
            "parentUuid": parent,
            "sessionId": session,
            "timestamp": f"2026-08-01T09:00:{number:02}Z",
            "message": {"role": role, "content": text},
        }
        lines.append(json.dumps(line))
        parent = f"u{number}"
    return "\n".join(lines) + "\n"


def test_a_copy_of_a_session_under_a_new_id_is_one_conversation(tmp_path: Path) -> None:
    short = write(tmp_path, "b-first.jsonl", claude_code_lines("q1", "a1", "q2", "a2", session="S1"))
    long = write(
        tmp_path, "a-copy.jsonl", claude_code_lines("q1", "a1", "q2", "a2", "q3", "a3", session="S2")
    )
    for files in ([short, long], [long, short]):
        with MemoryStore(tmp_path / f"{files[0].name}.db") as store:
            import_paths(store, files)
            assert [len(conversation.turns) for conversation in store.conversations()] == [6]
            assert import_paths(store, files).added == 0


def test_forks_that_part_stay_two_conversations(tmp_path: Path) -> None:
    one = write(tmp_path, "one.jsonl", claude_code_lines("q1", "a1", "q2", "a2", session="S1"))
    other = write(tmp_path, "other.jsonl", claude_code_lines("q1", "a1", "q3", "a3", session="S2"))
    with MemoryStore(tmp_path / "memory.db") as store:
        import_paths(store, [one, other])
        assert sorted(c.turns[-1].text for c in store.conversations()) == ["a2", "a3"]


def test_a_message_whose_parent_is_missing_follows_the_line_before_it(tmp_path: Path) -> None:
    lines = claude_code_lines("q1", "a1", "q2", "a2", session="S").splitlines()
    path = write(tmp_path, "s.jsonl", "\n".join([lines[0], lines[2], lines[3]]))
    assert [turn.text for turn in read(path)[0][0].turns] == ["q1", "q2", "a2"]


def test_words_typed_while_the_model_works_are_read(tmp_path: Path) -> None:
    lines = claude_code_lines("q1", "a1", session="S").splitlines()

    def attachment(number: int, text: str, mode: str) -> str:
        queued = {"type": "queued_command", "prompt": text, "commandMode": mode}
        line = {
            "type": "attachment",
            "uuid": f"q{number}",
            "parentUuid": "u1",
            "sessionId": "S",
            "attachment": queued,
        }
        return json.dumps(line)

    answer = {"role": "assistant", "content": [{"type": "text", "text": "As you like."}]}
    last = {"type": "assistant", "uuid": "u9", "parentUuid": "q1", "sessionId": "S", "message": answer}
    lines += [attachment(1, "also this", "prompt"), json.dumps(last)]
    lines.insert(2, attachment(0, "SECRET", "task-notification"))
    (conversation,), skipped = read(write(tmp_path, "s.jsonl", "\n".join(lines)))
    assert [turn.text for turn in conversation.turns] == ["q1", "a1", "also this", "As you like."]
    assert skipped == {"record without a message": 1}


def test_a_file_of_a_sub_agent_is_left_out(tmp_path: Path) -> None:
    text = claude_code_lines("task", "done", session="S").replace(
        '"sessionId"', '"isSidechain": true, "sessionId"'
    )
    assert read(write(tmp_path, "agent-1.jsonl", text)) == (
        [],
        {"message of a sub-agent": 2, "empty conversation": 1},
    )


def test_codex_takes_the_words_of_the_user_from_the_events() -> None:
    (conversation,), skipped = read(CODEX)
    assert role_texts(conversation) == [
        ("user", "add a retry"),
        ("assistant", "I will add one.\n\nAdded, with a backoff."),
        ("user", "what is in this picture?"),
        ("assistant", "A log."),
    ]
    assert conversation.turns[0].time == 1788256808
    assert skipped == {
        "text added by the program": 5,
        "reasoning": 1,
        "tool message": 2,
        "message of another branch": 2,
        "message joined to one answer": 1,
        "image": 1,
        "entry of another shape": 1,
    }


def test_codex_without_events_takes_the_items_that_a_person_typed(tmp_path: Path) -> None:
    lines = [line for line in CODEX.read_text(encoding="utf-8").splitlines() if '"event_msg"' not in line]
    (conversation,), _ = read(write(tmp_path, "rollout.jsonl", "\n".join(lines)))
    assert [turn.text for turn in conversation.turns if turn.role == "user"] == [
        "add a retry",
        "break it",
        "what is in this picture?",
    ]


def test_the_newest_and_the_oldest_form_of_codex_are_read(tmp_path: Path) -> None:
    def item(kind: str, text: str) -> str:
        content = [{"type": "text", "text": text}]
        payload = {"type": "item_completed", "item": {"type": kind, "id": "i", "content": content}}
        return json.dumps({"timestamp": "2026-09-01T10:00:00Z", "type": "event_msg", "payload": payload})

    new = write(
        tmp_path, "new.jsonl", "\n".join([item("UserMessage", "hi?"), item("AgentMessage", "Hello.")])
    )
    old_lines = [
        {"id": "x", "timestamp": "2025-05-01T10:00:00Z", "instructions": "SECRET"},
        {"record_type": "state"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi?"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]},
    ]
    old = write(tmp_path, "old.jsonl", "\n".join(map(json.dumps, old_lines)))
    for path in (new, old):
        assert role_texts(read(path)[0][0]) == [("user", "hi?"), ("assistant", "Hello.")]


def test_a_rollout_of_a_sub_agent_is_left_out(tmp_path: Path) -> None:
    text = CODEX.read_text(encoding="utf-8").replace('"source": "cli"', '"source": {"subagent": "review"}')
    conversations, skipped = read(write(tmp_path, "sub.jsonl", text))
    assert (conversations, skipped["message of a sub-agent"] > 0) == ([], True)


def test_cursor_reads_listed_messages_inline_and_old_chats() -> None:
    (listed, inline, old), skipped = read(AGENTS / "state.vscdb")
    assert role_texts(listed) == [
        ("user", "rename x to y"),
        ("assistant", "Done."),
        ("user", "and in the tests\nplease"),
        ("assistant", "Renamed there as well."),
    ]
    assert (listed.external_id, listed.title, listed.updated_at) == ("C1", "Rename", 1767607300)
    assert role_texts(inline) == [("user", "an inline chat?"), ("assistant", "Yes.")]
    assert role_texts(old) == [("user", "an old chat?"), ("assistant", "Very old.")]
    assert skipped == {
        "message of another branch": 1,
        "tool message": 1,
        "reasoning": 1,
        "message of another shape": 1,
        "entry of another shape": 2,
        "message of a sub-agent": 1,
        "empty conversation": 2,
    }


def test_chats_in_the_newest_storage_of_cursor_are_named(tmp_path: Path) -> None:
    path = tmp_path / "state.vscdb"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE cursorDiskKV (key TEXT UNIQUE, value BLOB)")
    shell = json.dumps({"composerId": "C", "fullConversationHeadersOnly": []})
    rows = [
        ("composerData:C", shell),
        ("composerData:D", shell),
        ("agentKv:blob:1", b"x"),
        ("agentKv:blob:2", b"x"),
    ]
    connection.executemany("INSERT INTO cursorDiskKV VALUES (?, ?)", rows)
    connection.commit()
    connection.close()
    assert read(path) == ([], {"chat in a storage that is not read": 2})


def test_vs_code_puts_references_into_the_sentence() -> None:
    (session,), skipped = read(AGENTS / "vscode_chat.json")
    assert role_texts(session) == [
        ("user", "fix the axis"),
        ("assistant", "Changed plot.py and draw:\n\nIt is logarithmic."),
        ("user", "and the legend?"),
        ("assistant", "Moved."),
        ("user", "thanks"),
    ]
    assert (session.external_id, session.title, session.updated_at) == ("S1", "Axis", 1767557000)
    assert skipped == {
        "reasoning": 1,
        "tool message": 1,
        "hidden message": 2,
        "failed answer": 1,
        "message of another shape": 1,
    }


def test_the_log_of_vs_code_gives_the_session_that_it_describes() -> None:
    (session,), skipped = read(AGENTS / "vscode_chat.jsonl")
    exported = read(AGENTS / "vscode_chat.json")
    assert session == exported[0][0]
    assert skipped == exported[1] | {"entry of another shape": 1}


def test_copilot_cli_reads_what_was_typed() -> None:
    (session,), skipped = read(AGENTS / "copilot_events.jsonl")
    assert role_texts(session) == [
        ("user", "add a flag"),
        ("assistant", "I will look.\n\nAdded `--fast`."),
        ("user", "document it"),
        ("assistant", "Documented."),
    ]
    assert (session.external_id, session.turns[0].external_id) == ("CLI1", "e3")
    assert skipped == {
        "attachment": 1,
        "tool message": 2,
        "reasoning": 1,
        "message of a sub-agent": 1,
        "text added by the program": 1,
        "message joined to one answer": 1,
        "entry of another shape": 1,
    }


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("<environment_context>\n  <cwd>/p</cwd>\n</environment_context>", ""),
        ("# AGENTS.md instructions for /p\n\n<INSTRUCTIONS>\nx\n</INSTRUCTIONS>", ""),
        ("<user_instructions>never closed", ""),
        ("Caveat: The messages below were generated by the user while running local commands. x", ""),
        ("This session is being continued from a previous conversation that ran out of context.", ""),
        ("[Request interrupted by user for tool use]", ""),
        ("<task-notification><task-id>x</task-id></task-notification>", ""),
        ("fix it\n<system-reminder>be nice</system-reminder>\nplease", "fix it\n\nplease"),
        ("# Context from my IDE setup:\n\n## Open tabs: a.py\n\n## My request for Codex:\nfix it", "fix it"),
        ("<context>files</context>\n<userRequest>\nfix it\n</userRequest>", "fix it"),
        ("<user_query>\nfix it\n</user_query>", "fix it"),
        ("what does <system-reminder> mean?", "what does <system-reminder> mean?"),
        ("why is <b>bold</b> not bold, x < y?", "why is <b>bold</b> not bold, x < y?"),
        ("<rules>are these rules mine?</rules>", "<rules>are these rules mine?</rules>"),
    ],
)
def test_typed_text_is_told_from_what_programs_add(text: str, typed: str) -> None:
    assert typed_text(text).strip() == typed


def test_unclosed_blocks_are_searched_once() -> None:
    text = "see " + "<system-reminder> " * 100_000
    assert typed_text(text) == text


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.suffix == ".jsonl"], ids=lambda file: file.name
)
def test_half_a_line_costs_that_line_only(file: Path, tmp_path: Path) -> None:
    whole = file.read_text(encoding="utf-8")
    path = write(tmp_path, file.name, whole + '{"type": "user", "uuid": "half')
    conversations, skipped = read(path)
    assert conversations == read(file)[0]
    assert sum(skipped.values()) == sum(read(file)[1].values()) + 1


def test_importing_sessions_twice_adds_nothing(tmp_path: Path) -> None:
    with MemoryStore(tmp_path / "memory.db") as store:
        assert import_paths(store, FILES).added
        assert import_paths(store, FILES).added == 0


@pytest.mark.parametrize(
    ("by_program", "roles"),
    [
        ("<command-message>review is running</command-message>\n<command-name>/review</command-name>", ["user", "assistant"]),
        ("<task-notification>\n<task-id>1</task-id>\n</task-notification>", ["user", "assistant"]),
        ("<system-reminder>be brief</system-reminder>", ["assistant"]),
    ],
)  # fmt: skip
def test_an_answer_to_a_command_belongs_to_no_question(
    tmp_path: Path, by_program: str, roles: list[str]
) -> None:
    lines = claude_code_lines("fix it", "Fixed.", by_program, "All reviewed.", session="s")
    (conversation,), _ = read(write(tmp_path, "s.jsonl", lines))
    assert [str(turn.role) for turn in conversation.turns[1:]] == (
        ["assistant", *roles] if len(roles) > 1 else roles
    )
    assert [turn.is_empty for turn in conversation.turns].count(True) == len(roles) - 1


def test_a_command_without_an_answer_leaves_no_trace(tmp_path: Path) -> None:
    command = "<command-name>/clear</command-name>"
    lines = claude_code_lines("fix it", "Fixed.", command, "", "thanks", "Gladly.", session="s").splitlines()
    # The person's next message follows the command.
    del lines[3]
    lines[3] = lines[3].replace('"parentUuid": "u3"', '"parentUuid": "u2"')
    (conversation,), _ = read(write(tmp_path, "s.jsonl", "\n".join(lines)))
    assert [turn.text for turn in conversation.turns] == ["fix it", "Fixed.", "thanks", "Gladly."]
