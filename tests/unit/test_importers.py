from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.chat import Role
from engine.core.errors import BadInput, UsageProblem
from engine.core.paths import shipped
from engine.memory.importers.fields import ImportOptions, parse_role_map, parse_time, strip_reasoning
from engine.memory.importers.formats import FORMATS, detect_format, find_importer, import_files
from engine.memory.importers.programs.chatgpt import strip_markup
from engine.memory.importers.readers import files, json_stream
from engine.memory.importers.readers.unpack import OtherFile, UnreadableFile
from engine.memory.records import Conversation, ImportItem, Skipped, Turn, replace_surrogates
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import import_paths

SAMPLE = shipped("data") / "sample" / "memory"


def write(folder: Path, name: str, value: object) -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def read(path: Path, name: str | None = None, **roles: str) -> tuple[list[Conversation], dict[str, int]]:
    """What an import of `path` reads; a fault in any file of it is raised."""
    conversations, skipped = list[Conversation](), dict[str, int]()
    options = ImportOptions(roles=parse_role_map(roles))
    with TemporaryDirectory() as scratch:
        for entry in import_files(path, name or "auto", Path(scratch)):
            if isinstance(entry, UnreadableFile):
                raise entry.error
            items: Iterable[ImportItem] = ()
            if isinstance(entry, OtherFile):
                items = [Skipped(reason=entry.reason)]
            else:
                items = find_importer(entry.format).read(entry.file.path, options)
            try:
                for item in items:
                    if isinstance(item, Skipped):
                        skipped[item.reason] = skipped.get(item.reason, 0) + item.count
                    elif isinstance(item, Conversation):
                        conversations.append(item)
            except BadInput as error:
                raise (error if isinstance(entry, OtherFile) else entry.file.relocate(error)) from None
    return conversations, skipped


def role_texts(conversation: Conversation) -> list[tuple[str, str]]:
    return [(str(turn.role), turn.text) for turn in conversation.turns]


# ChatGPT


def test_chatgpt_reads_the_branch_of_the_current_node() -> None:
    conversations, skipped = read(SAMPLE / "chatgpt_export.json")
    assert role_texts(conversations[0]) == [
        ("user", "帮我写一个快速排序 [数组]"),
        ("assistant", "def qs(a): ...\n```python\nprint([1])\n```"),
        ("user", "谢谢，再解释一下"),
        ("assistant", "print(1)"),
        ("assistant", "它用分治法。"),
    ]
    first = conversations[0]
    assert first.turns[1].alternatives == ("（被重新生成丢弃的回答）",)
    assert (first.external_id, first.title, first.updated_at) == ("c1", "分支对话", 1704067900.0)
    assert first.turns[0].time == 1704067214
    assert role_texts(conversations[1]) == [("user", "图里是什么？")]
    assert skipped == {"image": 1, "empty conversation": 1}


def node(
    id_: str, parent: str | None, children: list[str], role: str, text: str, **extra: Any
) -> dict[str, Any]:
    message = {
        "id": id_,
        "author": {"role": role},
        "content": {"content_type": "text", "parts": [text]},
        **extra,
    }
    return {"id": id_, "parent": parent, "children": children, "message": message}


def test_chatgpt_hidden_system_and_tool_messages_are_skipped(tmp_path: Path) -> None:
    mapping = {
        "s": node("s", None, ["h"], "system", ""),
        "h": node(
            "h", "s", ["u"], "user", "my profile", metadata={"is_visually_hidden_from_conversation": True}
        ),
        "u": node("u", "h", ["a"], "user", "sum?"),
        "a": node("a", "u", ["t"], "assistant", "print(1+1)", recipient="python"),
        "t": node("t", "a", ["b"], "tool", "2"),
        "b": node("b", "t", [], "assistant", "2", recipient="all"),
    }
    path = write(tmp_path, "c.json", [{"id": "x", "mapping": mapping, "current_node": "b"}])
    (conversation,), skipped = read(path)
    assert role_texts(conversation) == [("user", "sum?"), ("assistant", "2")]
    assert skipped == {"hidden message": 1, "tool message": 2}


def test_a_regenerated_answer_behind_a_tool_call_is_an_alternative(tmp_path: Path) -> None:
    mapping = {
        "u": node("u", None, ["a", "b"], "user", "q"),
        "a": node("a", "u", ["a2"], "assistant", "search()", recipient="browser"),
        "a2": node("a2", "a", [], "assistant", "old answer"),
        "b": node("b", "u", [], "assistant", "new answer"),
    }
    (conversation,), _ = read(write(tmp_path, "c.json", [{"mapping": mapping, "current_node": "b"}]))
    assert conversation.turns[-1].text == "new answer"
    assert conversation.turns[-1].alternatives == ("old answer",)


def test_a_regenerated_answer_with_its_reasoning_is_an_alternative(tmp_path: Path) -> None:
    def thought(id_: str, answer: str) -> dict[str, Any]:
        item = node(id_, "u", [answer], "assistant", "")
        item["message"]["content"] = {"content_type": "thoughts", "thoughts": []}
        return item

    mapping = {
        "u": node("u", None, ["t1", "t2"], "user", "q"),
        "t1": thought("t1", "a1"),
        "a1": node("a1", "t1", [], "assistant", "old answer"),
        "t2": thought("t2", "a2"),
        "a2": node("a2", "t2", ["u2"], "assistant", "new answer"),
        "u2": node("u2", "a2", [], "user", "and?"),
    }
    export = [{"title": "deleted", "mapping": None}, {"mapping": mapping, "current_node": "u2"}]
    path = tmp_path / "c.json"
    path.write_bytes(json.dumps(export, ensure_ascii=False).encode("utf-16"))
    (conversation,), skipped = read(path)
    assert role_texts(conversation) == [("user", "q"), ("assistant", "new answer"), ("user", "and?")]
    assert conversation.turns[1].alternatives == ("old answer",)
    assert skipped == {"entry of another shape": 1, "reasoning": 1, "message of another branch": 1}


def test_chatgpt_citations_are_removed_and_files_counted(tmp_path: Path) -> None:
    marked = (
        'It is in \ue200entity\ue202["city","Paris","France"]\ue201, see '
        "\ue200url\ue202the page\ue202turn0search1\ue201.\ue200cite\ue202turn0search0\ue202turn0news3\ue201 "
        "It is old 【12†L1-L3】.【4:0†source】"
    )
    node = chatgpt_node
    nodes = {
        "a": node("user", "Where? 【4:0†mine】", None, ["b"], attachments=[{"name": "a.pdf", "mime_type": "application/pdf"},
                  {"name": "b.png", "mime_type": "image/png"}]),
        "b": node("assistant", marked, "a", []),
    }  # fmt: skip
    conversations, skipped = read(write(tmp_path, "c.json", [{"mapping": nodes, "current_node": "b"}]))
    assert role_texts(conversations[0]) == [
        ("user", "Where? 【4:0†mine】"),
        ("assistant", "It is in Paris, see the page. It is old."),
    ]
    assert skipped == {"citation": 5, "attachment": 1}


def chatgpt_node(
    role: str, text: str, parent: str | None, children: list[str], **metadata: object
) -> dict[str, object]:
    return {
        "parent": parent,
        "children": children,
        "message": {
            "author": {"role": role},
            "content": {"content_type": "text", "parts": [text]},
            "metadata": metadata,
        },
    }


@given(st.text(alphabet="\ue200\ue201\ue202【】†1:a[\"', ", max_size=60))
def test_strip_markup_accepts_any_text(text: str) -> None:
    left, _skipped = strip_markup(text)
    assert "\ue200" not in left
    assert left == text or len(left) < len(text)


def test_a_cyclic_tree_is_read_without_looping(tmp_path: Path) -> None:
    mapping = {"a": node("a", "b", ["b"], "user", "q"), "b": node("b", "a", ["a"], "assistant", "r")}
    (conversation,), _ = read(write(tmp_path, "c.json", [{"mapping": mapping, "current_node": "b"}]))
    assert role_texts(conversation) == [("user", "q"), ("assistant", "r")]


def test_a_zipped_export_is_read_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.txt", "x")
        archive.writestr("folder/conversations.json", (SAMPLE / "chatgpt_export.json").read_bytes())
    assert read(path)[0] == read(SAMPLE / "chatgpt_export.json")[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["export.zip"]


def test_a_zip_bomb_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", b"[" + b" " * 50_000_000)
    with pytest.raises(BadInput, match="expands"):
        read(path)


@pytest.mark.parametrize("damage", ["no conversations", "cut", "flipped"])
def test_a_damaged_zip_is_bad_input(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        name = "chat.html" if damage == "no conversations" else "conversations.json"
        page = b"<html><body>User: a</body></html>"
        archive.writestr(name, page if name == "chat.html" else (SAMPLE / "chatgpt_export.json").read_bytes())
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:2000]
    if damage == "flipped":
        data[1000] ^= 1
    path.write_bytes(data)
    with MemoryStore(tmp_path / "memory.db") as store, pytest.raises(BadInput, match=r"export\.zip"):
        import_paths(store, [path])


# Alpaca, ShareGPT, OpenAI


def test_alpaca_with_history_is_one_conversation(tmp_path: Path) -> None:
    row = {
        "system": "s",
        "instruction": "i",
        "input": "x",
        "output": "o",
        "history": [["q1", "a1"], ["q2", "a2"]],
    }
    (conversation,), skipped = read(write(tmp_path, "a.json", [row]))
    assert role_texts(conversation) == [
        ("system", "s"),
        ("user", "q1"),
        ("assistant", "a1"),
        ("user", "q2"),
        ("assistant", "a2"),
        ("user", "i\nx"),
        ("assistant", "o"),
    ]
    assert skipped == {}


def test_the_alpaca_sample_is_imported_completely() -> None:
    conversations, skipped = read(SAMPLE / "oasst_zh_alpaca.json")
    assert (len(conversations), skipped) == (413, {})


def test_mindx_training_rows_lose_their_speaker_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "train.jsonl", '{"completion":"助手: 好","prompt":"用户: 在吗"}\n')
    assert role_texts(read(path)[0][0]) == [("user", "在吗"), ("assistant", "好")]


def test_sharegpt_tool_calls_have_the_role_tool(tmp_path: Path) -> None:
    talk = [
        {"from": "human", "value": "weather?"},
        {"from": "function_call", "value": "{}"},
        {"from": "observation", "value": "sun"},
        {"from": "gpt", "value": "sunny"},
        {"from": "客服", "value": "您好"},
        {"from": "narrator", "value": "…"},
    ]
    path = write(tmp_path, "s.json", [{"conversations": talk, "tools": "[…]"}])
    (conversation,), skipped = read(path, 客服="assistant")
    assert [role for role, _text in role_texts(conversation)] == [
        "user",
        "tool",
        "tool",
        "assistant",
        "assistant",
    ]
    assert skipped == {"tool description": 1, "unknown role: narrator": 1}


def test_openai_parts_keep_their_text(tmp_path: Path) -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {}}],
        },
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "assistant", "content": "a cat"},
    ]
    path = write(tmp_path, "m.jsonl", json.dumps({"id": "x", "messages": messages}) + "\n")
    (conversation,), skipped = read(path)
    assert role_texts(conversation) == [
        ("system", "be brief"),
        ("user", "what is it?"),
        ("tool", '[{"id": "1"}]'),
        ("assistant", "a cat"),
    ]
    assert skipped == {"image": 1}


def test_openai_reasoning_is_skipped_and_function_calls_are_tool_turns(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "<think>hm</think>\n2", "reasoning_content": "easy"},
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
        {"role": "function", "name": "weather", "content": "sun"},
        {"role": "assistant", "content": "Sunny."},
    ]
    (talk,), skipped = read(write(tmp_path, "a.jsonl", {"messages": messages}))
    assert [role for role, _text in role_texts(talk)] == [
        "user",
        "assistant",
        "user",
        "tool",
        "tool",
        "assistant",
    ]
    assert role_texts(talk)[1] == ("assistant", "2")
    assert skipped == {"reasoning": 2}
    row = {
        "conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "<think>hm</think>2"}]
    }
    (talk,), skipped = read(write(tmp_path, "s.json", [row]))
    assert (role_texts(talk)[1], skipped) == (("assistant", "2"), {"reasoning": 1})


def test_a_file_of_bare_messages_is_one_conversation(tmp_path: Path) -> None:
    path = write(
        tmp_path, "m.json", [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    )
    assert [role_texts(c) for c in read(path)[0]] == [[("user", "a"), ("assistant", "b")]]


def test_split_mindx_messages_are_joined(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "你", "time": "2026-03-07T02:19:26.123456789+08:00"},
        {"role": "user", "content": "好", "time": "2026-03-07T02:19:27+08:00"},
        {"role": "assistant", "content": "在", "time": "0001-01-01T00:00:00Z"},
    ]
    path = write(
        tmp_path,
        "session_1.json",
        {"id": "session_1", "messages": messages, "ended_at": "0001-01-01T00:00:00Z"},
    )
    (conversation,), _ = read(path)
    assert role_texts(conversation) == [("user", "你好"), ("assistant", "在")]
    assert conversation.turns[0].time == pytest.approx(1772821166.123456)
    assert conversation.turns[1].time is None


# Text


@pytest.mark.parametrize(
    "text",
    [
        "用户：你好\n助手：在\n",
        "提问: 你好\n机器人: 在\n",
        "User: 你好\nAssistant: 在",
        "user:你好\r\nassistant:在\r\n",
        "### Human:\n你好\n\n### Assistant:\n在\n\n",
        "**Q**: 你好\n**A**: 在",
        "\ufeff我：你好\nAI： 在\n",
        "You said:\n你好\n\nChatGPT said:\n在\n",
        "你说：\n你好\nChatGPT 说：\n在\n",
        "我: 你好\nDeepSeek: 在\n",
    ],
)
def test_text_speakers_are_recognised_by_label(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "t.txt", text)
    assert detect_format(path) == "text"
    assert [role_texts(c) for c in read(path)[0]] == [[("user", "你好"), ("assistant", "在")]]


def test_labels_inside_fenced_code_are_text(tmp_path: Path) -> None:
    text = "intro\nUser: show me\nAssistant: here:\n\n```\nUser: x\n---\n```\nNote: done\n---\nUser: more\n"
    conversations, skipped = read(write(tmp_path, "t.txt", text))
    assert [role_texts(c) for c in conversations] == [
        [("user", "show me"), ("assistant", "here:\n\n```\nUser: x\n---\n```\nNote: done")],
        [("user", "more")],
    ]
    assert skipped == {"line before the first speaker": 1}


def test_unknown_speakers_give_a_map_hint(tmp_path: Path) -> None:
    path = write(tmp_path, "t.txt", "客服：您好\n顾客：在吗\n客服：在\n顾客：好\n")
    with pytest.raises(BadInput, match="客服") as caught:
        detect_format(path)
    assert "顾客=user,客服=assistant" in caught.value.hint
    short = write(tmp_path, "short.txt", "客服：您好\n顾客：我的订单没到\n客服：明天送达。\n")
    with pytest.raises(BadInput, match="客服") as caught:
        detect_format(short)
    assert "顾客=user,客服=assistant" in caught.value.hint
    for text in ("时间：三点\n地点：会议室\n", "第一行\n注意：第二行\n第三行\n"):
        with pytest.raises(BadInput, match="No speakers found"):
            detect_format(write(tmp_path, "none.txt", text))
    (conversation,), _ = read(path, "text", 客服="assistant", 顾客="user")
    assert [role for role, _text in role_texts(conversation)] == ["assistant", "user", "assistant", "user"]


# Malformed files


BROKEN: list[tuple[str, bytes, str, int | None]] = [
    ("empty.json", b"", "empty", None),
    ("space.jsonl", b"  \n \n", "empty", None),
    ("page.json", b"<!DOCTYPE html><html></html>", "web page", None),
    ("page.html", b"  <html><body>User: a\n</body></html>", "web page", None),
    ("cut.json", b'[\n{"instruction": "a",\n "output": ', "in the middle of an entry", 3),
    ("open.json", b'[{"instruction": "a", "output": "b"}\n', "middle", 2),
    ("comma.json", b'[{"instruction": "a", "output": "b"}\n{}]', "comma", 2),
    ("tail.json", b'[{"instruction": "a", "output": "b"}]\nx', "after", 2),
    ("line.jsonl", b'{"messages": []}\n{"messages": [}\n{"messages": []}\n', "Invalid JSON", 2),
    ("lastline.jsonl", b'{"messages": []}\n{"messages": [}\n', "Invalid JSON", 2),
    (
        "cutline.jsonl",
        b'{"messages": []}\n{"messages": [{"role": "user"}\n{"messages": []}\n',
        "Invalid JSON",
        2,
    ),
    ("utf8.json", b'[\n{"instruction": "\xff\xfe"}]', "UTF-8", 2),
    ("utf8.txt", b"User: a\nAssistant: \xc4\xe3\n", "UTF-8", 2),
    ("other.json", b'[{"name": "x"}]', "none of the supported formats", None),
    ("number.json", b"[" + b"1" * 5000 + b"]", "too long", 1),
    ("plain.txt", b"no one speaks here\n", "No speakers", None),
]


@pytest.mark.parametrize(("name", "data", "message", "line"), BROKEN, ids=[row[0] for row in BROKEN])
def test_a_malformed_file_is_bad_input_with_its_line(
    tmp_path: Path, name: str, data: bytes, message: str, line: int | None
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(BadInput, match=message) as caught:
        read(path, "alpaca" if path.suffix == ".json" and "number" in name else None)
    assert name in str(caught.value)
    if line is not None:
        assert caught.value.line == line


def test_deep_nesting_is_rejected(tmp_path: Path) -> None:
    path = write(tmp_path, "deep.json", "[" * 200_000)
    with pytest.raises(BadInput):
        read(path, "openai")


def test_missing_files_and_folders_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no such file.*missing\.json"):
        detect_format(tmp_path / "missing.json")
    with pytest.raises(BadInput, match="not a regular file"):
        detect_format(tmp_path)


def test_an_endless_line_is_rejected_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "MAX_VALUE", 100_000)
    for name, start in (("a.jsonl", '{"messages": "'), ("a.txt", "User: ")):
        path = write(tmp_path, name, start + "x" * 2_000_000)
        with pytest.raises(BadInput, match="longer than"):
            list(files.json_values(path) if name.endswith("l") else files.text_lines(path))


def test_an_unknown_format_or_role_is_a_usage_problem() -> None:
    with pytest.raises(UsageProblem, match="claud"):
        find_importer("claud")
    with pytest.raises(UsageProblem, match="boss"):
        parse_role_map({"客服": "boss"})


# Properties

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = [
    "mapping",
    "current_node",
    "parent",
    "children",
    "message",
    "author",
    "role",
    "content",
    "content_type",
    "parts",
    "text",
    "metadata",
    "weight",
    "recipient",
    "id",
    "title",
    "create_time",
    "update_time",
    "instruction",
    "input",
    "output",
    "history",
    "conversations",
    "from",
    "value",
    "messages",
    "tool_calls",
    "type",
    "system",
    "tools",
    "time",
    "name",
]
shaped = st.recursive(
    any_json | st.sampled_from(["user", "assistant", "a", "b", "text", "all"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
        | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
    ),
    max_leaves=25,
)


@settings(max_examples=150, deadline=None)
@given(value=shaped, name=st.sampled_from([n for n in FORMATS if n != "text"]), lines=st.booleans())
def test_any_json_gives_conversations_or_bad_input(
    tmp_path_factory: pytest.TempPathFactory, value: Any, name: str, lines: bool
) -> None:
    path = tmp_path_factory.mktemp("j") / "x.json"
    rows = [value] if not isinstance(value, list) else value
    text = "\n".join(json.dumps(row) for row in rows) if lines else json.dumps(rows)
    path.write_text(text, encoding="utf-8")
    for attempt in (lambda: read(path, name), lambda: detect_format(path)):
        try:
            attempt()
        except BadInput as error:
            assert str(path) in str(error)


@settings(max_examples=100, deadline=None)
@given(
    data=st.binary(max_size=200),
    name=st.sampled_from(FORMATS),
    start=st.sampled_from([b"", b"[", b"{", b"PK\3\4", b"User: "]),
)
def test_any_bytes_give_conversations_or_bad_input(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str, start: bytes
) -> None:
    path = tmp_path_factory.mktemp("b") / "x.bin"
    path.write_bytes(start + data)
    for attempt in (lambda: read(path, name), lambda: detect_format(path)):
        try:
            attempt()
        except BadInput as error:
            assert str(path) in str(error)


texts = st.lists(st.text(st.characters(), min_size=1, max_size=30).filter(str.strip), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(texts, st.integers(1, 40))
def test_texts_are_imported_unchanged(
    tmp_path_factory: pytest.TempPathFactory, given_: list[str], piece: int
) -> None:
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(given_)]
    talk = [{"from": turn["role"], "value": turn["content"]} for turn in turns]
    folder = tmp_path_factory.mktemp("r")
    wanted = [Turn(role=Role(turn["role"]), text=replace_surrogates(turn["content"])) for turn in turns]
    before = files._READ_BYTES
    files._READ_BYTES = piece
    try:
        for rows in ([{"messages": turns}] * 2, [{"conversations": talk}] * 2):
            for ascii_ in (True, False):
                lines = [json.dumps(row, ensure_ascii=ascii_) for row in rows]
                for text in ("\n".join(lines), "[" + ",\n".join(lines) + "]"):
                    path = folder / "x.json"
                    path.write_bytes(text.encode("utf-8", "surrogatepass" if ascii_ else "replace"))
                    conversations, skipped = read(path)
                    assert skipped == {}
                    if ascii_:
                        assert [list(c.turns) for c in conversations] == [wanted] * 2
    finally:
        files._READ_BYTES = before


@given(st.floats() | st.integers() | st.text(max_size=30) | st.none() | st.booleans())
def test_times_are_plausible_or_none(value: object) -> None:
    time = parse_time(value)
    assert time is None or 0 < time < 7_300_000_000


@pytest.mark.parametrize(
    "value",
    [1772821166, 1772821166.0, 1772821166000, 1772821166 * 10**6, 1772821166 * 10**9, "1772821166", "1772821166000",
     "2026-03-06T18:19:26Z", "2026-03-07T02:19:26.000000000+08:00", "2026-03-06 18:19:26"],
)  # fmt: skip
def test_timestamps_in_every_unit_agree(value: object) -> None:
    assert parse_time(value) == 1772821166


def test_every_importer_has_its_format_name() -> None:
    assert [find_importer(name).NAME for name in FORMATS] == list(FORMATS)


def test_folded_reasoning_is_stripped_in_linear_time() -> None:
    text = 'a <details type="reasoning" done="true">x\ny</details>\n b<details type="tool_calls">z</details>c'
    assert strip_reasoning(text, Role.ASSISTANT) == (
        "a bc",
        (Skipped(reason="reasoning"), Skipped(reason="tool message")),
    )
    # Never closed: quadratic time if every opening is searched to the end.
    hostile = '<details type="reasoning"' * 200_000
    assert strip_reasoning(hostile, Role.ASSISTANT) == (hostile, ())


def test_the_place_of_a_question_that_is_not_imported_stays_empty(tmp_path: Path) -> None:
    picture = [{"type": "image_url", "image_url": {"url": "data:"}}]
    row = {
        "messages": [
            {"role": "user", "content": "Draw a house."},
            {"role": "assistant", "content": "Here it is."},
            {"role": "user", "content": picture},
            {"role": "assistant", "content": "A house at the lake."},
            {"role": "user", "content": picture},
        ]
    }
    (conversation,), skipped = read(write(tmp_path, "a.jsonl", row))
    assert role_texts(conversation) == [
        ("user", "Draw a house."),
        ("assistant", "Here it is."),
        ("user", ""),
        ("assistant", "A house at the lake."),
    ]
    assert skipped == {"image": 2}


def test_openai_weight_zero_masks_an_answer(tmp_path: Path) -> None:
    row = {
        "messages": [
            {"role": "user", "content": "Once more."},
            {"role": "assistant", "content": "draft", "weight": 0},
            {"role": "assistant", "content": "good", "weight": 1},
        ]
    }
    (conversation,), _skipped = read(write(tmp_path, "a.jsonl", row))
    assert [turn.masked for turn in conversation.turns] == [False, True, False]
