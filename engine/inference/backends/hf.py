"""Hugging Face models in torch, with or without a LoRA adapter."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from engine.core.chat import ChatMessage
from engine.inference.kept_prefix import KeptPrefix
from engine.inference.language_model import (
    ANSWER_TOKENS,
    MAX_BYTES,
    NLL,
    Generated,
    NLLAndEntropy,
    OnTokens,
    Prompt,
    RenderedPrompt,
    Sampling,
    no_schema,
    seed_of,
)
from engine.inference.prompts import fitted, rendered, with_tools
from engine.inference.sampling import DecodingSession, TokenSampler, decode
from engine.models.adapters import attach_adapter
from engine.models.base_models import BaseModel, adapter_card
from engine.models.chat_template import ChatTemplate
from engine.models.chatml import ByteChatTemplate, MaskedTokens
from engine.models.hf import base_format, load_base_as, load_chat_template
from engine.models.history import FittedPrompt
from engine.models.losses import has_linear_head, logit_chunks, token_losses
from engine.models.threads import single_threaded

MAX_CONTEXT = 4096
"""Upper limit of prompt and answer together in tokens: the key-value cache grows with them."""
EVAL_CONTEXT = 1024
"""Tokens of an evaluation window where the adapter's card names no context."""
MIN_EVAL_CONTEXT = 8
"""Tokens of an evaluation window at least, however long the turns are that stand before every conversation."""
ADAPTER = "default"
"""The name that peft gives the first adapter of a model."""


class HFModel:
    """A `LanguageModel` over a causal language model of transformers."""

    def __init__(
        self,
        model: Any,
        chat: ChatTemplate | ByteChatTemplate,
        context: int,
        *,
        name: str = "",
        adapter: str | None = ADAPTER,
        eval_context: int = EVAL_CONTEXT,
    ) -> None:
        """`model` may be a PeftModel that several instances share: `adapter` is active here, None: the base alone."""
        self.model = model.eval()
        self.chat = chat
        self.name = name
        self.context = min(context, MAX_CONTEXT)
        self._kept = KeptPrefix(chat.turn_ids[:-1])
        self.eval_context = max(MIN_EVAL_CONTEXT, min(self.context - len(chat.turn_ids), eval_context))
        self._adapter = adapter
        self._stop_tokens = chat.stop_tokens | _eos_tokens(model)
        self._linear_head = has_linear_head(_inner(model))

    @classmethod
    def load(cls, base: BaseModel, name: str = "") -> HFModel:
        """The base, with its adapter where it has one. Raises BadInput."""
        card = adapter_card(base.adapter) if base.adapter is not None else None
        model = load_base_as(base, base_format(base, card))
        if base.adapter is not None:
            model = attach_adapter(model, base.adapter)
        return cls(model, load_chat_template(base), base.dimensions.context, name=name)

    @property
    def memory_mb(self) -> float:
        return float(sum(p.numel() * p.element_size() for p in self.model.parameters()) / 2**20)

    def windows(self, messages: Sequence[ChatMessage], context: int) -> list[MaskedTokens]:
        return self.chat.windows(messages, context)

    def count_tokens(self, text: str | Sequence[ChatMessage]) -> int:
        return len(self.chat.encode(text) if isinstance(text, str) else self.chat.prompt(text))

    def nll(self, windows: Sequence[MaskedTokens], *, on_tokens: OnTokens | None = None) -> list[NLL]:
        losses = []
        with self._active():
            for window in windows:
                losses.append(NLL(_finite(self._nats(window.ids, window.loss_mask)), window.trained_bytes))
                if on_tokens is not None:
                    on_tokens(len(window.ids))
        return losses

    def rolling_nll(
        self, texts: Sequence[bytes], *, window_bytes: int | None = None, on_tokens: OnTokens | None = None
    ) -> list[NLL]:
        losses = []
        with self._active():
            for text in texts:
                ids = self.chat.encode(text.decode("utf-8", "ignore"))
                nats, size, scored = 0.0, 0, 0
                opening = self.chat.opening
                before, step = self.chat.turn_ids or opening, self.eval_context - len(opening)
                # The first token of a text that begins with itself is not predicted; nor is it behind turns.
                first = 0 if opening else 1
                for at in range(0, len(ids), step):
                    part = ids[at : at + step]
                    mask = [False] * (len(before) + first) + [True] * (len(part) - first)
                    nats += self._nats([*before, *part], mask)
                    size += len(self.chat.decode(part[first:]).encode("utf-8", "ignore"))
                    scored += len(part) - first
                losses.append(NLL(_finite(nats), size, scored * self._guess_nats))
                if on_tokens is not None:
                    on_tokens(len(ids))
        return losses

    @property
    def _guess_nats(self) -> float:
        """-log p of a token where every token of the vocabulary is as likely."""
        return math.log(_inner(self.model).config.get_text_config().vocab_size)

    @torch.inference_mode()
    def _nats(self, ids: Sequence[int], scored: Sequence[bool]) -> float:
        """Sum of -log p over the scored tokens of one sequence."""
        if len(ids) < 2:
            return 0.0
        model = _inner(self.model)
        past, start = self._past(ids)
        tokens = torch.tensor([list(ids)[start:]], device=model.device)
        mask = torch.tensor([list(scored)[start + 1 :]], device=model.device)
        losses = token_losses(
            model, tokens[:, :-1], tokens[:, 1:], mask, None, linear_head=self._linear_head, past=past
        )
        return float(losses.sum(dtype=torch.float64))

    def _past(self, ids: Sequence[int]) -> tuple[Any, int]:
        """The cache of the turns that `ids` begin with, and how many ids are in it: (None, 0) for other ids."""
        past = self._kept.cache(_inner(self.model)) if self._kept.begins(ids[:-1]) else None
        return past, 0 if past is None else len(self._kept.ids)

    @torch.inference_mode()
    def nll_and_entropy(self, text: str) -> NLLAndEntropy:
        ids = [*self.chat.opening, *self.chat.encode(text)][: self.eval_context + 1]
        nats, entropy, start = 0.0, 0.0, 1
        model = _inner(self.model)
        with self._active():
            inputs = torch.tensor([ids[:-1]], device=model.device, dtype=torch.int64)
            for logits in logit_chunks(model, inputs, linear_head=self._linear_head) if len(ids) > 1 else ():
                logs = logits.double().log_softmax(dim=-1)
                targets = torch.tensor(ids[start : start + len(logs)], device=model.device)
                nats -= float(logs.gather(1, targets[:, None]).sum())
                entropy -= float((logs.exp() * logs).sum())
                start += len(logs)
        size = len(self.chat.decode(ids[1:]).encode("utf-8", "ignore"))
        return NLLAndEntropy(nats=nats, entropy=entropy, bytes=size)

    @torch.inference_mode()
    def next_token_log_probs(self, prefix: Sequence[int]) -> list[float]:
        with self._active():
            past, start = self._past(prefix)
            logits, _cache = self._next_logits(prefix[start:], past, use_cache=past is not None)
        return list(logits.float().log_softmax(dim=-1).tolist())

    def reproducible(self) -> AbstractContextManager[None]:
        return single_threaded()

    def generate(
        self, messages: Prompt, sampling: Sampling, cancelled: threading.Event | None = None
    ) -> Iterator[str | Generated]:
        if sampling.json_schema:
            raise no_schema()
        started = time.perf_counter()
        max_bytes = MAX_BYTES if sampling.max_bytes is None else sampling.max_bytes
        prompt = self._fitted(messages, sampling)
        room = sampling.room(self.context)
        seed = seed_of(sampling)
        stream = TokenStream(self.chat, self.chat.answer_lead)
        cache: Any = None

        def next_logits(tokens: Sequence[int]) -> Tensor:
            nonlocal cache
            logits, cache = self._next_logits(tokens, cache)
            return logits

        def detokenize(token: int) -> tuple[str, int]:
            text = stream.push(token)
            return text, len(text.encode("utf-8", "replace"))

        session = DecodingSession(
            prompt=prompt.ids,
            dropped_turns=prompt.dropped,
            context=room,
            cut_question=prompt.cuts_question_of(messages),
            max_tokens=room - len(prompt.ids),
            max_bytes=max_bytes,
            stop_tokens=self._stop_tokens,
            next_logits=next_logits,
            sampler=TokenSampler(sampling, seed, prompt.ids),
            detokenize=detokenize,
            token_bytes=lambda token: self.chat.decode([token]).encode("utf-8", "replace"),
        )
        with self._active():
            yield from decode(session, sampling, seed=seed, started=started, cancelled=cancelled)

    def _fitted(self, messages: Prompt, sampling: Sampling) -> FittedPrompt:
        answer = min(sampling.tokens_wanted(MAX_BYTES), ANSWER_TOKENS)
        return fitted(self.chat, messages, sampling, self.context, answer)

    def tool_prompt(self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> RenderedPrompt:
        return with_tools(self.chat, turns, tools, self.context)

    def render_prompt(self, messages: Prompt, sampling: Sampling) -> RenderedPrompt:
        prompt = self._fitted(messages, sampling)
        return rendered(self.chat, messages, prompt, sampling, self.context)

    def fit_prompt(self, messages: Sequence[ChatMessage], answer_tokens: int) -> tuple[list[int], int]:
        """(ids, dropped turns) of a prompt that leaves space for the answer, at most half of the context."""
        space = self.context - min(answer_tokens, self.context // 2)
        prompt = self.chat.fit(messages, space)
        return prompt.ids, prompt.dropped

    @torch.inference_mode()
    def _next_logits(
        self, tokens: Sequence[int], cache: Any, *, use_cache: bool = True
    ) -> tuple[Tensor, Any]:
        """Logits `(vocab,)` after `tokens`, which follow the tokens in the cache, and the new cache."""
        model = _inner(self.model)
        out = model(
            input_ids=torch.tensor([list(tokens)], device=model.device),
            past_key_values=cache,
            use_cache=use_cache,
            logits_to_keep=1,
        )
        return out.logits[0, -1], out.past_key_values

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        model = _inner(self.model)
        vectors = []
        with self._active():
            for text in texts:
                ids = self.chat.encode(text)[: self.context] or [min(self.chat.stop_tokens, default=0)]
                tokens = torch.tensor([ids], device=model.device)
                hidden = model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state[0]
                vectors.append([float(value) for value in hidden.float().mean(dim=0)])
        return vectors

    def _active(self) -> AbstractContextManager[Any]:
        """Selects the adapter of this instance in the shared model."""
        peft = self.model
        if not hasattr(peft, "peft_config"):
            return nullcontext()
        if self._adapter is None:
            disabled: AbstractContextManager[Any] = peft.disable_adapter()
            return disabled
        peft.set_adapter(self._adapter)
        for parameter in peft.parameters():
            parameter.requires_grad = False
        return nullcontext()


def load_together(models: Sequence[BaseModel]) -> list[HFModel]:
    """Models on one base, whose weights they share: the base alone or one adapter each. Raises BadInput.

    Format and evaluation context are those of the last adapter with a card.
    """
    first = models[0]
    card = next(
        (card for one in reversed(models) if one.adapter is not None and (card := adapter_card(one.adapter))),
        None,
    )
    inner = load_base_as(first, base_format(first, card))
    peft = inner
    adapters: list[str | None] = []
    for number, one in enumerate(models):
        if one.adapter is None:
            adapters.append(None)
        elif peft is inner:
            peft = attach_adapter(inner, one.adapter)
            adapters.append(ADAPTER)
        else:
            peft.load_adapter(str(one.adapter), adapter_name=f"other{number}", torch_device="cpu")
            adapters.append(f"other{number}")
    chats: dict[tuple[Any, ...], ChatTemplate] = {}
    for one in models:
        if (one.system, one.messages) not in chats:
            chats[one.system, one.messages] = load_chat_template(one)
    return [
        HFModel(
            peft,
            chats[one.system, one.messages],
            first.dimensions.context,
            name=one.adapter.name if one.adapter is not None else one.name,
            adapter=adapter,
            eval_context=card.context if card is not None else EVAL_CONTEXT,
        )
        for one, adapter in zip(models, adapters, strict=True)
    ]


class TokenStream:
    """Turns a stream of tokens into whole characters; bytes of an incomplete one are buffered."""

    def __init__(self, chat: ChatTemplate | ByteChatTemplate, lead: str = "") -> None:
        """`lead` is cut from the beginning of the text."""
        self._chat = chat
        self._lead = lead
        self._ids: list[int] = []
        self._emitted = 0
        """Tokens whose text was returned."""
        self._start = 0
        """Where decoding starts: some tokenizers write a token differently at the beginning of a text."""

    def push(self, token: int) -> str:
        """The characters that `token` completes."""
        self._ids.append(token)
        before = self._chat.decode(self._ids[self._start : self._emitted])
        after = self._chat.decode(self._ids[self._start :])
        # A character has at most four bytes: what is incomplete after more is broken.
        if after.endswith("\ufffd") and len(self._ids) - self._emitted < 4:
            return ""
        self._start, self._emitted = self._emitted, len(self._ids)
        text = after[len(before) :].replace("\ufffd", "")
        if text and self._lead:
            text, self._lead = text.removeprefix(self._lead), ""
        return text


def _inner(model: Any) -> Any:
    """The transformers model inside a PeftModel, adapter layers included."""
    return (
        model.get_base_model()
        if hasattr(model, "peft_config") and hasattr(model, "get_base_model")
        else model
    )


def _eos_tokens(model: Any) -> frozenset[int]:
    """End-of-sequence ids of the model's generation configuration."""
    eos = getattr(_inner(model).generation_config, "eos_token_id", None)
    return frozenset([eos] if isinstance(eos, int) else eos or [])


def _finite(nats: float) -> float:
    return nats if math.isfinite(nats) else math.nan
