"""The native byte-level transformer in torch."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.core.chat import ChatMessage
from engine.core.errors import is_out_of_memory
from engine.inference.language_model import (
    MAX_BYTES_NATIVE,
    NLL,
    Generated,
    NLLAndEntropy,
    OnTokens,
    Prompt,
    RenderedPrompt,
    Sampling,
    no_schema,
    require_question,
    seed_of,
    too_long,
)
from engine.inference.sampling import STOP_TOKENS, DecodingSession, Utf8Sampler, decode
from engine.models import chatml
from engine.models.chatml import MaskedTokens
from engine.models.native_format import load_model
from engine.models.threads import single_threaded
from engine.models.tokenizer import Utf8Stream, encode, encode_controls, show_ids
from engine.models.transformer import KVCache, Transformer

BATCH_TOKENS = 8192
"""Tokens in one forward pass of `nll`: about 9 MB of logits."""


class NativeModel:
    """A `LanguageModel` whose tokens are bytes."""

    def __init__(self, model: Transformer, name: str = "") -> None:
        self.model = model.eval()
        self.name = name

    @classmethod
    def load(cls, folder: Path, *, single_thread: bool = False) -> NativeModel:
        """Raises BadInput when `folder` holds no complete model.

        `single_thread` sets the thread count of torch to 1: decoding byte by byte leaves a second thread
        nothing to do, and next to a training run it only waits.
        """
        if single_thread:
            torch.set_num_threads(1)
        model, card = load_model(folder)
        return cls(model, card.name)

    @property
    def context(self) -> int:
        return self.model.config.context

    @property
    def eval_context(self) -> int:
        return self.context

    @property
    def memory_mb(self) -> float:
        return sum(p.numel() * p.element_size() for p in self.model.parameters()) / 2**20

    def windows(self, messages: Sequence[ChatMessage], context: int) -> list[MaskedTokens]:
        return chatml.windows(messages, context)

    def count_tokens(self, text: str | Sequence[ChatMessage]) -> int:
        if isinstance(text, str):
            return len(encode(text))
        return len(_ids(text))

    @torch.inference_mode()
    def nll(self, windows: Sequence[MaskedTokens], *, on_tokens: OnTokens | None = None) -> list[NLL]:
        """Windows are batched by length; a batch for which memory runs out is halved."""
        nats = [0.0] * len(windows)
        order = sorted(range(len(windows)), key=lambda i: len(windows[i].ids))
        start, limit = 0, BATCH_TOKENS
        while start < len(order):
            end = start + 1
            while end < len(order) and len(windows[order[end]].ids) * (end + 1 - start) <= limit:
                end += 1
            rows = order[start:end]
            try:
                tokens = self._batch_nll(windows, rows, nats)
            except (MemoryError, RuntimeError) as problem:
                if not is_out_of_memory(problem) or len(rows) == 1:
                    raise
                limit //= 2
                continue
            if on_tokens is not None:
                on_tokens(tokens)
            start = end
        return [NLL(value, window.trained_bytes) for value, window in zip(nats, windows, strict=True)]

    def _batch_nll(self, windows: Sequence[MaskedTokens], rows: Sequence[int], nats: list[float]) -> int:
        """Writes the sums of the windows `rows`, sorted by length, into `nats`; returns the tokens of the batch."""
        longest = len(windows[rows[-1]].ids)
        ids = torch.zeros(len(rows), longest, dtype=torch.int64)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for row, index in enumerate(rows):
            window = windows[index]
            ids[row, : len(window.ids)] = torch.tensor(window.ids, dtype=torch.int64)
            mask[row, : len(window.ids)] = torch.tensor(window.loss_mask, dtype=torch.bool)
        if longest > 1:
            logits = self.model(ids[:, :-1]).float()
            losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
            sums = torch.where(mask[:, 1:], losses, 0.0).sum(dim=1, dtype=torch.float64)
            for row, index in enumerate(rows):
                value = float(sums[row])
                nats[index] = value if math.isfinite(value) else math.nan
        return ids.numel()

    def rolling_nll(
        self, texts: Sequence[bytes], *, window_bytes: int | None = None, on_tokens: OnTokens | None = None
    ) -> list[NLL]:
        size = window_bytes or self.eval_context
        chunks = [
            [chunk for at in range(0, len(text), size) if len(chunk := text[at : at + size]) > 1]
            for text in texts
        ]
        windows = [
            MaskedTokens(ids=list(chunk), loss_mask=[True] * len(chunk)) for part in chunks for chunk in part
        ]
        losses = iter(self.nll(windows, on_tokens=on_tokens))
        guess = math.log(self.model.config.vocab)
        results = []
        for part in chunks:
            scored = sum(len(chunk) - 1 for chunk in part)
            results.append(
                NLL(nats=sum(next(losses).nats for _chunk in part), bytes=scored, uniform=scored * guess)
            )
        return results

    @torch.inference_mode()
    def nll_and_entropy(self, text: str) -> NLLAndEntropy:
        ids = torch.tensor([list(text.encode())[: self.context + 1]])
        if ids.shape[1] < 2:
            return NLLAndEntropy(nats=0.0, entropy=0.0, bytes=0)
        logs = self.model(ids[:, :-1])[0].double().log_softmax(dim=-1)
        nll = -float(logs.gather(1, ids[0, 1:, None]).sum())
        return NLLAndEntropy(nats=nll, entropy=-float((logs.exp() * logs).sum()), bytes=ids.shape[1] - 1)

    @torch.inference_mode()
    def next_token_log_probs(self, prefix: Sequence[int]) -> list[float]:
        logits: Tensor = self.model(torch.tensor([prefix]))[0, -1]
        return list(logits.float().log_softmax(dim=-1).tolist())

    def reproducible(self) -> AbstractContextManager[None]:
        return single_threaded()

    def generate(
        self, messages: Prompt, sampling: Sampling, cancelled: threading.Event | None = None
    ) -> Iterator[str | Generated]:
        if sampling.json_schema:
            raise no_schema()
        started = time.perf_counter()
        max_bytes = MAX_BYTES_NATIVE if sampling.max_bytes is None else sampling.max_bytes
        prompt, dropped = self._fitted(messages, sampling)
        seed = seed_of(sampling)
        room = sampling.room(self.context)
        limit = min(max_bytes, room - len(prompt))
        cache = self._cache(len(prompt) + max(limit, 1))
        stream = Utf8Stream()
        session = DecodingSession(
            prompt=prompt,
            dropped_turns=dropped,
            context=room,
            cut_question=self.count_tokens(messages[-1:]) > len(prompt),
            max_tokens=limit,
            max_bytes=max_bytes,
            stop_tokens=frozenset(STOP_TOKENS),
            next_logits=lambda tokens: self._next_logits(tokens, cache),
            sampler=Utf8Sampler(sampling, seed, self.model.config.vocab, prompt),
            detokenize=lambda token: (stream.push(token), 1),
            token_bytes=lambda token: bytes([token]) if token < 256 else b"",
        )
        yield from decode(session, sampling, seed=seed, started=started, cancelled=cancelled)

    def _fitted(self, messages: Prompt, sampling: Sampling) -> tuple[list[int], int]:
        """(ids, dropped turns) of the prompt."""
        require_question(messages)
        room, answer = sampling.room(self.context), sampling.tokens_wanted(MAX_BYTES_NATIVE)
        if not isinstance(messages, str) and sampling.truncate:
            return fit_prompt(messages, room, answer)
        ids = encode_controls(messages) if isinstance(messages, str) else _ids(messages)
        space = room - min(answer, room // 2) if sampling.truncate else room - 1
        if len(ids) > space and not sampling.truncate:
            raise too_long(len(ids), room)
        return ids[max(0, len(ids) - space) :], 0

    def render_prompt(self, messages: Prompt, sampling: Sampling) -> RenderedPrompt:
        ids, dropped = self._fitted(messages, sampling)
        return RenderedPrompt(
            text=messages if isinstance(messages, str) else show_ids(ids),
            tokens=len(ids),
            dropped_turns=dropped,
            context=sampling.room(self.context),
        )

    @torch.inference_mode()
    def _cache(self, capacity: int) -> KVCache:
        return KVCache(self.model.config, capacity=capacity, like=self.model.lm_head.weight)

    @torch.inference_mode()
    def _next_logits(self, tokens: Sequence[int], cache: KVCache) -> Tensor:
        """Logits `(vocab,)` after `tokens`, which follow the tokens in the cache."""
        hidden = self.model.model(torch.tensor([tokens]), cache)
        logits: Tensor = self.model.lm_head(hidden[0, -1])
        return logits

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        vectors = []
        for text in texts:
            ids = encode(text)[: self.context] or [STOP_TOKENS[0]]
            hidden: Tensor = self.model.model(torch.tensor([ids]))[0]
            vectors.append([float(value) for value in hidden.float().mean(dim=0)])
        return vectors


def _ids(messages: Sequence[ChatMessage]) -> list[int]:
    """Ids up to where the answer begins."""
    return chatml.render(messages, add_generation_prompt=True).ids


def fit_prompt(messages: Sequence[ChatMessage], context: int, answer_bytes: int) -> tuple[list[int], int]:
    """(ids, dropped turns) of a prompt that leaves space for the answer, at most half of the context.

    The oldest turns are dropped first, system turns stay; a last turn that alone is too long loses its beginning.
    """
    space = context - min(answer_bytes, context // 2)
    lengths = [len(chatml.render_message(turn).ids) for turn in messages]
    opening = len(chatml.render([], add_generation_prompt=True).ids)
    total = sum(lengths) + opening
    keep = [True] * len(messages)
    for index, turn in enumerate(messages[:-1]):
        if total <= space:
            break
        if turn.role != "system":
            keep[index] = False
            total -= lengths[index]
    kept = [turn for turn, stays in zip(messages, keep, strict=True) if stays]
    ids = chatml.render(kept, add_generation_prompt=True).ids
    if len(ids) > space and kept:
        # At most a quarter for a system turn; the rest is the end of the last turn.
        head = [_shorten(turn, space // 4, end=False) for turn in kept[:-1]][:1]
        used = len(chatml.render(head).ids) + opening
        ids = chatml.render(
            [*head, _shorten(kept[-1], space - used, end=True)], add_generation_prompt=True
        ).ids
    return ids, keep.count(False)


def _shorten(turn: ChatMessage, tokens: int, *, end: bool) -> ChatMessage:
    """`turn` in at most `tokens` tokens: the end or the beginning of its content, in whole characters."""
    frame = len(chatml.render_message(ChatMessage(role=turn.role, content="")).ids)
    space = max(tokens - frame, 0)
    data = turn.content.encode("utf-8", "replace")
    if len(data) <= space:
        return turn
    part = data[len(data) - space :] if end else data[:space]
    return ChatMessage(role=turn.role, content=part.decode("utf-8", "ignore"))
