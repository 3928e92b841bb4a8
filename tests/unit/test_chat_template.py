"""Chat templates of Hugging Face tokenizers as ids with a loss mask."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput
from engine.models.chat_template import ChatTemplate
from tests.hf_models import CHATML, GENERATION, tiny_tokenizer

THINKING = CHATML.replace(
    "{{- '<|im_start|>assistant\\n' }}{%- endif %}",
    "{{- '<|im_start|>assistant\\n' }}{%- if not enable_thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}",
)
NO_SYSTEM = (
    "{%- if messages[0]['role'] == 'system' %}{{- raise_exception('no system turn') }}{%- endif %}" + CHATML
)
STRIPPING = CHATML.replace("message['content']", "message['content'] | trim")
ECHO = CHATML.replace("message['content']", "message['content'] + message['content']")


def turns(*texts: str, system: str = "") -> list[ChatMessage]:
    """User and assistant in turn."""
    head = [ChatMessage(role="system", content=system)] if system else []
    roles = ("user", "assistant")
    return head + [ChatMessage(role=roles[i % 2], content=text) for i, text in enumerate(texts)]


CHAT = ChatTemplate(tiny_tokenizer())


def test_ids_and_mask_match_transformers_own_rendering() -> None:
    tokenizer = tiny_tokenizer(GENERATION)
    talk = turns("What is your name?", "我叫小明。", "Thank you", "You are welcome", system="Be kind.")
    found = ChatTemplate(tokenizer).render(talk)
    theirs: Any = tokenizer.apply_chat_template(
        [{"role": one.role, "content": one.content} for one in talk],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert found.ids == theirs["input_ids"]
    assert found.loss_mask == [bool(flag) for flag in theirs["assistant_masks"]]
    assert found.trained_bytes == len("我叫小明。".encode()) + len("You are welcome") + 2


def test_the_loss_ends_with_the_stop_token() -> None:
    found = CHAT.render(turns("a", "tea"))
    trained = [id_ for id_, on in zip(found.ids, found.loss_mask, strict=True) if on]
    assert CHAT.decode(trained) == "tea"
    assert trained[-1] in CHAT.stop_tokens


def test_masked_turns_stay_as_context() -> None:
    talk = turns("a", "masked", "b", "kept")
    talk[1] = ChatMessage(role="assistant", content="masked", train=False)
    found = CHAT.render(talk)
    trained = [id_ for id_, on in zip(found.ids, found.loss_mask, strict=True) if on]
    assert CHAT.decode(trained) == "kept"
    assert "masked" in CHAT.decode(found.ids)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80) | st.sampled_from(["<|im_end|>", "a<|im_start|>system\nb", "<|endoftext|>x"]))
def test_no_content_becomes_a_control_token(text: str) -> None:
    controls = set(CHAT.tokenizer.all_special_ids)
    assert controls.isdisjoint(CHAT.encode(text))
    found = CHAT.render(turns(text, text))
    assert sum(id_ in controls for id_ in found.ids) == 4
    prompt = CHAT.prompt(turns(text))
    assert sum(id_ in controls for id_ in prompt) == 3
    if "\ufffd" not in text:
        assert CHAT.decode(CHAT.encode(text)) == text


def test_the_prompt_equals_the_training_ids_before_the_answer() -> None:
    whole = CHAT.render(turns("What is tea?", "Water."))
    prompt = CHAT.prompt(turns("What is tea?"))
    assert whole.ids[: len(prompt)] == prompt
    assert not any(whole.loss_mask[: len(prompt)]) and whole.loss_mask[len(prompt)]


def test_reasoning_is_disabled_in_the_template() -> None:
    chat = ChatTemplate(tiny_tokenizer(THINKING))
    assert chat.decode(chat.prompt(turns("tea?"))).endswith("<think>\n\n</think>\n\n")


def test_without_system_turns_the_system_text_joins_the_first_question() -> None:
    chat = ChatTemplate(tiny_tokenizer(NO_SYSTEM))
    found = chat.render(turns("tea?", "Water.", system="Be kind."))
    assert "Be kind.\n\ntea?" in chat.decode(found.ids)
    assert found.trained_bytes == len("Water.") + 1


def test_contents_are_stripped_if_the_template_strips_them() -> None:
    tokenizer = tiny_tokenizer(STRIPPING)
    found = ChatTemplate(tokenizer).render(turns("  tea?  ", "  Water. \n"))
    asked = [{"role": "user", "content": "  tea?  "}, {"role": "assistant", "content": "  Water. \n"}]
    theirs: Any = tokenizer.apply_chat_template(asked, tokenize=True, return_dict=True)
    assert found.ids == theirs["input_ids"]


def test_a_template_that_repeats_contents_is_rejected() -> None:
    with pytest.raises(BadInput, match="drops or repeats"):
        ChatTemplate(tiny_tokenizer(ECHO))


def test_the_fallback_template_ends_answers_with_eos() -> None:
    chat = ChatTemplate(tiny_tokenizer(None))
    found = chat.render(turns("tea?", "Water."))
    assert chat.is_fallback and "User: tea?" in chat.decode(found.ids)
    trained = [id_ for id_, on in zip(found.ids, found.loss_mask, strict=True) if on]
    assert trained[-1] == chat.tokenizer.eos_token_id


def test_windows_of_a_long_conversation_train_each_answer_once() -> None:
    talk = turns(
        *(f"question {i}" if i % 2 == 0 else f"answer number {i}" for i in range(20)), system="Be kind."
    )
    whole = CHAT.render(talk)
    parts = CHAT.windows(talk, 90)
    assert len(parts) > 2 and all(len(part.ids) <= 90 for part in parts)
    assert sum(part.trained_bytes for part in parts) == whole.trained_bytes
    assert all("Be kind." in CHAT.decode(part.ids) for part in parts)
    assert all(part.ids[0] in CHAT.tokenizer.all_special_ids for part in parts)


def test_bytes_beyond_the_window_are_counted() -> None:
    answer = "Boil some water. " * 20
    (part,) = CHAT.windows(turns("tea?", answer), 64)
    assert len(part.ids) == 64
    assert part.truncated_bytes > 0 and part.trained_bytes + part.truncated_bytes == len(answer.encode()) + 1
