"""Validation of tiny models: the same windows for both, contamination and other errors, and a complete report."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
import torch
import torch.nn.functional as F

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, Interrupted, NotEnoughData
from engine.core.paths import Workspace
from engine.corpus.dataset import DatasetRow
from engine.inference.backends.native import NativeModel
from engine.inference.loader import open_language_model
from engine.models.card import Lineage
from engine.models.chatml import windows
from engine.models.native_format import load_model, save_model
from engine.validation.answers import form_of
from engine.validation.cases import (
    GENERAL_BLOCKS,
    count_general_tokens,
    cut_cases,
    cut_general,
    score_cases,
    score_general,
)
from engine.validation.report import AnswerSimilarity, ValidationReport, decode_report
from engine.validation.validate import compare, measure_forgetting, shipped_texts
from tests.models import TINY, talk, tiny_model, write_tiny

TALKS = [talk(f"问题{i}？", f"这是第{i}个答案。") for i in range(20)]
TEXT = ("山高月小，水落石出。The quick brown fox jumps over the lazy dog.\n" * 60).encode()


def held_out(id_: str, cluster: str, messages: list[ChatMessage]) -> DatasetRow:
    return DatasetRow(id=id_, cluster=cluster, messages=messages)


HELD = [held_out(f"c{i}", f"k{i}", talk(f"问题{i}？", f"这是第{i}个答案。")) for i in range(100, 124)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`weak` and `strong`: the same model after 12 and 40 steps."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny(folder / "weak", TALKS, steps=12)
    write_tiny(folder / "strong", TALKS, steps=40)
    return folder


def without_speed(report: ValidationReport) -> ValidationReport:
    timed = ("first_token", "tokens_per_s")
    return msgspec.structs.replace(report, measures=[one for one in report.measures if one.name not in timed])


def test_batched_nll_equals_the_nll_of_single_windows() -> None:
    model = tiny_model(TALKS, steps=3)
    rendered = [window for messages in TALKS[:6] for window in windows(messages, 256)]
    batched = [loss.nats for loss in NativeModel(model).nll(rendered)]
    for window, total in zip(rendered, batched, strict=True):
        ids = torch.tensor([window.ids])
        losses = F.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:], reduction="none").detach()
        assert total == pytest.approx(float(losses[torch.tensor(window.loss_mask[1:])].sum()), rel=1e-4)


def test_a_model_with_nan_weights_has_nan_scores() -> None:
    model = tiny_model(TALKS, steps=1)
    with torch.no_grad():
        model.lm_head.weight[0] = math.nan
    scores = score_cases(NativeModel(model), cut_cases(HELD[:2], 256, windows))
    assert all(math.isnan(score) for score in scores)


def test_the_better_model_wins_and_the_report_is_complete(models: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = compare(
        HELD,
        models / "weak",
        models / "strong",
        {},
        progress=lambda done, total: seen.append((done, total)),
        now=5.0,
    )
    verdict = report.verdict
    assert verdict.p_value is not None and verdict.p_value < 0.001
    assert (verdict.n_groups, verdict.base.name, verdict.new.name) == (24, "weak", "strong")
    assert verdict.decision == "inconclusive", "without a general set nothing is promoted"
    assert [measure.name for measure in report.measures] == [
        "nll",
        "perplexity",
        "length",
        "repetition",
        "refusals",
        "stop",
        "first_token",
        "tokens_per_s",
    ]
    assert report.measures[1].new == pytest.approx(math.exp(verdict.new.nll_per_byte or 0))
    nll = report.measures[0]
    assert nll.base == pytest.approx(verdict.base.bits_per_byte)
    assert nll.delta is not None and nll.delta == pytest.approx(-(verdict.delta or 0) / math.log(2))
    assert nll.low is not None and nll.high is not None and nll.low <= nll.delta <= nll.high < 0
    assert [answer.shown_as for answer in report.answers][:3] == ["question"] * 3
    assert report.answers[3:], "the largest win is answered too"
    assert len({answer.conversation for answer in report.answers}) == len(report.answers)
    assert report.similarity == AnswerSimilarity(), "without an embedder no similarity is made up"
    assert report.answers[0].wanted == "这是第100个答案。"
    assert all(len(answer.new.encode()) <= 200 for answer in report.answers)
    done = [d for d, _total in seen]
    assert done == sorted(done) and done[-1] == seen[-1][1]
    assert decode_report(msgspec.json.encode(report)) == report


def test_forgetting_is_caught_by_the_general_set(models: Path, tmp_path: Path) -> None:
    write_tiny(tmp_path / "narrow", TALKS, steps=90)
    report = compare(HELD, models / "strong", tmp_path / "narrow", {"tail": TEXT} | shipped_texts())
    general = report.verdict.noninferiority
    assert report.verdict.delta is not None and report.verdict.delta > 0
    assert report.verdict.decision == "keep" and general["passed"] is False
    assert {"general", "general tail", "general zh", "general en"} <= {m.name for m in report.measures}


def test_validation_is_deterministic(models: Path) -> None:
    first, second = (
        compare(HELD, models / "weak", models / "strong", {"t": TEXT}, now=1.0) for _ in range(2)
    )
    assert without_speed(first) == without_speed(second)


def test_a_model_against_itself_is_not_better(models: Path) -> None:
    report = compare(HELD, models / "weak", models / "weak", {"t": TEXT})
    assert (report.verdict.delta, report.verdict.p_value, report.verdict.decision) == (0.0, 1.0, "keep")


@pytest.mark.parametrize("which", ["base", "new"])
def test_a_model_trained_on_the_test_set_is_rejected_with_the_ids(
    models: Path, tmp_path: Path, which: str
) -> None:
    write_tiny(tmp_path / "seen", TALKS, steps=1, lineage=Lineage(conversations=["c101"], clusters=["k103"]))
    pair = (tmp_path / "seen", models / "weak") if which == "base" else (models / "weak", tmp_path / "seen")
    with pytest.raises(BadInput, match=r"seen was trained on 2 conversations of the test set \(c101, c103\)"):
        compare(HELD, *pair, {"t": TEXT})


def test_a_base_worse_than_uniform_is_rejected(models: Path, knowing_hf: Path, tmp_path: Path) -> None:
    write_tiny(tmp_path / "fresh", TALKS, steps=0)
    with pytest.raises(BadInput, match=r"worse than guessing \(5\.58 of 5\.55") as problem:
        compare(HELD, tmp_path / "fresh", models / "weak", {})
    assert problem.value.hint == "h2q-tui train --mode scratch"
    with pytest.raises(BadInput, match="worse than guessing") as problem:
        compare(HELD, knowing_hf, knowing_hf, {})
    assert problem.value.hint == "h2q-tui train --mode lora --model DIR"


def test_a_new_model_with_nan_weights_is_not_promoted(models: Path, tmp_path: Path) -> None:
    model, card = load_model(models / "strong")
    with torch.no_grad():
        model.lm_head.weight[0] = math.nan
    save_model(tmp_path / "broken", model, msgspec.structs.replace(card, name="broken"))
    verdict = compare(HELD, models / "weak", tmp_path / "broken", {"t": TEXT}).verdict
    assert verdict.decision != "promote" and verdict.new.failed >= 24


def test_both_models_use_the_smaller_context(models: Path, tmp_path: Path) -> None:
    write_tiny(tmp_path / "short", TALKS, steps=30, config=msgspec.structs.replace(TINY, context=64))
    long_answer = "这是很长的答案。" * 20
    held = [*HELD, held_out("long", "long", talk("问题？", long_answer))]
    report = compare(held, models / "weak", tmp_path / "short", {"t": TEXT})
    cut = [case.conversation for case in report.cases if case.cut]
    assert cut == ["long"] and 0 < report.cut_share < 1
    assert max(case.bytes for case in report.cases) <= 64


def test_a_test_set_without_answers_raises(models: Path) -> None:
    silent = [held_out("c", "k", [ChatMessage(role="user", content="nobody answers")])]
    with pytest.raises(NotEnoughData, match="no answer to validate on"):
        compare(silent, models / "weak", models / "strong", {})


def test_a_stop_interrupts_between_two_batches(models: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        compare(HELD, models / "weak", models / "strong", {}, progress=stop)
    with pytest.raises(Interrupted):
        measure_forgetting(Workspace(models), HELD, models / "weak", models / "strong", progress=stop)


def test_every_token_of_held_out_older_and_general_texts_counts(models: Path) -> None:
    """The share of the work that is done never stands still while a part of it runs."""
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    measure_forgetting(Workspace(models), HELD, models / "weak", models / "strong", progress=progress)
    held_done, held_total = calls[-1]
    assert held_done == held_total
    compare(HELD, models / "weak", models / "strong", {}, progress=progress)
    alone_done, alone_total = calls[-1]
    compare(HELD, models / "weak", models / "strong", {}, older=HELD, progress=progress)
    done, total = calls[-1]
    assert done - alone_done == total - alone_total == held_total


@pytest.mark.parametrize("kind", ["native", "hf"])
def test_general_text_is_counted_in_the_tokens_of_the_model(
    models: Path, knowing_hf: Path, kind: str
) -> None:
    model = open_language_model(Workspace(models), models / "weak" if kind == "native" else knowing_hf)
    blocks = cut_general({"t": TEXT}, model.eval_context)
    read = 0

    def advance(tokens: int) -> None:
        nonlocal read
        read += tokens

    score_general(model, blocks, model.eval_context, on_tokens=advance)
    # Half a character at the end of a block is read as bytes only.
    assert 0 <= read - count_general_tokens(model, blocks) <= 3 * len(blocks)
    if kind == "hf":
        assert read < sum(len(block.text) for block in blocks)


def test_general_blocks_are_deterministic_and_spread_over_the_text() -> None:
    data = bytes(range(256)) * 1024
    blocks = cut_general({"a": data, "tiny": b"x" * 100}, 100)
    assert blocks == cut_general({"a": data, "tiny": b"x" * 100}, 100)
    assert len(blocks) == GENERAL_BLOCKS and {block.name for block in blocks} == {"a"}
    assert all(len(block.text) == 1024 for block in blocks)


def test_the_shipped_general_texts_are_utf8_in_two_languages() -> None:
    texts = shipped_texts()
    assert sorted(texts) == ["en", "zh"]
    for data in texts.values():
        assert len(data.decode("utf-8")) > 8_000


def test_repetition_and_length_of_an_answer() -> None:
    assert form_of("", True).repetition == 0.0
    assert form_of("abcdefgh", True).repetition == 0.0
    assert form_of("哈哈哈哈哈哈哈哈", False).repetition == pytest.approx(0.8)
    assert form_of("汉字", True).length == 6
