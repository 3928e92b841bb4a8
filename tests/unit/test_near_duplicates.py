"""Near duplicates: planted ones are found, similar sentences with another meaning are not."""

from __future__ import annotations

import json
import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.corpus.dedup.near import Components, is_similar, near_pairs, similar_pairs
from engine.corpus.filters.folding import fold
from engine.corpus.filters.normalise import letters


def jaccard(one: str, other: str) -> float:
    """The Jaccard index of the character 3-grams."""
    grams = [{text[i : i + 3] for i in range(len(text) - 2)} for text in (one, other)]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


DATA = Path(__file__).parent.parent / "data" / "corpus"


def paws() -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / "paws_x_zh.jsonl").read_text("utf-8").splitlines()]


def test_only_planted_similar_texts_are_found() -> None:
    chance = random.Random(3)
    rows = list(dict.fromkeys(letters(row["one"]) for row in paws() if len(row["one"]) > 25))
    texts = [rows[i] + rows[-1 - i] for i in range(len(rows) // 2)]
    planted = []
    for text in texts:
        signs = list(text)
        for _ in range(max(1, len(signs) // 40)):
            signs[chance.randrange(len(signs))] = chance.choice("的了是在有")
        planted.append("".join(signs))
    everything = texts + planted
    expected = {(i, i + len(texts)) for i in range(len(texts)) if texts[i] != planted[i]}
    found = {(pair.first, pair.second) for pair in similar_pairs(everything)}
    assert len(expected) > 100
    assert len(found & expected) >= 0.98 * len(expected)
    assert len(found - expected) <= 0.01 * len(found)


def test_sentences_with_another_meaning_are_not_near_duplicates() -> None:
    pairs = [(row["one"], row["other"]) for row in paws() if not row["same"] and row["one"] != row["other"]]
    assert len(pairs) > 150
    assert not [pair for pair in pairs if fold(pair[0]) == fold(pair[1]) or near_pairs(pair)]


def test_reordered_words_are_not_similar_but_typing_errors_are() -> None:
    one = "利物浦队在上周末的比赛中以三比一战胜了曼联队赢得了冠军奖杯"
    other = "曼联队在上周末的比赛中以三比一战胜了利物浦队赢得了冠军奖杯"
    assert not is_similar(one, other, 0.9, 0.8)
    assert is_similar(one, one[:4] + one[5] + one[4] + one[6:], 0.85, 0.8)
    assert not is_similar(
        "五号楼101室的租金是2000元每月含物业费", "五号楼101室的租金是3000元每月含物业费", 0.7, 0.8
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(alphabet="一二三四五六七八九十", min_size=6, max_size=30), unique=True, max_size=12))
def test_every_reported_similarity_is_exact(texts: list[str]) -> None:
    for pair in similar_pairs(texts):
        assert pair.first < pair.second
        exact = jaccard(texts[pair.first], texts[pair.second])
        assert pair.similarity == exact
        assert is_similar(texts[pair.first], texts[pair.second], exact, 0.8)


def test_clusters_are_connected_components() -> None:
    graph = Components(6)
    for one, other in ((0, 3), (3, 5), (1, 2)):
        assert graph.apart(one, other)
        graph.link(one, other)
    assert [graph.root(node) for node in range(6)] == [0, 1, 1, 0, 4, 0]
    assert not graph.apart(0, 5)
