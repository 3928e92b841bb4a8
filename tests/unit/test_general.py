"""The general set: judged text by text and language by language, against the base and the first model of its line."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.core.paths import Workspace
from engine.models.line import first_of_line
from engine.validation.general import GeneralScores, ModelOnBlocks, judge_general, passes_general
from engine.validation.report import CaseScore, Verdict
from engine.validation.statistics import Floats
from engine.validation.validate import compare
from engine.validation.verdict import nll_verdict
from tests.models import TINY, copy_model, write_tiny
from tests.unit.test_validate import HELD, TALKS, TEXT

BETTER = [
    CaseScore(conversation=f"c{i}", cluster=f"k{i}", bytes=100, base=2.0, new=1.8 + 0.001 * i)
    for i in range(40)
]
OWN, ZH, EN = 64, 35, 14
"""Blocks of one's own text and of the shipped samples, as `cut_general` gives them."""
TEXTS = ["notes.txt"] * OWN + ["zh"] * ZH + ["en"] * EN
LANGUAGES = ["en"] * OWN + ["zh"] * ZH + ["en"] * EN
LEVELS = np.repeat([2.0, 3.6, 2.8], [OWN, ZH, EN]) + 0.2 * np.random.default_rng(0).standard_normal(
    len(TEXTS)
)


def changed(**factors: float) -> Floats:
    """The levels with each text multiplied by its factor, give or take 1 % a block."""
    by_text = {
        "notes.txt": factors.get("notes", 1.0),
        "zh": factors.get("zh", 1.0),
        "en": factors.get("en", 1.0),
    }
    noise = 1 + 0.01 * np.random.default_rng(1).standard_normal(len(TEXTS))
    return np.asarray(LEVELS * np.array([by_text[name] for name in TEXTS]) * noise)


def judge(
    new: Floats, *, base: Floats = LEVELS, uniform: float = math.inf, first: Floats | None = None
) -> Verdict:
    scores = GeneralScores(
        base=ModelOnBlocks(base, np.full(base.size, uniform)),
        new=ModelOnBlocks(new),
        texts=TEXTS,
        languages=LANGUAGES,
        first=None if first is None else ModelOnBlocks(first, np.full(first.size, uniform)),
        first_name="eve",
    )
    return nll_verdict(BETTER, base_name="old", new_name="fresh", look=1, general=scores)


@pytest.mark.parametrize("worse", [1.05, 1.1, 1.2, 1.3])
@pytest.mark.parametrize(("lost", "named"), [("en", "en"), ("zh", "zh"), ("notes", "notes.txt")])
def test_a_text_that_is_lost_is_not_made_up_for_by_the_others(worse: float, lost: str, named: str) -> None:
    factors = dict.fromkeys(("notes", "zh", "en"), 0.955) | {lost: worse}
    verdict = judge(changed(**factors))
    assert verdict.decision == "keep" and verdict.noninferiority["passed"] is False
    assert f"on the general text {named} it may be up to" in verdict.sentence
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


def test_all_lost_texts_are_named() -> None:
    verdict = judge(changed(zh=1.1, en=1.2))
    assert "on the general texts zh, en it may be up to 2" in verdict.sentence


def test_a_set_without_a_loss_is_promoted() -> None:
    verdict = judge(changed(zh=1.01, en=1.01, notes=0.99))
    assert verdict.decision == "promote" and verdict.noninferiority["passed"] is True
    assert all(part.passed for part in verdict.general)


def test_a_language_is_judged_over_all_texts_that_hold_it() -> None:
    """Half of each of twelve short texts is Chinese: no text is long enough, the language is."""
    texts = [f"note {i // 6}" for i in range(72)]
    languages = ["zh" if i % 6 < 2 else "en" for i in range(72)]
    base = np.full(72, 2.0) + 0.01 * np.arange(72) % 0.05
    new = base * np.where(np.array(languages) == "zh", 1.06, 0.95)
    scores = GeneralScores(ModelOnBlocks(base), ModelOnBlocks(new), texts, languages)
    verdict = nll_verdict(BETTER, base_name="old", new_name="fresh", look=1, general=scores)
    assert verdict.decision == "keep"
    assert "on general text in Chinese it may be up to 6" in verdict.sentence


@pytest.mark.parametrize("blocks", [2, 4, 7])
@pytest.mark.parametrize(("factor", "decision"), [(1.3, "keep"), (1.0, "promote")])
def test_a_short_text_keeps_the_base_only_where_it_is_shown_to_be_worse(
    blocks: int, factor: float, decision: str
) -> None:
    texts = ["long"] * 60 + ["short"] * blocks
    noise = np.random.default_rng(2).standard_normal(len(texts))
    base = np.full(len(texts), 2.0)
    new = base * np.where(np.array(texts) == "short", factor * (1 + 0.03 * noise), 0.9 + 0.001 * noise)
    scores = GeneralScores(ModelOnBlocks(base), ModelOnBlocks(new), texts, texts)
    assert nll_verdict(BETTER, base_name="old", new_name="fresh", look=1, general=scores).decision == decision


def test_a_text_on_which_the_base_only_guesses_does_not_count() -> None:
    base = np.where(np.array(TEXTS) == "zh", 6.0, LEVELS)
    new = base * np.where(np.array(TEXTS) == "zh", 1.5, 1.0)
    verdict = judge(new, base=base, uniform=5.56)
    assert verdict.decision == "promote"
    assert any("the general text zh does not count" in reason for reason in verdict.reasons)
    assert judge(new, base=base, uniform=6.5).decision == "keep", "better than guessing, and lost"


def test_nothing_known_is_nothing_lost() -> None:
    verdict = judge(LEVELS * 1.5, uniform=1.0)
    assert verdict.decision == "promote" and verdict.noninferiority["increase"] is None


def test_losses_of_ten_promotions_do_not_add_up() -> None:
    first = base = LEVELS
    promoted = 0
    for _number in range(10):
        new = base * np.where(np.array(TEXTS) == "en", 1.02, 1.0)
        verdict = judge(new, base=base, first=first)
        if verdict.decision != "promote":
            assert (
                "on the general text en it may be up to 4 % worse than eve, the first of its line"
                in verdict.sentence
            )
            break
        base, promoted = new, promoted + 1
    assert promoted == 1


def test_a_first_model_that_never_knew_a_text_sets_no_bound_for_it() -> None:
    first = np.where(np.array(TEXTS) == "zh", 6.0, LEVELS)
    assert judge(changed(), base=LEVELS, first=first, uniform=5.56).decision == "promote"


def test_a_first_model_that_gives_no_finite_score_sets_no_bound() -> None:
    verdict = judge(changed(), first=np.full(len(TEXTS), math.nan))
    assert verdict.decision == "promote"
    assert "eve, the first model of its line, could not be compared on general text" in verdict.reasons


def test_a_part_is_judged_once() -> None:
    one = GeneralScores(
        ModelOnBlocks(LEVELS), ModelOnBlocks(LEVELS), ["t"] * len(LEVELS), ["en"] * len(LEVELS)
    )
    assert [(part.kind, part.name) for part in judge_general(one)] == [("all", "")]
    assert passes_general([]) is None


def test_the_first_model_is_found_through_the_whole_line(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    write_tiny(ws.models / "eve", TALKS, steps=0, created_at=5.0)
    copy_model(ws.models / "eve", ws.models / "abel", base="eve", created_at=6.0)
    copy_model(ws.models / "eve", ws.models / "enoch", base="abel", created_at=7.0)
    assert first_of_line(ws, ws.models / "enoch") == ws.models / "eve"
    assert first_of_line(ws, ws.models / "abel") == ws.models / "eve"
    assert first_of_line(ws, ws.models / "eve") is None


def test_a_card_remembers_the_first_model_when_the_middle_is_removed(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    write_tiny(ws.models / "eve", TALKS, steps=0, created_at=5.0)
    copy_model(ws.models / "eve", ws.models / "enoch", base="abel", first="eve", created_at=7.0)
    assert first_of_line(ws, ws.models / "enoch") == ws.models / "eve"


def test_a_younger_model_that_took_the_name_of_an_ancestor_is_none(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    write_tiny(ws.models / "eve", TALKS, steps=0, created_at=5.0)
    copy_model(ws.models / "eve", ws.models / "abel", base="eve", created_at=4.0)
    assert first_of_line(ws, ws.models / "abel") is None
    copy_model(ws.models / "eve", ws.models / "self", base="self")
    assert first_of_line(ws, ws.models / "self") is None


def test_a_verdict_compares_with_the_first_model_too(tmp_path: Path) -> None:
    for name, steps in (("first", 30), ("base", 20), ("new", 40)):
        write_tiny(tmp_path / name, TALKS, steps=steps)
    report = compare(HELD, tmp_path / "base", tmp_path / "new", {"t": TEXT}, first=tmp_path / "first")
    assert {part.against for part in report.verdict.general} == {"", "first"}
    alone = compare(HELD, tmp_path / "base", tmp_path / "new", {"t": TEXT}, first=tmp_path / "base")
    assert {part.against for part in alone.verdict.general} == {""}
    timed = ("first_token", "tokens_per_s")
    assert [one for one in report.measures if one.name not in timed] == [
        one for one in alone.measures if one.name not in timed
    ]


def test_a_damaged_first_model_does_not_keep_two_others_from_being_judged(tmp_path: Path) -> None:
    for name, steps in (("first", 0), ("base", 20), ("new", 40)):
        write_tiny(tmp_path / name, TALKS, steps=steps)
    (tmp_path / "first" / "model.safetensors").write_bytes(b"{}")
    report = compare(HELD, tmp_path / "base", tmp_path / "new", {"t": TEXT}, first=tmp_path / "first")
    assert report.verdict.p_value is not None
    assert any(reason.startswith("first, the first model of its line") for reason in report.verdict.reasons)


def test_a_first_model_with_a_shorter_context_is_compared_in_its_windows(tmp_path: Path) -> None:
    write_tiny(tmp_path / "first", TALKS, steps=20, config=msgspec.structs.replace(TINY, context=64))
    for name, steps in (("base", 20), ("new", 40)):
        write_tiny(tmp_path / name, TALKS, steps=steps)
    report = compare(HELD, tmp_path / "base", tmp_path / "new", {"t": TEXT}, first=tmp_path / "first")
    assert {part.against for part in report.verdict.general} == {"", "first"}
