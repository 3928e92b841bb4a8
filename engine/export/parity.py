"""Parity of a GGUF file in llama.cpp with its weights as we read them: same token ids, same next-token logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.core.chat import ChatMessage
from engine.core.errors import RunFailed
from engine.export.cost import ExportTokenizer
from engine.export.llama_cpp import LlamaCpp
from engine.export.report import Parity
from engine.inference.language_model import LanguageModel
from engine.validation.validate import shipped_texts

CONVERSATIONS = 20
POSITIONS = 6
"""Number of prefixes whose next-token logits are compared over the whole vocabulary."""
MAX_PREFIX = 640
"""Maximum tokens of a prefix."""
_EDGE_CASES = (
    ("naïve café — “quotes”, 1234567890 + tabs\tand\n\nlines?", "Yes:  two  blanks, 3.14 and e\u0301."),
    ("表情😀👩‍👩‍👧和全角　空格，还有①②③。", "好的，①是一。"),
    ("def f(x):\n    return x**2  # 平方", "```python\nprint(f(3))\n```"),
    ("What's the don't / I'LL / he'd rule?", "They're contractions."),
)


@dataclass(frozen=True)
class ParityReference:
    """What a model says, kept so that its weights can be freed before llama.cpp loads the file."""

    conversations: list[list[ChatMessage]]
    prompts: list[list[int]]
    prefixes: list[list[int]]
    """Beginnings of prompts."""
    log_probabilities: list[Tensor]
    """Of the next token after each prefix, `(vocab,)`."""


def parity_reference(
    model: LanguageModel, tokenizer: ExportTokenizer, step: Callable[[], None] | None = None
) -> ParityReference:
    """Evaluates the model. Raises BadInput where the chat template rejects a conversation."""
    chats = conversations()
    prompts = [tokenizer.chat.prompt(messages) for messages in chats]
    prefixes = _prefixes(prompts, min(MAX_PREFIX, model.context - 2))
    results = []
    for ids in prefixes:
        results.append(torch.tensor(model.next_token_log_probs(ids)))
        if step is not None:
            step()
    return ParityReference(chats, prompts, prefixes, results)


def measure_parity(
    gguf: Path,
    reference: ParityReference,
    *,
    adapter: Path | None = None,
    step: Callable[[], None] | None = None,
) -> Parity:
    """Evaluates the file in llama.cpp. Raises BadInput when llama.cpp rejects it, RunFailed when that fails."""
    same, worst, best = 0, 0.0, 0
    with LlamaCpp(gguf, adapter=adapter, context=2 * MAX_PREFIX) as llama:
        for messages, prompt in zip(reference.conversations, reference.prompts, strict=True):
            plain = [{"role": message.role, "content": message.content} for message in messages]
            # llama.cpp replaces a template that it cannot render by its own: other ids.
            with suppress(RunFailed):
                same += llama.tokenize(llama.template(plain), bos=True) == prompt
            if step is not None:
                step()
        single = llama.tokenize("a")[0]
        for ids, expected in zip(reference.prefixes, reference.log_probabilities, strict=True):
            actual = torch.tensor(llama.log_probabilities(ids, len(expected), single=single))
            worst = max(worst, float((actual - expected).abs().max()))
            best += int(actual.argmax() == expected.argmax())
            if step is not None:
                step()
    return Parity(
        conversations=len(reference.prompts),
        same_ids=same,
        positions=len(reference.prefixes),
        max_logit_difference=worst,
        same_best=best,
    )


def conversations() -> list[list[ChatMessage]]:
    """Twenty conversations in Chinese and English: edge cases and excerpts of the shipped general texts."""
    pairs = list(_EDGE_CASES)
    texts = {name: data.decode("utf-8", "ignore") for name, data in shipped_texts().items()}
    each = -(-(CONVERSATIONS - len(pairs)) // max(1, len(texts)))
    for text in texts.values():
        pieces = [text[start : start + 60].strip() for start in range(0, 2 * each * 300, 300)]
        pairs += list(zip(pieces[0::2], pieces[1::2], strict=True))
    return [
        [
            ChatMessage(role="user", content=question),
            ChatMessage(role="assistant", content=answer),
            ChatMessage(role="user", content=question[: len(question) // 2 + 1].strip() or question),
        ]
        for question, answer in pairs[:CONVERSATIONS]
    ]


def _prefixes(prompts: Sequence[list[int]], longest: int) -> list[list[int]]:
    """Beginnings of prompts, of different lengths."""
    chosen = [prompts[number * len(prompts) // POSITIONS] for number in range(POSITIONS)]
    return [
        ids[: max(1, min(longest, len(ids) * (number + 1) // POSITIONS))] for number, ids in enumerate(chosen)
    ]
