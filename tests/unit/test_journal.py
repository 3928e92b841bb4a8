"""The journal survives torn lines, full disks, foreign bytes and newer programs."""

from __future__ import annotations

import math
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.runs import journal
from engine.runs.events import JournalRecord, Log, Started, Step
from engine.runs.journal import JournalReader, JournalWriter
from engine.runs.view import RunView


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def log(text: str) -> Log:
    return Log(level="info", text=text)


def step(number: int, loss: float | None = 1.0) -> Step:
    return Step(phase="native", step=number, max_steps=9, loss=loss, lr=0.1, tokens=number, tokens_per_s=1.0)


def read_all(reader: JournalReader, limit: int | None = None) -> list[JournalRecord]:
    records: list[JournalRecord] = []
    while batch := reader.poll(limit):
        records += batch
    return records


def texts(path: Path) -> list[str]:
    return [r.event.text for r in read_all(JournalReader(path)) if isinstance(r.event, Log)]


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size`: writes come short, then fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_records_are_read_in_the_order_written(path: Path) -> None:
    writer = JournalWriter(path, clock=lambda: 12.5)
    written = [writer.write(log(f"line {n}")) for n in range(5)]
    assert read_all(JournalReader(path)) == written
    assert [r.seq for r in written] == [0, 1, 2, 3, 4]
    assert {r.t for r in written} == {12.5}


def test_the_first_line_carries_the_schema_version(path: Path) -> None:
    JournalWriter(path).write(Started(pid=1, program="0"))
    assert msgspec.json.decode(path.read_bytes().splitlines()[0])["v"] == 1


def test_the_journal_is_for_its_owner_only(path: Path) -> None:
    JournalWriter(path).write(log("private"))
    assert path.stat().st_mode & 0o777 == 0o600


def test_sequence_numbers_continue_when_the_run_restarts(path: Path) -> None:
    first = JournalWriter(path)
    first.write(log("a"))
    first.close()
    assert JournalWriter(path).write(log("b")).seq == 1


def test_a_torn_last_line_waits_until_it_is_complete(path: Path) -> None:
    JournalWriter(path).write(log("whole"))
    line = path.read_bytes()
    reader = JournalReader(path)
    path.write_bytes(line + line[:20])
    assert len(read_all(reader)) == 1
    with path.open("ab") as file:
        file.write(line[20:])
    assert len(read_all(reader)) == 1
    assert reader.skipped == 0


def test_a_line_torn_by_a_crash_is_the_only_one_lost(path: Path) -> None:
    writer = JournalWriter(path)
    writer.write(log("before"))
    writer.close()
    with path.open("ab") as file:
        file.write(b'{"v":1,"seq":1,"t":0,"kind":"lo')
    JournalWriter(path).write(log("after"))
    reader = JournalReader(path)
    assert [getattr(r.event, "text", "") for r in read_all(reader)] == ["before", "after"]
    assert reader.skipped == 1


@pytest.mark.parametrize(
    "line",
    [
        b'{"v":1,"seq":3,"t":0,"kind":"from the future","data":{"x":1}}',
        b'{"v":99,"seq":3,"t":0,"kind":"log","data":{"level":"info","text":"new"}}',
        b'{"v":1,"seq":3,"t":0,"kind":"log","data":{"level":7}}',
        b"\xff\xfe not json",
        b"[" * 100_000,
        b"{}",
    ],
    ids=[
        "kind of the future",
        "version of the future",
        "wrong type",
        "not UTF-8",
        "deep nesting",
        "no envelope",
    ],
)
def test_unreadable_lines_are_counted_and_skipped(path: Path, line: bytes) -> None:
    writer = JournalWriter(path)
    writer.write(log("before"))
    with path.open("ab") as file:
        file.write(line + b"\n")
    writer.write(log("after"))
    reader = JournalReader(path)
    assert len(read_all(reader)) == 2
    assert reader.skipped == 1


def test_an_overlong_line_is_skipped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_LINE", 1000)
    monkeypatch.setattr(journal, "CHUNK", 300)
    path.write_bytes(b"x" * 5000)
    reader = JournalReader(path)
    assert reader.poll() == []
    JournalWriter(path).write(log("after"))
    assert [getattr(r.event, "text", "") for r in read_all(reader)] == ["after"]
    assert reader.skipped == 1


def test_a_journal_that_became_shorter_is_read_again_from_its_beginning(path: Path) -> None:
    writer = JournalWriter(path)
    for number in range(20):
        writer.write(log(f"line {number}"))
    reader = JournalReader(path)
    assert len(read_all(reader)) == 20 and reader.restarts == 0
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert [r.seq for r in read_all(reader)] == [0]
    assert reader.restarts == 1
    JournalWriter(path).write(log("after"))
    assert [r.seq for r in read_all(reader)] == [1]


def test_a_missing_journal_has_no_records(path: Path) -> None:
    reader = JournalReader(path)
    assert reader.poll() == []
    JournalWriter(path).write(log("now"))
    assert len(reader.poll()) == 1


def test_a_limit_bounds_a_batch_without_losing_records(path: Path) -> None:
    writer = JournalWriter(path)
    for number in range(25):
        writer.write(log(str(number)))
    reader = JournalReader(path)
    sizes = []
    while batch := reader.poll(10):
        sizes.append(len(batch))
    assert sizes == [10, 10, 5]


def test_non_finite_figures_are_read_as_none(path: Path) -> None:
    writer = JournalWriter(path)
    for loss in (math.nan, math.inf, 1.5):
        writer.write(step(1, loss))
    losses = [r.event.loss for r in read_all(JournalReader(path)) if isinstance(r.event, Step)]
    assert losses == [None, None, 1.5]


def test_a_file_name_that_is_not_utf8_is_written_escaped(path: Path) -> None:
    JournalWriter(path).write(log(os.fsdecode(b"caf\xe9.txt")))
    assert texts(path) == ["caf\\xe9.txt"]


def test_writing_to_a_full_disk_never_raises_and_catches_up(path: Path) -> None:
    writer = JournalWriter(path)
    writer.write(log("first"))
    with room_for(path.stat().st_size + 30):
        for number in range(20):
            writer.write(log(f"kept {number}"))
        failed = writer.error
    writer.write(log("last"))
    assert isinstance(failed, OSError)
    assert writer.error is None
    assert texts(path) == ["first", *(f"kept {n}" for n in range(20)), "last"]
    assert writer.lost == 0


def test_a_line_short_of_its_newline_only_is_not_written_twice(path: Path) -> None:
    writer = JournalWriter(path, clock=lambda: 1.0)
    writer.write(log("one"))
    with room_for(2 * path.stat().st_size - 1):
        writer.write(log("two"))
    writer.write(log("six"))
    assert texts(path) == ["one", "two", "six"]


def test_an_overflowing_buffer_drops_steps_first_and_reports_the_loss(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "RING", 10)
    writer = JournalWriter(path)
    with room_for(0):
        writer.write(log("important"))
        for number in range(30):
            writer.write(step(number))
    writer.write(log("end"))
    records = read_all(JournalReader(path))
    found = [r.event.text for r in records if isinstance(r.event, Log)]
    assert found[0] == "important"
    assert "22 records were lost" in found[-1]
    assert writer.lost == 22


def test_lines_of_two_threads_do_not_mix(path: Path) -> None:
    writer = JournalWriter(path)

    def write(name: str) -> None:
        for number in range(300):
            writer.write(log(f"{name} {number}"))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = read_all(JournalReader(path))
    assert [r.seq for r in records] == list(range(900))


_lines = st.one_of(
    st.binary(max_size=60),
    st.integers(0, 50).map(
        lambda n: (
            b'{"v":1,"seq":%d,"t":%d.5,"kind":"step","data":{"phase":"native","step":%d,"max_steps":9,"loss":null,'
            b'"lr":0.1,"tokens":1,"tokens_per_s":1}}\n' % (n, n, n)
        )
    ),
    st.sampled_from(
        [b'{"v":1,"seq":1,"t":1,"kind":"log","data":{"level":"info","text":"x"}}\n', b"\n", b"\r\n", b"}{"]
    ),
)


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(_lines, max_size=12))
def test_any_bytes_are_read_alike_in_any_batches(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("any") / "events.jsonl"
    whole, single, grown = JournalReader(path), JournalReader(path), JournalReader(path)
    seen: list[JournalRecord] = []
    for part in parts:
        with path.open("ab") as file:
            file.write(part)
        seen += read_all(grown)
    together = read_all(whole)
    assert together == read_all(single, 1) == seen
    assert whole.skipped == single.skipped == grown.skipped
    view = RunView()
    for record in together:
        view.apply(record)
    view.summary(alive=False)
    path.unlink(missing_ok=True)


def test_a_long_history_is_rebuilt_in_bounded_memory(path: Path) -> None:
    writer = JournalWriter(path)
    writer.write(Started(pid=1, program="0"))
    for number in range(20_000):
        writer.write(
            Step(
                phase="native",
                step=number,
                max_steps=100_000,
                epoch=number / 1000,
                loss=5.0 / (1 + number / 1000),
                lr=0.001,
                grad_norm=1.2345,
                tokens=number * 4096,
                tokens_per_s=28412.3,
                waiting=0.01,
                eta_s=100.0,
            )
        )
    reader, view = JournalReader(path), RunView()
    while records := reader.poll():
        for record in records:
            view.apply(record)
    assert view.step == 19_999
    assert len(view.series("native", "loss")) <= 400
