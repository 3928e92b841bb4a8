"""A prompt as ids for one generation: rendered, and shortened where it does not fit and may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from engine.core.chat import ChatMessage
from engine.inference.language_model import Prompt, RenderedPrompt, Sampling, require_question, too_long
from engine.models.chat_template import ChatTemplate
from engine.models.history import FittedPrompt

_ALL = 1 << 40
"""Tokens that hold every conversation."""


class PromptRenderer(Protocol):
    """The part of a chat template that prompts need."""

    def fit(self, messages: Sequence[ChatMessage], space: int) -> FittedPrompt: ...

    def raw(self, text: str) -> list[int]: ...

    def prompt_text(self, messages: Sequence[ChatMessage]) -> str: ...


def fitted(
    chat: PromptRenderer, messages: Prompt, sampling: Sampling, context: int, answer_tokens: int
) -> FittedPrompt:
    """The prompt of a generation in a model of `context` tokens.

    It leaves room for `answer_tokens`, at most half of the context. Without `sampling.truncate` it is whole and leaves
    room for one token. Raises BadInput when it does not fit, for an empty conversation and for one that the template rejects.
    """
    require_question(messages)
    room = sampling.room(context)
    space = room - min(answer_tokens, room // 2) if sampling.truncate else room - 1
    if isinstance(messages, str):
        prompt = FittedPrompt([], chat.raw(messages), 0)
    else:
        prompt = chat.fit(messages, space if sampling.truncate else _ALL)
    if len(prompt.ids) <= space:
        return prompt
    if not sampling.truncate:
        raise too_long(len(prompt.ids), room)
    # The end of a text says more about what follows it.
    return FittedPrompt(prompt.messages, prompt.ids[len(prompt.ids) - space :], prompt.dropped)


def with_tools(
    chat: PromptRenderer, turns: Sequence[Mapping[str, Any]], tools: Sequence[Any], context: int
) -> RenderedPrompt:
    """As `ToolModel.tool_prompt`. Raises BadInput for turns that the template rejects."""
    if not isinstance(chat, ChatTemplate) or (syntax := chat.tool_syntax) is None:
        return RenderedPrompt(text="", tokens=0)
    text = chat.tool_prompt(turns, tools)
    return RenderedPrompt(text=text, tokens=len(chat.raw(text)), context=context, tool_syntax=syntax)


def rendered(
    chat: PromptRenderer, messages: Prompt, prompt: FittedPrompt, sampling: Sampling, context: int
) -> RenderedPrompt:
    """A fitted prompt as text."""
    return RenderedPrompt(
        text=messages if isinstance(messages, str) else chat.prompt_text(prompt.messages),
        tokens=len(prompt.ids),
        dropped_turns=prompt.dropped,
        context=sampling.room(context),
    )
