"""Which model answers a question: the personal one, a general one, or both, by rules that need no model. Imports nothing heavy.

`choose_route` is pure. What it knows of a person is a `TopicProfile`: how many of their conversations contain a term.
A question that is made of terms which stand in many of them is theirs; one whose telling terms stand in none is general.
Common words tell nothing, so a term weighs as much as it is rare (inverse document frequency, Spärck Jones 1972).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from engine.core.i18n import _

PERSONAL_SHARE = 0.55
"""Share of a question's weight in terms of the person from which it is theirs."""
GENERAL_SHARE = 0.35
"""Share up to which it is general; in between both models answer."""
FEW_CONVERSATIONS = 20
"""Below so many conversations nothing is known about the person's topics."""
CLOSE, FAR = 0.75, 0.45
"""Cosine to the nearest conversation from which, and up to which, an embedder alone decides."""
SHOWN_TERMS = 3

_WORD = re.compile(r"[^\W\d_]+")
_TELLS_NOTHING = frozenset(
    [
        "about",
        "after",
        "all",
        "also",
        "and",
        "any",
        "are",
        "because",
        "been",
        "before",
        "between",
        "both",
        "but",
        "can",
        "could",
        "did",
        "difference",
        "does",
        "doing",
        "done",
        "each",
        "example",
        "explain",
        "for",
        "from",
        "get",
        "give",
        "had",
        "has",
        "have",
        "help",
        "her",
        "him",
        "his",
        "how",
        "into",
        "its",
        "just",
        "know",
        "like",
        "list",
        "long",
        "made",
        "make",
        "many",
        "may",
        "mean",
        "more",
        "most",
        "much",
        "must",
        "name",
        "not",
        "now",
        "off",
        "one",
        "only",
        "other",
        "out",
        "over",
        "please",
        "say",
        "see",
        "she",
        "should",
        "show",
        "some",
        "someone",
        "something",
        "summarize",
        "tell",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "thing",
        "things",
        "this",
        "those",
        "translate",
        "two",
        "use",
        "used",
        "using",
        "very",
        "want",
        "was",
        "way",
        "were",
        "what",
        "when",
        "where",
        "which",
        "while",
        "who",
        "whose",
        "why",
        "will",
        "with",
        "work",
        "works",
        "would",
        "write",
        "you",
        "your",
    ]
)
"""English words of asking and of joining, whatever the subject is."""
_TELLS_NOTHING_HAN = frozenset(
    [
        "什么",
        "怎么",
        "怎样",
        "如何",
        "为什",
        "为何",
        "么是",
        "是什",
        "么样",
        "哪里",
        "哪个",
        "哪些",
        "是哪",
        "多少",
        "几个",
        "一个",
        "一些",
        "一下",
        "一首",
        "我想",
        "我要",
        "请问",
        "请给",
        "请帮",
        "帮我",
        "给我",
        "可以",
        "能不",
        "不能",
        "可能",
        "是不",
        "不是",
        "是怎",
        "么做",
        "么办",
        "么用",
        "的是",
        "了吗",
        "是吗",
        "你好",
        "谢谢",
        "这个",
        "那个",
        "这些",
        "那些",
        "有什",
        "有没",
        "没有",
        "关于",
        "告诉",
        "诉我",
        "解释",
        "介绍",
        "翻译",
        "写一",
        "个关",
        "的吗",
        "么的",
    ]
)
"""The same in Chinese, as pairs."""
_MINE = frozenset(("my", "mine", "our", "ours"))
_MINE_HAN = ("我的", "我们", "我家", "咱们")


class Route(StrEnum):
    """Who answers. AUTO is a setting, never an outcome."""

    PERSONAL = "personal"
    GENERAL = "general"
    BOTH = "both"
    AUTO = "auto"


class RouteRule(StrEnum):
    """The rule that decided."""

    CHOSEN = "chosen"
    ONE_MODEL = "one_model"
    NO_TOPICS = "no_topics"
    SIMILAR = "similar"
    TERMS = "terms"
    MINE = "mine"


@dataclass(frozen=True)
class TopicProfile:
    """What a person talks about: in how many conversations each term stands."""

    conversations: int = 0
    terms: Mapping[str, int] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class RoutedQuestion:
    """Who answers a question, and why."""

    route: Route
    """PERSONAL, GENERAL or BOTH."""
    rule: RouteRule
    terms: tuple[str, ...] = ()
    """The terms that told most: of the person where the route is PERSONAL, unknown to them where it is GENERAL."""
    share: float = 0.0
    """Share of the question's weight in terms of the person, 0 to 1."""

    @property
    def why(self) -> str:
        """The reason in the language of the reader."""
        terms = _(", ").join(self.terms)
        if self.rule is RouteRule.CHOSEN:
            return _("you chose it")
        if self.rule is RouteRule.ONE_MODEL:
            return _("it is the only model")
        if self.rule is RouteRule.NO_TOPICS:
            return _("too few conversations to know your topics")
        if self.rule is RouteRule.SIMILAR:
            return {
                Route.PERSONAL: _("close to one of your conversations"),
                Route.GENERAL: _("far from all your conversations"),
            }.get(self.route, _("near your conversations, but not close"))
        if self.rule is RouteRule.MINE:
            return _("it is about something of yours")
        if not terms:
            return _("it has no telling word")
        return {
            Route.PERSONAL: _("your topics: {terms}").format(terms=terms),
            Route.GENERAL: _("not in your conversations: {terms}").format(terms=terms),
        }.get(self.route, _("partly your topics: {terms}").format(terms=terms))


def choose_route(
    question: str,
    profile: TopicProfile,
    *,
    setting: Route = Route.AUTO,
    personal: bool = True,
    general: bool = True,
    similarity: float | None = None,
) -> RoutedQuestion:
    """Who answers `question`. Pure: the same arguments give the same route.

    Args:
        question: as typed; only its own terms are looked at.
        profile: the person's topics (`read_topics`); an empty one says that nothing is known.
        setting: what the person chose; anything but AUTO is obeyed as far as there is such a model.
        personal: whether there is a model in use that was trained on the person's conversations.
        general: whether there is another one (its base, say).
        similarity: cosine of the question to the nearest conversation by the corpus' embedder; None without one.

    The rules in order: the person's choice, what there is, the embedder where it is sure, "my …", the terms.
    """
    if not (personal and general):
        return RoutedQuestion(Route.PERSONAL if personal else Route.GENERAL, RouteRule.ONE_MODEL)
    if setting is not Route.AUTO:
        return RoutedQuestion(setting, RouteRule.CHOSEN)
    if profile.conversations < FEW_CONVERSATIONS:
        return RoutedQuestion(Route.BOTH, RouteRule.NO_TOPICS)
    weights = {term: _weight(term, profile) for term in set(terms_of(question))}
    known = {term: weight for term, weight in weights.items() if profile.terms.get(term)}
    total = sum(weights.values())
    share = sum(known.values()) / total if total else 0.0
    mine, foreign = _heaviest(known), _heaviest({t: w for t, w in weights.items() if t not in known})
    if similarity is not None and similarity >= CLOSE:
        return RoutedQuestion(Route.PERSONAL, RouteRule.SIMILAR, mine, share)
    if similarity is not None and similarity <= FAR and share < PERSONAL_SHARE:
        return RoutedQuestion(Route.GENERAL, RouteRule.SIMILAR, foreign, share)
    if share > GENERAL_SHARE and _is_mine(question):
        return RoutedQuestion(Route.PERSONAL, RouteRule.MINE, mine, share)
    if share >= PERSONAL_SHARE:
        return RoutedQuestion(Route.PERSONAL, RouteRule.TERMS, mine, share)
    if share <= GENERAL_SHARE:
        return RoutedQuestion(Route.GENERAL, RouteRule.TERMS, foreign, share)
    return RoutedQuestion(Route.BOTH, RouteRule.TERMS, mine, share)


def terms_of(text: str) -> list[str]:
    """Words of alphabets from three letters, and pairs of East Asian characters, folded, without those of asking.

    Numbers tell nothing.
    """
    found = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        for run in re.findall(r"[⺀-￿\U00020000-\U0003ffff]+|[^⺀-￿\U00020000-\U0003ffff]+", word):
            if ord(run[0]) >= 0x2E80:
                pairs = (run[at : at + 2] for at in range(len(run) - 1))
                found += [pair for pair in pairs if pair not in _TELLS_NOTHING_HAN]
            elif len(run) >= 3 and run not in _TELLS_NOTHING:
                found.append(run)
    return found


def make_profile(conversations: Iterable[str]) -> TopicProfile:
    """The topics of a person from the text of each conversation, a term counted once in each."""
    counts: Counter[str] = Counter()
    total = 0
    for text in conversations:
        total += 1
        counts.update(set(terms_of(text)))
    return TopicProfile(total, dict(counts))


def _weight(term: str, profile: TopicProfile) -> float:
    """Inverse document frequency; of a term that no conversation has, that of one which a single one has."""
    return 1 + math.log(1 + profile.conversations / max(1, profile.terms.get(term, 0)))


def _heaviest(weights: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(sorted(weights, key=lambda term: (-weights[term], term))[:SHOWN_TERMS])


def _is_mine(question: str) -> bool:
    return bool(_MINE & set(question.casefold().split())) or any(word in question for word in _MINE_HAN)
