"""Wrappers, lists, tables, damaged entries: whatever is around the entries, the same conversations are read."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import BadInput
from engine.memory.importers.formats import detect_format
from engine.memory.importers.readers import json_stream
from engine.memory.importers.readers.files import first_values, json_values
from tests.unit.test_importers import read, role_texts

Row = dict[str, Any]


def chatgpt(n: int) -> Row:
    def node(key: str, parent: str | None, child: str | None, role: str, text: str) -> Row:
        message = {"author": {"role": role}, "content": {"content_type": "text", "parts": [text]}}
        children = [child] if child else []
        return {"id": key, "parent": parent, "children": children, "message": message}

    mapping = {"a": node("a", None, "b", "user", f"q{n}"), "b": node("b", "a", None, "assistant", f"a{n}")}
    return {"title": "", "conversation_id": f"c{n}", "mapping": mapping, "current_node": "b"}


def claude(n: int) -> Row:
    messages = [{"sender": "human", "text": f"q{n}"}, {"sender": "assistant", "text": f"a{n}"}]
    return {"uuid": f"u{n}", "name": "", "chat_messages": messages}


def openwebui(n: int) -> Row:
    messages = {
        "1": {"id": "1", "role": "user", "content": f"q{n}", "parentId": None, "childrenIds": ["2"]},
        "2": {"id": "2", "role": "assistant", "content": f"a{n}", "parentId": "1", "childrenIds": []},
    }
    return {"id": f"w{n}", "chat": {"history": {"messages": messages, "currentId": "2"}}}


def openai(n: int) -> Row:
    return {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}


def sharegpt(n: int) -> Row:
    return {"conversations": [{"from": "human", "value": f"q{n}"}, {"from": "gpt", "value": f"a{n}"}]}


def alpaca(n: int) -> Row:
    return {"instruction": f"q{n}", "output": f"a{n}"}


ENTRIES: dict[str, Callable[[int], Row]] = {
    "chatgpt": chatgpt,
    "claude": claude,
    "openwebui": openwebui,
    "openai": openai,
    "sharegpt": sharegpt,
    "alpaca": alpaca,
}
WRAPPERS: dict[str, Callable[[list[Row]], str]] = {
    "list": json.dumps,
    "lines": lambda rows: "\n".join(map(json.dumps, rows)),
    "blank lines and marks": lambda rows: "\ufeff\n\n" + "\n\ufeff\n".join(map(json.dumps, rows)) + "\n\n",
    "data": lambda rows: json.dumps({"data": rows}),
    "success and data": lambda rows: json.dumps({"success": True, "message": "", "data": rows, "n": 2}),
    "data last": lambda rows: json.dumps({"meta": {"version": 1, "tags": ["x"]}, "errors": [], "data": rows}),
    "data in data": lambda rows: json.dumps({"code": 0, "data": {"total": 2, "rows": rows}}),
    "lines of lists": lambda rows: "\n".join(json.dumps([row]) for row in rows),
    "joined lists": lambda rows: json.dumps(rows[:1]) + "\n" + json.dumps(rows[1:]),
    "list of lists": lambda rows: json.dumps([rows[:1], rows[1:]]),
    "damaged first": lambda rows: json.dumps([{"title": "lost"}, None, *rows]),
    "damaged first in data": lambda rows: json.dumps({"data": [{"title": "lost"}, *rows]}),
}
CHAT_WRAPPERS: dict[str, Callable[[list[Row]], str]] = {
    "conversations": lambda rows: json.dumps({"conversations": rows}),
    "chats": lambda rows: json.dumps({"exported_at": "2026-01-01", "chats": rows}),
    "items": lambda rows: json.dumps({"items": rows, "total": 2, "limit": 20, "offset": 0}),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("wrapper", [*WRAPPERS, *CHAT_WRAPPERS])
def test_the_entries_are_read_in_every_wrapper(tmp_path: Path, entry: str, wrapper: str) -> None:
    if wrapper in CHAT_WRAPPERS and entry == "alpaca":
        pytest.skip("rows without an inner list stand under data, rows, records …")
    path = tmp_path / "x.json"
    path.write_text({**WRAPPERS, **CHAT_WRAPPERS}[wrapper]([ENTRIES[entry](n) for n in range(2)]), "utf-8")
    assert detect_format(path) == entry
    conversations, skipped = read(path)
    assert [role_texts(conversation) for conversation in conversations] == [
        [("user", f"q{n}"), ("assistant", f"a{n}")] for n in range(2)
    ]
    assert sum(skipped.values()) == ("damaged" in wrapper) + (wrapper == "damaged first")


MESSAGES: list[Row] = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("value", "conversations"),
    [
        (MESSAGES, 1),
        ([MESSAGES, MESSAGES[:1]], 2),
        ({"data": MESSAGES, "id": "x"}, 1),
        ({"conversations": MESSAGES}, 1),
        ({"data": [{"conversations": MESSAGES}, {"conversations": MESSAGES[:1]}]}, 2),
        ([[{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]], 1),
    ],
)
def test_a_list_of_messages_is_one_conversation(tmp_path: Path, value: object, conversations: int) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    found, skipped = read(path)
    assert (len(found), skipped) == (conversations, {})
    assert role_texts(found[0]) == [("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize(
    "value",
    [
        {"data": ["q", "a"]},
        {"data": []},
        {"items": [{"name": "x"}], "mapping": {"a": {"b": [1]}}},
        {"conversations": [{"human": "q", "assistant": "a"}]},
        {"sessions": {"a": 1}, "data": 5},
        {"data": {"a": {"b": 1}}},
    ],
)
def test_what_is_no_wrapper_stays_as_it_is(tmp_path: Path, value: object) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    assert [entry for _line, entry in json_values(path)] == [value]
    assert next(first_values(path)) == value


def test_a_wrapped_list_is_read_one_entry_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"data": [openai(n) for n in range(500)]}), encoding="utf-8")
    monkeypatch.setattr(json_stream, "MAX_VALUE", 1_000)
    assert len(read(path)[0]) == 500
    assert [line for line, _value in json_values(path)] == [1] * 500


@pytest.mark.parametrize("key", ["session_id", "conversation_id", "chat_id", "threadId", "convId"])
def test_bare_messages_are_divided_by_the_conversation_that_they_name(tmp_path: Path, key: str) -> None:
    rows = [
        {key: id_, "role": role, "content": f"{id_} {role}"}
        for role in ("user", "assistant")
        for id_ in ("A", "B")
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    conversations, _skipped = read(path)
    assert [conversation.external_id for conversation in conversations] == ["A", "B"]
    assert role_texts(conversations[1]) == [("user", "B user"), ("assistant", "B assistant")]


def test_bare_messages_with_times_stand_in_their_order(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"role": "assistant", "content": "a", "timestamp": 1.7e9 + 9},
        {"role": "user", "content": "q"},
    ]
    path = tmp_path / "x.json"
    path.write_text(json.dumps([rows[0], {**rows[1], "timestamp": 1.7e9}]), encoding="utf-8")
    assert [role for role, _text in role_texts(read(path)[0][0])] == ["user", "assistant"]
    path.write_text(json.dumps(rows), encoding="utf-8")
    assert [role for role, _text in role_texts(read(path)[0][0])] == ["assistant", "user"]


@pytest.mark.parametrize("key", ["parent", "parentId", "parent_message_id", "children", "childrenIds"])
def test_messages_of_a_tree_are_not_taken_in_the_order_of_the_file(tmp_path: Path, key: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{**message, key: None} for message in MESSAGES]), encoding="utf-8")
    with pytest.raises(BadInput, match=f"keys role, content, {key}"):
        detect_format(path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_rows_of_a_table_are_read_like_lines_of_json(tmp_path: Path, delimiter: str, encoding: str) -> None:
    rows = [
        {"instruction": "one, two; three", "input": "", "output": 'said "yes"\nand\tleft'},
        {"instruction": "第二", "input": "x", "output": "好"},
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    path = tmp_path / ("x.tsv" if delimiter == "\t" else "x.csv")
    path.write_text(text.getvalue() + "\r\n", encoding=encoding, newline="")
    assert [row for _line, row in json_values(path)] == rows
    assert [line for line, _row in json_values(path)] == [2, 4]
    assert len(read(path)[0]) == 2


def test_a_field_over_the_limit_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "MAX_VALUE", 1_000)
    path = tmp_path / "x.csv"
    path.write_text('a,b\n1,"' + "x\n" * 2_000, encoding="utf-8")
    with pytest.raises(BadInput, match="longer than"):
        list(json_values(path))


@pytest.mark.skipif(not importlib.util.find_spec("pyarrow"), reason="pyarrow is not installed")
def test_rows_of_parquet_are_read_like_lines_of_json(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([openai(n) for n in range(600)]), path)
    assert len(read(path)[0]) == 600
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadInput, match="damaged"):
        list(json_values(path))


@pytest.mark.skipif(bool(importlib.util.find_spec("pyarrow")), reason="pyarrow is installed")
def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1" + bytes(20) + b"PAR1")
    with pytest.raises(BadInput, match="pyarrow") as caught:
        detect_format(path)
    assert caught.value.hint.endswith("-m pip install pyarrow")


def test_an_unknown_shape_is_described_without_its_words(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(
        json.dumps([{"subject": "secret", "k" * 90: 1, **{f"k{n}": 1 for n in range(20)}}]), "utf-8"
    )
    with pytest.raises(BadInput, match="keys subject, kkkk") as caught:
        detect_format(path)
    assert (
        "secret" not in str(caught.value)
        and "k19" not in str(caught.value)
        and "k" * 60 not in str(caught.value)
    )
    assert "--format" not in caught.value.hint


def test_a_suggested_format_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    rows = [{"title": "lost"}] * 60 + [claude(1)]
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(BadInput, match="none of the supported formats") as caught:
        detect_format(path)
    assert "--format claude" in caught.value.hint
    assert len(read(path, "claude")[0]) == 1


@pytest.mark.parametrize(
    "roles", [("Prompt", "Response"), ("question", "answer"), ("USER", "bing"), ("用户", "助手")]
)
@pytest.mark.parametrize("key", ["content", "text", "say"])
def test_other_names_of_roles_and_texts_are_known(tmp_path: Path, roles: tuple[str, str], key: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"messages": [{"role": role, key: "x"} for role in roles]}), encoding="utf-8")
    assert [role for role, _text in role_texts(read(path)[0][0])] == ["user", "assistant"]


@pytest.mark.parametrize("parent", ["parent", "parentId", "parent_message_id", "parentMessageId"])
@pytest.mark.parametrize("bare", [False, True])
def test_messages_that_name_their_parents_are_read_along_a_branch(
    tmp_path: Path, parent: str, bare: bool
) -> None:
    messages = [
        {"id": "3", parent: "2", "role": "user", "content": "q2"},
        {"id": "2b", parent: "1", "role": "assistant", "content": "other a1"},
        {"id": "1", parent: None, "role": "user", "content": "q1"},
        {"id": "4", parent: "3", "role": "assistant", "content": "a2"},
        {"id": "2", parent: "1", "role": "assistant", "content": "a1"},
    ]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(messages if bare else [{"messages": messages}]), encoding="utf-8")
    ((conversation,), skipped) = read(path)
    assert [text for _role, text in role_texts(conversation)] == ["q1", "a1", "q2", "a2"]
    assert (conversation.turns[1].alternatives, skipped) == (("other a1",), {})
