"""Shapes that differ from an export only a little: bare or wrapped entries, other line ends, names of zip members."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from engine.core.errors import BadInput
from engine.memory.importers.formats import detect_format
from tests.unit.test_importers import read, role_texts

RIVER = [("user", "Name a river"), ("assistant", "The Rhine.")]


def webui(*, rest: dict[str, object]) -> dict[str, object]:
    messages = {
        "1": {"id": "1", "role": "user", "content": "Name a river", "parentId": None, "childrenIds": ["2"]},
        "2": {"id": "2", "role": "assistant", "content": "The Rhine.", "parentId": "1", "childrenIds": []},
    }
    return {"title": "t", "history": {"messages": messages, "currentId": "2"}, **rest}


def page(*, links: bool, old: bool = False) -> dict[str, object]:
    texts = [("USER", "REQUEST", "Name a river"), ("ASSISTANT", "RESPONSE", "The Rhine.")]
    messages: list[dict[str, object]] = []
    for place, (role, kind, text) in enumerate(texts, 1):
        words = {"content": text} if old else {"fragments": [{"type": "THINK", "content": "x"}]}
        message: dict[str, object] = {
            "message_id": place,
            "role": role,
            "inserted_at": 1.7e9 + place,
            **words,
        }
        if not old:
            message["fragments"] = [{"type": "THINK", "content": "x"}, {"type": kind, "content": text}]
        if links:
            message["parent_id"] = place - 1 or None
        messages.append(message)
    return {"chat_session": {"id": "s", "title": "t"}, "chat_messages": messages}


def contents(**rest: object) -> dict[str, object]:
    parts = [("user", "Name a river"), ("model", "The Rhine.")]
    return {"contents": [{"role": role, "parts": [{"text": text}]} for role, text in parts], **rest}


PAIR = {"input": "Name a river", "output": "The Rhine."}

SHAPES: dict[str, tuple[object, str, int]] = {
    "bare chat": (webui(rest={"messages": []}), "openwebui", 1),
    "bare chats": ([webui(rest={}), webui(rest={"models": ["m"]})], "openwebui", 2),
    "page": ({"code": 0, "data": {"biz_code": 0, "biz_data": page(links=True)}}, "deepseek", 1),
    "page without its envelope": (page(links=True), "deepseek", 1),
    "page without links": ({"data": {"biz_data": page(links=False)}}, "deepseek", 1),
    "page of the older shape": ({"data": {"biz_data": page(links=True, old=True)}}, "deepseek", 1),
    "several pages": ([{"data": {"biz_data": page(links=True)}}] * 2, "deepseek", 2),
    "contents": ([contents(), contents(generationConfig={"temperature": 1})], "gemini_api", 2),
    "batch": (
        [
            {
                "request": {"contents": contents()["contents"][:1]},  # type: ignore[index]
                "response": {"candidates": [{"content": {"parts": [{"text": "The Rhine."}]}}]},
            }
        ],
        "gemini_api",
        1,
    ),
    "splits": ({"train": [PAIR, PAIR], "test": [PAIR]}, "completion", 3),
    "an empty split first": ({"train": [], "validation": [PAIR]}, "completion", 1),
    "splits under data": ({"version": "1", "data": {"train": [PAIR], "dev": [PAIR]}}, "completion", 2),
    "splits of messages": (
        {"train": [{"messages": [{"role": role, "content": text} for role, text in RIVER]}] * 2},
        "openai",
        2,
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_near_an_export_are_read(tmp_path: Path, name: str) -> None:
    value, format_, count = SHAPES[name]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    assert detect_format(path) == format_
    conversations, _skipped = read(path)
    assert [role_texts(one) for one in conversations] == [RIVER] * count
    if isinstance(value, list):
        path = tmp_path / "x.jsonl"
        path.write_text("\n".join(map(json.dumps, value)), encoding="utf-8")
        assert len(read(path)[0]) == count


def test_a_system_instruction_and_parts_without_text_are_kept_or_counted(tmp_path: Path) -> None:
    row = contents(systemInstruction={"role": "system", "parts": [{"text": "Be brief."}]})
    row["contents"][1]["parts"] += [{"text": "so", "thought": True}, {"functionCall": {}}, {"inlineData": {}}]  # type: ignore[index]
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    (conversation,), skipped = read(path)
    assert role_texts(conversation) == [("system", "Be brief."), *RIVER]
    assert skipped == {"reasoning": 1, "tool message": 1, "attachment": 1}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "lines", [["User: Name a river", "Assistant: The Rhine."], ["input,output", "Name a river,The Rhine."]]
)
def test_the_line_ends_of_every_system_are_read(tmp_path: Path, end: str, lines: list[str]) -> None:
    path = tmp_path / ("x.csv" if "," in lines[0] else "x.txt")
    path.write_bytes(end.join([*lines, ""]).encode())
    (conversation,), _skipped = read(path)
    assert role_texts(conversation) == RIVER


def test_a_carriage_return_inside_a_line_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"User: 10%\r20%\nAssistant: Done.\n")
    (conversation,), _skipped = read(path)
    assert role_texts(conversation)[0] == ("user", "10%\r20%")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("zeros.bin", bytes(500), "not a text"),
        ("controls.dat", bytes(range(1, 9)) * 50, "not a text"),
        ("null.json", b"null", "holds nothing"),
        ("list.json", b"[]\n", "holds nothing"),
        ("plain.txt", b"No one speaks here.", "No speakers"),
    ],
)
def test_the_error_says_what_a_file_without_conversations_is(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(BadInput, match=reason):
        read(path)


def zip_with_names(names: list[bytes], system: int) -> bytes:
    """A zip whose members have these bytes as names, without the mark of UTF-8."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for place, _name in enumerate(names):
            info = zipfile.ZipInfo(f"{place:02}")
            info.create_system = system
            archive.writestr(info, json.dumps([{"prompt": f"q{place}", "response": "a"}]))
    data = buffer.getvalue()
    for place, name in enumerate(names):
        # The lengths stand in the headers: names of two bytes are replaced with their lengths.
        data = _renamed(data, f"{place:02}".encode(), name)
    return data


def _renamed(data: bytes, old: bytes, new: bytes) -> bytes:
    archive = zipfile.ZipFile(io.BytesIO(data))
    (info,) = [one for one in archive.infolist() if one.orig_filename.encode("cp437") == old]
    at = info.header_offset
    local = data[at : at + 26] + len(new).to_bytes(2, "little") + data[at + 28 : at + 30] + new
    grown = len(new) - len(old)
    rest = data[at + 30 + len(old) :]
    central = rest.index(b"PK\1\2")
    entries, end = rest[central:], b""
    entries, end = entries[: entries.rindex(b"PK\5\6")], entries[entries.rindex(b"PK\5\6") :]
    written = b""
    while entries:
        length = int.from_bytes(entries[28:30], "little")
        name, offset = entries[46 : 46 + length], int.from_bytes(entries[42:46], "little")
        name = new if name == old else name
        offset += grown if offset > at else 0
        written += (
            entries[:28]
            + len(name).to_bytes(2, "little")
            + entries[30:42]
            + offset.to_bytes(4, "little")
            + name
        )
        entries = entries[46 + length :]
    start = at + len(local) + central
    end = end[:12] + len(written).to_bytes(4, "little") + start.to_bytes(4, "little") + end[20:]
    return data[:at] + local + rest[:central] + written + end


NAMES = {
    "会話ソ表.json": "cp932",
    "表.json": "cp932",
    "ソ\\表.json": "cp932",
    "ソ/能.json": "cp932",
    "功能許.json": "big5",
    "誠僜.json": "gbk",
    "chats\\one.json": "ascii",
    "Отчёт\\файл.json": "cp866",
    "日記.json": "utf-8",
}


@pytest.mark.parametrize("system", [0, 3])
@pytest.mark.parametrize("name", NAMES)
def test_members_are_found_whatever_encoding_their_names_have(tmp_path: Path, name: str, system: int) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zip_with_names([name.encode(NAMES[name]), b"other.json"], system))
    assert len(read(path)[0]) == 2


PIECES = {
    ("Hello", " friend!"): "Hello friend!",
    ("Hel", "lo", "."): "Hello.",
    ("In 20", "25", ", yes"): "In 2025, yes",
    ("A\n", "B"): "A\nB",
    ("A list:", "- one", "- two"): "A list:\n- one\n- two",
    ("First answer.", "Second answer."): "First answer.\nSecond answer.",
    ("莱茵", "河", "。"): "莱茵河。",
    ("One", "\n\nTwo"): "One\n\nTwo",
}


@pytest.mark.parametrize("pieces", PIECES)
def test_pieces_of_an_answer_are_joined_where_they_were_cut(tmp_path: Path, pieces: tuple[str, ...]) -> None:
    chunks = [{"role": "user", "text": "q"}, *({"role": "model", "text": text} for text in pieces)]
    path = tmp_path / "Chat"
    path.write_text(json.dumps({"runSettings": {}, "chunkedPrompt": {"chunks": chunks}}), encoding="utf-8")
    (conversation,), _skipped = read(path)
    assert role_texts(conversation) == [("user", "q"), ("assistant", PIECES[pieces])]
