from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import BadInput, NotEnoughData
from engine.models.tokenizer import END_OF_TEXT
from engine.training.text_files import FileSpan, general_tail
from engine.training.text_stream import TextStream, general_windows


def write(folder: Path, *contents: bytes) -> list[Path]:
    paths = [folder / f"{number}.txt" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


@given(
    contents=st.lists(st.binary(max_size=40), min_size=1, max_size=5),
    start=st.integers(0, 500),
    length=st.integers(1, 120),
)
@settings(max_examples=100, deadline=None)
def test_windows_read_the_texts_joined_by_end_tokens_and_wrap_around(
    contents: list[bytes], start: int, length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not any(contents):
        return
    paths = write(tmp_path_factory.mktemp("stream"), *contents)
    line = [token for content in contents if content for token in (*content, END_OF_TEXT)]
    with TextStream([FileSpan(path, 0, path.stat().st_size) for path in paths]) as stream:
        assert stream.size == len(line)
        expected = [line[(start + offset) % len(line)] for offset in range(length)]
        assert stream.read(start, length).tolist() == expected


def test_windows_depend_on_seed_and_step_alone(tmp_path: Path) -> None:
    files = write(tmp_path, bytes(range(256)) * 20)
    with TextStream.training(files, seed=7, shortest=16) as one:
        first, second = one.windows(0, 4, 17), one.windows(1, 4, 17)
    with TextStream.training(files, seed=7, shortest=16) as other:
        assert np.array_equal(other.windows(1, 4, 17), second)
        assert np.array_equal(other.windows(0, 4, 17), first)
    with TextStream.training(files, seed=8, shortest=16) as third:
        assert not np.array_equal(third.windows(0, 4, 17), first)


def test_the_held_out_tail_is_never_read(tmp_path: Path) -> None:
    # The letters of the tail occur nowhere else.
    files = write(tmp_path, b"a" * 900 + b"Z" * 100, b"b" * 90 + b"Y" * 10)
    with TextStream.training(files, seed=0, shortest=16) as stream:
        drawn = {int(token) for step in range(50) for token in np.unique(stream.windows(step, 8, 33))}
    assert drawn == {ord("a"), ord("b"), END_OF_TEXT}


def test_a_text_counts_by_its_size(tmp_path: Path) -> None:
    files = write(tmp_path, b"a" * 9000, b"b" * 1000)
    with TextStream.training(files, seed=0, shortest=16) as stream:
        tokens = np.concatenate([stream.windows(step, 16, 9).ravel() for step in range(200)])
    assert np.mean(tokens == ord("b")) == pytest.approx(0.1, abs=0.02)


def test_text_shorter_than_a_batch_is_rejected_with_its_name(tmp_path: Path) -> None:
    files = write(tmp_path, b"too short for a window")
    with pytest.raises(NotEnoughData, match=r"a batch needs .*0\.txt"):
        TextStream.training(files, seed=0, shortest=128)
    with pytest.raises(NotEnoughData, match=r"0\.txt"):
        TextStream.training(write(tmp_path, b""), seed=0, shortest=1)


def test_a_shrunk_or_deleted_file_is_reported(tmp_path: Path) -> None:
    files = write(tmp_path, b"x" * 1000)
    stream = TextStream.training(files, seed=0, shortest=16)
    os.truncate(files[0], 10)
    with pytest.raises(BadInput, match=r"0\.txt"):
        stream.windows(0, 8, 64)
    stream.close()
    files[0].unlink()
    with pytest.raises(BadInput, match=r"0\.txt"):
        stream.windows(0, 8, 64)


def test_more_files_than_the_open_limit_are_read(tmp_path: Path) -> None:
    files = write(tmp_path, *(bytes([65 + number % 26]) * 50 for number in range(100)))
    with TextStream.training(files, seed=0, shortest=16) as stream:
        before = psutil.Process().num_fds()
        for step in range(30):
            stream.windows(step, 16, 17)
        assert psutil.Process().num_fds() - before <= 32


def test_memory_stays_flat_over_a_large_text(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        file.truncate(256 << 20)
    with TextStream.training([path], seed=0, shortest=16) as stream:
        stream.windows(0, 16, 129)
        before = psutil.Process().memory_info().rss
        for step in range(500):
            stream.windows(step, 16, 129)
        assert psutil.Process().memory_info().rss - before < 8 << 20


def test_general_windows_cover_every_tail_once(tmp_path: Path) -> None:
    files = write(tmp_path, bytes(range(200)) * 10, b"q" * 990)
    windows = list(general_windows(files, 64, 1 << 20))
    targets = np.concatenate([window[1:] for window in windows])
    tails = [general_tail(file).read() for file in files]
    assert targets.tolist() == [byte for tail in tails for byte in tail[1:]]


def test_general_windows_are_bounded_and_deterministic(tmp_path: Path) -> None:
    files = write(tmp_path, np.random.default_rng(0).integers(0, 255, 50_000, dtype=np.uint8).tobytes())
    first, second = (list(general_windows(files, 64, 640)) for _round in range(2))
    assert len(first) == 10
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
