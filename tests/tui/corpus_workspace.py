"""A memory with a corpus built by the engine, for the tests of the Corpus tab."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textual.pilot import Pilot

from engine.core.chat import Role
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.review.store import ReviewStore
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from tests.tui.helpers import until
from tui.app.app import H2QApp
from tui.tabs.corpus.tab import CorpusTab

QUESTIONS = [
    "How do I reset the router in the kitchen?",
    "怎么重置我的密码？我的手机号是 13812345678，请帮我看看这个问题",
    "Explain paging in an operating system to a beginner",
    "[red]markup[/] and \x1b[2J escapes in a question about terminals",
    "Write a short poem about the autumn rain in the mountains",
]


def conversation(number: int, question: str) -> Conversation:
    """A question with an answer of many words, `number` hours after the epoch of the test."""
    at = 1_700_000_000.0 + number * 3600
    answer = f"Answer {number}: " + " ".join(f"{question.split()[0]}{number}-{i}" for i in range(12)) + "."
    turns = [
        Turn(role=Role.USER, text=question, time=at),
        Turn(role=Role.ASSISTANT, text=answer, time=at + 1),
    ]
    return Conversation.of(turns, source="text", external_id=str(number))


def build(workspace: Workspace, questions: Sequence[str] = QUESTIONS) -> None:
    """Adds a conversation for each question, and builds the corpus."""
    with MemoryStore(workspace.memory_db) as store:
        store.add([conversation(n, text) for n, text in enumerate(questions)], "text", "x")
        build_corpus(store, Settings())


async def opened(app: H2QApp, pilot: Pilot[Any], rows: int = len(QUESTIONS)) -> CorpusTab:
    """The tab, with its list and the first conversation on the screen."""
    await app.show_tab("corpus")
    tab = app.tab
    assert isinstance(tab, CorpusTab)
    await until(pilot, lambda: len(tab.conversations.ids) == rows and (not rows or bool(tab.reader.details)))
    return tab


def states(ws: Workspace) -> dict[str, str]:
    """The state of each conversation by its title, as the database has it."""
    with ReviewStore(ws.memory_db, readonly=True) as store:
        return {item.first_line: item.state for item in store.page()}
