from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
import torch

from engine.core.paths import shipped
from engine.models.tokenizer import VOCAB
from engine.training.batch_faults import MIN_TOKENS, data_is_broken
from engine.training.batches import MicroBatch

NOISE = torch.Generator().manual_seed(1)
HAN = "".join(chr(0x4E00 + 7 * number) for number in range(600))
DIGESTS = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(60))
SAMPLE = shipped("data") / "sample" / "text"


def micro_batch(data: bytes | torch.Tensor, width: int = 65) -> MicroBatch:
    """Rows of text with a loss on every prediction."""
    tokens = torch.tensor(list(data)) if isinstance(data, bytes) else data
    rows = tokens[: len(tokens) // width * width].view(-1, width)
    weights = torch.full((len(rows), width - 1), 1.0)
    return MicroBatch(rows[:, :-1], rows[:, 1:], weights, weights)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(HAN.encode(), id="Chinese characters, each once"),
        pytest.param(base64.b64encode(DIGESTS), id="base64 keys"),
        pytest.param(DIGESTS.hex().encode(), id="hashes"),
        pytest.param(b'{"a": [1, 2.5, null]}\n' * 40, id="JSON"),
        pytest.param(Path(__file__).read_bytes()[:3000], id="code"),
        pytest.param((SAMPLE / "tinyshakespeare.txt").read_bytes()[:3000], id="English"),
        pytest.param(" ".join(str(number) for number in range(600)).encode(), id="numbers"),
        pytest.param("😀🎉🚀🧪🫠".encode() * 60, id="emoji"),
    ],
)
def test_honest_text_of_any_kind_is_not_broken(text: bytes) -> None:
    assert not data_is_broken([micro_batch(text)], VOCAB)


@pytest.mark.parametrize("vocab", [256, VOCAB, 49_152, 151_936])
def test_evenly_spread_tokens_are_noise(vocab: int) -> None:
    noise = torch.randint(0, min(vocab, vocab), (4096,), generator=NOISE)
    assert data_is_broken([micro_batch(noise)], vocab)


def test_few_tokens_are_not_judged() -> None:
    assert not data_is_broken([micro_batch(torch.arange(MIN_TOKENS - 1), width=5)], VOCAB)


def test_targets_that_are_not_the_next_tokens_are_broken() -> None:
    part = micro_batch(b"It was the best of times, it was the worst of times. " * 12)
    shuffled = part.targets[:, torch.randperm(part.targets.shape[1], generator=NOISE)]
    assert not data_is_broken([part], VOCAB)
    assert data_is_broken([part, MicroBatch(part.ids, shuffled, part.weights, part.report_weights)], VOCAB)


def test_predictions_without_a_loss_are_not_looked_at() -> None:
    """The last token of a conversation in a packed row predicts nothing."""
    part = micro_batch(b"It was the best of times, it was the worst of times. " * 12)
    targets, weights = part.targets.clone(), part.weights.clone()
    targets[:, 9], weights[:, 9] = 0, 0.0
    assert not data_is_broken([MicroBatch(part.ids, targets, weights, weights)], VOCAB)
