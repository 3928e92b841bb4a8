"""A verdict says its sentence and its reasons in the language of who reads it, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from engine.core.i18n import language, set_language
from engine.core.json_text import encode_json
from engine.runs.events import JournalRecord, VerdictGiven
from engine.validation.external_scores import ExternalScore
from engine.validation.general import GeneralScores, ModelOnBlocks
from engine.validation.report import Verdict, VerdictReason
from engine.validation.verdict import external_verdict
from engine.validation.verdict_event import in_own_language
from engine.validation.verdict_text import in_words, reason_text, reasons_of, sentence_of
from tests.unit.test_verdict import SAME, cases, decide

LOST = GeneralScores(
    base=ModelOnBlocks(np.full(30, 2.0)),
    new=ModelOnBlocks(np.concatenate([np.full(15, 2.3), np.full(15, 2.0)])),
    texts=["zh"] * 15 + ["en"] * 15,
    languages=["zh"] * 15 + ["en"] * 15,
    first=ModelOnBlocks(np.full(30, np.nan)),
    first_name="eve",
)
VERDICTS = {
    "promoted": decide(cases(0.06, 0.03)),
    "more needed": decide(cases(0.008, 0.06, seed=2)),
    "worse": decide(cases(-0.05, 0.02)),
    "few groups": decide(cases(0.5, 0.01, 19)),
    "a failed case": decide(cases(0.5, 0.01), failed_new=1),
    "general text lost": decide(cases(0.06, 0.03), general=LOST),
    "general text unmeasured": decide(cases(0.5, 0.01), general=None),
    "external": external_verdict([ExternalScore(group=n, base=1.0, new=1.1 + n % 3 / 9) for n in range(30)]),
    "external, few": external_verdict([ExternalScore(group=n, base=1.0, new=1.1) for n in range(3)]),
}


@pytest.fixture
def other_language() -> Iterator[None]:
    before = language()
    set_language("zh")
    yield
    set_language(before)


@pytest.mark.parametrize("name", VERDICTS)
def test_the_words_follow_the_language_of_the_reader(name: str, other_language: None) -> None:
    written = VERDICTS[name]
    read = msgspec.json.decode(encode_json(written), type=Verdict)
    assert sentence_of(read) == in_words(read).sentence != written.sentence
    assert len(reasons_of(read)) == len(written.reasons) == len(written.why)
    for said, before in zip(reasons_of(read), written.reasons, strict=True):
        assert said != before or before.isascii() is False
    assert not any("one of " in text for text in reasons_of(read))


@pytest.mark.parametrize("name", VERDICTS)
def test_the_same_language_says_the_same(name: str) -> None:
    written = VERDICTS[name]
    assert (sentence_of(written), reasons_of(written)) == (written.sentence, written.reasons)


@pytest.mark.parametrize("name", VERDICTS)
def test_a_report_of_an_earlier_version_is_said_from_its_figures(name: str, other_language: None) -> None:
    old = msgspec.structs.replace(VERDICTS[name], why=[])
    assert sentence_of(old) == sentence_of(VERDICTS[name])
    # The test set that would decide is no figure of a verdict: then its reasons stay as they were written.
    said = old.reasons if name == "more needed" else reasons_of(VERDICTS[name])
    assert reasons_of(old) == said


def test_a_report_before_the_parts_of_the_general_set_keeps_its_words(other_language: None) -> None:
    lost = VERDICTS["general text lost"]
    older = msgspec.structs.replace(lost, why=[], general=[])
    assert (sentence_of(older), reasons_of(older)) == (lost.sentence, lost.reasons)


def test_a_reason_of_a_later_version_is_shown_as_it_was_written() -> None:
    later = msgspec.structs.replace(
        VERDICTS["promoted"], why=[VerdictReason("moon_phase", {"n": 3})], reasons=["the moon is full"]
    )
    assert reasons_of(later) == ["the moon is full"]
    assert reason_text(VerdictReason("minority", {"n": "many"})) == ""


@pytest.mark.parametrize("raw", [None, b"null", b"{}", b'{"decision": 1}'])
def test_the_journal_says_the_verdict_in_the_language_of_the_reader(
    raw: bytes | None, other_language: None
) -> None:
    verdict = VERDICTS["promoted"]
    event: Any = VerdictGiven(
        base="a",
        new="b",
        decision="promote",
        sentence=verdict.sentence,
        verdict=msgspec.Raw(encode_json(verdict) if raw is None else raw),
    )
    shown = in_own_language(JournalRecord(seq=1, t=0.0, event=event)).event
    assert isinstance(shown, VerdictGiven)
    assert shown.sentence == (sentence_of(verdict) if raw is None else verdict.sentence)


def test_general_scores_of_equal_models_lose_nothing() -> None:
    assert "general_lost" not in [why.code for why in decide(cases(0.06, 0.03), general=SAME).why]
