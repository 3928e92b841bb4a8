"""A chat as data: its exchanges with the versions of their answers, votes, sampling. The file in `chats/` has this form."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

import msgspec

from engine.core.chat import ChatMessage, Role
from engine.inference.language_model import Finish, Generated, Sampling
from engine.memory.records import Conversation, Turn

SOURCE = "chat"
"""Source of the conversations that are kept from chats."""
STOPPED = "stopped"
FAILED = "failed"
EDITED = "edited"


class ChatAnswer(msgspec.Struct, kw_only=True):
    """One version of an answer."""

    text: str = ""
    model: str = ""
    """Name of the model, "" for an answer that the person wrote."""
    at: float = 0.0
    """Seconds since the epoch."""
    finish: str = ""
    """A `Finish`, or "stopped", "failed", "edited"; "" while it is generated."""
    problem: str = ""
    """Why there is no answer, or only a part."""
    reason: str = ""
    """Why this model answered, where a rule chose it."""
    prompt_tokens: int = 0
    tokens: int = 0
    context: int = 0
    """Tokens, as in `Generated`; 0 when unknown."""
    seconds: float = 0.0
    tokens_per_s: float = 0.0
    dropped_turns: int = 0
    cut_question: bool = False
    seed: int | None = None

    @property
    def is_cut(self) -> bool:
        """Whether it ended at its largest length."""
        return self.finish == Finish.LENGTH

    def end(self, done: Generated) -> None:
        """Takes over how the generation ended."""
        self.finish = str(done.finish)
        self.prompt_tokens, self.tokens, self.context = done.prompt_tokens, done.tokens, done.context
        self.seconds, self.tokens_per_s = round(done.seconds, 3), round(done.tokens_per_s, 2)
        self.dropped_turns, self.seed = done.dropped_turns, done.seed
        self.cut_question = done.cut_question


class ChatVote(msgspec.Struct, kw_only=True, frozen=True):
    """Which of two answers was better, given before their models were shown."""

    left: int
    right: int
    """Versions of the answer."""
    choice: str
    """"left", "right" or "equal"."""
    at: float


class ChatExchange(msgspec.Struct, kw_only=True):
    """A question and the versions of its answer."""

    question: str
    asked_at: float
    id: str = msgspec.field(default_factory=lambda: secrets.token_hex(8))
    answers: list[ChatAnswer] = []
    shown: int = 0
    """The version that is shown, and that the model reads with the next question."""
    pair: tuple[int, int] | None = None
    """The two versions that stand side by side."""
    votes: list[ChatVote] = []
    kept: int | None = None
    """The version that is in memory."""

    @property
    def answer(self) -> ChatAnswer | None:
        """The version that is shown."""
        return self.answers[self.shown] if 0 <= self.shown < len(self.answers) else None

    @property
    def text(self) -> str:
        """The text of the version that is shown."""
        return self.answer.text if self.answer is not None else ""

    @property
    def is_kept(self) -> bool:
        """Whether the version that is shown is in memory."""
        return self.kept is not None and self.kept == self.shown

    @property
    def pair_vote(self) -> ChatVote | None:
        """The vote on the two versions side by side."""
        return next((v for v in reversed(self.votes) if (v.left, v.right) == self.pair), None)

    @property
    def is_blind(self) -> bool:
        """Whether two answers wait for a vote; their models are not shown until then."""
        return self.pair is not None and self.pair_vote is None

    @property
    def best_of_pair(self) -> int | None:
        """The version that won the vote; None for equal ones and without a vote."""
        vote = self.pair_vote
        if vote is None or vote.choice == "equal":
            return None
        return vote.right if vote.choice == "right" else vote.left

    def begin(self, model: str, now: float | None = None, reason: str = "") -> ChatAnswer:
        """A new version, which is shown; the others stay."""
        answer = ChatAnswer(model=model, at=time.time() if now is None else now, reason=reason)
        self.answers.append(answer)
        self.shown, self.pair = len(self.answers) - 1, None
        return answer

    def show(self, version: int) -> bool:
        """Shows another version alone; False when there is none."""
        if not 0 <= version < len(self.answers) or (version == self.shown and self.pair is None):
            return False
        self.shown, self.pair = version, None
        return True

    def begin_pair(
        self, models: Sequence[str], now: float | None = None, reason: str = ""
    ) -> list[ChatAnswer]:
        """Two new versions side by side, whose models are not shown until the vote."""
        started = time.time() if now is None else now
        answers = [ChatAnswer(model=model, at=started, reason=reason) for model in models]
        first = len(self.answers)
        self.answers += answers
        self.shown, self.pair = first, (first, first + 1)
        return answers

    def correct(self, text: str, now: float | None = None) -> ChatAnswer:
        """The person's own version; it is shown, and the model's stays as an alternative."""
        answer = self.begin("", now)
        answer.text, answer.finish = text, EDITED
        return answer

    def vote(self, choice: str, now: float | None = None) -> ChatVote | None:
        """Takes the vote on the two versions side by side: the chat continues from the better one, of equal ones the left."""
        if self.pair is None or not self.is_blind:
            return None
        left, right = self.pair
        vote = ChatVote(left=left, right=right, choice=choice, at=time.time() if now is None else now)
        self.votes = [*self.votes, vote]
        self.shown = right if choice == "right" else left
        return vote


class ChatRecord(msgspec.Struct, kw_only=True):
    """One chat. Because of `id` the kept exchanges are one growing conversation in memory."""

    schema: int = 1
    id: str = msgspec.field(default_factory=lambda: secrets.token_hex(8))
    created_at: float = msgspec.field(default_factory=time.time)
    updated_at: float = 0.0
    model: str = ""
    """The model that was chosen last, "" for the one in use."""
    route: str = ""
    """A `Route` by which the model of each question is chosen, "" for the model that was picked."""
    system: str = ""
    sampling: Sampling = Sampling()
    exchanges: list[ChatExchange] = []
    memory_id: str = ""
    """Id of the conversation in memory that holds the kept exchanges."""

    @property
    def last(self) -> ChatExchange | None:
        return self.exchanges[-1] if self.exchanges else None

    @property
    def title(self) -> str:
        """The beginning of the first question, on one line."""
        return one_line_title(self.exchanges[0].question) if self.exchanges else ""

    def place_of(self, exchange: ChatExchange) -> int:
        """Its index; -1 for one that was erased."""
        return next((at for at, one in enumerate(self.exchanges) if one is exchange), -1)

    def ask(self, question: str, now: float | None = None) -> ChatExchange:
        """A new exchange, without its answer."""
        exchange = ChatExchange(question=question, asked_at=time.time() if now is None else now)
        self.exchanges.append(exchange)
        return exchange

    def messages(self, exchange: ChatExchange) -> list[ChatMessage]:
        """What a model gets to answer `exchange`: the system prompt, earlier exchanges with an answer, the question."""
        found = [ChatMessage(role=Role.SYSTEM, content=self.system)] if self.system else []
        for earlier in self.exchanges:
            if earlier is exchange:
                break
            if earlier.text:
                found.append(ChatMessage(role=Role.USER, content=earlier.question))
                found.append(ChatMessage(role=Role.ASSISTANT, content=earlier.text))
        return [*found, ChatMessage(role=Role.USER, content=exchange.question)]

    def kept_conversation(self) -> Conversation:
        """The kept versions as a conversation; other versions of an answer are its alternatives."""
        turns: list[Turn] = []
        kept = [(one, one.answers[one.kept]) for one in self.exchanges if one.kept is not None]
        if kept and self.system:
            turns.append(Turn(role=Role.SYSTEM, text=self.system, time=kept[0][0].asked_at))
        for exchange, answer in kept:
            others = dict.fromkeys(other.text for other in exchange.answers if other.text.strip())
            others.pop(answer.text, None)
            turns.append(Turn(role=Role.USER, text=exchange.question, time=exchange.asked_at))
            turns.append(
                Turn(role=Role.ASSISTANT, text=answer.text, time=answer.at, alternatives=tuple(others))
            )
        title = one_line_title(kept[0][0].question) if kept else ""
        return Conversation.of(turns, source=SOURCE, external_id=self.id, title=title)


def one_line_title(question: str) -> str:
    """The beginning of a question on one line."""
    return " ".join(question.split())[:60]


def tally(records: Sequence[ChatRecord], one: str, other: str) -> tuple[int, int, int]:
    """Votes between two models over chats: (for `one`, for `other`, equal)."""
    counts = [0, 0, 0]
    for record in records:
        for exchange in record.exchanges:
            for vote in exchange.votes:
                if max(vote.left, vote.right) >= len(exchange.answers):
                    continue
                names = exchange.answers[vote.left].model, exchange.answers[vote.right].model
                if set(names) == {one, other} and len(set(names)) == 2:
                    winner = {"left": names[0], "right": names[1]}.get(vote.choice, "")
                    counts[2 if not winner else int(winner == other)] += 1
    return counts[0], counts[1], counts[2]
