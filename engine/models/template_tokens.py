"""Token ids of rendered templates and of plain texts, as the model's own tokenizer gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from engine.models.template_text import BREAK

_CACHED = 512
"""Segments whose ids are kept: the turns of a conversation, which each of its prompts repeats."""
_ANCHOR = "\n"
"""Put before a text in the middle of another, so that SentencePiece does not begin it with a blank."""


class TemplateTokens:
    """Encodes texts in which `BREAK` stands inside each control token that is not meant as one."""

    def __init__(self, tokenizer: Any, controls: Mapping[int, Any]) -> None:
        """`controls` are the added tokens that structure a text, by id."""
        self._tokenizer = tokenizer
        self.controls = frozenset(controls) | frozenset(tokenizer.all_special_ids)
        self._anchor = self._encode(_ANCHOR)
        cuts = [
            token.content
            for token in controls.values()
            # Text around the others takes part in matching them.
            if not (token.lstrip or token.normalized or token.single_word)
        ]
        # One look ahead: a pattern of several is tried one by one at every character.
        self._cut = re.compile(f"(?={'|'.join(map(re.escape, cuts))})" if cuts else "(?!)")
        longest_first = sorted((token.content for token in controls.values()), key=len, reverse=True)
        self._control = re.compile("|".join(re.escape(text) for text in longest_first) or "(?!)")
        self._segment = lru_cache(_CACHED)(self._encode_segment)
        self.opening = _opening(tokenizer)
        """Ids that the tokenizer itself puts before a text: its BOS, or none."""

    def rendered(self, text: str) -> list[int]:
        """Ids of a rendered template, which begin with the tokenizer's BOS, once."""
        ids = self.whole(text)
        return ids if ids[: len(self.opening)] == self.opening else [*self.opening, *ids]

    def whole(self, text: str) -> list[int]:
        """Ids of a text without a BOS of the tokenizer. Equal to those of the tokenizer where no `BREAK` is."""
        # A tokenizer splits a text at added tokens first, so what lies between two has ids of its own.
        return [id_ for segment in self._cut.split(text) if segment for id_ in self._segment(segment)]

    def split_after_control(self, text: str) -> tuple[str, str]:
        """(text up to the end of its first control token, the rest); ("", text) without one."""
        found = self._control.search(text)
        return (text[: found.end()], text[found.end() :]) if found else ("", text)

    def continuation(self, text: str) -> list[int]:
        """Ids of a text that continues another one."""
        return [id_ for part in text.split(BREAK) if part for id_ in self._anchored(part)]

    def _encode_segment(self, segment: str) -> tuple[int, ...]:
        first, *others = segment.split(BREAK)
        return (*self._encode(first), *(id_ for part in others if part for id_ in self._anchored(part)))

    def _anchored(self, text: str) -> list[int]:
        ids = self._encode(_ANCHOR + text)
        length = len(self._anchor)
        return ids[length:] if ids[:length] == self._anchor else self._encode(text)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def _opening(tokenizer: Any) -> list[int]:
    bare, full = (list(tokenizer("a", add_special_tokens=special)["input_ids"]) for special in (False, True))
    before = next((full[:at] for at in range(len(full)) if full[at : at + len(bare)] == bare), [])
    bos = tokenizer.bos_token_id
    if not before and bos is not None and getattr(tokenizer, "add_bos_token", False) is True:
        return [bos]
    return before
