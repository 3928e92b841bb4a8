"""Drawing the next byte so that the text is valid UTF-8 at every moment, and ending it at stop strings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.core.errors import RunFailed
from engine.core.i18n import _
from engine.inference.protocol import Sampling
from engine.models.tokenizer import END_OF_TEXT, IM_END

STOP_TOKENS = (IM_END, END_OF_TEXT)

# Well-formed UTF-8 (Unicode 15, table 3-7) as a machine: for each state the ranges of bytes that may follow
# and the state that they lead to. State 0 is between characters.
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
"""`NEXT[state][byte]` is the state after a legal byte; illegal ones are missing."""


class Sampler:
    """Draws tokens from logits; keeps the UTF-8 state and the random numbers of one answer."""

    def __init__(self, sampling: Sampling, vocab: int, seed: int) -> None:
        self.state = _START
        self._sampling = sampling
        self._random = torch.Generator().manual_seed(seed % 2**63)
        self._illegal = torch.ones(8, vocab, dtype=torch.bool)
        for state, followers in enumerate(NEXT):
            self._illegal[state, list(followers)] = False
        # A turn may end between characters only.
        self._illegal[_START, list(STOP_TOKENS)] = False

    def draw(self, logits: Tensor) -> int:
        """The next token from logits `(vocab,)`: a legal byte, or a stop token between characters.

        Raises RunFailed when the logits are not numbers.
        """
        if bool(torch.isnan(logits).any()):
            raise RunFailed(_("the model gives no numbers (NaN)"), hint="h2q-tui rollback")
        scores = logits.float().cpu().masked_fill(self._illegal[self.state], float("-inf"))
        token = self._choose(scores)
        if token < 256:
            self.state = NEXT[self.state][token]
        return token

    def _choose(self, scores: Tensor) -> int:
        temperature = self._sampling.temperature
        if temperature <= 0:
            return int(scores.argmax())
        probabilities = ((scores - scores.max()) / temperature).softmax(dim=-1)
        if self._sampling.top_p < 1:
            ordered, order = probabilities.sort(descending=True)
            # A byte stays while those before it have not reached top_p: the likeliest always stays.
            ordered[ordered.cumsum(0) - ordered >= max(self._sampling.top_p, 0.0)] = 0.0
            ordered[0] = max(float(ordered[0]), 1e-9)
            return int(order[torch.multinomial(ordered, 1, generator=self._random)])
        return int(torch.multinomial(probabilities, 1, generator=self._random))


class StopStrings:
    """Lets text through up to the first stop string; holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """The part of the text so far that can no longer belong to a stop string; "" after one was found."""
        if self.found:
            return ""
        self._held += text
        places = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            out, self._held = self._held[: min(places)], ""
            return out
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        out = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return out

    def flush(self) -> str:
        """What was held back, when the text ends without a stop string."""
        out, self._held = self._held, ""
        return out

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        for length in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:length]):
                return length
        return 0
