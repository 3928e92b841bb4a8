"""The chat template of a Hugging Face tokenizer: conversations as token ids with their loss mask.

One rule holds for every template: what stands before an answer in training and in a verdict are the ids that chat sends
for the messages before it (`ChatTemplate.prompt`), and the stop token after the answer is trained. docs/TEMPLATES.md
explains it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.models.answer_windows import UNLIMITED, AnswerTokens, answer_windows
from engine.models.chatml import MaskedTokens
from engine.models.history import FittedPrompt, fit_prompt
from engine.models.template_text import BREAK, TemplateText
from engine.models.template_tokens import TemplateTokens
from engine.models.tool_calls import ToolSyntax, syntax_of

JOINER = "\u2060"
"""Word joiner: not seen, and no part of a control token."""
_BLANKS = " \n "


class ChatTemplate:
    """Renders conversations for one tokenizer. Raises BadInput when its template rejects a conversation."""

    def __init__(self, tokenizer: Any) -> None:
        """Raises BadInput for a template that cannot be trained on."""
        self.tokenizer = tokenizer
        self._text = TemplateText(tokenizer)
        self.is_fallback = self._text.is_fallback
        """Whether a plain template replaces a missing one."""
        self._tokens = TemplateTokens(tokenizer, self._text.controls)
        self._question = [ChatMessage(role="user", content="a")]
        self._prompt_text = self._text.text(self._question, generation=True)
        before, after = self._around("b")
        lead = before[len(self._prompt_text) :] if before.startswith(self._prompt_text) else ""
        if lead.strip():
            raise BadInput(
                _(
                    "the model's chat template writes {text} between its prompt and an answer, which the model would"
                    " have to write itself; such templates are not supported"
                ).format(text=lead.strip())
            )
        self.answer_lead = lead
        """Blanks between the prompt and an answer. The model writes them: they are trained, and cut from its text."""
        spaced = self._around(f"{_BLANKS}b{_BLANKS}")
        self._strips_blanks = not spaced[0].endswith(_BLANKS), not spaced[1].startswith(_BLANKS)
        self._end, self._rest = self._tokens.split_after_control(after)

    @property
    def opening(self) -> tuple[int, ...]:
        """Ids that begin every text of this model: the BOS that its tokenizer adds, or none."""
        return tuple(self._tokens.opening)

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Ids that end an answer: the token that the template puts after one, and the tokenizer's EOS."""
        ids = self.answer(ChatMessage(role="assistant", content="b")).ids[-1:]
        stops = [id_ for id_ in ids if id_ in self._tokens.controls]
        eos = self.tokenizer.eos_token_id
        return frozenset([*stops, *([] if eos is None else [eos])])

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, without a BOS; none of them is a control token."""
        return self._tokens.whole(self._text.safe(text))

    def spelled(self, text: str) -> str:
        """`text` with a word joiner in each control token that it spells, for programs that tokenize whole prompts."""
        for token in self._text.controls.values():
            if len(token.content) > 1:
                text = text.replace(token.content, f"{token.content[0]}{JOINER}{token.content[1:]}")
        return text

    def text(self, messages: Sequence[ChatMessage]) -> str:
        """The prompt as text, as a program renders it that does not look into contents."""
        return self._text.text(messages, generation=True).replace(BREAK, "")

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids without control tokens."""
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Ids up to where the answer begins."""
        return self._tokens.rendered(self._text.text(messages, generation=True))

    @property
    def turn_ids(self) -> tuple[int, ...]:
        """Ids of turns that stand before every conversation; of this template there are none."""
        return ()

    def fit(self, messages: Sequence[ChatMessage], space: int) -> FittedPrompt:
        """The prompt of `messages` in at most `space` tokens, as `history.fit_prompt`."""
        return fit_prompt(self, messages, space)

    def prompt_text(self, messages: Sequence[ChatMessage]) -> str:
        """The text of `prompt`, without a BOS that the tokenizer adds."""
        return self._text.shown(messages)

    @cached_property
    def tool_syntax(self) -> ToolSyntax | None:
        """How the model calls tools; None where its template does not take them, or writes calls in another way."""
        try:
            return syntax_of(self._text.with_tools)
        except BadInput:
            return None

    def tool_prompt(self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> str:
        """The text of a prompt with tools, for `raw`; U+2060 stands inside control tokens that contents spell.

        Each turn has `role` and `content`, and may have `tool_calls` and `name`, as OpenAI's API does.
        """
        return self._text.with_tools(
            [{**turn, "content": self.spelled(str(turn.get("content") or ""))} for turn in turns], tools
        )

    def raw(self, text: str) -> list[int]:
        """Ids of a text that is a whole prompt: control tokens in it count as such, and a BOS is added."""
        return self._tokens.rendered(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))

    def answer(self, message: ChatMessage) -> AnswerTokens:
        """What the model should write after a prompt for this answer."""
        left, right = self._strips_blanks
        text = message.content.lstrip() if left else message.content
        text = self._text.safe(text.rstrip() if right else text)
        # Tokens behind the prompt may join its end or the stop token; where they would, the answer is apart.
        written = self.answer_lead + text + self._end
        prompt = self._tokens.whole(self._prompt_text)
        ids = self._tokens.whole(self._prompt_text + written)
        ids = ids[len(prompt) :] if ids[: len(prompt)] == prompt else self._tokens.continuation(written)
        stops = bool(self._end)
        if not stops and self.tokenizer.eos_token_id is not None:
            # Without an end token the model would never learn to stop.
            ids, stops = [*ids, self.tokenizer.eos_token_id], True
        return AnswerTokens(ids, len(text.replace(BREAK, "").encode()) + stops)

    def render(self, messages: Sequence[ChatMessage]) -> MaskedTokens:
        """A conversation up to its last trained answer in one sequence.

        The loss is on the trained answers, and their stop tokens, that stand behind their own prompts: on all of them,
        or on the last one where a template writes an answer in the history otherwise than behind its prompt.
        """
        windows = self.windows(messages, UNLIMITED)
        if windows:
            last = windows[-1]
            rest = self._tokens.continuation(self._rest)
            return msgspec.structs.replace(
                last, ids=[*last.ids, *rest], loss_mask=[*last.loss_mask, *[False] * len(rest)]
            )
        ids = self._tokens.rendered(self._text.text(messages))
        return MaskedTokens(ids=ids, loss_mask=[False] * len(ids), scored_bytes=0)

    def windows(self, messages: Sequence[ChatMessage], context: int) -> list[MaskedTokens]:
        """`answer_windows.answer_windows`."""
        return answer_windows(self, messages, context)

    def _around(self, answer: str) -> tuple[str, str]:
        """The template's text before and after an answer at the end of a conversation."""
        # A character that no template writes.
        marked = answer.replace("b", "\ue000")
        text = self._text.text([*self._question, ChatMessage(role="assistant", content=marked)])
        before, _mark, after = text.partition("\ue000")
        return before, after
