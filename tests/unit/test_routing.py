"""Which model answers a question: by the person's choice, by what there is, and by what they talk about."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.chat import Role
from engine.core.paths import Workspace
from engine.inference.routing import (
    Route,
    RouteRule,
    TopicProfile,
    choose_route,
    make_profile,
    terms_of,
)
from engine.inference.topics import read_topics
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore

TALKS = [
    *(f"My sourdough starter number {n} collapsed in the oven, the loaf is dense." for n in range(15)),
    *(f"The viola part {n} in alto clef, bowing and vibrato before the orchestra." for n in range(15)),
    *(f"阳台上的月季第{n}次长了蚜虫，叶子发黄怎么办？" for n in range(15)),
]
PROFILE = make_profile(TALKS)


@pytest.mark.parametrize(
    ("question", "route"),
    [
        ("Why is my loaf dense?", Route.PERSONAL),
        ("The starter collapsed again in the oven", Route.PERSONAL),
        ("Bowing and vibrato in alto clef?", Route.PERSONAL),
        ("月季的叶子发黄怎么办？", Route.PERSONAL),
        ("阳台上的月季长了蚜虫", Route.PERSONAL),
        ("What is the capital of Mongolia?", Route.GENERAL),
        ("Explain quicksort and its complexity.", Route.GENERAL),
        ("法国大革命的起因是什么？", Route.GENERAL),
        ("量子力学讲的是什么？", Route.GENERAL),
        ("Sourdough pizza with mozzarella, or the oven loaf?", Route.BOTH),
    ],
)
def test_a_question_goes_to_who_knows_its_subject(question: str, route: Route) -> None:
    routed = choose_route(question, PROFILE)
    assert routed.route is route, routed
    assert routed.why


@pytest.mark.parametrize("setting", [Route.PERSONAL, Route.GENERAL, Route.BOTH])
def test_a_choice_is_obeyed(setting: Route) -> None:
    routed = choose_route("What is the capital of Mongolia?", PROFILE, setting=setting)
    assert (routed.route, routed.rule) == (setting, RouteRule.CHOSEN)


@pytest.mark.parametrize("setting", list(Route))
@pytest.mark.parametrize(("personal", "general"), [(True, False), (False, True)])
def test_one_model_answers_everything(setting: Route, personal: bool, general: bool) -> None:
    routed = choose_route("loaf", PROFILE, setting=setting, personal=personal, general=general)
    assert routed.route is (Route.PERSONAL if personal else Route.GENERAL)
    assert routed.rule is RouteRule.ONE_MODEL


def test_without_topics_both_answer() -> None:
    for profile in (TopicProfile(), make_profile(TALKS[:5])):
        assert choose_route("Why is my loaf dense?", profile).rule is RouteRule.NO_TOPICS


@pytest.mark.parametrize(
    ("similarity", "question", "route"),
    [
        (0.9, "What is the capital of Mongolia?", Route.PERSONAL),
        (0.2, "Rosemary on the balcony?", Route.GENERAL),
        (0.2, "Why is my loaf dense?", Route.PERSONAL),
        (0.6, "What is the capital of Mongolia?", Route.GENERAL),
    ],
)
def test_an_embedder_decides_where_it_is_sure(similarity: float, question: str, route: Route) -> None:
    assert choose_route(question, PROFILE, similarity=similarity).route is route


def test_more_of_the_persons_terms_never_make_a_question_less_theirs() -> None:
    words = ["quantum", "entanglement", "theorem"]
    shares = []
    for term in ("", "loaf", "starter", "oven", "viola", "vibrato"):
        words.append(term)
        shares.append(choose_route(" ".join(words), PROFILE).share)
    assert shares == sorted(shares) and shares[0] == 0.0 < shares[-1]


@given(st.text(max_size=200))
def test_any_text_gets_an_answer_and_a_reason(question: str) -> None:
    routed = choose_route(question, PROFILE)
    assert routed.route in (Route.PERSONAL, Route.GENERAL, Route.BOTH)
    assert routed.why and 0.0 <= routed.share <= 1.0
    assert set(routed.terms) <= set(terms_of(question)), "a reason quotes the question and nothing else"


def test_width_and_case_make_no_other_term() -> None:
    assert terms_of("ＬＯＡＦ Loaf") == ["loaf", "loaf"]
    assert terms_of("月季1花") == ["月季"]


def test_the_topics_are_read_from_memory(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    assert read_topics(ws) == TopicProfile()
    with MemoryStore(ws.memory_db) as store:
        store.add(
            [
                Conversation(id=f"c{n}", source="text", turns=(Turn(role=Role.USER, text=text),))
                for n, text in enumerate(TALKS)
            ],
            "text",
            "x",
        )
    profile = read_topics(ws)
    assert profile.conversations == len(TALKS) and profile.terms["viola"] == 15
    ws.memory_db.write_bytes(b"no database")
    assert read_topics(ws) == TopicProfile()
