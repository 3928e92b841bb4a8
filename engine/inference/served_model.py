"""What a model that is served by another program than torch adds to `LanguageModel`, so that the two can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from engine.core.chat import ChatMessage


@runtime_checkable
class ServedModel(Protocol):
    """The serving program's own reading of the model. Every method raises ServiceUnreachable when it ends."""

    def prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Ids that this program sends for `messages`."""
        ...

    def served_prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Ids that the serving program makes of `messages` with the chat template and tokenizer in the file."""
        ...

    def same_text(self, messages: Sequence[ChatMessage]) -> bool:
        """Whether the serving program renders the same text; where it does and ids differ, its tokenizer is another."""
        ...

    def served_log_probs(self, prefix: Sequence[int], most: int) -> dict[int, float]:
        """Log-probabilities after `prefix` of the `most` likeliest tokens, by id."""
        ...

    def stop_token_ends(self) -> bool:
        """Whether the token that ends an answer here also ends one there."""
        ...

    @property
    def quantized(self) -> bool:
        """Whether the serving program computes with quantized weights."""
        ...
