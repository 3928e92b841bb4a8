"""ChatML, the chat template of the native model in training, validation, chat and export.

Control tokens are inserted by id and contents are encoded separately, never through a rendered template, so no
text of a user or a file can end or begin a turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from engine.core.chat import ChatMessage
from engine.models.history import FittedPrompt, fit_prompt
from engine.models.tokenizer import (
    END_OF_TEXT,
    IM_END,
    IM_START,
    decode,
    encode,
    encode_controls,
    show_ids,
)

_NEWLINE = 10


class MaskedTokens(msgspec.Struct, frozen=True, kw_only=True):
    """Token ids with their loss mask."""

    ids: list[int]
    loss_mask: list[bool]
    """`loss_mask[i]`: predicting `ids[i]` is trained."""
    truncated_bytes: int = 0
    """Trained bytes of the conversation that were cut off this window and are in no other."""
    scored_bytes: int | None = None
    """Bytes that the trained tokens stand for; None: a token is a byte."""

    @property
    def trained_tokens(self) -> int:
        return sum(self.loss_mask)

    @property
    def trained_bytes(self) -> int:
        """Bytes of the trained tokens, each stop token counted as one."""
        return self.trained_tokens if self.scored_bytes is None else self.scored_bytes


def render_message(message: ChatMessage) -> MaskedTokens:
    """One turn: `<|im_start|>role\\ncontent<|im_end|>\\n`; loss on content and stop token of the assistant."""
    head = [IM_START, *encode(message.role), _NEWLINE]
    body = [*encode(message.content), IM_END]
    learn = message.role == "assistant" and message.train
    return MaskedTokens(
        ids=[*head, *body, _NEWLINE],
        loss_mask=[False] * len(head) + [learn] * len(body) + [False],
    )


def render(messages: Sequence[ChatMessage], *, add_generation_prompt: bool = False) -> MaskedTokens:
    """A conversation of any length. With `add_generation_prompt` it ends where the answer begins."""
    ids: list[int] = []
    mask: list[bool] = []
    for message in messages:
        turn = render_message(message)
        ids += turn.ids
        mask += turn.loss_mask
    if add_generation_prompt:
        prompt = [IM_START, *encode("assistant"), _NEWLINE]
        ids += prompt
        mask += [False] * len(prompt)
    return MaskedTokens(ids=ids, loss_mask=mask)


def windows(messages: Sequence[ChatMessage], context: int) -> list[MaskedTokens]:
    """Cuts a conversation at turn boundaries into windows of at most `context` tokens.

    Each trained turn is trained in exactly one window. A window starts at a turn and has earlier turns as context, at
    least the question of its first answer. A system turn of up to a quarter of the context is in every window.
    An answer longer than the window loses its end (`truncated_bytes`). A conversation without a trained turn has no
    window.
    """
    turns = [render_message(message) for message in messages]
    trained = [any(turn.loss_mask) for turn in turns]
    if sum(len(turn.ids) for turn in turns) <= context:
        return [_join(turns)] if any(trained) else []
    system = [turns[0]] if messages[0].role == "system" and len(turns[0].ids) <= context // 4 else []
    room = context - sum(len(turn.ids) for turn in system)
    parts = cut_at_turns(turns, trained, len(system), room, _tail)
    return [_join([*system, *part], limit=context) for part in parts]


def cut_at_turns(
    turns: list[MaskedTokens],
    trained: list[bool],
    first: int,
    room: int,
    tail: Callable[[MaskedTokens, int], MaskedTokens],
) -> Iterator[list[MaskedTokens]]:
    """The turns of each window of at most `room` tokens; turns trained in an earlier window are masked.

    Turns before `first` belong to every window and are not yielded. `tail` shortens a question to a number of tokens.
    An answer longer than `room` is yielded uncut.
    """
    position = first
    while position < len(turns):
        answer = next((i for i in range(position, len(turns)) if trained[i]), None)
        if answer is None:
            return
        question = max(first, answer - 1)
        head = turns[question:answer] if question < answer else []
        used = sum(len(turn.ids) for turn in [*head, turns[answer]])
        if used > room and head:
            # The end of a long question says more about the answer than its beginning.
            head = [tail(head[0], max(room // 4, room - len(turns[answer].ids)))]
            used = len(head[0].ids) + len(turns[answer].ids)
        before: list[MaskedTokens] = []
        for i in range(question - 1, first - 1, -1):
            if used + len(turns[i].ids) > room // 2:
                break
            before.insert(0, turns[i])
            used += len(turns[i].ids)
        after = [turns[answer]]
        position = answer + 1
        while position < len(turns) and used + len(turns[position].ids) <= room:
            used += len(turns[position].ids)
            after.append(turns[position])
            position += 1
        yield [*(_masked(turn) for turn in [*before, *head]), *after]


def _tail(turn: MaskedTokens, length: int) -> MaskedTokens:
    """A masked turn of about `length` tokens: its role line and the end of its content, from a character's start."""
    head = turn.ids.index(_NEWLINE) + 1
    keep = max(length - head, 2)
    start = max(head, len(turn.ids) - keep)
    while start < len(turn.ids) and 0x80 <= turn.ids[start] < 0xC0:
        start += 1
    ids = turn.ids[:head] + turn.ids[start:]
    return MaskedTokens(ids=ids, loss_mask=[False] * len(ids))


def _masked(turn: MaskedTokens) -> MaskedTokens:
    return MaskedTokens(ids=turn.ids, loss_mask=[False] * len(turn.ids))


def _join(turns: list[MaskedTokens], limit: int | None = None) -> MaskedTokens:
    ids = [token for turn in turns for token in turn.ids]
    mask = [flag for turn in turns for flag in turn.loss_mask]
    if limit is None or len(ids) <= limit:
        return MaskedTokens(ids=ids, loss_mask=mask)
    return MaskedTokens(ids=ids[:limit], loss_mask=mask[:limit], truncated_bytes=sum(mask[limit:]))


class ByteChatTemplate:
    """The native template with the interface of `chat_template.ChatTemplate`."""

    stop_tokens = frozenset((IM_END, END_OF_TEXT))
    opening: tuple[int, ...] = ()
    turn_ids: tuple[int, ...] = ()
    answer_lead = ""

    def encode(self, text: str) -> list[int]:
        """One token per UTF-8 byte."""
        return encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids without control tokens."""
        return decode(list(ids))

    def prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Ids up to where the answer begins."""
        return render(messages, add_generation_prompt=True).ids

    def fit(self, messages: Sequence[ChatMessage], space: int) -> FittedPrompt:
        """As `history.fit_prompt`."""
        return fit_prompt(self, messages, space)

    def prompt_text(self, messages: Sequence[ChatMessage]) -> str:
        """The text of `prompt`, with U+2060 inside control tokens that a content spells."""
        return show_ids(self.prompt(messages))

    def raw(self, text: str) -> list[int]:
        """Ids of a text that is a whole prompt: control tokens in it count as such."""
        return encode_controls(text)

    def windows(self, messages: Sequence[ChatMessage], context: int) -> list[MaskedTokens]:
        """`windows`."""
        return windows(messages, context)
