"""Reading a corpus: what it costs, and that its batches are sound."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from engine.corpus.dataset import read_dataset
from engine.models.chat_template import ChatTemplate
from engine.models.chatml import MaskedTokens
from engine.models.tokenizer import VOCAB
from engine.runs.kinds import TrainParams
from engine.training.batch_faults import data_is_broken
from engine.training.chat_batches import NativeBatches, read_windows
from engine.training.lora.data import LoraBatches, RowLayout, render_windows
from engine.training.recipe import Phase, recipe_for
from engine.training.replay import replay_counts_for, sample_of_older
from engine.training.text_stream import TextStream
from engine.training.token_windows import BYTE_TOKENS, WORD_TOKENS, TokenWindows, WindowBuilder
from tests.hf_models import tiny_tokenizer
from tests.unit.training_run import new_run, text_file, tiny

MOST_BYTES_PER_TOKEN = 6.0
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "you",
    "that",
    "it",
    "he",
    "was",
    "for",
    "on",
    "are",
    "with",
    "as",
    "his",
    "they",
    "at",
    "be",
    "this",
    "have",
    "from",
]


def corpus(folder: Path, conversations: int) -> Path:
    """Conversations of about two thousand characters."""
    chance, path = random.Random(0), folder / "train_data.jsonl"
    with path.open("w") as file:
        for number in range(conversations):
            messages = [
                {"role": role, "content": " ".join(chance.choices(WORDS, k=length))}
                for role, length in (("user", 40), ("assistant", 150)) * 2
            ]
            file.write(json.dumps({"id": f"c{number}", "cluster": f"k{number}", "messages": messages}) + "\n")
    return path


@pytest.mark.parametrize("mode", ["native", "lora"])
def test_reading_a_corpus_takes_at_most_six_bytes_a_token(tmp_path: Path, mode: str) -> None:
    """By the difference of two corpora: bounded caches are full in both."""
    chat = ChatTemplate(tiny_tokenizer())

    def read(path: Path) -> TokenWindows:
        return (
            read_windows(path, 1024) if mode == "native" else render_windows(read_dataset(path), chat, 1024)
        )

    def peak(conversations: int) -> tuple[int, int]:
        """(peak bytes, tokens) of reading."""
        (tmp_path / mode).mkdir(exist_ok=True)
        path = corpus(tmp_path / mode, conversations)
        tracemalloc.start()
        try:
            data = read(path)
            return tracemalloc.get_traced_memory()[1], int(data.lengths.sum())
        finally:
            tracemalloc.stop()

    read(corpus(tmp_path, 200))
    (small, fewer), (large, more) = peak(200), peak(600)
    assert more - fewer > 300_000
    assert large - small <= MOST_BYTES_PER_TOKEN * (more - fewer)


def test_counting_older_conversations_does_not_hold_the_corpus(tmp_path: Path) -> None:
    path, ctx = corpus(tmp_path, 400), new_run(tmp_path / "run")
    older = [f"c{number}" for number in range(0, 400, 2)]
    tracemalloc.start()
    try:
        counts = replay_counts_for(ctx, path, older)
        sample = sample_of_older(path, older)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(counts), len(sample)) in ((0, 40), (200, 40))
    assert peak < path.stat().st_size / 2


@pytest.mark.parametrize("type_", [BYTE_TOKENS, WORD_TOKENS])
def test_windows_are_kept_in_order_and_repeated_together(type_: str) -> None:
    builder = WindowBuilder(type_)
    first = MaskedTokens(ids=[1, 2, 3], loss_mask=[False, True, True])
    second = MaskedTokens(ids=[258, 4], loss_mask=[True, True], truncated_bytes=7, scored_bytes=9)
    without_loss = MaskedTokens(ids=[5, 6], loss_mask=[True, False])
    builder.add([first, without_loss], "a", times=2)
    builder.add([second], "b")
    data = builder.build(refused=3)
    assert [data[index][0].tolist() for index in range(len(data))] == [[1, 2, 3], [1, 2, 3], [258, 4]]
    assert data[2][1].tolist() == [True, True] and data.names == ["a", "a", "b"]
    assert (data.trained, data.cut, data.refused) == (2 + 2 + 1, 7, 3)
    assert data.scored.tolist() == [2, 2, 9]
    assert data.lengths.dtype == np.int64


def test_windows_without_names() -> None:
    data = TokenWindows.of([MaskedTokens(ids=[1, 2], loss_mask=[False, True])])
    assert (len(data), data.names) == (1, [])


@pytest.mark.parametrize("replay", [False, True])
def test_no_batch_of_sound_conversations_is_called_broken(tmp_path: Path, replay: bool) -> None:
    data = read_windows(corpus(tmp_path, 12), 256)
    stream = TextStream.training([text_file(tmp_path)], seed=0, shortest=16) if replay else None
    source = NativeBatches(data, stream, tiny(Phase.NATIVE), 256, 4096)
    for number in range(source.steps()):
        assert not data_is_broken(source.batch_at(number, 99).micro_batches, VOCAB)


@pytest.mark.parametrize("layout", list(RowLayout))
def test_no_row_of_sound_conversations_is_called_broken(tmp_path: Path, layout: RowLayout) -> None:
    tokenizer = tiny_tokenizer()
    data = render_windows(read_dataset(corpus(tmp_path, 12)), ChatTemplate(tokenizer), 256)
    source = LoraBatches(data, recipe_for(TrainParams(context=256), Phase.LORA), 2048, 0, layout)
    for number in range(source.steps()):
        assert not data_is_broken(source.batch_at(number, 99).micro_batches, len(tokenizer))
