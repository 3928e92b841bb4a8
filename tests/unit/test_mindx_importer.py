"""MindX's memory points: conversations and summaries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.memory.importers.programs.mindx import point_items
from engine.memory.records import Conversation, SummaryPoint
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import ImportReport, import_paths, points_text
from tests.unit.test_importers import role_texts

EXPORTS = Path(__file__).parents[1] / "data" / "exports"


def items(content: str, summary: str = "") -> list[object]:
    point = {
        "content": content,
        "summary": summary,
        "keywords": [],
        "created_at": "2026-03-07T02:19:26+08:00",
    }
    return list(point_items("memory_1", json.dumps({"metadata": {"memory_point": point}}).encode()))


@pytest.mark.parametrize(
    "content",
    [
        "user: 你好\nassistant: 在",
        "user: 你好\nbot: 在",
        "用户: 你好 助手: 在",
        "用户：你好\n助手：在",
        "User: 你好\nAssistant: 在",
        "[user] 你好\n[assistant] 在",
        "Q: 你好\nA: 在",
    ],
)
def test_a_point_with_both_speakers_is_a_conversation(content: str) -> None:
    (talk,) = items(content)
    assert isinstance(talk, Conversation)
    assert role_texts(talk) == [("user", "你好"), ("assistant", "在")]
    assert (talk.source, talk.external_id, talk.updated_at) == ("mindx", "memory_1", 1772821166.0)


def test_a_question_in_the_summary_is_answered_by_the_content() -> None:
    (talk,) = items("把学习率减半，再从上一个检查点接着训练。", "损失突然变大怎么办？")
    assert isinstance(talk, Conversation)
    assert role_texts(talk) == [
        ("user", "损失突然变大怎么办？"),
        ("assistant", "把学习率减半，再从上一个检查点接着训练。"),
    ]


@pytest.mark.parametrize(
    ("content", "summary"),
    [
        ("用户询问了如何避免过拟合，助手建议使用早停和更多数据。", "讨论过拟合"),
        ("说明：user: 是提示词里的字段名，assistant: 也是。", "字段"),
        ("user: 只有一个人说话", "独白"),
        ("他问：为什么损失会变大？", "损失为什么变大？"),
        ("一段代码：\n```\nUser: x\nAssistant: y\n```", "代码"),
    ],
)
def test_a_summary_becomes_a_summary_point(content: str, summary: str) -> None:
    (point,) = items(content, summary)
    assert isinstance(point, SummaryPoint) and point.content == content


@given(st.text(max_size=80), st.text(max_size=20))
def test_any_content_gives_at_most_one_item(content: str, summary: str) -> None:
    imported = [item for item in items(content, summary) if isinstance(item, Conversation | SummaryPoint)]
    assert len(imported) == (1 if content.strip() else 0)


def test_summaries_are_reported_as_untrained_and_are_searchable(tmp_path: Path) -> None:
    with MemoryStore(tmp_path / "memory.db") as store:
        report = import_paths(store, [EXPORTS / "mindx"])
        assert isinstance(report, ImportReport)
        assert "3 memory points are summaries" in points_text(report) and "--points" in points_text(report)
        assert len(store.points()) == report.points == 3
        dates = [point.created_at or 0.0 for point in store.points()]
        assert dates == sorted(dates, reverse=True)
        (point,) = store.points("过拟合的")
        assert "过拟合" in point.content + point.summary
        assert store.points(limit=2, offset=2) == store.points()[2:]
