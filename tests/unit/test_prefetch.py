"""Prefetched batches, reused buffers and cached text chunks: none of them changes training."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import BadInput
from engine.core.settings import Settings
from engine.runs.events import Step
from engine.runs.kinds import TrainParams
from engine.training.batches import Batch, BufferPool, ScratchBatches
from engine.training.prefetch import Prefetcher
from engine.training.recipe import CurriculumStage, Phase, Recipe, recipe_for
from engine.training.scratch import train_scratch
from engine.training.text_files import FileSpan
from engine.training.text_stream import TextStream
from tests.unit.training_run import events, new_run, text_file, tiny


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(np.random.default_rng(0).integers(97, 122, 20_000, dtype=np.uint8).tobytes())
    return path


def source(text: Path, recipe: Recipe | None = None) -> ScratchBatches:
    return ScratchBatches(TextStream.training([text], seed=3, shortest=64), recipe or tiny(), 100)


def same(one: Batch, other: Batch) -> bool:
    return len(one.micro_batches) == len(other.micro_batches) and all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in zip(one.micro_batches, other.micro_batches, strict=True)
        for name in ("ids", "targets", "weights", "report_weights")
    )


@given(
    threads=st.integers(0, 3),
    ahead=st.integers(1, 4),
    moves=st.lists(st.sampled_from(["next", "again", "halve", "more"]), max_size=12),
)
@settings(max_examples=30, deadline=None)
def test_prefetched_batches_equal_those_of_the_source(
    text: Path, threads: int, ahead: int, moves: list[str]
) -> None:
    plain, number, most = source(text), 0, 12
    with Prefetcher(source(text), threads=threads, ahead=ahead) as ready:
        for move in moves:
            if move == "next":
                assert same(ready.batch_at(number, most), plain.batch_at(number, most))
                number += 1
            elif move == "again" and number:
                assert same(ready.batch_at(number - 1, most), plain.batch_at(number - 1, most))
            elif move == "halve":
                ready.tokens_per_micro_batch = plain.tokens_per_micro_batch = max(
                    16, plain.tokens_per_micro_batch // 2
                )
            else:
                most += 7  # the user sets max_steps: the stages move


class Recorded:
    """A source that records which thread built which batch."""

    tokens_per_micro_batch = 64

    def __init__(self, breaks_at: int = -1) -> None:
        self.drawn: list[tuple[int, str]] = []
        self.breaks_at = breaks_at

    def steps(self) -> int:
        return 100

    def epoch_after(self, draws: int, tokens: int) -> float:
        return 0.0

    def sample_names(self, number: int, max_steps: int) -> list[str]:
        return []

    def batch_at(self, number: int, max_steps: int, stage: CurriculumStage | None = None) -> Batch:
        self.drawn.append((number, threading.current_thread().name))
        if number == self.breaks_at:
            raise BadInput("gone", path=Path("a.txt"))
        return Batch([], number)


def prepared(ready: Prefetcher) -> None:
    """Waits for all submitted batches."""
    for future in ready._pending.values():
        future.result(timeout=30)


def test_the_loader_prepares_the_configured_number_of_batches_up_to_the_last() -> None:
    there = Recorded()
    with Prefetcher(there, threads=1, ahead=3) as ready:
        assert [ready.batch_at(number, 6).tokens for number in range(2)] == [0, 1]
        prepared(ready)
    assert sorted(number for number, _name in there.drawn) == [0, 1, 2, 3, 4]
    assert {name.startswith("loader") for number, name in there.drawn if number > 0} == {True}
    with Prefetcher(there := Recorded(), threads=1, ahead=9) as ready:
        ready.batch_at(0, 4)
        prepared(ready)
    assert max(number for number, _name in there.drawn) == 3


def test_without_threads_the_caller_builds_each_batch() -> None:
    here = Recorded()
    with Prefetcher(here, threads=0, ahead=3) as ready:
        for number in range(3):
            ready.batch_at(number, 9)
    assert here.drawn == [(number, threading.current_thread().name) for number in range(3)]


def test_an_error_is_raised_with_its_batch() -> None:
    with Prefetcher(Recorded(breaks_at=2), threads=1, ahead=3) as ready:
        ready.batch_at(0, 9)
        ready.batch_at(1, 9)
        with pytest.raises(BadInput, match="gone"):
            ready.batch_at(2, 9)


def test_released_buffers_are_reused_and_buffers_in_use_are_not(text: Path) -> None:
    batches, plain = source(text), source(text)
    kept = batches.batch_at(0, 6)
    for number in range(1, 30):
        batch = batches.batch_at(number, 60)
        assert same(batch, plain.batch_at(number, 60))
        batch.release()
    assert batches.buffers.allocations <= 3
    assert plain.buffers.allocations == 29
    assert same(kept, plain.batch_at(0, 6))


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_buffers_have_the_requested_size_and_are_few(sizes: list[int]) -> None:
    buffers = BufferPool()
    for size in sizes:
        array, memory = buffers.acquire((size, 3), np.int64)
        array.fill(7)
        assert array.shape == (size, 3)
        buffers.release([memory])
    assert buffers.allocations <= len(set(sizes))
    assert len(buffers._free) <= BufferPool.MAX_FREE


@given(
    contents=st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=4),
    chunk=st.integers(1, 40),
    cached=st.integers(1, 9),
    reads=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 90)), max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_chunks_do_not_change_the_bytes_read(
    contents: list[bytes],
    chunk: int,
    cached: int,
    reads: list[tuple[int, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("chunks")
    spans = []
    for number, content in enumerate(contents):
        path = folder / f"{number}.txt"
        path.write_bytes(content)
        spans.append(FileSpan(path, 0, len(content)))
    with TextStream(spans) as plain, TextStream(spans, chunk_bytes=chunk, cached_chunks=cached) as kept:
        for start, length in reads:
            assert np.array_equal(plain.read(start, length), kept.read(start, length))
        assert len(kept._chunks) <= cached


def test_chunks_save_reads_of_a_small_text_and_are_off_for_a_large_one(text: Path) -> None:
    with (
        TextStream.training([text], seed=0, shortest=16) as plain,
        TextStream.training([text], seed=0, shortest=16, chunk_bytes=1024, cached_chunks=64) as kept,
        TextStream.training([text], seed=0, shortest=16, chunk_bytes=1024, cached_chunks=2) as few,
    ):
        for step in range(20):
            assert np.array_equal(plain.windows(step, 8, 17), kept.windows(step, 8, 17))
            few.windows(step, 8, 17)
    assert plain.reads == 160 and few.reads == 160
    assert kept.reads <= 18  # 18,000 bytes in chunks of 1,024


def test_concurrent_reads_of_a_stream_are_correct(text: Path) -> None:
    with (
        TextStream.training([text], seed=0, shortest=16, chunk_bytes=512, cached_chunks=20) as stream,
        TextStream.training([text], seed=0, shortest=16) as plain,
        Prefetcher(ScratchBatches(stream, tiny(), 64), threads=4, ahead=8) as ready,
    ):
        expected = ScratchBatches(plain, tiny(), 64)
        assert all(same(ready.batch_at(number, 200), expected.batch_at(number, 200)) for number in range(200))


def test_batch_settings_enter_the_recipe_and_flags_override_them() -> None:
    chosen = Settings(streaming_batch_size=5, gradient_accumulation_steps=3, micro_batch_size=2)
    recipe = recipe_for(TrainParams(context=128), Phase.SCRATCH, settings=chosen)
    assert (recipe.curriculum[-1].batch, recipe.accumulation, recipe.micro_batch) == (5, 3, 2)
    asked = recipe_for(TrainParams(context=128, batch_size=7, accumulation=1), Phase.SCRATCH, settings=chosen)
    assert (asked.curriculum[-1].batch, asked.accumulation) == (7, 1)
    assert recipe_for(TrainParams(), Phase.SCRATCH) == recipe_for(
        TrainParams(), Phase.SCRATCH, settings=Settings()
    )


def test_micro_batch_size_cuts_the_same_batch_into_smaller_parts(text: Path) -> None:
    whole, cut = source(text), source(text, msgspec.structs.replace(tiny(), micro_batch=1))
    one, other = whole.batch_at(0, 6), cut.batch_at(0, 6)
    assert [len(part.ids) for part in one.micro_batches] == [4]
    assert [len(part.ids) for part in other.micro_batches] == [1, 1, 1, 1]
    assert torch.equal(one.micro_batches[0].ids, torch.cat([part.ids for part in other.micro_batches]))


@pytest.fixture
def journal_every_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("engine.training.metrics.MIN_EVENT_GAP_S", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield


def test_losses_do_not_depend_on_threads_chunks_and_micro_batches(
    tmp_path: Path, journal_every_step: None
) -> None:
    losses = []
    ways: dict[str, dict[str, bool | int | float | str]] = {
        "a": {"num_worker_threads": 0, "data_chunk_size": 0},
        "b": {"num_worker_threads": 2, "prefetch_buffer_size": 5, "data_chunk_size": 1},
    }
    for name, chosen in ways.items():
        ctx = new_run(tmp_path / name, TrainParams(settings=chosen))
        train_scratch(ctx, tiny(), [text_file(tmp_path)], name="m", out=tmp_path / name / "m")
        losses.append([event.loss for event in events(ctx, Step)])
    assert losses[0] == losses[1] and len(losses[0]) >= 6
