"""A tokenizer's chat template as text: what transformers renders, with contents that cannot write control tokens.

The text is what a program that renders the template itself would tokenize (transformers, llama.cpp, Ollama), except
that `BREAK` stands inside each control token which a message merely spells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, first_line
from engine.core.i18n import _

ROLES = ("system", "user", "assistant", "tool")
PLAIN_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- ('User: ' if message['role'] == 'user' else 'Assistant: ' if message['role'] == 'assistant' else '') }}"
    "{{- message['content'] }}"
    "{{- (eos_token or '') + '\\n' if message['role'] == 'assistant' else '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'Assistant:' }}{%- endif %}"
)
"""Fallback for models without a chat template: role names instead of control tokens.

The generation prompt ends without a blank: a byte-level tokenizer joins the blank to the word after it, in the history
as in an answer, so the blank is part of the answer (`ChatTemplate.answer_lead`).
"""

BREAK = "\udc00"
"""Inside a control token that a content spells: the text is encoded in two parts there.

A lone surrogate, as the other marks are: no content has one, because UTF-8 cannot write it (`TemplateText.safe`).
"""
WORD_JOINER = "\u2060"
"""In the place of `BREAK` where only text can be shown or sent."""
_BEGIN, _END = "\udc01", "\udc02"
_MARK = re.compile(f"{_BEGIN}([0-9]+){_END}")

TODAY = {"Y": "2024", "y": "24", "m": "07", "d": "26", "e": "26", "B": "July", "b": "Jul", "A": "Friday", "a": "Fri",
         "H": "00", "M": "00", "S": "00", "j": "208"}  # fmt: skip
"""The date that every template sees, by the letters of strftime: Friday, 26 July 2024 (Llama 3.2's own default).

A fixed one, so that the same conversation has the same ids in training, validation and chat, today and on the day of a
resume. Ollama and llama.cpp write the day of the question.
"""
FIXED = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""Variables of templates: no reasoning before an answer, and the date above."""
_STRFTIME = (
    "{%- macro strftime_now(format) -%}{{- format"
    + "".join(f" | replace('%{letter}', '{text}')" for letter, text in TODAY.items())
    + " -}}{%- endmacro %}\n"
)
"""Shadows the function of transformers that reads the clock; the line break is eaten by `trim_blocks`."""


class TemplateText:
    """Renders conversations with the template of one tokenizer. Raises BadInput for one that it rejects."""

    def __init__(self, tokenizer: Any) -> None:
        """Raises BadInput for a template that cannot hold one question and one answer."""
        self._tokenizer = tokenizer
        self.is_fallback = not tokenizer.chat_template
        """Whether `PLAIN_TEMPLATE` replaces a missing template."""
        self.template = PLAIN_TEMPLATE if self.is_fallback else _default_template(tokenizer)
        self._rendered_template = (
            _STRFTIME + self.template if "strftime_now" in self.template else self.template
        )
        self._spelled = re.compile("(?!)")
        self._merges_system = self._rejects_system()
        asked = [ChatMessage(role="user", content="b"), ChatMessage(role="assistant", content="c")]
        probe = self.text(asked) + self.text(asked[:1], generation=True)
        self.controls = {
            number: token
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.content.strip()
            and (token.special or token.content in self.template or token.content in probe)
        }
        """Added tokens that structure a text: the special ones, and those that the template writes.

        Others (Gemma's runs of line breaks, HTML tags) are ordinary text.
        """
        self._spelled = _lookahead(token.content for token in self.controls.values())

    def text(self, messages: Sequence[ChatMessage], *, generation: bool = False) -> str:
        """The rendered conversation; with `generation` it ends where the answer begins."""
        turns = [
            {
                "role": message.role if message.role in ROLES else "user",
                "content": _marked(number, self.safe(message.content)),
            }
            for number, message in enumerate(messages)
        ]
        if (
            self._merges_system
            and len(turns) > 1
            and [turn["role"] for turn in turns[:2]] == ["system", "user"]
        ):
            merged = f"{turns[0]['content']}\n\n{turns[1]['content']}"
            turns = [{"role": "user", "content": merged}, *turns[2:]]
        text = self._apply(turns, generation)
        expected = [str(number) for number, message in enumerate(messages) if message.content.strip()]
        if sorted(_MARK.findall(text), key=int) != expected:
            raise BadInput(_("the model's chat template drops or repeats message contents"))
        return _MARK.sub("", text)

    def safe(self, content: str) -> str:
        """A content in which `BREAK` stands in each control token that it spells; lone surrogates become U+FFFD."""
        whole = content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return self._spelled.sub(f"\\g<0>{BREAK}", whole)

    def shown(self, messages: Sequence[ChatMessage]) -> str:
        """The rendered prompt for people and programs: U+2060 stands inside control tokens that a content spells."""
        return self.text(messages, generation=True).replace(BREAK, WORD_JOINER)

    def _rejects_system(self) -> bool:
        """Whether the template has no system turns: their text is then put before the first question."""
        turns = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
        try:
            self._apply(turns, generation=True)
        except BadInput:
            return True
        return False

    def with_tools(self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> str:
        """The prompt of turns, which may call tools and hold their results; contents are taken as they are."""
        return self._apply(turns, generation=turns[-1]["role"] != "assistant", tools=list(tools) or None)

    def _apply(
        self, turns: Sequence[Mapping[str, Any]], generation: bool, tools: list[Any] | None = None
    ) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                list(turns),
                chat_template=self._rendered_template,
                tokenize=False,
                add_generation_prompt=generation,
                tools=tools,
                **FIXED,
            )
        except Exception as problem:  # a template is a program: it may raise anything
            raise BadInput(
                _("the model's chat template rejects a conversation: {reason}").format(
                    reason=first_line(problem).encode("utf-8", "ignore").decode()
                )
            ) from problem
        return text


def _marked(number: int, content: str) -> str:
    """A content with its number in the middle, where no template looks: it may test or trim both ends."""
    inner = content.strip()
    if not inner:
        return content
    middle = content.index(inner) + len(inner) // 2
    return f"{content[:middle]}{_BEGIN}{number}{_END}{content[middle:]}"


def _lookahead(spellings: Iterable[str]) -> re.Pattern[str]:
    """Matches the first character of each spelling, of overlapping ones too."""
    alternatives = "|".join(re.escape(spelling) for spelling in spellings)
    return re.compile(f"(?=(?:{alternatives})).", re.DOTALL) if alternatives else re.compile("(?!)")


def _default_template(tokenizer: Any) -> str:
    try:
        template: str = tokenizer.get_chat_template()
    except ValueError as problem:
        raise BadInput(
            _("the model's chat template rejects a conversation: {reason}").format(reason=first_line(problem))
        ) from problem
    return template
