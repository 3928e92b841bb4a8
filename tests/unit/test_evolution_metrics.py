"""Metrics of generated text, the canary, rejection sampling, and the statistics file."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from engine.core.chat import ChatMessage
from engine.core.paths import Workspace
from engine.corpus.dataset import DatasetRow
from engine.evolution import canary, stats, text_metrics
from engine.evolution.canary import Canary, CanarySet, collapse_reasons, load_set
from engine.evolution.evaluation import perplexity_at
from engine.evolution.report import self_answer_summary
from engine.evolution.self_answers import (
    CHANCE,
    DRAWS,
    CandidateAnswer,
    answer_bounds,
    chance_p_value,
    reject_reason,
    sample_self_answers,
)
from engine.evolution.stats import (
    CycleRow,
    EvolutionStats,
    improvement,
    initial_canary,
    load_stats,
    save_stats,
    with_cycle,
)
from engine.evolution.synthetic import RejectReason, SyntheticStats
from engine.inference.backends.native import NativeModel
from engine.models.transformer import Transformer
from tests.models import TINY, talk, tiny_model

ZH = "清晨的集市刚刚开门，卖菜的老人把青菜摆在木板上。"


@given(st.lists(st.text(max_size=60), max_size=6))
def test_every_metric_stays_in_its_range_for_any_text(texts: list[str]) -> None:
    assert 0 <= text_metrics.distinct_n(texts, 2) <= 1 and text_metrics.entropy(texts) >= 0
    for text in texts:
        assert 0 <= text_metrics.repetition(text) <= 1
        assert 0 <= text_metrics.containment(text, ZH) <= 1
        assert 0 <= text_metrics.jaccard(text, ZH) <= 1


def test_chinese_is_compared_by_characters() -> None:
    assert text_metrics.jaccard(ZH, ZH) == 1.0
    assert (
        text_metrics.containment("卖菜的老人", ZH) == 1.0
        and text_metrics.containment("火车什么时候开", ZH) == 0.0
    )
    assert text_metrics.repetition("好吃好吃好吃好吃好吃好吃") > 0.7 > text_metrics.repetition(ZH)
    assert text_metrics.entropy(["好好好好"]) == 0.0 < text_metrics.entropy([ZH])


def test_relevance_is_above_chance_only_for_the_answer_to_the_question() -> None:
    wanted = [ZH, "The ferry leaves at noon and carries cars."]
    own = text_metrics.generation_quality([(ZH, ZH), (wanted[1], "other")], wanted, [True, False], [10, 20])
    crossed = text_metrics.generation_quality([(wanted[1], ZH), (ZH, ZH)], wanted, [True], [10])
    assert own.relevance is not None and crossed.relevance is not None
    assert own.relevance > 0.9 and crossed.relevance < -0.9
    assert own.consistency == pytest.approx(0.5, abs=0.1) and own.stopped == 0.5 and own.length == 15
    assert text_metrics.generation_quality([], [], [], []).relevance is None


OTHERS = ["火车什么时候开往另一个城市呢？", "明天会下雨，请带上雨伞出门。" * 2, "好的，再见。"]


def asked(*answers: str) -> list[tuple[DatasetRow, tuple[list[ChatMessage], str]]]:
    rows = [DatasetRow(id=str(n), messages=talk("请说一说。", answer)) for n, answer in enumerate(answers)]
    return [(row, (row.messages[:1], row.messages[1].content)) for row in rows]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"stopped": False}, RejectReason.CUT),
        ({"text": "卖菜"}, RejectReason.LENGTH),
        ({"text": ZH * 4}, RejectReason.LENGTH),
        ({"text": "卖菜的老人卖菜的老人卖菜的老人"}, RejectReason.REPETITION),
        ({"text": "火车什么时候开往另一个城市呢"}, RejectReason.SOURCE),
        ({"text": "卖菜的老人把青菜摆在\ufffd木板上"}, RejectReason.SOURCE),
        ({"text": ZH}, RejectReason.COPY),
    ],
)
def test_an_answer_within_all_bounds_is_accepted(change: dict[str, Any], why: RejectReason | None) -> None:
    bounds = answer_bounds(asked(ZH, *OTHERS))
    sound: dict[str, Any] = {
        "text": "卖菜的老人把青菜摆在木板上", "source": ZH, "reference": ZH, "stopped": True,
    }  # fmt: skip
    assert reject_reason(CandidateAnswer(**(sound | change)), bounds) == why


def test_an_answer_must_be_closer_to_its_source_than_answers_to_other_questions() -> None:
    assert answer_bounds(asked(ZH, *OTHERS)).source < 0.2
    alike = answer_bounds(asked(*[f"推荐您去北京的第{n}家酒店住宿。" for n in range(9)]))
    assert alike.source > 0.5, "where all answers are alike, being like them shows nothing"
    given = CandidateAnswer(
        "推荐您去北京的第7家酒店住宿。", "推荐您去北京的第5家酒店住宿。", "第5家", stopped=True
    )
    assert reject_reason(given, alike) is RejectReason.SOURCE


def test_the_chance_p_value_is_binomial() -> None:
    assert chance_p_value(0, 24) == 1.0
    assert chance_p_value(2, 24) > CHANCE > chance_p_value(4, 24)
    assert chance_p_value(24, 24) == pytest.approx(CHANCE**24, abs=1e-12)


def test_all_answers_of_an_untrained_model_are_rejected_with_reasons() -> None:
    rows = [row for row, _found in asked(ZH, *OTHERS)]
    came = sample_self_answers(
        NativeModel(tiny_model([talk("你好", "好")], steps=2)), rows, 2, random.Random(1)
    )
    assert (came.questions, came.answers, came.examples) == (2, 2 * DRAWS, [])
    assert sum(came.rejected.values()) == came.answers
    words = self_answer_summary(
        SyntheticStats(real=4, answers=came.answers, questions=came.questions, rejected=came.rejected)
    )
    assert "2 questions" in words and "0 accepted" in words and "retrieval and recombination only" in words
    assert self_answer_summary(SyntheticStats(real=4)) == ""


def collapsing(steps: int = 12) -> Transformer:
    """A model that repeats one sentence."""
    model = tiny_model([talk("你好，请介绍一下你自己。", ZH)], steps=30)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = torch.full((1, 200), ord("a"))
    for _step in range(steps):
        loss = F.cross_entropy(model(ids[:, :-1]).transpose(1, 2), ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def test_the_canary_detects_a_collapse_and_not_a_healthy_change() -> None:
    full = load_set()
    small = CanarySet(full.prompts[:3], full.texts[:2])
    healthy = tiny_model([talk("你好，请介绍一下你自己。", ZH)], steps=30)
    first = canary.measure_canary(NativeModel(healthy), small)
    moved = Transformer(TINY)
    moved.load_state_dict({name: w + 0.002 * torch.randn_like(w) for name, w in healthy.state_dict().items()})
    assert collapse_reasons(canary.measure_canary(NativeModel(moved.eval()), small), first) == []
    found = canary.measure_canary(NativeModel(collapsing()), small)
    reasons = collapse_reasons(found, first)
    assert len(reasons) >= 3 and any("perplexity" in reason for reason in reasons)
    assert found.distinct_2 < 0.1 and found.entropy < 1.0 and found.repetition > 0.8


def test_each_bound_of_the_canary_has_its_own_reason() -> None:
    first = Canary(
        perplexity=4.0, distinct_2=0.5, repetition=0.1, entropy=5.0, characters=900, overconfidence=0.5
    )
    assert collapse_reasons(first, first) == []
    for change, word in (
        ({"perplexity": 4.0 * canary.MAX_PERPLEXITY_RATIO + 0.01}, "higher perplexity"),
        ({"perplexity": None}, "no finite likelihood"),
        ({"distinct_2": 0.29}, "distinct"),
        ({"overconfidence": 0.5 + canary.MAX_OVERCONFIDENCE_RISE + 0.01}, "overconfidence"),
        ({"repetition": 0.36}, "more repetition"),
    ):
        (reason,) = collapse_reasons(msgspec.structs.replace(first, **change), first)
        assert word in reason


def test_calibration_compares_the_nll_with_the_expected_nll() -> None:
    fresh = Transformer(TINY)
    fresh.initialise(0)
    nll, expected = canary.calibration(NativeModel(fresh), [ZH])
    assert nll == pytest.approx(math.log(TINY.vocab), abs=1e-5) and expected == pytest.approx(nll, abs=1e-5)
    model = tiny_model([talk("请说一说。", ZH)], steps=30)
    nll, expected = canary.calibration(NativeModel(model), [OTHERS[0]])
    with torch.no_grad():
        model.lm_head.weight *= 4
    sharper_nll, sharper = canary.calibration(NativeModel(model), [OTHERS[0]])
    assert sharper < expected and sharper_nll - sharper > nll - expected + 1.0, (
        "more confident, and more wrong"
    )


def test_an_old_record_without_overconfidence_is_read_and_not_compared() -> None:
    old = {"perplexity": 4.0, "distinct_2": 0.5, "repetition": 0.1, "entropy": 5.0, "characters": 9}
    first = msgspec.convert(old, Canary)
    assert collapse_reasons(msgspec.structs.replace(first, overconfidence=9.0), first) == []


def test_small_losses_add_up_relative_to_the_first_model() -> None:
    first = Canary(perplexity=4.0, distinct_2=0.5, repetition=0.1, entropy=5.0, characters=900)
    generation, fell = first, 0
    while not collapse_reasons(generation, first):
        before = generation
        generation = msgspec.structs.replace(generation, distinct_2=generation.distinct_2 * 0.9)
        assert collapse_reasons(generation, before) == [], "no single step would be seen"
        fell += 1
    assert fell == 5


def test_the_canary_set_has_both_languages_and_is_in_no_training_text() -> None:
    found = load_set()
    assert len(found.prompts) == 8 and len(found.texts) == 4
    for texts in (found.prompts, found.texts):
        assert any("\u4e00" <= text[0] <= "\u9fff" for text in texts) and any(
            text.isascii() for text in texts
        )


def row(number: int = 1, *, kept: bool, improvement: float, run: str = "r") -> CycleRow:
    none = text_metrics.generation_quality([], [], [], [])
    return CycleRow(
        cycle=number, run_id=run, finished_at="2026-11-21T09:00:00+00:00", champion="a", candidate=f"c{number}",
        decision="promote" if kept else "keep", kept=kept, perplexity_before=4.0,
        perplexity_after=4.0 * (1 - improvement), improvement=improvement, p_value=0.01, alpha=0.025, look=1,
        window=1, quality_before=none, quality_after=none,
        canary=Canary(perplexity=4.0, distinct_2=0.5, repetition=0.1, entropy=5.0, characters=9),
        dataset_stats=SyntheticStats(real=9), train_loss=None, seconds=1.0, sentence="",
    )  # fmt: skip


def test_the_statistics_have_the_four_h2q_fields_and_count_each_cycle_once(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    found = with_cycle(
        with_cycle(load_stats(ws), row(1, kept=True, improvement=0.1)), row(2, kept=False, improvement=-0.05)
    )
    save_stats(ws, with_cycle(found, row(2, kept=False, improvement=-0.05)))
    stats_file = json.loads((tmp_path / "evolution_stats.json").read_text())
    assert [
        stats_file[name] for name in ("total_evolutions", "successful_evolutions", "failed_evolutions")
    ] == [
        2,
        1,
        1,
    ]
    assert stats_file["average_improvement"] == pytest.approx(0.025)
    assert stats_file["best_perplexity"] == pytest.approx(3.6)
    assert "NaN" not in (tmp_path / "evolution_stats.json").read_text()


def test_counts_of_an_earlier_trainer_are_continued(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    (tmp_path / "evolution_stats.json").write_text(
        '{"total_evolutions":2,"successful_evolutions":1,"failed_evolutions":1,"average_improvement":0.01}'
    )
    found = with_cycle(load_stats(ws), row(kept=True, improvement=0.04))
    assert (found.total_evolutions, found.successful_evolutions) == (3, 2)
    assert found.average_improvement == pytest.approx(0.02)


@pytest.mark.parametrize("content", [b"{", b'{"total_evolutions": Infinity}', b"\xff\xfe", b"[]"])
def test_a_broken_statistics_file_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "evolution_stats.json").write_bytes(content)
    assert load_stats(Workspace(tmp_path)) == EvolutionStats()
    assert (tmp_path / "evolution_stats.json.broken").read_bytes() == content


def test_descendants_are_compared_with_the_canary_of_the_first_model() -> None:
    first = Canary(perplexity=4.0, distinct_2=0.5, repetition=0.1, entropy=5.0, characters=9)
    found = with_cycle(EvolutionStats(canary_of="a", canary=first), row(kept=True, improvement=0.1))
    assert initial_canary(found, "a") is first and initial_canary(found, "c1") is first
    assert initial_canary(found, "another model, trained since") is None


def test_rows_of_the_training_log_survive_and_carry_the_result_of_the_cycle(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    assert stats.log_rows(ws) == []
    (tmp_path / "training_log.json").write_text("broken")
    assert stats.log_rows(ws) == []
    marked = stats.with_cycle_result([{"epoch": 1}, {"epoch": 2}], row(3, kept=True, improvement=0.1))
    stats.write_log(ws, marked)
    assert [one["cycle"] for one in stats.log_rows(ws)] == [3, 3]
    assert "improvement" not in marked[0] and marked[1]["improvement"] == 0.1


def test_a_collapse_does_not_dominate_the_mean_improvement() -> None:
    assert improvement(12.0, 9.0) == pytest.approx(0.25)
    assert [improvement(12.0, after) for after in (24.0, 1e20, None)] == [-1.0, -1.0, -1.0]
    assert improvement(None, 3.0) == 0.0
    assert perplexity_at(2.0) == pytest.approx(7.389, abs=1e-3)
    assert perplexity_at(64.0) is None and perplexity_at(math.nan) is None
