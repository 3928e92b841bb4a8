from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import BadInput, NotEnoughData
from engine.models.tokenizer import IM_END
from engine.training.batches import Batch, pad_multiple, padded_length
from engine.training.chat_batches import NativeBatches, read_windows
from engine.training.recipe import Phase
from engine.training.text_stream import TextStream
from tests.unit.training_run import text_file, tiny


def dataset(folder: Path, *conversations: list[tuple[str, str]], train: bool = True) -> Path:
    rows: list[dict[str, Any]] = [
        {
            "id": f"c{number}",
            "cluster": f"k{number}",
            "messages": [
                {"role": role, "content": text, "train": train and role == "assistant"}
                for role, text in turns
            ],
        }
        for number, turns in enumerate(conversations)
    ]
    path = folder / "train_data.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def many(count: int = 30) -> list[list[tuple[str, str]]]:
    return [
        [("user", "问" * (number % 7 + 1)), ("assistant", f"answer {number:03d} " * (number % 5 + 1))]
        for number in range(count)
    ]


def batches(folder: Path, path: Path, *, replay: bool = True, micro_batches: int = 4096) -> NativeBatches:
    recipe = msgspec.structs.replace(tiny(Phase.NATIVE), epochs=2)
    stream = TextStream.training([text_file(folder)], seed=0, shortest=16) if replay else None
    return NativeBatches(read_windows(path, 256), stream, recipe, 256, micro_batches)


def trained_tokens(batch: Batch) -> list[int]:
    """The tokens with a reported loss."""
    return [int(token) for part in batch.micro_batches for token in part.targets[part.report_weights > 0]]


def test_each_answer_is_trained_once_per_epoch(tmp_path: Path) -> None:
    source = batches(tmp_path, dataset(tmp_path, *many()))
    wanted = Counter(token for turns in many() for token in (*turns[1][1].encode(), IM_END))
    whole = source.steps() // 2
    first = [source.batch_at(number, 99) for number in range(whole)]
    second = [source.batch_at(number, 99) for number in range(whole, 2 * whole)]
    got = Counter(token for batch in first for token in trained_tokens(batch))
    assert source.epoch_after(whole, 0) == 1.0
    assert got == wanted
    assert Counter(token for batch in second for token in trained_tokens(batch)) == wanted


def test_only_answers_and_their_stop_token_have_a_loss(tmp_path: Path) -> None:
    path = dataset(tmp_path, [("system", "rules"), ("user", "question"), ("assistant", "reply")])
    source = batches(tmp_path, path, replay=False)
    assert trained_tokens(source.batch_at(0, 1)) == [*b"reply", IM_END]


def test_weights_sum_to_one_with_the_share_of_replay_on_replayed_text(tmp_path: Path) -> None:
    source = batches(tmp_path, dataset(tmp_path, *many()))
    share = tiny(Phase.NATIVE).replay
    assert 0 < share < 1
    for number in range(source.steps()):
        batch = source.batch_at(number, 99)
        weights = sum(float(part.weights.sum()) for part in batch.micro_batches)
        replayed = sum(
            float(part.weights.sum()) for part in batch.micro_batches if not part.report_weights.any()
        )
        tokens = sum(part.ids.numel() for part in batch.micro_batches if not part.report_weights.any())
        assert weights == pytest.approx(1.0, rel=1e-4)
        assert replayed == pytest.approx(share, rel=1e-4)
        assert tokens / batch.tokens == pytest.approx(share, abs=0.03)
        assert sum(float(part.report_weights.sum()) for part in batch.micro_batches) == pytest.approx(
            1.0, rel=1e-4
        )


def test_small_micro_batches_give_the_gradients_of_a_large_one(tmp_path: Path) -> None:
    path = dataset(tmp_path, *many())
    large, small = batches(tmp_path, path), batches(tmp_path, path, micro_batches=64)
    for number in range(large.steps()):
        one, other = large.batch_at(number, 99), small.batch_at(number, 99)
        assert len(other.micro_batches) >= len(one.micro_batches)
        assert trained_tokens(one) == trained_tokens(other)
        assert torch.allclose(
            torch.stack([part.weights.sum() for part in one.micro_batches]).sum(),
            torch.stack([part.weights.sum() for part in other.micro_batches]).sum(),
        )


def test_a_batch_depends_on_its_number_alone(tmp_path: Path) -> None:
    path = dataset(tmp_path, *many())
    source, again = batches(tmp_path, path), batches(tmp_path, path)
    last = source.steps() - 1
    wanted = [source.batch_at(number, 99) for number in range(last + 1)][last]
    got = again.batch_at(last, 99)
    assert all(
        torch.equal(a.ids, b.ids) and torch.equal(a.weights, b.weights)
        for a, b in zip(wanted.micro_batches, got.micro_batches, strict=True)
    )


def test_a_dataset_without_answers_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="loss mask is empty"):
        read_windows(dataset(tmp_path, [("user", "alone")]), 64)
    with pytest.raises(BadInput, match="loss mask is empty"):
        read_windows(dataset(tmp_path, *many(3), train=False), 64)


def test_an_empty_and_a_missing_dataset_raise_different_errors(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughData, match="no conversation"):
        read_windows(dataset(tmp_path), 64)
    with pytest.raises(BadInput, match=r"missing\.jsonl"):
        read_windows(tmp_path / "missing.jsonl", 64)


def test_a_broken_row_is_reported_with_its_line(tmp_path: Path) -> None:
    path = dataset(tmp_path, *many(3))
    with path.open("a") as file:
        file.write('\n{"id": "x", "messages": [{"role"\n')
    with pytest.raises(BadInput, match="line 5"):
        read_windows(path, 64)


@given(length=st.integers(1, 5000), context=st.integers(1, 4096), most=st.sampled_from([32, 128]))
def test_padding_is_at_most_a_quarter_and_lengths_are_few(length: int, context: int, most: int) -> None:
    found = padded_length(length, context, most)
    assert length <= found <= max(length, context)
    assert found - length < max(1, length / 4)
    assert found in (length, context) or found % pad_multiple(length, most) == 0
    assert (
        len({padded_length(one, 2048, most) for one in range(1, 2049)})
        <= 12 * math.log2(2048 / most) + 2048 / most
    )


def test_micro_batches_of_conversations_have_few_shapes(tmp_path: Path) -> None:
    source = batches(tmp_path, dataset(tmp_path, *many(60)))
    shapes = {
        part.ids.shape
        for number in range(source.steps())
        for part in source.batch_at(number, 99).micro_batches
    }
    lengths = {shape[1] for shape in shapes}
    assert len(lengths) > 2
    assert all(length % pad_multiple(length) == 0 for length in lengths)
