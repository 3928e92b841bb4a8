"""A Hugging Face model, with or without an adapter, that answers token by token with a key-value cache."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.core.chat import ChatMessage
from engine.core.errors import RunFailed
from engine.core.i18n import _
from engine.inference.protocol import Finish, Generated, Sampling, Scored, whole
from engine.inference.sampling import StopStrings
from engine.models.adapters import attach_adapter
from engine.models.base_models import BaseModel, adapter_card
from engine.models.chat_template import ChatTemplate
from engine.models.hf import base_format, load_base_as, load_chat_template
from engine.models.losses import has_linear_head, token_losses

LONGEST = 4096
"""Tokens of prompt and answer together at most: the cache grows with them."""


class HFModel:
    """Blocking, for one caller at a time."""

    def __init__(self, model: Any, chat: ChatTemplate, context: int) -> None:
        self.model = model.eval()
        self.chat = chat
        self.context = min(context, LONGEST)
        self._stops = chat.stop_tokens | _ends(model)
        self._head_apart = has_linear_head(_inner(model))

    @classmethod
    def load(cls, base: BaseModel) -> HFModel:
        """The base, with its adapter where it has one. Raises BadInput."""
        card = adapter_card(base.adapter) if base.adapter is not None else None
        model = load_base_as(base, base_format(base, card))
        if base.adapter is not None:
            model = attach_adapter(model, base.adapter)
        return cls(model, load_chat_template(base), base.dimensions.context)

    @property
    def memory_mb(self) -> float:
        return float(sum(p.numel() * p.element_size() for p in self.model.parameters()) / 2**20)

    def generate(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        cancelled: threading.Event | None = None,
    ) -> Generator[str, None, Generated]:
        """Yields whole characters; returns how it went. Ends within one token after `cancelled` is set."""
        started = time.perf_counter()
        prompt, dropped = self.fit_prompt(messages, sampling.max_bytes)
        seed = secrets.randbits(31) if sampling.seed is None else sampling.seed
        random = torch.Generator().manual_seed(seed % 2**63)
        text, stops = TokenText(self.chat), StopStrings(sampling.stop)
        finish, size, tokens, cache = Finish.LENGTH, 0, prompt, None
        for _number in range(self.context - len(prompt)):
            if cancelled is not None and cancelled.is_set():
                break
            logits, cache = self._next(tokens, cache)
            token = draw(logits, sampling, random)
            if token in self._stops:
                finish = Finish.STOP
                break
            tokens = [token]
            fresh = text.push(token)
            length = len(fresh.encode("utf-8", "replace"))
            if size + length > sampling.max_bytes:
                fresh = fresh.encode("utf-8", "replace")[: sampling.max_bytes - size].decode(
                    "utf-8", "ignore"
                )
                size += len(fresh.encode("utf-8", "replace"))
                if piece := stops.push(fresh):
                    yield piece
                break
            size += length
            if piece := stops.push(fresh):
                yield piece
            if stops.found:
                finish = Finish.STOP_STRING
                break
            if size >= sampling.max_bytes:
                break
        if not stops.found and (piece := stops.flush()):
            yield piece
        return Generated(
            finish=finish,
            bytes=size,
            seconds=time.perf_counter() - started,
            dropped_turns=dropped,
            seed=seed,
        )

    def answer(self, messages: Sequence[ChatMessage], sampling: Sampling) -> tuple[str, Generated]:
        """The whole text at once."""
        return whole(self.generate(messages, sampling))

    @torch.inference_mode()
    def loglikelihood(self, messages: Sequence[ChatMessage]) -> Scored:
        """Of the assistant turns of a conversation, cut into windows as in training."""
        turns = [ChatMessage(role=m.role, content=m.content) for m in messages]
        windows = self.chat.windows(turns, self.context)
        total = sum(self.nll(window.ids, window.loss_mask) for window in windows)
        return Scored(
            loglikelihood=-total if math.isfinite(total) else None,
            bytes=sum(window.trained_bytes for window in windows),
        )

    @torch.inference_mode()
    def nll(self, ids: Sequence[int], scored: Sequence[bool]) -> float:
        """Sum of -log p over the scored tokens of one sequence, nats; the first token is never scored."""
        if len(ids) < 2:
            return 0.0
        model = _inner(self.model)
        tokens = torch.tensor([list(ids)], device=model.device)
        wanted = torch.tensor([list(scored)[1:]], device=model.device)
        losses = token_losses(model, tokens[:, :-1], tokens[:, 1:], wanted, None, head_apart=self._head_apart)
        return float(losses.sum(dtype=torch.float64))

    def fit_prompt(self, messages: Sequence[ChatMessage], answer_bytes: int) -> tuple[list[int], int]:
        """(ids, dropped turns): at most the context less room for the answer, which is half of it at most.

        The oldest turns go first and system turns stay; a last turn that is too long alone loses its beginning.
        """
        space = self.context - min(answer_bytes, self.context // 2)
        kept = [ChatMessage(role=m.role, content=m.content) for m in messages]
        dropped = 0
        while len(ids := self.chat.prompt(kept)) > space:
            oldest = next((i for i, turn in enumerate(kept[:-1]) if turn.role != "system"), None)
            if oldest is not None:
                del kept[oldest]
                dropped += 1
                continue
            last = self.chat.encode(kept[-1].content)
            keep = max(0, len(last) - (len(ids) - space) - 4)
            if keep == 0 or len(last) == 0:
                return ids[-space:], dropped
            shorter = self.chat.decode(last[-keep:]).lstrip("\ufffd")
            if shorter == kept[-1].content:
                return ids[-space:], dropped
            kept[-1] = ChatMessage(role=kept[-1].role, content=shorter)
        return ids, dropped

    @torch.inference_mode()
    def _next(self, tokens: Sequence[int], cache: Any) -> tuple[Tensor, Any]:
        """Logits `(vocab,)` after `tokens`, which follow what the cache holds."""
        model = _inner(self.model)
        out = model(
            input_ids=torch.tensor([list(tokens)], device=model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[0, -1], out.past_key_values


class TokenText:
    """Turns a stream of tokens into whole characters: bytes that make none yet are held back."""

    def __init__(self, chat: ChatTemplate) -> None:
        self._chat = chat
        self._ids: list[int] = []
        self._shown = 0
        """Tokens whose text has been given."""
        self._from = 0
        """Where decoding begins: some tokenizers write a token differently at the beginning of a text."""

    def push(self, token: int) -> str:
        """The characters that `token` completes."""
        self._ids.append(token)
        before = self._chat.decode(self._ids[self._from : self._shown])
        after = self._chat.decode(self._ids[self._from :])
        # Four bytes make a character at most: what is broken after more stays broken.
        if after.endswith("\ufffd") and len(self._ids) - self._shown < 4:
            return ""
        self._from, self._shown = self._shown, len(self._ids)
        return after[len(before) :].replace("\ufffd", "")


def draw(logits: Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """The next token from logits `(vocab,)`. Raises RunFailed when they are not numbers."""
    scores = logits.float().cpu()
    if bool(torch.isnan(scores).any()):
        raise RunFailed(_("the model gives no numbers (NaN)"), hint="h2q-tui rollback")
    if sampling.temperature <= 0:
        return int(scores.argmax())
    probabilities = ((scores - scores.max()) / sampling.temperature).softmax(dim=-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        # A token stays while those before it have not reached top_p: the likeliest always stays.
        ordered[ordered.cumsum(0) - ordered >= max(sampling.top_p, 0.0)] = 0.0
        ordered[0] = max(float(ordered[0]), 1e-9)
        return int(order[torch.multinomial(ordered, 1, generator=random)])
    return int(torch.multinomial(probabilities, 1, generator=random))


def _inner(model: Any) -> Any:
    """The Hugging Face model, adapter layers in it."""
    return (
        model.get_base_model()
        if hasattr(model, "peft_config") and hasattr(model, "get_base_model")
        else model
    )


def _ends(model: Any) -> frozenset[int]:
    """Ids that the model's own configuration ends an answer at."""
    found = getattr(_inner(model).generation_config, "eos_token_id", None)
    return frozenset([found] if isinstance(found, int) else found or [])
