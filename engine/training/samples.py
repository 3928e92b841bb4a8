"""What the model in training writes: a few completions every so often, for the person who waits.

A sample takes nothing from the training but time, of which it may take a small share: it reads the weights without
gradients, draws from a random generator of its own, and leaves the model in training mode. A run with samples computes
the same steps as one without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.core.chat import ChatMessage
from engine.core.i18n import _
from engine.models import chatml
from engine.models.adapters import AdapterModel
from engine.models.threads import single_threaded
from engine.models.tokenizer import END_OF_TEXT, IM_END, decode, encode
from engine.models.transformer import KVCache, Transformer
from engine.runs.events import ModelSample

if TYPE_CHECKING:
    from engine.models.chat_template import ChatTemplate
    from engine.models.token_bytes import TokenBytes
    from engine.runs.context import RunContext

TIME_SHARE = 0.03
"""Share of a phase's time that samples may take: one begins when the share has room for it."""
SHORTEST_S = 0.05
"""Seconds of allowance from which a sample is begun, where it is not known to take longer."""
GROWTH = 0.02
"""Samples are at least this share of the elapsed time apart: their number stays bounded in a long run."""
TOKENS = 48
"""Tokens of a sample at most."""
BYTES = 120
"""The same where a token is a byte: with a short prompt about as long as the shortest windows of a training."""
MAX_PROMPT = 200
"""Characters of a prompt; of a longer one its beginning is shown."""
READ_BYTES_S, LAYER_S = 3e9, 3e-3
"""Bytes of weights per second and seconds per layer with its adapters, for a token on one thread of an ordinary CPU."""
_TEMPERATURE = 0.7
_SEED = 7
"""The same for all samples: what changes from one to the next is the model."""

GREETING = {"en": "Hello! Who are you?", "zh": "你好！你是谁？"}
"""The fixed prompt of a model that chats."""
OPENING = {"en": "Once upon a time", "zh": "从前"}
"""The fixed prompt of a model that continues text."""


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt as it is shown, and its ids."""

    text: str
    ids: tuple[int, ...]
    own: bool = False
    """The person's own: as set, or from texts that are held out from the training."""


Completion = Callable[[Any, Sequence[int], float], str]
"""(model, ids of the prompt, `perf_counter` at which to stop) -> the text that follows."""


class ModelSamples:
    """Completes the prompts when it is time, and emits the completions."""

    def __init__(
        self, ctx: RunContext, phase: str, prompts: Sequence[SamplePrompt], complete: Completion
    ) -> None:
        """Created at the beginning of the phase: its preparation counts as elapsed time."""
        self._ctx, self._phase = ctx, phase
        self._prompts = tuple(prompts)
        self._complete = complete
        self._every_s = ctx.settings.sample_every
        self._began = time.perf_counter()
        self._spent = 0.0
        self.expected_s = SHORTEST_S
        """Seconds of the next sample; those of the last one."""
        self._count = 0
        self._next = 0.0
        """Elapsed seconds from which the next samples are due."""

    def emit_if_due(self, model: nn.Module, step: int, *, last: bool = False) -> bool:
        """Emits one sample when it is due, of each prompt in turn; `last` is the end of the phase. True if it did.

        Never raises for the model's sake: samples end with the first failure.
        """
        elapsed = time.perf_counter() - self._began
        allowance = TIME_SHARE * elapsed - self._spent
        if not self._prompts or self._every_s <= 0 or allowance < self.expected_s:
            return False
        if elapsed < self._next and not last:
            return False
        began = time.perf_counter()
        try:
            self._emit(model, step, self._prompts[self._count % len(self._prompts)], began + allowance)
        except (RuntimeError, MemoryError, ValueError) as problem:
            self._prompts = ()
            self._ctx.log(_("no more samples in this run: {why}").format(why=type(problem).__name__))
        finally:
            model.train()
            taken = time.perf_counter() - began
            self._spent += taken
            self.expected_s = max(SHORTEST_S, taken)
        self._count += 1
        elapsed = time.perf_counter() - self._began
        # The first sample of every prompt comes early.
        if self._count >= len(self._prompts):
            self._next = elapsed + max(self._every_s / max(1, len(self._prompts)), GROWTH * elapsed)
        return True

    def _emit(self, model: nn.Module, step: int, prompt: SamplePrompt, deadline: float) -> None:
        model.eval()
        began = time.perf_counter()
        with torch.random.fork_rng(devices=[]), torch.no_grad(), single_threaded():
            text = self._complete(model, prompt.ids, deadline)
        self._ctx.emit(
            ModelSample(
                phase=self._phase,
                step=step,
                prompt=prompt.text[:MAX_PROMPT],
                text=text,
                own=prompt.own,
                seconds=round(time.perf_counter() - began, 3),
            )
        )


def expected_seconds(weight_bytes: float, layers: int) -> float:
    """Seconds of the shortest sample of a large model: each token reads all weights and calls every layer."""
    return (TOKENS // 3 + 1) * (weight_bytes / READ_BYTES_S + layers * LAYER_S)


def native_samples(
    ctx: RunContext, phase: str, languages: Sequence[str], question: str, context: int
) -> ModelSamples:
    """Samples of a built-in model that answers; `question` is one of the person's own, "" for none."""
    texts = _prompts(ctx, GREETING, languages, question)
    room = max(16, context - BYTES)
    prompts = [
        SamplePrompt(
            text,
            tuple(
                chatml.render([ChatMessage(role="user", content=text)], add_generation_prompt=True).ids[
                    -room:
                ]
            ),
            own,
        )
        for text, own in texts
    ]
    return ModelSamples(ctx, phase, prompts, complete_bytes)


def text_samples(
    ctx: RunContext, phase: str, languages: Sequence[str], opening: str, context: int
) -> ModelSamples:
    """Samples of a built-in model that continues plain text; `opening` begins a held-out passage, "" for none."""
    room = max(16, context - BYTES)
    prompts = [
        SamplePrompt(text, tuple(encode(text)[-room:]), own)
        for text, own in _prompts(ctx, OPENING, languages, opening)
    ]
    return ModelSamples(ctx, phase, prompts, complete_bytes)


def adapter_samples(
    ctx: RunContext,
    phase: str,
    languages: Sequence[str],
    question: str,
    chat: ChatTemplate,
    table: TokenBytes | None,
) -> ModelSamples:
    """Samples of an adapter's model. `table` decodes them, the tokenizer of `chat` is not kept; None: no samples."""
    if table is None:
        return ModelSamples(ctx, phase, (), complete_bytes)
    prompts = [
        SamplePrompt(text, tuple(chat.prompt([ChatMessage(role="user", content=text)])), own)
        for text, own in _prompts(ctx, GREETING, languages, question)
    ]
    stops = chat.stop_tokens

    def complete(model: AdapterModel, prompt: Sequence[int], deadline: float) -> str:
        cache: Any = None

        def next_logits(tokens: Sequence[int]) -> Tensor:
            nonlocal cache
            base = model.base
            ids = torch.tensor([list(tokens)], device=base.device)
            out = base(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            logits: Tensor = out.logits[0, -1]
            return logits

        ids, ended = _follow(next_logits, prompt, TOKENS, stops, deadline)
        return _marked(table.decode(ids), ended=ended)

    return ModelSamples(ctx, phase, prompts, complete)


def _prompts(
    ctx: RunContext, fixed: dict[str, str], languages: Sequence[str], held_out: str
) -> Iterable[tuple[str, bool]]:
    """The person's own prompt, as set or held out, and the fixed one in the first language of the data."""
    if own := ctx.settings.sample_question.strip() or held_out:
        yield own, True
    yield fixed.get(next(iter(languages), "en"), fixed["en"]), False


def complete_bytes(model: Transformer, prompt: Sequence[int], deadline: float) -> str:
    """The completion of a byte-level model."""
    cache = KVCache(model.config, capacity=len(prompt) + BYTES, like=model.lm_head.weight)

    def next_logits(tokens: Sequence[int]) -> Tensor:
        hidden = model.model(torch.tensor([list(tokens)], device=cache.data.device), cache)
        logits: Tensor = model.lm_head(hidden[0, -1])
        return logits

    ids, ended = _follow(next_logits, prompt, BYTES, frozenset((IM_END, END_OF_TEXT)), deadline)
    return _marked(decode(ids).replace("\ufffd", ""), ended=ended)


def _marked(text: str, *, ended: bool) -> str:
    """A completion that the model did not end by itself ends with `…`."""
    return text if ended or not text.strip() else text.rstrip() + "…"


def _follow(
    next_logits: Callable[[Sequence[int]], Tensor],
    prompt: Sequence[int],
    limit: int,
    stops: frozenset[int],
    deadline: float,
) -> tuple[list[int], bool]:
    """The tokens that follow `prompt`, until a stop token, `limit` or `deadline`; a third of `limit` in any case.

    And whether a stop token ended them.
    """
    random = torch.Generator().manual_seed(_SEED)
    found: list[int] = []
    tokens = prompt
    while len(found) < limit and (len(found) < limit // 3 or time.perf_counter() < deadline):
        probabilities = (next_logits(tokens).float().cpu() / _TEMPERATURE).softmax(dim=-1)
        if not bool(torch.isfinite(probabilities).all()):
            break
        token = int(torch.multinomial(probabilities, 1, generator=random))
        if token in stops:
            return found, True
        found.append(token)
        tokens = [token]
    return found, False
