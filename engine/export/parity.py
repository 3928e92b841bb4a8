"""Whether llama.cpp does with the file what torch does with its weights: same ids, same next-token logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.core.chat import ChatMessage
from engine.core.errors import RunFailed
from engine.export.cost import ExportTokenizer
from engine.export.llama_cpp import LlamaCpp
from engine.export.report import Parity
from engine.validation.validate import shipped_texts

CONVERSATIONS = 20
POSITIONS = 6
"""Places in which the logits of the whole vocabulary are compared."""
LONGEST = 640
"""Tokens before a place."""
_ODD = (
    ("naïve café — “quotes”, 1234567890 + tabs\tand\n\nlines?", "Yes:  two  blanks, 3.14 and e\u0301."),
    ("表情😀👩‍👩‍👧和全角　空格，还有①②③。", "好的，①是一。"),
    ("def f(x):\n    return x**2  # 平方", "```python\nprint(f(3))\n```"),
    ("What's the don't / I'LL / he'd rule?", "They're contractions."),
)


@dataclass(frozen=True)
class TorchReference:
    """What torch does with the weights of the file; kept so that they may go before llama.cpp loads its own."""

    conversations: list[list[ChatMessage]]
    prompts: list[list[int]]
    places: list[list[int]]
    """Beginnings of prompts."""
    log_probabilities: list[Tensor]
    """Of every token after each of them, `(vocab,)`."""


def torch_reference(
    model: Any, speaker: ExportTokenizer, step: Callable[[], None] | None = None
) -> TorchReference:
    """Raises BadInput where the chat template refuses a conversation."""
    asked = conversations()
    prompts = [speaker.chat.prompt(messages) for messages in asked]
    places = _places(prompts, min(LONGEST, model.config.max_position_embeddings - 2))
    found = []
    for ids in places:
        found.append(_log_probabilities(model, ids))
        if step is not None:
            step()
    return TorchReference(asked, prompts, places, found)


def measure_parity(
    gguf: Path,
    expected: TorchReference,
    *,
    adapter: Path | None = None,
    step: Callable[[], None] | None = None,
) -> Parity:
    """Asks llama.cpp with the file. Raises BadInput when it refuses the file, RunFailed when it fails."""
    same, worst, best = 0, 0.0, 0
    with LlamaCpp(gguf, adapter=adapter, context=2 * LONGEST) as served:
        for messages, prompt in zip(expected.conversations, expected.prompts, strict=True):
            plain = [{"role": message.role, "content": message.content} for message in messages]
            # A template that llama.cpp cannot render is replaced by one of its own: those ids are others.
            with suppress(RunFailed):
                same += served.tokenize(served.template(plain)) == prompt
            if step is not None:
                step()
        whole = served.tokenize("a")[0]
        for ids, ours in zip(expected.places, expected.log_probabilities, strict=True):
            found = torch.tensor(served.log_probabilities(ids, len(ours), whole=whole))
            worst = max(worst, float((found - ours).abs().max()))
            best += int(found.argmax() == ours.argmax())
            if step is not None:
                step()
    return Parity(
        conversations=len(expected.prompts),
        same_ids=same,
        positions=len(expected.places),
        max_logit_difference=worst,
        same_best=best,
    )


def conversations() -> list[list[ChatMessage]]:
    """Twenty conversations in Chinese and English: from the shipped general text, and odd ones."""
    pairs = list(_ODD)
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


@torch.inference_mode()
def _log_probabilities(model: Any, ids: Sequence[int]) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([list(ids)]), use_cache=False, logits_to_keep=1).logits[0, -1]
    found: torch.Tensor = logits.float().log_softmax(dim=-1)
    return found


def _places(prompts: Sequence[list[int]], longest: int) -> list[list[int]]:
    """Beginnings of conversations, of different lengths."""
    chosen = [prompts[number * len(prompts) // POSITIONS] for number in range(POSITIONS)]
    return [
        ids[: max(1, min(longest, len(ids) * (number + 1) // POSITIONS))] for number, ids in enumerate(chosen)
    ]
