"""The chat template of any Hugging Face tokenizer as token ids with their loss mask.

The template is rendered with placeholders: its own text becomes ids with control tokens, contents are encoded
apart by a tokenizer that knows no control token, so nothing that a person or a file says can end a turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, first_line
from engine.core.i18n import _
from engine.models.chatml import MaskedTokens, cut_at_turns

ROLES = ("system", "user", "assistant", "tool")
PLAIN_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- ('User: ' if message['role'] == 'user' else 'Assistant: ' if message['role'] == 'assistant' else '') }}"
    "{{- message['content'] }}"
    "{{- (eos_token or '') + '\\n' if message['role'] == 'assistant' else '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'Assistant:' }}{%- endif %}"
)
"""For models that have no chat template: words instead of control tokens."""

_PLACE = re.compile("\ue000([0-9]+)\ue001")
_ANCHOR = "\n"
_SURROUND = "\n \ue0000\ue001 \n"
_FIXED = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""What templates may ask for beside the messages: no thinking aloud, and no clock, so that ids stay equal."""


@dataclass(frozen=True)
class _Skeleton:
    """A rendered template: `gaps[i]` stands before content i, the last one after all."""

    gaps: list[str]


class ChatTemplate:
    """Renders conversations for one tokenizer. Raises BadInput where its template refuses a conversation."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.own_template = not tokenizer.chat_template
        """The model had no template, so a plain one of ours stands in."""
        self.template: str | None = PLAIN_TEMPLATE if self.own_template else None
        self._words = _without_added_tokens(tokenizer)
        self._prepends = self._first("a") != "a"
        self._controls = frozenset(tokenizer.added_tokens_decoder) | frozenset(tokenizer.all_special_ids)
        self._specials = frozenset(tokenizer.all_special_ids) | {
            number for number, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._gaps: dict[str, list[int]] = {}
        around = self._skeleton([{"role": "user", "content": _SURROUND}], contents=1)
        self._strips = not around.gaps[0].endswith("\n "), not around.gaps[1].startswith(" \n")

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; none of them is a control or added token."""
        ids = self._encode_words(text)
        if not self._controls.isdisjoint(ids):
            # A vocabulary may hold the spelling of a control token as a word of its own.
            ids = [token for piece in re.split(r"(?<=[<\[|])", text) for token in self._encode_words(piece)]
            ids = [token for token in ids if token not in self._controls]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids without control tokens."""
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Ids that end an answer: what the template puts behind one, and the tokenizer's end of text."""
        turns = self._turns(
            [ChatMessage(role="user", content="a"), ChatMessage(role="assistant", content="b")]
        )
        last = next(
            (
                id_
                for id_, on in zip(turns[-1].ids, turns[-1].loss_mask, strict=True)
                if on and id_ in self._specials
            ),
            None,
        )
        eos = self.tokenizer.eos_token_id
        return frozenset(id_ for id_ in (last, eos) if id_ is not None)

    def prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Ids up to where the answer begins."""
        contents, skeleton = self._rendered(messages, generation=True)
        ids = self._gap(skeleton.gaps[0], first=True)
        for content, gap in zip(contents, skeleton.gaps[1:], strict=True):
            ids = [*ids, *self.encode(content), *self._gap(gap)]
        return ids

    def render(self, messages: Sequence[ChatMessage]) -> MaskedTokens:
        """A whole conversation with the loss on trained answers and what ends them."""
        return _join(self._turns(messages))

    def windows(self, messages: Sequence[ChatMessage], context: int) -> list[MaskedTokens]:
        """As `template.windows`: at most `context` tokens each, cut at turn bounds, each answer trained once.

        A conversation without a trained turn gives no window.
        """
        turns = self._turns(messages)
        learns = [any(turn.loss_mask) for turn in turns]
        if not any(learns):
            return []
        if sum(len(turn.ids) for turn in turns) <= context:
            return [_join(turns)]
        prologue = self._prologue(messages)
        opening: list[MaskedTokens] = []
        if prologue:
            opening = [_silent(prologue)] if len(prologue) <= context // 4 else []
            first = turns[0]
            turns[0] = MaskedTokens(
                ids=first.ids[len(prologue) :],
                loss_mask=first.loss_mask[len(prologue) :],
                scored_bytes=first.scored_bytes,
            )
        skip = 0
        if messages[0].role == "system" and len(turns[0].ids) <= context // 4:
            opening, skip = [*opening, turns[0]], 1
        room = context - sum(len(turn.ids) for turn in opening)
        parts = cut_at_turns(turns, learns, skip, room, self._shorter(messages, turns))
        return [self._cut(_join([*opening, *part]), context) for part in parts]

    def _shorter(self, messages: Sequence[ChatMessage], turns: Sequence[MaskedTokens]) -> Any:
        """Shortens a turn to its role line and the end of its content."""
        heads = {
            id(turn): max(0, len(turn.ids) - len(self.encode(message.content)) - 2)
            for turn, message in zip(turns, messages, strict=True)
        }

        def shorten(turn: MaskedTokens, length: int) -> MaskedTokens:
            head = heads.get(id(turn), 0)
            keep = max(length - head, 2)
            return _silent([*turn.ids[:head], *turn.ids[max(head, len(turn.ids) - keep) :]])

        return shorten

    def _cut(self, window: MaskedTokens, context: int) -> MaskedTokens:
        """A window that is too long loses its end; what is left of an answer counts the bytes that it shows."""
        if len(window.ids) <= context:
            return window
        kept = [id_ for id_, on in zip(window.ids[:context], window.loss_mask[:context], strict=True) if on]
        scored = len(self.decode(kept).encode("utf-8", "replace"))
        scored += sum(id_ in self._specials for id_ in kept)
        scored = min(scored, window.trained_bytes)
        return MaskedTokens(
            ids=window.ids[:context],
            loss_mask=window.loss_mask[:context],
            truncated_bytes=window.trained_bytes - scored,
            scored_bytes=scored,
        )

    def _prologue(self, messages: Sequence[ChatMessage]) -> list[int]:
        """What the template says before the first turn of a conversation without a system turn."""
        if messages[0].role != "user":
            return []
        talk = [ChatMessage(role=role, content="a") for role in ("user", "assistant", "user", "assistant")]
        try:
            first, _second, third, _last = self._turns(talk)
        except BadInput:
            return []
        more = len(first.ids) - len(third.ids)
        return first.ids[:more] if more > 0 and first.ids[more:] == third.ids else []

    def _turns(self, messages: Sequence[ChatMessage]) -> list[MaskedTokens]:
        """One piece for each message; together they are the rendered conversation."""
        contents, skeleton = self._rendered(messages)
        heads = [self._gap(skeleton.gaps[0], first=True)]
        tails: list[list[int]] = []
        stops: list[int] = []
        for gap in skeleton.gaps[1:]:
            tail, head, stop = self._split(self._gap(gap))
            tails.append(tail)
            heads.append(head)
            stops.append(stop)
        turns = []
        for index, message in enumerate(messages):
            content = self.encode(contents[index])
            learn = message.role == "assistant" and message.train
            tail, stop = tails[index], stops[index]
            if message.role == "assistant" and stop == 0 and self.tokenizer.eos_token_id is not None:
                # Without an end behind the answer the model would learn to go on for ever.
                tail, stop = [self.tokenizer.eos_token_id, *tail], 1
            rest = heads[-1] if index == len(messages) - 1 else []
            ids = [*heads[index], *content, *tail, *rest]
            train = [False] * len(heads[index]) + [learn] * (len(content) + stop)
            train += [False] * (len(ids) - len(train))
            size = len(contents[index].encode("utf-8", "replace")) + (1 if stop else 0)
            turns.append(MaskedTokens(ids=ids, loss_mask=train, scored_bytes=size if learn else 0))
        return turns

    def _split(self, gap: list[int]) -> tuple[list[int], list[int], int]:
        """(what ends the turn before, what begins the next one, how much of the former is the stop)."""
        at = next((place for place, id_ in enumerate(gap) if id_ in self._specials), None)
        if at is None:
            return [], gap, 0
        end = at + 1
        while (
            end < len(gap)
            and gap[end] not in self._controls
            and not self.tokenizer.decode([gap[end]]).strip()
        ):
            end += 1
        return gap[:end], gap[end:], at + 1

    def _rendered(
        self, messages: Sequence[ChatMessage], *, generation: bool = False
    ) -> tuple[list[str], _Skeleton]:
        """The contents as the template keeps them, and its own text around them."""
        left, right = self._strips
        contents = []
        for message in messages:
            text = message.content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            text = text.lstrip() if left else text
            contents.append(text.rstrip() if right else text)
        asked = [
            {"role": message.role if message.role in ROLES else "user", "content": f"\ue000{number}\ue001"}
            for number, message in enumerate(messages)
        ]
        return contents, self._skeleton(asked, contents=len(asked), generation=generation)

    def _skeleton(self, asked: list[dict[str, str]], *, contents: int, generation: bool = False) -> _Skeleton:
        import jinja2

        try:
            text = self.tokenizer.apply_chat_template(
                asked,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=generation,
                **_FIXED,
            )
        except (jinja2.TemplateError, ValueError, TypeError, KeyError) as problem:
            if len(asked) > 1 and asked[0]["role"] == "system" and asked[1]["role"] == "user":
                # Templates without a system turn take its words at the head of the first question.
                merged = {"role": "user", "content": f"{asked[0]['content']}\n\n{asked[1]['content']}"}
                return self._skeleton([merged, *asked[2:]], contents=contents, generation=generation)
            raise BadInput(
                _("the model's chat template rejects a conversation: {reason}").format(
                    reason=first_line(problem)
                )
            ) from problem
        parts = _PLACE.split(text)
        if parts[1::2] != [str(number) for number in range(contents)]:
            raise BadInput(_("the model's chat template drops or repeats message contents"))
        return _Skeleton(parts[0::2])

    def _gap(self, text: str, *, first: bool = False) -> list[int]:
        """Ids of the template's own text, control tokens among them."""
        if (found := self._gaps.get(text)) is None:
            anchored = self._prepends and not first
            whole = self.tokenizer((_ANCHOR if anchored else "") + text, add_special_tokens=False)[
                "input_ids"
            ]
            found = self._gaps[text] = self._unanchored(list(whole)) if anchored else list(whole)
        return list(found)

    def _encode_words(self, text: str) -> list[int]:
        if not text:
            return []
        ids: list[int] = self._words(_ANCHOR + text) if self._prepends else self._words(text)
        return self._unanchored(ids) if self._prepends else ids

    def _unanchored(self, ids: list[int]) -> list[int]:
        """Without the line break that was put before: a tokenizer that begins every text with a blank puts it there."""
        anchor = self._words(_ANCHOR)
        return ids[len(anchor) :] if ids[: len(anchor)] == anchor else ids

    def _first(self, text: str) -> str:
        ids = self._words(text)
        return str(self.tokenizer.convert_ids_to_tokens(ids[:1])[0]) if ids else text


def _without_added_tokens(tokenizer: Any) -> Any:
    """A function from text to ids that knows the words of the vocabulary alone."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return lambda text: list(
            tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        )
    from tokenizers import Tokenizer

    plain = json.loads(backend.to_str())
    plain["added_tokens"] = []
    plain["post_processor"] = None
    plain["truncation"] = plain["padding"] = None
    words = Tokenizer.from_str(json.dumps(plain))
    return lambda text: list(words.encode(text, add_special_tokens=False).ids)


def _silent(ids: list[int]) -> MaskedTokens:
    return MaskedTokens(ids=ids, loss_mask=[False] * len(ids), scored_bytes=0)


def _join(turns: Sequence[MaskedTokens]) -> MaskedTokens:
    return MaskedTokens(
        ids=[token for turn in turns for token in turn.ids],
        loss_mask=[flag for turn in turns for flag in turn.loss_mask],
        scored_bytes=sum(turn.trained_bytes for turn in turns),
    )
