"""Autoregressive decoding: sampling, valid UTF-8, stop strings, and the loop that all torch backends share."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.core.errors import RunFailed
from engine.core.i18n import _
from engine.inference.language_model import CountedText, Finish, Generated, Sampling, ScoredText, TokenLogProb
from engine.models.tokenizer import END_OF_TEXT, IM_END

STOP_TOKENS = (IM_END, END_OF_TEXT)

# Well-formed UTF-8 (Unicode 15, table 3-7) as a finite-state machine: for each state the legal byte ranges
# and the state that follows. State 0 is between characters.
_START, _ONE, _TWO, _THREE, _E0, _ED, _F0, _F4 = range(8)
_RULES: dict[int, tuple[tuple[int, int, int], ...]] = {
    _START: (
        (0x00, 0x7F, _START),
        (0xC2, 0xDF, _ONE),
        (0xE0, 0xE0, _E0),
        (0xE1, 0xEC, _TWO),
        (0xED, 0xED, _ED),
        (0xEE, 0xEF, _TWO),
        (0xF0, 0xF0, _F0),
        (0xF1, 0xF3, _THREE),
        (0xF4, 0xF4, _F4),
    ),
    _ONE: ((0x80, 0xBF, _START),),
    _TWO: ((0x80, 0xBF, _ONE),),
    _THREE: ((0x80, 0xBF, _TWO),),
    _E0: ((0xA0, 0xBF, _ONE),),
    _ED: ((0x80, 0x9F, _ONE),),
    _F0: ((0x90, 0xBF, _TWO),),
    _F4: ((0x80, 0x8F, _TWO),),
}
NEXT: list[dict[int, int]] = [
    {byte: to for low, high, to in _RULES[state] for byte in range(low, high + 1)} for state in range(8)
]
"""`NEXT[state][byte]` is the state after a legal byte; illegal bytes have no entry."""


class TokenSampler:
    """Penalties, temperature, top-k, nucleus and min-p sampling, in this order, with the random numbers of one answer."""

    def __init__(self, sampling: Sampling, seed: int, prompt: Sequence[int] = ()) -> None:
        self._sampling = sampling
        self._random = torch.Generator().manual_seed(seed)
        window = sampling.repeat_last_n if sampling.penalises else 0
        self._recent = deque(prompt, maxlen=None if window < 0 else window)

    def sample(self, logits: Tensor) -> int:
        """The next token from logits `(vocab,)`. Raises RunFailed when one of them is NaN."""
        if bool(torch.isnan(logits).any()):
            raise RunFailed(_("the model gives no numbers (NaN)"), hint="h2q-tui rollback")
        scores = logits.float().cpu()
        token = self._choose(self._penalised(scores) if self._recent else scores)
        self._recent.append(token)
        return token

    def _penalised(self, scores: Tensor) -> Tensor:
        """Lowers the logits of recent tokens, as llama.cpp does."""
        counts = Counter(self._recent)
        ids = torch.tensor(list(counts))
        times = torch.tensor(list(counts.values()), dtype=scores.dtype)
        chosen, how = scores[ids], self._sampling
        chosen = torch.where(chosen > 0, chosen / how.repeat_penalty, chosen * how.repeat_penalty)
        scores = scores.clone()
        scores[ids] = chosen - how.frequency_penalty * times - how.presence_penalty
        return scores

    def _choose(self, scores: Tensor) -> int:
        temperature = self._sampling.temperature
        if temperature <= 0:
            return int(scores.argmax())
        if 0 < self._sampling.top_k < len(scores):
            scores = scores.masked_fill(scores < scores.topk(self._sampling.top_k).values[-1], float("-inf"))
        probabilities = ((scores - scores.max()) / temperature).softmax(dim=-1)
        least = float(probabilities.max()) * min(max(self._sampling.min_p, 0.0), 1.0)
        if self._sampling.top_p < 1:
            ordered, order = probabilities.sort(descending=True)
            # A token stays while those before it have not reached top_p: the most likely one always stays.
            ordered[ordered.cumsum(0) - ordered >= max(self._sampling.top_p, 0.0)] = 0.0
            ordered[ordered < least] = 0.0
            ordered[0] = max(float(ordered[0]), 1e-9)
            return int(order[torch.multinomial(ordered, 1, generator=self._random)])
        if least > 0:
            probabilities = probabilities.masked_fill(probabilities < least, 0.0)
        return int(torch.multinomial(probabilities, 1, generator=self._random))


class Utf8Sampler(TokenSampler):
    """Samples byte tokens so that the text is well-formed UTF-8; a turn ends between characters only."""

    def __init__(self, sampling: Sampling, seed: int, vocab: int, prompt: Sequence[int] = ()) -> None:
        super().__init__(sampling, seed, prompt)
        self.state = _START
        self._illegal = torch.ones(8, vocab, dtype=torch.bool)
        for state, followers in enumerate(NEXT):
            self._illegal[state, list(followers)] = False
        self._illegal[_START, list(STOP_TOKENS)] = False

    def _choose(self, scores: Tensor) -> int:
        token = super()._choose(scores.masked_fill(self._illegal[self.state], float("-inf")))
        if token < 256:
            self.state = NEXT[self.state][token]
        return token


class StopStrings:
    """Passes text up to the first stop string; buffers what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._buffer = ""
        self.found = False

    def push(self, text: str) -> str:
        """The text that can no longer belong to a stop string; "" after one was found."""
        if self.found:
            return ""
        self._buffer += text
        places = [at for stop in self._stops if (at := self._buffer.find(stop)) >= 0]
        if places:
            self.found = True
            out, self._buffer = self._buffer[: min(places)], ""
            return out
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        out = self._buffer[: len(self._buffer) - keep]
        self._buffer = self._buffer[len(self._buffer) - keep :]
        return out

    def flush(self) -> str:
        """The buffered text, when the generation ends without a stop string."""
        out, self._buffer = self._buffer, ""
        return out

    def _overlap(self, stop: str) -> int:
        """Length of the longest suffix of the buffer that is a prefix of `stop`."""
        for length in range(min(len(stop) - 1, len(self._buffer)), 0, -1):
            if self._buffer.endswith(stop[:length]):
                return length
        return 0


@dataclass(frozen=True)
class DecodingSession:
    """One answer in progress: the prompt and the model's parts of the decoding loop."""

    prompt: Sequence[int]
    dropped_turns: int
    """Turns dropped from the prompt."""
    context: int
    """Context length in tokens."""
    cut_question: bool
    """The question lost its beginning."""
    max_tokens: int
    max_bytes: int
    """Upper limit of the answer in UTF-8 bytes."""
    stop_tokens: frozenset[int]
    next_logits: Callable[[Sequence[int]], Tensor]
    """Logits `(vocab,)` after the given tokens, which continue those of earlier calls."""
    sampler: TokenSampler
    detokenize: Callable[[int], tuple[str, int]]
    """(characters that a token completes, bytes that it counts for)."""
    token_bytes: Callable[[int], bytes]
    """What a token alone stands for; b"" for a control token."""


def log_prob(logits: Tensor, token: int, most: int, token_bytes: Callable[[int], bytes]) -> TokenLogProb:
    """A sampled token with the `most` likeliest ones at its place. `logits` is `(vocab,)`."""
    scores = logits.float().log_softmax(dim=-1)
    likeliest = scores.topk(min(most, len(scores)))

    def named(id_: int, value: float, top: Sequence[TokenLogProb] = ()) -> TokenLogProb:
        data = token_bytes(id_)
        return TokenLogProb(
            text=data.decode("utf-8", "replace"), bytes=list(data), logprob=value, top=list(top)
        )

    top = [
        named(id_, value)
        for id_, value in zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
    ]
    return named(token, float(scores[token]), top)


def decode(
    session: DecodingSession,
    sampling: Sampling,
    *,
    seed: int,
    started: float,
    cancelled: threading.Event | None,
) -> Iterator[str | Generated]:
    """The decoding loop: `LanguageModel.generate` once prompt and cache exist. `started` is a `perf_counter`."""
    stops = StopStrings(sampling.stop)
    finish, size, tokens = Finish.LENGTH, 0, session.prompt
    sampled, first_token_s = 0, 0.0
    scored: list[TokenLogProb] = []

    def delta(text: str) -> Iterator[str]:
        """The next part of the answer, with the log-probabilities of the tokens since the last one."""
        if sampling.logprobs is None:
            if text:
                yield CountedText(text, sampled)
        elif text or scored:
            yield ScoredText(text, sampled, scored)
            scored.clear()

    for number in range(min(session.max_tokens, sampling.max_tokens or session.max_tokens)):
        if cancelled is not None and cancelled.is_set():
            break
        logits = session.next_logits(tokens)
        token = session.sampler.sample(logits)
        sampled = number + 1
        first_token_s = first_token_s or time.perf_counter() - started
        if token in session.stop_tokens:
            finish = Finish.STOP
            break
        if sampling.logprobs is not None:
            scored.append(log_prob(logits, token, sampling.logprobs, session.token_bytes))
        tokens = [token]
        text, length = session.detokenize(token)
        truncated = size + length > session.max_bytes
        if truncated:
            text = text.encode("utf-8", "replace")[: session.max_bytes - size].decode("utf-8", "ignore")
            length = len(text.encode("utf-8", "replace"))
        size += length
        yield from delta(stops.push(text))
        if truncated:
            break
        if stops.found:
            finish = Finish.STOP_STRING
            break
        if size >= session.max_bytes:
            break
    yield from delta("" if stops.found else stops.flush())
    yield Generated(
        finish=finish,
        bytes=size,
        seconds=time.perf_counter() - started,
        dropped_turns=session.dropped_turns,
        cut_question=session.cut_question,
        seed=seed,
        prompt_tokens=len(session.prompt),
        tokens=sampled,
        context=session.context,
        first_token_s=first_token_s,
    )
