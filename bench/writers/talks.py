"""Random talks as people have them, and what of a talk a format can hold."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"


class SpokenTurn(NamedTuple):
    """One message of a talk."""

    role: str
    text: str
    time: int
    """Seconds since the epoch; 0 where the format has none."""
    others: tuple[str, ...] = ()
    """Earlier answers to the same question."""
    thought: str = ""
    """The model's reasoning, which an import leaves out and counts."""

    @property
    def iso(self) -> str:
        return datetime.fromtimestamp(self.time, UTC).isoformat()


class WholeTalk(NamedTuple):
    """One talk, each question with its answer, below an optional system prompt."""

    id: str
    title: str
    turns: tuple[SpokenTurn, ...]

    @property
    def start(self) -> int:
        return self.turns[0].time

    @property
    def iso(self) -> str:
        return self.turns[0].iso

    @property
    def system(self) -> str:
        """The text of the system prompt; "" without one."""
        return self.turns[0].text if self.turns[0].role == SYSTEM else ""

    @property
    def spoken(self) -> tuple[SpokenTurn, ...]:
        """The turns without the system prompt."""
        return self.turns[bool(self.system) :]

    @property
    def exchanges(self) -> list[tuple[SpokenTurn, SpokenTurn]]:
        """Each question with its answer."""
        return list(zip(self.spoken[::2], self.spoken[1::2], strict=True))


class TalkMessageNode(NamedTuple):
    """One message of a talk as a tree: answers that were made again stand beside the shown one."""

    id: str
    parent: str
    """Empty for the first message."""
    children: list[str]
    turn: SpokenTurn


_SENTENCES = (
    "How do I boil rice so that it does not stick?",
    "请用三句话解释一下什么是注意力机制，谢谢。",
    "日本の首都について、簡単に教えてください。",
    "Что делать, если сервер не отвечает на запросы?",
    "كيف يمكنني تعلم البرمجة بسرعة؟",
    "मुझे चाय बनाने का तरीका बताइए।",
    "Größe und Preis? Das hängt davon ab, wie oft du es benutzt.",
    "¿Qué diferencia hay entre «ser» y «estar»?",
    "Nice 👍🏽 that works 🎉, and the family 👨‍👩‍👧 says hi 🇫🇷.",
    "If a < b && c > d, then R&D wins; 5 > 3 but not 3 > 5.",
    "It costs $5.00 (≈ 4,60 €), i.e. 20% off — see section 3.2.1.",
    r"Euler: $e^{i\pi} + 1 = 0$, and the path is C:\temp\new.",
    "See [the docs](https://example.org/a?b=1&c=%20) or https://example.org/x_y_z.",
    "He said \"no\", she said 'yes'; `x = 1` stays code.",
)
_WORDS = (
    "yes",
    "继续",
    "OK",
    "42",
    "thanks!",
    "why?",
    "好的",
    "null",
    "👍",
    "…",
    "3.14",
    "true",
    "C++",
    "No.",
)
_BLOCKS = (
    '```python\ndef f(x: int) -> str:\n    # User: not a speaker\n\n    return f"{x}"\n```',
    "```\nUser: hello\nAssistant: hi\n```",
    '```json\n{"a": [1, 2], "b": null}\n```',
    "- first\n- second\n  - nested\n- third",
    "1. Rinse it.\n2. Boil it.\n3. Wait.",
    "## Ingredients\n\n- rice\n- water",
    "| a | b |\n| --- | --- |\n| 1 | 2 |",
    "> quoted line\n> and another",
    "**Note:** bold, *italic* and ~~gone~~.",
    "Step 1: rinse\nStep 2: boil\nWarning: it is hot",
    '<div class="x">\n  <p>Hello &amp; bye</p>\n</div>',
    'a,b;c\td\n1,"2";3\t4',
)
_WHOLE = (
    '{"name": "rice", "minutes": 12}',
    '["a", "b", "c"]',
    "[1, 2, 3]",
    "=SUM(A1:A3)",
    "- one\n- two",
    "# Title\n\nText below it.",
    "NaN",
    "007",
)
"""Texts that a reader could take for something else than text."""
_TITLES = ("Rice", "关于注意力", "Fix the parser", "Reise, Teil 2", 'Q&A: 100% "sure"?', "🎉 party")


def random_text(chance: random.Random) -> str:
    """The text of one message: a word, a sentence, paragraphs with code and lists, or a very long one."""
    draw = chance.random()
    if draw < 0.2:
        return chance.choice(_WORDS)
    if draw < 0.3:
        return chance.choice(_WHOLE)
    if draw < 0.5:
        return chance.choice(_SENTENCES)
    count = chance.randint(40, 120) if draw > 0.97 else chance.randint(2, 5)
    parts = [chance.choice(_SENTENCES + _BLOCKS) for _part in range(count)]
    gaps = [chance.choice(("\n\n", "\n\n", "\n\n\n\n")) for _part in parts[1:]]
    return parts[0] + "".join(gap + part for gap, part in zip(gaps, parts[1:], strict=True))


def random_talks(chance: random.Random, count: int) -> list[WholeTalk]:
    """Talks of different days, the oldest first. No two have the same title, and each has at least one exchange."""
    start = chance.randint(1_700_000_000, 1_760_000_000)
    talks = []
    for number in range(count):
        time = start + number * 200_000 + chance.randint(0, 80_000)
        turns = []
        if chance.random() < 0.4:
            turns.append(SpokenTurn(SYSTEM, random_text(chance), time))
        for _exchange in range(chance.choice((1, 1, 2, 3, 5))):
            time += chance.randint(10, 600)
            turns.append(SpokenTurn(USER, random_text(chance), time))
            time += chance.randint(10, 300)
            texts = [random_text(chance) for _version in range(chance.choice((1, 1, 1, 2, 3)))]
            *others, shown = dict.fromkeys(texts)
            thought = chance.choice(("", "", "Let me think.\n\nThe user asks."))
            turns.append(SpokenTurn(ASSISTANT, shown, time, tuple(others), thought))
        title = f"{chance.choice(_TITLES)} {number}"
        talks.append(WholeTalk(f"talk-{start}-{number}", title, tuple(turns)))
    return talks


def holding(
    *,
    times: int = 1,
    system: bool = True,
    others: bool = True,
    thoughts: bool = True,
    titles: bool = True,
    exchanges: int = 1000,
    text: Callable[[SpokenTurn], str] = lambda turn: turn.text,
) -> Callable[[WholeTalk], WholeTalk]:
    """What a format keeps of a talk. `times`: the unit of its times in seconds, 0 without any."""

    def hold(talk: WholeTalk) -> WholeTalk:
        turns = [
            turn._replace(
                text=text(turn),
                time=turn.time // times * times if times else 0,
                others=tuple(text(turn._replace(text=other)) for other in turn.others) if others else (),
                thought=turn.thought if thoughts else "",
            )
            for turn in talk.turns
        ]
        opening = turns[:1] if talk.system and system else []
        kept = opening + turns[bool(talk.system) :][: 2 * exchanges]
        return WholeTalk(talk.id, talk.title if titles else "", tuple(kept))

    return hold


def with_times(
    hold: Callable[[WholeTalk], WholeTalk], *, system: bool = True, question: bool = True, answer: str = "own"
) -> Callable[[WholeTalk], WholeTalk]:
    """`hold`, of a format that dates only some messages. `answer`: "own", "none", or that of its "question"."""

    def timed(talk: WholeTalk) -> WholeTalk:
        turns: list[SpokenTurn] = []
        asked = 0
        for turn in hold(talk).turns:
            time = turn.time
            if turn.role == USER:
                asked = time
                time = time if question else 0
            elif turn.role == SYSTEM:
                time = time if system else 0
            else:
                time = {"own": time, "none": 0, "question": asked}[answer]
            turns.append(turn._replace(time=time))
        return hold(talk)._replace(turns=tuple(turns))

    return timed


def as_tree(talk: WholeTalk, *, system: bool = True) -> list[TalkMessageNode]:
    """The messages of a talk with ids and links, without its system prompt unless `system`; the last is shown last."""
    nodes: list[TalkMessageNode] = []
    parent = ""
    for place, turn in enumerate(talk.turns if system else talk.spoken):
        texts = (*turn.others, turn.text)
        ids = [f"{talk.id}-{place}-{version}" for version in range(len(texts))]
        if nodes:
            nodes[-1].children.extend(ids)
        for version, (id_, text) in enumerate(zip(ids, texts, strict=True)):
            # The shown answer is the newest of its question.
            time = turn.time - (len(texts) - 1 - version)
            is_shown = version == len(texts) - 1
            shown = turn._replace(text=text, time=time, others=(), thought=turn.thought if is_shown else "")
            nodes.append(TalkMessageNode(id_, parent, [], shown))
        parent = ids[-1]
    return nodes


def shuffled(items: list[Any], chance: random.Random) -> list[Any]:
    """The items in any order."""
    return chance.sample(items, len(items))
