"""The chat template of a Hugging Face tokenizer: conversations as token ids with their loss mask.

The template is rendered with placeholders. Its own text is encoded with control tokens, message contents separately
by a tokenizer without control tokens, so no text of a user or a file can end a turn.
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
"""Fallback for models without a chat template: role names instead of control tokens."""

_PLACEHOLDER = re.compile("\ue000([0-9]+)\ue001")
_ANCHOR = "\n"
_SURROUND = "\n \ue0000\ue001 \n"
_FIXED = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""Fixed values for template variables: no reasoning, and no clock, so that ids are reproducible."""


@dataclass(frozen=True)
class _Skeleton:
    """The text of a rendered template around the contents: `gaps[i]` precedes content i, the last one follows all."""

    gaps: list[str]


class ChatTemplate:
    """Renders conversations for one tokenizer. Raises BadInput when its template rejects a conversation."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.is_fallback = not tokenizer.chat_template
        """Whether `PLAIN_TEMPLATE` replaces a missing template."""
        self.template: str | None = PLAIN_TEMPLATE if self.is_fallback else None
        self._encode_plain = _without_added_tokens(tokenizer)
        self._adds_prefix = self._first_token("a") != "a"
        self._controls = frozenset(tokenizer.added_tokens_decoder) | frozenset(tokenizer.all_special_ids)
        self._specials = frozenset(tokenizer.all_special_ids) | {
            number for number, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._gaps: dict[str, list[int]] = {}
        around = self._skeleton([{"role": "user", "content": _SURROUND}], contents=1)
        self._strips_blanks = not around.gaps[0].endswith("\n "), not around.gaps[1].startswith(" \n")

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; none of them is a control or added token."""
        ids = self._encode_content(text)
        if not self._controls.isdisjoint(ids):
            # A vocabulary may contain the spelling of a control token as an ordinary token.
            ids = [token for piece in re.split(r"(?<=[<\[|])", text) for token in self._encode_content(piece)]
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
        """Ids that end an answer: the control token that the template puts after one, and the tokenizer's EOS."""
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
        """A conversation; the loss is on trained answers and their end token."""
        return _join(self._turns(messages))

    def windows(self, messages: Sequence[ChatMessage], context: int) -> list[MaskedTokens]:
        """As `chatml.windows`: at most `context` tokens each, cut at turn boundaries, each answer trained once."""
        turns = self._turns(messages)
        trained = [any(turn.loss_mask) for turn in turns]
        if not any(trained):
            return []
        if sum(len(turn.ids) for turn in turns) <= context:
            return [_join(turns)]
        prologue = self._prologue(messages)
        opening: list[MaskedTokens] = []
        if prologue:
            opening = [_masked(prologue)] if len(prologue) <= context // 4 else []
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
        parts = cut_at_turns(turns, trained, skip, room, self._shortener(messages, turns))
        return [self._truncated(_join([*opening, *part]), context) for part in parts]

    def _shortener(self, messages: Sequence[ChatMessage], turns: Sequence[MaskedTokens]) -> Any:
        """A function that shortens a turn to its role line and the end of its content, masked."""
        heads = {
            id(turn): max(0, len(turn.ids) - len(self.encode(message.content)) - 2)
            for turn, message in zip(turns, messages, strict=True)
        }

        def shorten(turn: MaskedTokens, length: int) -> MaskedTokens:
            head = heads.get(id(turn), 0)
            keep = max(length - head, 2)
            return _masked([*turn.ids[:head], *turn.ids[max(head, len(turn.ids) - keep) :]])

        return shorten

    def _truncated(self, window: MaskedTokens, context: int) -> MaskedTokens:
        """The first `context` tokens of a window; of a cut answer only the bytes that remain count as trained."""
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
        """Ids that the template puts before the first turn when there is no system turn."""
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
        """The ids of each message; joined, they are the rendered conversation."""
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
            trained = message.role == "assistant" and message.train
            tail, stop = tails[index], stops[index]
            if message.role == "assistant" and stop == 0 and self.tokenizer.eos_token_id is not None:
                # Without an end token the model would never learn to stop.
                tail, stop = [self.tokenizer.eos_token_id, *tail], 1
            rest = heads[-1] if index == len(messages) - 1 else []
            ids = [*heads[index], *content, *tail, *rest]
            mask = [False] * len(heads[index]) + [trained] * (len(content) + stop)
            mask += [False] * (len(ids) - len(mask))
            size = len(contents[index].encode("utf-8", "replace")) + (1 if stop else 0)
            turns.append(MaskedTokens(ids=ids, loss_mask=mask, scored_bytes=size if trained else 0))
        return turns

    def _split(self, gap: list[int]) -> tuple[list[int], list[int], int]:
        """(ids that end the previous turn, ids that begin the next, number of the former up to the stop token)."""
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
        """The contents as the template keeps them (stripped or not), and its text around them."""
        left, right = self._strips_blanks
        contents = []
        for message in messages:
            text = message.content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            text = text.lstrip() if left else text
            contents.append(text.rstrip() if right else text)
        turns = [
            {"role": message.role if message.role in ROLES else "user", "content": f"\ue000{number}\ue001"}
            for number, message in enumerate(messages)
        ]
        return contents, self._skeleton(turns, contents=len(turns), generation=generation)

    def _skeleton(self, turns: list[dict[str, str]], *, contents: int, generation: bool = False) -> _Skeleton:
        import jinja2

        try:
            text = self.tokenizer.apply_chat_template(
                turns,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=generation,
                **_FIXED,
            )
        except (jinja2.TemplateError, ValueError, TypeError, KeyError) as problem:
            if len(turns) > 1 and turns[0]["role"] == "system" and turns[1]["role"] == "user":
                # A template without system turns gets the system text at the start of the first question.
                merged = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
                return self._skeleton([merged, *turns[2:]], contents=contents, generation=generation)
            raise BadInput(
                _("the model's chat template rejects a conversation: {reason}").format(
                    reason=first_line(problem)
                )
            ) from problem
        parts = _PLACEHOLDER.split(text)
        if parts[1::2] != [str(number) for number in range(contents)]:
            raise BadInput(_("the model's chat template drops or repeats message contents"))
        return _Skeleton(parts[0::2])

    def _gap(self, text: str, *, first: bool = False) -> list[int]:
        """Ids of the template's own text, control tokens included."""
        if (ids := self._gaps.get(text)) is None:
            anchored = self._adds_prefix and not first
            encoded = self.tokenizer((_ANCHOR if anchored else "") + text, add_special_tokens=False)[
                "input_ids"
            ]
            ids = self._gaps[text] = self._unanchored(list(encoded)) if anchored else list(encoded)
        return list(ids)

    def _encode_content(self, text: str) -> list[int]:
        if not text:
            return []
        ids: list[int] = self._encode_plain(_ANCHOR + text) if self._adds_prefix else self._encode_plain(text)
        return self._unanchored(ids) if self._adds_prefix else ids

    def _unanchored(self, ids: list[int]) -> list[int]:
        """Without the anchor: a line break in front keeps a tokenizer that prefixes texts from prefixing this one."""
        anchor = self._encode_plain(_ANCHOR)
        return ids[len(anchor) :] if ids[: len(anchor)] == anchor else ids

    def _first_token(self, text: str) -> str:
        ids = self._encode_plain(text)
        return str(self.tokenizer.convert_ids_to_tokens(ids[:1])[0]) if ids else text


def _without_added_tokens(tokenizer: Any) -> Any:
    """An encoder that knows only the ordinary vocabulary."""
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
    encoder = Tokenizer.from_str(json.dumps(plain))
    return lambda text: list(encoder.encode(text, add_special_tokens=False).ids)


def _masked(ids: list[int]) -> MaskedTokens:
    return MaskedTokens(ids=ids, loss_mask=[False] * len(ids), scored_bytes=0)


def _join(turns: Sequence[MaskedTokens]) -> MaskedTokens:
    return MaskedTokens(
        ids=[token for turn in turns for token in turn.ids],
        loss_mask=[flag for turn in turns for flag in turn.loss_mask],
        scored_bytes=sum(turn.trained_bytes for turn in turns),
    )
