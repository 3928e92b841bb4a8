"""The predicted effect of a setting equals the result of the build."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.dedup.english import english_words
from engine.corpus.enums import CorpusStage
from engine.corpus.review.store import ReviewStore
from engine.corpus.what_if import filter_setting_effect, near_threshold_effect
from engine.memory.store import MemoryStore
from tests.corpus_store import conversation, distinct, memory


def near(store: MemoryStore) -> set[str]:
    return {
        id_
        for (id_,) in store.connection.execute(
            "SELECT conversation_id FROM corpus WHERE automatic = 'dropped' AND stage = 'near'"
        )
    }


@pytest.mark.parametrize("threshold", [0.7, 0.97, 1.0])
def test_the_effect_of_a_threshold_is_that_of_the_build(tmp_path: Path, threshold: float) -> None:
    talks = [distinct(n, at=1e9 + n) for n in range(10)]
    chance = random.Random(4)
    words = chance.sample(sorted(word for word in english_words() if len(word) == 8), 200)
    for step in range(8):
        # A doubled letter in some words is a slip of the pen; of longer texts only the threshold decides.
        slips = words[:step] if step < 4 else words[-step:]
        answer = " ".join(word[:3] + word[2:] if word in slips else word for word in words)
        talks.append(
            conversation(f"n{step}", "Tell me all of the words that you know", answer, at=1e8 + step)
        )
    with memory(tmp_path, talks) as store:
        build_corpus(store, Settings())
        before = near(store)
        effect = near_threshold_effect(store, threshold)
        build_corpus(store, Settings(near_threshold=threshold))
        after = near(store)
    assert len(before) == 7
    assert (len(after) < 7) == (threshold == 1.0)
    assert (effect.now, effect.then) == (len(before), len(after))
    assert (effect.leave, effect.back) == (len(after - before), len(before - after))


def dropped_at(store: MemoryStore, stage: CorpusStage) -> tuple[set[str], int]:
    rows = store.connection.execute(
        "SELECT conversation_id FROM corpus WHERE automatic = 'dropped' AND stage = ?", (stage,)
    )
    turns = store.connection.execute(
        "SELECT COUNT(*) FROM ledger WHERE stage = ? AND action IN ('mask', 'redact')", (stage,)
    ).fetchone()[0]
    return {id_ for (id_,) in rows}, turns


@pytest.mark.parametrize(
    ("stage", "then"),
    [
        (CorpusStage.LOW_VALUE, Settings(low_value_from=1.0)),
        (CorpusStage.LOW_VALUE, Settings(low_value_from=0.75)),
        (CorpusStage.SENSITIVE, Settings(sensitive="drop")),
        (CorpusStage.SENSITIVE, Settings(sensitive_types={"PHONE": "drop", "EMAIL": "keep"})),
    ],
)
def test_the_effect_of_a_filter_setting_is_that_of_the_build(
    tmp_path: Path, stage: CorpusStage, then: Settings
) -> None:
    talks = [distinct(n, at=1e9 + n) for n in range(6)]
    talks += [
        conversation("thanks", "谢谢", "不客气"),
        conversation("remark", "好的，谢谢你，我去试试看吧", "不客气，祝您愉快！"),
        conversation("phone", "我的手机号是13812345678，怎么改？", "在设置里点账户，填上新的号码即可。"),
        conversation("mail", "我的邮箱是a@b.com，怎么改？", "在设置里点账户，填上新的地址即可。"),
    ]
    with memory(tmp_path, talks) as store:
        build_corpus(store, Settings())
        before, masked_before = dropped_at(store, stage)
        effect = filter_setting_effect(store, stage, then)
        build_corpus(store, then)
        after, masked_after = dropped_at(store, stage)
    assert (effect.now, effect.then) == (len(before), len(after))
    assert (effect.leave, effect.back) == (len(after - before), len(before - after))
    assert (effect.turns_now, effect.turns_then) == (masked_before, masked_after)
    assert effect.turns_now != effect.turns_then or effect.leave


def test_decided_conversations_are_not_affected(tmp_path: Path) -> None:
    talks = [conversation("phone", "我的手机号是13812345678，怎么改？", "在设置里点账户，填上新的号码即可。")]
    with memory(tmp_path, talks) as store:
        build_corpus(store, Settings())
        with ReviewStore(store.path) as review:
            assert review.pii_counts() == {"PHONE": 1}
            review.decide("phone", "accepted")
        assert filter_setting_effect(store, CorpusStage.SENSITIVE, Settings(sensitive="drop")).leave == 0
