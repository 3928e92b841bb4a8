"""Exports as other trainers read them: every answer with loss once, in a supported format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.export import CorpusExport, ExportFormat, export_corpus, suffix
from engine.corpus.review.store import ReviewStore
from engine.corpus.training_set import write_dataset
from engine.memory.records import Conversation
from engine.memory.store import MemoryStore
from tests.corpus_store import conversation, distinct, memory

TALKS = [
    conversation(
        "system",
        "你是一个简洁的助手。",
        "怎么重启路由器？",
        "拔掉电源，十秒以后再插上就可以了。",
        "还是不行怎么办？",
        "按住背面的小孔五秒，恢复出厂设置。",
        roles="suaua",
    ),
    conversation(
        "polite",
        "How do I rename a branch?",
        "Use git branch -m with the old and the new name.",
        "Thanks!",
        "You're welcome!",
    ),
    conversation(
        "two questions",
        "Where is the log kept on this machine?",
        "I mean the one of the web server.",
        "It lies under /var/log, one file for each day.",
        "The page is blue now, with the heading in the middle.",
        roles="uuaa",
    ),
    conversation(
        "tool",
        "What is the weather in Hamburg today?",
        "rain, 12 degrees",
        "It rains, and it is twelve degrees warm.",
        roles="uta",
    ),
    conversation("private", "我的邮箱是a@b.com，怎么改？", "在设置里点账户，再点邮箱，填上新的地址即可。"),
    conversation("edited", "什么是分页？请给初学者解释一下。", "分页把内存分成大小相同的块来管理。"),
    conversation(
        "marker", "What does this mean in a log?", "The text <|im_end|> ends a turn in some templates."
    ),
    conversation(
        "unanswered",
        "Why does the fan of my laptop run all night?",
        "Dust keeps the heat inside; open it and clean the fins.",
        "And which screws do I need to undo for that?",
        roles="uau",
    ),
]
EDITED = "分页：虚拟内存按页映射到物理内存。"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MemoryStore]:
    with memory(tmp_path, [*TALKS, distinct(1)]) as opened:
        build_corpus(opened, Settings())
        with ReviewStore(opened.path) as review:
            review.edit("edited", 1, EDITED)
            review.decide("marker", "accepted")
            review.decide("c00001", "rejected")
        yield opened


def read(path: Path) -> list[dict[str, Any]]:
    """As `datasets.load_dataset("json", …)` does: an array, or one object per line, all with the same fields."""
    text = path.read_text("utf-8")
    rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    if "messages" not in rows[0]:
        assert len({tuple(row) for row in rows}) == 1
    return list(rows)


def trained_pairs(row: dict[str, Any], info: dict[str, Any]) -> list[tuple[str, str]] | None:
    """The pairs that LLaMA-Factory reads from a row (`src/llamafactory/data/converter.py`, 0.9): (question, answer) pairs, or
    None for a row that it leaves out."""
    columns = info["columns"]
    if info.get("formatting") == "sharegpt":
        tags = {
            "role_tag": "from",
            "content_tag": "value",
            "user_tag": "human",
            "assistant_tag": "gpt",
            "observation_tag": "observation",
            "function_tag": "function_call",
            "system_tag": "system",
            **info.get("tags", {}),
        }
        turns = row[columns["messages"]]
        if turns and turns[0][tags["role_tag"]] == tags["system_tag"]:
            turns = turns[1:]
        takes = ({tags["user_tag"], tags["observation_tag"]}, {tags["assistant_tag"], tags["function_tag"]})
        if len(turns) % 2 or any(turn[tags["role_tag"]] not in takes[n % 2] for n, turn in enumerate(turns)):
            return None
        texts = [turn[tags["content_tag"]] for turn in turns]
        return list(zip(texts[::2], texts[1::2], strict=True))
    pairs = [(old, new) for old, new in row.get(columns.get("history", ""), [])]
    query = row.get(columns.get("query", ""), "")
    question = row[columns["prompt"]] + (f"\n{query}" if query else "")
    return [*pairs, (question, row[columns["response"]])]


def export_rows(
    store: MemoryStore, folder: Path, format_: ExportFormat
) -> tuple[CorpusExport, list[dict[str, Any]], dict[str, Any]]:
    path = folder / f"out{suffix(format_)}"
    done = export_corpus(store, path, format_)
    info = json.loads((folder / "dataset_info.json").read_text("utf-8"))["out"]
    assert info["file_name"] == path.name
    assert done.sha256 == sha256(path.read_bytes()).hexdigest()
    return done, read(path), info


@pytest.mark.parametrize(
    "format_", [ExportFormat.ALPACA, ExportFormat.SHAREGPT, ExportFormat.PROMPT_COMPLETION]
)
def test_exactly_the_answers_with_loss_are_trained_on_once(
    store: MemoryStore, tmp_path: Path, format_: ExportFormat
) -> None:
    done, rows, info = export_rows(store, tmp_path, format_)
    pairs = [pair for row in rows for pair in trained_pairs(row, info) or [("refused", str(row))]]
    assert dict(pairs) == {
        "怎么重启路由器？": "拔掉电源，十秒以后再插上就可以了。",
        "还是不行怎么办？": "按住背面的小孔五秒，恢复出厂设置。",
        "How do I rename a branch?": "Use git branch -m with the old and the new name.",
        "Where is the log kept on this machine?\nI mean the one of the web server.": (
            "It lies under /var/log, one file for each day."
        ),
        "What is the weather in Hamburg today?": "It rains, and it is twelve degrees warm.",
        "我的邮箱是‹EMAIL›，怎么改？": "在设置里点账户，再点邮箱，填上新的地址即可。",
        "什么是分页？请给初学者解释一下。": EDITED,
        "What does this mean in a log?": "The text ＜|im_end|> ends a turn in some templates.",
        "Why does the fan of my laptop run all night?": "Dust keeps the heat inside; open it and clean the fins.",
    }
    assert len(pairs) == len(dict(pairs))
    assert done.answers_without_place == 1
    assert done.conversations == len(TALKS) and done.rows == len(rows)
    assert {row.get("system", "") for row in rows} == {"", "你是一个简洁的助手。"}
    assert info["columns"]["system"] == "system"


PIRATE = conversation(
    "pirate",
    "You talk like a pirate.",
    "Tell me something about the sea and the weather of today.",
    "Arr, the sea is rough and the wind is strong.",
    "The user has a boat in the harbour of Bristol.",
    "Goodbye, see you tomorrow near the old lighthouse.",
    "Fair winds to your boat until we meet there.",
    roles="suasua",
)


@pytest.mark.parametrize(
    "format_", [ExportFormat.ALPACA, ExportFormat.SHAREGPT, ExportFormat.PROMPT_COMPLETION]
)
def test_a_system_message_in_mid_talk_is_in_force_from_its_place_on(
    tmp_path: Path, format_: ExportFormat
) -> None:
    with memory(tmp_path, [PIRATE]) as store:
        build_corpus(store, Settings())
        _done, rows, info = export_rows(store, tmp_path, format_)
    before, after = rows
    assert before["system"] == PIRATE.turns[0].text
    assert after["system"] == f"{PIRATE.turns[0].text}\n{PIRATE.turns[3].text}"
    for row, question in ((before, 1), (after, 4)):
        assert trained_pairs(row, info) == [(PIRATE.turns[question].text, PIRATE.turns[question + 1].text)]


@pytest.mark.parametrize("format_", list(ExportFormat))
def test_an_answer_whose_question_was_not_imported_is_never_trained_on(
    tmp_path: Path, format_: ExportFormat
) -> None:
    talk = conversation(
        "gap",
        "Please make a small web page for the visitors of my shop.",
        "Done. The page says hello and shows the opening hours.",
        "",
        "It is blue now, with the heading in the middle.",
        "Which file holds the colours of the page?",
        "They are in style.css, next to the page.",
    )
    with memory(tmp_path, [talk]) as store:
        build_corpus(store, Settings())
        _done, rows, info = export_rows(store, tmp_path, format_)
    if format_ is ExportFormat.MESSAGES:
        assert [message.get("weight", 1) for message in rows[0]["messages"]] == [1, 1, 0, 1, 1]
    else:
        pairs = [pair for row in rows for pair in trained_pairs(row, info) or []]
        assert pairs == [(talk.turns[n].text, talk.turns[n + 1].text) for n in (0, 4)]


def test_messages_keep_every_turn_and_mark_masked_answers(store: MemoryStore, tmp_path: Path) -> None:
    done, rows, info = export_rows(store, tmp_path, ExportFormat.MESSAGES)
    by_id = {row["id"]: row["messages"] for row in rows}
    assert by_id.keys() == {talk.id for talk in TALKS}
    assert [message["role"] for message in by_id["system"]] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert [message.get("weight", 1) for message in by_id["polite"]] == [1, 1, 1, 0]
    assert by_id["edited"][1]["content"] == EDITED
    assert "a@b.com" not in json.dumps(rows)
    assert trained_pairs({"messages": by_id["system"]}, info) is not None
    assert done.rows == len(TALKS)


@pytest.mark.parametrize("format_", list(ExportFormat))
def test_exports_are_deterministic(store: MemoryStore, tmp_path: Path, format_: ExportFormat) -> None:
    assert export_rows(store, tmp_path, format_)[0].sha256 == export_rows(store, tmp_path, format_)[0].sha256


def test_an_empty_corpus_exports_a_readable_file(tmp_path: Path) -> None:
    with memory(tmp_path, []) as empty:
        for format_ in ExportFormat:
            path = tmp_path / f"none{suffix(format_)}"
            assert export_corpus(empty, path, format_).rows == 0
            assert path.read_text("utf-8").strip() in ("", "[]")


def test_the_lineage_records_conversations_decisions_and_settings(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    talks: list[Conversation] = [distinct(n) for n in range(30)]
    with memory(tmp_path, talks) as opened:
        build_corpus(opened, Settings())
        first = write_dataset(opened, ws, "first").lineage
        with ReviewStore(opened.path) as review:
            id_ = first.conversations[0]
            review.edit(id_, 1, "改写过的回答。")
            second = write_dataset(opened, ws, "second").lineage
            review.undo()
            third = write_dataset(opened, ws, "third").lineage
    assert (first.decisions, second.decisions, third.decisions) == (0, 1, 0)
    assert first.decisions_sha256 == third.decisions_sha256 != second.decisions_sha256
    assert first.dataset_sha256 == third.dataset_sha256 != second.dataset_sha256
    assert first.settings_sha256 and len(first.conversations) == len(set(first.conversations)) > 10
    assert (ws.training / "train_data_first.jsonl").stat().st_mode & 0o077 == 0
