"""The interface of every language model: `LanguageModel` and its results. Imports nothing heavy.

Validation, chat, evolution and export know only this; one module under `engine.inference.backends` implements it
for each runtime, and `engine.inference.loader` alone imports those. A runtime that cannot do something (Ollama
reports no likelihoods) raises Unsupported.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, Self, runtime_checkable

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, UsageProblem
from engine.core.i18n import _
from engine.core.seeds import usable_seed
from engine.models.chatml import MaskedTokens
from engine.models.tool_calls import ToolSyntax

Prompt = Sequence[ChatMessage] | str
"""A conversation, or a text that is sent as it is."""
OnTokens = Callable[[int], None]
"""Called with the number of tokens evaluated since the last call; may raise to stop."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Decoding parameters."""

    temperature: float = 0.7
    """0: greedy decoding."""
    top_p: float = 0.9
    """Nucleus sampling (Holtzman et al. 2020): the smallest set of tokens with this total probability; 1: all."""
    max_bytes: int | None = None
    """Upper limit of the answer in UTF-8 bytes (a 汉字 has three); None: that of the backend."""
    max_tokens: int | None = None
    """Upper limit of the answer in the model's own tokens, beside `max_bytes`; None: only that."""
    seed: int | None = None
    """The same seed gives the same text; None: a random seed."""
    stop: list[str] = []
    """The answer ends before the first of these strings."""
    top_k: int = 0
    """Only this many of the likeliest tokens are sampled from; 0: all."""
    min_p: float = 0.0
    """Tokens less likely than this share of the likeliest one are left out; 0: none."""
    repeat_penalty: float = 1.0
    """Logits of recent tokens are divided by it where positive, else multiplied (Keskar et al. 2019); 1: off."""
    presence_penalty: float = 0.0
    """Subtracted from the logit of every recent token."""
    frequency_penalty: float = 0.0
    """Subtracted from the logit of a recent token for each time it occurs."""
    repeat_last_n: int = 64
    """How many tokens are recent for the penalties; 0: none, -1: all."""
    json_schema: str = ""
    """JSON schema, as JSON, that the answer follows; "": free text. Raises Unsupported where torch decodes."""
    logprobs: int | None = None
    """Answers come as `ScoredText` with this many alternatives for each token; None: without."""
    context: int | None = None
    """Tokens of prompt and answer together, at most those of the model; None: those of the model."""
    truncate: bool = True
    """A conversation that does not fit loses its oldest turns; False: it raises BadInput."""

    @property
    def penalises(self) -> bool:
        """Whether recent tokens change the logits."""
        changed = self.repeat_penalty != 1.0 or self.presence_penalty or self.frequency_penalty
        return bool(changed) and self.repeat_last_n != 0

    def room(self, context: int) -> int:
        """Tokens of prompt and answer together for a model of `context` tokens."""
        return context if self.context is None else max(1, min(self.context, context))

    def tokens_wanted(self, max_bytes: int) -> int:
        """Upper limit of the answer in tokens; `max_bytes` is the backend's limit, and a token has at least one byte."""
        limit = max_bytes if self.max_bytes is None else self.max_bytes
        return limit if self.max_tokens is None else min(limit, self.max_tokens)


class TokenLogProb(msgspec.Struct, frozen=True, kw_only=True):
    """A token of an answer with its log-probability before sampling."""

    text: str
    """Its characters; U+FFFD for bytes that are none alone."""
    bytes: list[int]
    logprob: float
    top: list[TokenLogProb] = []
    """The likeliest tokens at this place, the likeliest first."""


class CountedText(str):
    """A text delta with the tokens sampled up to its end."""

    tokens: int

    def __new__(cls, text: str, tokens: int) -> Self:
        self = super().__new__(cls, text)
        self.tokens = tokens
        return self


class ScoredText(CountedText):
    """A text delta with the log-probabilities of its tokens."""

    logprobs: tuple[TokenLogProb, ...]

    def __new__(cls, text: str, tokens: int, logprobs: Iterable[TokenLogProb] = ()) -> Self:
        self = super().__new__(cls, text, tokens)
        self.logprobs = tuple(logprobs)
        return self


def joined(deltas: Sequence[str]) -> str:
    """Text deltas as one, with the tokens so far, and the log-probabilities of all where they have them."""
    text = "".join(deltas)
    scored = [delta for delta in deltas if isinstance(delta, ScoredText)]
    tokens = max((delta.tokens for delta in deltas if isinstance(delta, CountedText)), default=0)
    if scored:
        return ScoredText(text, tokens, [token for delta in scored for token in delta.logprobs])
    return CountedText(text, tokens) if tokens else text


MAX_BYTES = 4096
"""Upper limit of an answer by default: about a thousand tokens."""
ANSWER_TOKENS = 1024
"""Space that a prompt leaves for an answer at most, although an answer of `MAX_BYTES` may have more tokens."""
MAX_BYTES_NATIVE = 512
"""The same for a model whose tokens are bytes and whose context is short."""


class Finish(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    """The model ended its turn."""
    STOP_STRING = "stop_string"
    LENGTH = "length"
    """`max_bytes`, `max_tokens` or the end of the context."""


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """Last item of a generation: its statistics."""

    finish: Finish
    bytes: int
    seconds: float
    dropped_turns: int = 0
    """Oldest turns dropped because they did not fit into the context."""
    cut_question: bool = False
    """The question alone was longer than the context: its beginning was left out."""
    seed: int | None = None
    prompt_tokens: int = 0
    """Tokens of the rendered prompt, by the model's own tokenizer; 0 when unknown."""
    tokens: int = 0
    """Sampled tokens, the stop token among them; 0 when unknown."""
    context: int = 0
    """Context length in tokens, which prompt and answer share; 0 when unknown."""
    first_token_s: float = 0.0
    """Seconds until the first token: the prompt was read."""
    load_s: float = 0.0
    """Seconds before the generation in which it waited for its turn and the model was loaded; not part of `seconds`."""

    @property
    def tokens_per_s(self) -> float:
        """Speed of the decoding after the first token; 0 for an answer of fewer than two tokens."""
        passed = self.seconds - self.first_token_s
        return (self.tokens - 1) / passed if self.tokens > 1 and passed > 0 else 0.0

    @property
    def bytes_per_s(self) -> float:
        return self.bytes / self.seconds if self.seconds > 0 else 0.0


class RenderedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """What `LanguageModel.generate` sends to the model."""

    text: str
    """With U+2060 inside control tokens that a message merely spells; an opening BOS is not shown."""
    tokens: int
    dropped_turns: int = 0
    context: int = 0
    """Tokens that prompt and answer may have together."""
    tool_syntax: ToolSyntax | None = None
    """Of a prompt with tools: how the model calls them; None where it cannot."""


@dataclass(frozen=True)
class NLL:
    """Negative log-likelihood of the scored tokens of one sequence."""

    nats: float
    """Sum of -log p; NaN where the model gives no finite value."""
    bytes: int
    """UTF-8 bytes of the scored tokens, each stop token counted as one."""
    uniform: float = math.nan
    """What a uniform distribution over the model's vocabulary costs on the scored tokens, in nats; NaN where unknown."""

    @property
    def per_byte(self) -> float:
        """Nats per byte; NaN for a sequence without a scored byte."""
        return self.nats / self.bytes if self.bytes else math.nan


@dataclass(frozen=True)
class NLLAndEntropy:
    """What a text costs a model, and what the model expected it to cost."""

    nats: float
    """Sum of -log p of the scored tokens."""
    entropy: float
    """Sum of the entropies of the predictions at the same positions, in nats: the NLL that the model expects."""
    bytes: int
    """UTF-8 bytes of the scored tokens."""


class Unsupported(UsageProblem):
    """The backend cannot do this (no likelihoods, no embeddings, …)."""


class LanguageModel(Protocol):
    """A loaded model. Methods block and serve one caller at a time."""

    @property
    def name(self) -> str: ...

    @property
    def context(self) -> int:
        """Context length in the model's own tokens; prompt and answer share it."""
        ...

    @property
    def eval_context(self) -> int:
        """Longest window in tokens for evaluation: at most `context`, and no longer than in training."""
        ...

    @property
    def memory_mb(self) -> float:
        """Memory of the weights in this process."""
        ...

    def windows(self, messages: Sequence[ChatMessage], context: int) -> list[MaskedTokens]:
        """A conversation rendered by the model's chat template, in windows of at most `context` tokens.

        Raises BadInput for a conversation that the template rejects.
        """
        ...

    def count_tokens(self, text: str | Sequence[ChatMessage]) -> int:
        """Tokens of a plain text, or of a prompt rendered by the chat template."""
        ...

    def nll(self, windows: Sequence[MaskedTokens], *, on_tokens: OnTokens | None = None) -> list[NLL]:
        """NLL of the trained tokens (`train`) of each window. The first token of a window is never scored."""
        ...

    def rolling_nll(
        self, texts: Sequence[bytes], *, window_bytes: int | None = None, on_tokens: OnTokens | None = None
    ) -> list[NLL]:
        """NLL of each plain text with its `uniform`, in windows one after the other; the first token of each is not scored.

        `window_bytes` limits the windows of a model whose tokens are bytes; other models use `eval_context`.
        """
        ...

    def nll_and_entropy(self, text: str) -> NLLAndEntropy:
        """NLL of a plain text and the entropy of its predictions, computed in float64.

        Only the beginning that fits into `eval_context` predictions; the first token is not scored.
        """
        ...

    def next_token_log_probs(self, prefix: Sequence[int]) -> Sequence[float]:
        """Log-probability of each token of the vocabulary after `prefix`, by id. Computed in float32."""
        ...

    def generate(
        self, messages: Prompt, sampling: Sampling, cancelled: threading.Event | None = None
    ) -> Iterator[str | Generated]:
        """Text deltas of whole characters, then one `Generated`. Ends within one token after `cancelled` is set.

        `messages` that are one text are sent as they are, without the chat template; control tokens in it count as such.
        Raises RunFailed when the logits are NaN, Unsupported for what the runtime cannot do, BadInput for a prompt that
        does not fit and may not be shortened.
        """
        ...

    def render_prompt(self, messages: Prompt, sampling: Sampling) -> RenderedPrompt:
        """What `generate` would send. Raises as it does."""
        ...

    def reproducible(self) -> AbstractContextManager[None]:
        """Inside the block, the threads of this process do not change the text that `generate` gives for a seed."""
        ...

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text: the mean of the last hidden states. Raises Unsupported."""
        ...


@runtime_checkable
class StreamingModel(Protocol):
    """A model whose answers come from another process: an event loop reads them without a thread."""

    def open_stream(
        self, messages: Prompt, sampling: Sampling
    ) -> AsyncGenerator[str | Generated, None] | None:
        """What `LanguageModel.generate` yields, for the loop that iterates it; None where that must be called instead.

        Blocks while the prompt is rendered, and raises as `generate`. Closing the generator ends the work.
        """
        ...


@runtime_checkable
class ToolModel(Protocol):
    """A model whose prompts are rendered here by its own chat template, which may take tools."""

    def tool_prompt(self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> RenderedPrompt:
        """The text to send with `generate`; without `tool_syntax` where the model takes no tools."""
        ...


def require_question(messages: Prompt) -> None:
    """Raises BadInput for an empty conversation: models answer it with whatever comes to them."""
    if not messages:
        raise BadInput(_("there is no message to answer"))


def too_long(tokens: int, context: int) -> BadInput:
    """The error for a prompt that leaves no room for an answer and may not be shortened."""
    return BadInput(
        _("the input length exceeds the context length ({tokens:,} of {context:,} tokens)").format(
            tokens=tokens, context=context
        )
    )


def no_schema() -> Unsupported:
    """The error for a structured answer where torch decodes."""
    return Unsupported(
        _("answers that follow a JSON schema need llama.cpp, which answers from GGUF files"),
        hint="h2q-tui models list",
    )


def seed_of(sampling: Sampling) -> int:
    """The seed of `sampling`, as `usable_seed`, else a random one."""
    return secrets.randbits(31) if sampling.seed is None else usable_seed(sampling.seed)


def collect(stream: Iterable[str | Generated]) -> tuple[str, Generated]:
    """The text and the statistics of a whole generation."""
    deltas: list[str] = []
    for item in stream:
        if isinstance(item, Generated):
            return "".join(deltas), item
        deltas.append(item)
    raise AssertionError("a generation ends with Generated")


def conversation_nll(model: LanguageModel, messages: Sequence[ChatMessage]) -> NLL:
    """NLL of the trained assistant turns of a conversation. Raises BadInput as `LanguageModel.windows`."""
    losses = model.nll(model.windows(messages, model.context))
    return NLL(nats=sum(loss.nats for loss in losses), bytes=sum(loss.bytes for loss in losses))


def generate_text(
    model: LanguageModel, messages: Sequence[ChatMessage], sampling: Sampling
) -> tuple[str, Generated]:
    """`LanguageModel.generate` as one text."""
    return collect(model.generate(messages, sampling))
