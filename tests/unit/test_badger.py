from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import BadInput
from engine.memory.importers.readers.badger import newest_values
from engine.memory.importers.readers.snappy import decompress
from tests.badger_writer import Put, literal_snappy, logged, uvarint, write_folder, write_log

SAMPLE = Path(__file__).parents[1] / "data" / "exports" / "mindx" / "data" / "vectors"

keys = st.binary(min_size=1, max_size=6)
puts = st.lists(st.tuples(keys, st.binary(max_size=300), st.booleans()), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(puts, st.integers(1, 4), st.integers(1, 7), st.booleans(), st.booleans())
def test_newest_values_are_read_in_key_order(
    tmp_path_factory: pytest.TempPathFactory,
    given_: list[tuple[bytes, bytes, bool]],
    tables: int,
    per_block: int,
    packed: bool,
    crashed: bool,
) -> None:
    folder = tmp_path_factory.mktemp("b")
    wanted: dict[bytes, bytes | None] = {}
    written: list[Put] = []
    for version, (key, value, deleted) in enumerate(given_, 1):
        wanted[key] = None if deleted else value
        written.append((key, version, value, 64 | deleted))
    logs = written[len(written) // 2 :] if crashed else []
    entries = written[: len(written) // 2] if crashed else written
    groups = [entries[n::tables] for n in range(tables)]
    write_folder(
        folder,
        [group for group in groups if group],
        pack=literal_snappy if packed else None,
        per_block=per_block,
    )
    if logs:
        ended = [entry for put in logs for entry in (put, (b"!badger!txn", put[1], b"1", 128))]
        write_log(folder / "00001.mem", ended)
    values = dict(newest_values(folder))
    assert values == {key: value for key, value in wanted.items() if value is not None}
    assert list(values) == sorted(values)


def test_an_incomplete_transaction_is_ignored(tmp_path: Path) -> None:
    write_folder(tmp_path, [[(b"a", 1, b"old", 64)]])
    complete = [(b"b", 2, b"new", 64), (b"!badger!txn", 2, b"2", 128)]
    write_log(tmp_path / "00001.mem", [*complete, (b"a", 3, b"lost", 64)], tail=b"\x40\x00\x09")
    assert dict(newest_values(tmp_path)) == {b"a": b"old", b"b": b"new"}


def test_a_long_value_is_read_from_the_value_log(tmp_path: Path) -> None:
    value = bytes(range(256)) * 8000
    entry = logged([(b"a", 1, value, 64)])
    with (tmp_path / "000001.vlog").open("wb") as file:
        file.write(bytes(20) + entry)
        file.truncate(8 * 2**20)
    pointer = b"".join(n.to_bytes(4, "little") for n in (1, len(entry), 20))
    write_folder(tmp_path, [[(b"a", 1, pointer, 64 | 2)]])
    before = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in tmp_path.iterdir())
    assert dict(newest_values(tmp_path)) == {b"a": value}
    after = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in tmp_path.iterdir())
    assert before == after


@pytest.mark.parametrize(
    ("change", "message"),
    [({"key_id": 5}, "Encrypted"), ({"compression": 2}, "Zstandard"), ({"version": 4}, "format 4")],
)
def test_unsupported_stores_are_bad_input(tmp_path: Path, change: dict[str, int], message: str) -> None:
    write_folder(tmp_path / "b", [[(b"a", 1, b"x", 0)]], **change)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=message) as caught:
        list(newest_values(tmp_path / "b"))
    assert str(tmp_path / "b") in str(caught.value) and "h2q-" not in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_bad_input_and_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("d")
    for path in SAMPLE.iterdir():
        complete = path.read_bytes()
        cut = data.draw(st.integers(0, len(complete))) if data.draw(st.booleans()) else len(complete)
        broken = bytearray(complete[:cut])
        for _n in range(data.draw(st.integers(0, 3))):
            if broken:
                broken[data.draw(st.integers(0, len(broken) - 1))] ^= data.draw(st.integers(1, 255))
        (folder / path.name).write_bytes(broken)
    try:
        list(newest_values(folder))
    except BadInput as error:
        assert str(folder) in str(error)


def test_a_missing_table_is_bad_input(tmp_path: Path) -> None:
    write_folder(tmp_path, [[(b"a", 1, b"x", 0)]])
    (tmp_path / "000001.sst").unlink()
    with pytest.raises(BadInput, match="cannot be read"):
        list(newest_values(tmp_path))


# Snappy: each copy is one of the three forms that the format has.


def test_snappy_decompresses_all_copy_types() -> None:
    one = bytes([(4 - 4) << 2 | 1, 4])
    two = bytes([(10 - 1) << 2 | 2]) + (2).to_bytes(2, "little")
    four = bytes([(5 - 1) << 2 | 3]) + (18).to_bytes(4, "little")
    packed = uvarint(4 + 4 + 10 + 5) + bytes([3 << 2]) + b"abcd" + one + two + four
    assert decompress(packed) == b"abcdabcd" + b"cd" * 5 + b"abcda"


def test_snappy_decompresses_long_literals() -> None:
    data = bytes(70) + b"x" * 1000
    assert decompress(uvarint(1070) + bytes([61 << 2]) + (1069).to_bytes(2, "little") + data) == data


@given(st.binary(max_size=2000))
def test_snappy_round_trip(data: bytes) -> None:
    assert decompress(literal_snappy(data)) == data


@given(st.binary(max_size=60))
def test_snappy_rejects_corrupt_bytes(data: bytes) -> None:
    try:
        decompress(data)
    except ValueError:
        return


def test_a_block_length_of_gigabytes_is_rejected() -> None:
    with pytest.raises(ValueError, match="length"):
        decompress(uvarint(2**40) + b"\x00a")
