"""Folders, archives and compressed files: the same files give the same conversations however they are packed."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import json
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.chat import Role
from engine.core.errors import BadInput
from engine.memory.importers.fields import ImportOptions
from engine.memory.importers.readers import unpack
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import ImportReport, import_paths
from tests.unit.test_importers import read


def chat(name: str) -> dict[str, object]:
    return {
        "id": name,
        "messages": [{"role": "user", "content": f"q {name}"}, {"role": "assistant", "content": f"a {name}"}],
    }


ROWS = b"\n".join(json.dumps(chat(f"r{n}")).encode() for n in range(3))
BROKEN_FIRST = b'{"messages": [}\n' + ROWS
BROKEN_SECOND = json.dumps(chat("kept")).encode() + b'\n{"messages": [}\n'
GBK = '[{"messages": "你好，世界"}]'.encode("gb18030")
FILES = {
    "one.json": json.dumps([chat("a"), chat("b")]).encode(),
    "deep/er/two.jsonl": ROWS,
    "photo.png": b"\x89PNG\r\n\x1a\n" + bytes(50),
    "deep/README.md": b"# A project\n\nNote: nobody speaks here.\n",
    "__MACOSX/one.json": b"\0\5\26\7",
    ".hidden/x.json": b"{}",
    "empty.json": b"",
}
EXPECTED = {"a", "b", "r0", "r1", "r2"}


def folder_of(files: dict[str, bytes], where: Path) -> Path:
    for name, data in files.items():
        path = where / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return where / "folder"


def zip_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tar_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def file_of(name: str, pack: Callable[[dict[str, bytes]], bytes]) -> Callable[[dict[str, bytes], Path], Path]:
    def write(files: dict[str, bytes], where: Path) -> Path:
        (where / name).write_bytes(pack(files))
        return where / name

    return write


CONTAINERS: dict[str, Callable[[dict[str, bytes], Path], Path]] = {
    "folder": folder_of,
    "zip": file_of("x.zip", zip_bytes),
    "zip in a zip": file_of("x.zip", lambda files: zip_bytes({"sub/inner.zip": zip_bytes(files)})),
    "zip in a folder": lambda files, where: folder_of({"inner.zip": zip_bytes(files)}, where),
    "tar": file_of("x.tar", tar_bytes),
    "tar.gz": file_of("x.tar.gz", lambda files: gzip.compress(tar_bytes(files))),
    "tgz in a folder": lambda files, where: folder_of({"x.tgz": gzip.compress(tar_bytes(files))}, where),
    "compressed files": lambda files, where: folder_of(
        {f"{name}.gz": gzip.compress(data) for name, data in files.items()}, where
    ),
}


def ids_after(path: Path, where: Path) -> tuple[set[str], ImportReport]:
    with MemoryStore(where / "memory.db") as store:
        report = import_paths(store, [path])
        again = import_paths(store, [path])
        assert (again.added, again.skipped) == (0, report.skipped)
        ids = {conversation.external_id for conversation in store.conversations()}
    left = [entry for entry in where.iterdir() if entry.name.startswith(".unpack")]
    assert left == []
    return ids, report


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_conversations_of_its_files(tmp_path: Path, container: str) -> None:
    ids, report = ids_after(CONTAINERS[container](FILES, tmp_path), tmp_path)
    assert ids == EXPECTED
    assert report.skipped == {"file of another kind: .png": 1, "file of another kind": 1}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("broken", "line", "kept"),
    [(BROKEN_FIRST, 1, set()), (BROKEN_SECOND, 2, {"kept"}), (GBK, 1, set())],
    ids=["first entry", "second entry", "encoding"],
)
def test_a_broken_file_is_named_and_the_others_are_read(
    tmp_path: Path, container: str, broken: bytes, line: int, kept: set[str]
) -> None:
    files = {"a.jsonl": broken, **FILES}
    ids, report = ids_after(CONTAINERS[container](files, tmp_path), tmp_path)
    assert ids == EXPECTED | kept
    (unread,) = report.unread
    assert "a.jsonl" in unread.path and unread.reason
    (reason,) = [reason for reason in report.skipped if reason.startswith("file that cannot be read: ")]
    assert "a.jsonl" in reason
    assert unread.line == line and reason.endswith(f":{line}")


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
if importlib.util.find_spec("zstandard"):
    import zstandard

    COMPRESSED[".zst"] = zstandard.compress
    # Two frames, as programs that append to a log write them.
    COMPRESSED[".jsonl.zst"] = lambda data: b"".join(
        zstandard.compress(line + b"\n") for line in data.split(b"\n")
    )


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_compressed_file_is_read_like_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(COMPRESSED[suffix](ROWS))
    assert ids_after(path, tmp_path)[0] == {"r0", "r1", "r2"}
    data = path.read_bytes()
    for damaged in (data[:-9], data[: len(data) // 2]):
        path.write_bytes(damaged)
        try:
            ids, report = ids_after(path, tmp_path)
        except BadInput as error:
            assert path.name in str(error)
        else:
            assert ids <= {"r0", "r1", "r2"}
            assert any("damaged" in file.reason and path.name in file.path for file in report.unread)


def test_the_rows_before_the_end_of_a_cut_compressed_file_are_read(tmp_path: Path) -> None:
    rows = [json.dumps(chat(f"x{n}")).encode() for n in range(2000)]
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(rows))[:-2000])
    ids, report = ids_after(path, tmp_path)
    assert ids == {f"x{n}" for n in range(len(ids))} and 0 < len(ids) < 2000
    assert [file.path for file in report.unread if "damaged" in file.reason] == [str(path)]


NAMED: dict[str, tuple[bytes, set[str], int, str]] = {
    "broken line.jsonl": (
        b"\n".join([json.dumps(chat("a")).encode(), b"{]", ROWS]),
        {"a", "r0", "r1", "r2"},
        2,
        "JSON",
    ),
    "first line.jsonl": (b"{]\n" + ROWS, {"r0", "r1", "r2"}, 1, "JSON"),
    "last line.jsonl": (BROKEN_SECOND, {"kept"}, 2, ""),
    "cut list.json": (
        json.dumps([chat("a"), chat("b"), chat("c")]).encode()[:-30],
        {"a", "b"},
        1,
        "The file ends in the middle of an entry",
    ),
    "cut word.json": (
        json.dumps([chat("a"), {"x": None}]).encode()[:-4],
        {"a"},
        1,
        "The file ends in the middle of an entry",
    ),
    "cut lines.jsonl": (
        json.dumps(chat("a")).encode() + b"\n" + json.dumps(chat("b")).encode()[:-9],
        {"a"},
        2,
        "The file ends in the middle of an entry",
    ),
    "missing comma.json": (
        b"[%b %b]" % (json.dumps(chat("a")).encode(), json.dumps(chat("b")).encode()),
        {"a"},
        1,
        "comma",
    ),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("container", ["named", *CONTAINERS])
def test_what_can_be_read_is_read_and_the_fault_is_named(tmp_path: Path, name: str, container: str) -> None:
    data, expected, line, reason = NAMED[name]
    path = tmp_path / name
    if container == "named":
        path.write_bytes(data)
    else:
        path = CONTAINERS[container]({name: data}, tmp_path)
    ids, report = ids_after(path, tmp_path)
    assert ids == expected
    (unread,) = report.unread
    assert name in unread.path and unread.line == line and reason in unread.reason


def test_of_several_named_files_the_readable_ones_are_read(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("bad.json", "good.jsonl", "photo.png")]
    for path, data in zip(paths, (b"[{", ROWS, b"\x89PNG\r\n\x1a\n\0\0"), strict=True):
        path.write_bytes(data)
    with MemoryStore(tmp_path / "memory.db") as store:
        report = import_paths(store, paths)
        assert report.added == 3
        assert [Path(file.path).name for file in report.unread] == ["bad.json", "photo.png"]
        with pytest.raises(BadInput, match=r"no such file.*missing\.json"):
            import_paths(store, [*paths, tmp_path / "missing.json"])
        with pytest.raises(BadInput, match=r"bad\.json"):
            import_paths(store, [paths[0], paths[2]])
        assert store.count() == 3


def test_unpacked_members_are_private_and_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    plain = unpack.plain_files

    def watched(path: Path, scratch: Path, tick: Callable[[], None]) -> object:
        for found in plain(path, scratch, tick):
            if isinstance(found, unpack.PlainFile):
                files = [entry for entry in scratch.rglob("*") if entry.is_file()]
                assert files == [found.path]
                assert stat.S_IMODE(found.path.stat().st_mode) == 0o600
                assert all(
                    stat.S_IMODE(parent.stat().st_mode) == 0o700
                    for parent in found.path.parents
                    if scratch in (parent, *parent.parents)
                )
                seen.append(found.path)
            yield found

    monkeypatch.setattr("engine.memory.importers.formats.plain_files", watched)
    path = tmp_path / "x.zip"
    path.write_bytes(zip_bytes(FILES))
    assert ids_after(path, tmp_path)[0] == EXPECTED
    assert len(seen) >= 2 and not any(path.exists() for path in seen)


@pytest.mark.parametrize(
    "name", ["../../evil.json", "/etc/evil.json", "a/../../evil.json", "x" * 300 + ".json", "..\\evil.json"]
)
def test_a_member_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in" / "x.zip"
    path.parent.mkdir()
    path.write_bytes(zip_bytes({name: FILES["one.json"]}))
    assert ids_after(path, tmp_path / "in")[0] == {"a", "b"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_a_database_in_an_archive_is_read_with_its_log(tmp_path: Path) -> None:
    source = Path(__file__).parents[1] / "data" / "exports"
    vectors = {f"mindx/{path.name}": path.read_bytes() for path in (source / "mindx/data/vectors").iterdir()}
    path = tmp_path / "x.zip"
    path.write_bytes(zip_bytes({"webui.db": (source / "webui.db").read_bytes(), **vectors}))
    with MemoryStore(tmp_path / "memory.db") as store:
        report = import_paths(store, [path])
        assert (report.points, report.added, report.unread) == (3, 4, [])
    assert {file.format for file in report.files} == {"openwebui", "mindx"}


def test_a_file_of_each_kind_that_is_not_read_is_counted_by_its_suffix(tmp_path: Path) -> None:
    names = ["a.docx", "b.pdf", "c.png", "d.PNG", "e.py", "LICENSE", "f.html", "g.csv", "h.sqlite"]
    files = dict.fromkeys(names, b"name,size\n1,2\n") | {"f.html": b"<html></html>", "ok.jsonl": ROWS}
    ids, report = ids_after(folder_of(files, tmp_path), tmp_path)
    assert len(ids) == 3
    kinds = {reason.partition(": ")[2]: count for reason, count in report.skipped.items()}
    assert kinds == {
        ".docx": 1,
        ".pdf": 1,
        ".png": 2,
        ".py": 1,
        "": 1,
        ".html": 1,
        ".csv": 1,
        ".sqlite": 1,
    }


def test_an_import_can_be_stopped_while_a_member_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jsonl", b" " * (3 << 20) + ROWS)

    class Stopped(Exception):
        """Raised by the person's stop."""

    calls = 0

    def stop(done: int, total: int, conversations: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            assert done == 0
            raise Stopped

    with MemoryStore(tmp_path / "memory.db") as store:
        with pytest.raises(Stopped):
            import_paths(store, [path], on_progress=stop)
        assert store.count() == 0
    assert not list(tmp_path.glob(".unpack*"))


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_only_file_without_a_format_is_explained(tmp_path: Path, container: str) -> None:
    talk = "店员：您好\n顾客：我的订单没到\n店员：明天送达。\n顾客：谢谢\n"
    files = {"a.txt": talk.encode(), "b.png": FILES["photo.png"]}
    path = CONTAINERS[container](files, tmp_path)
    with MemoryStore(tmp_path / "memory.db") as store, pytest.raises(BadInput) as caught:
        import_paths(store, [path])
    assert "a.txt" in str(caught.value) and "--map" in caught.value.hint
    assert ".unpack" not in str(caught.value)
    mapped = ImportOptions(roles={"店员": Role.ASSISTANT, "顾客": Role.USER})
    with MemoryStore(tmp_path / "memory.db") as store:
        assert import_paths(store, [path], format_="text", options=mapped).added == 1


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_lines_after_a_broken_one_are_read(tmp_path: Path, container: str) -> None:
    lines = [json.dumps(chat(f"x{n}")).encode() for n in range(60)]
    lines[0] = lines[0][:20]
    lines[3] = b'{"id": "x3", "messages": [{"role": "user", "content": "cut'
    lines[4] += b"}"
    for n in range(30, 60):
        lines[n] = b"{]"
    path = CONTAINERS[container]({"a.jsonl": b"\n".join([*lines, ROWS])}, tmp_path)
    ids, report = ids_after(path, tmp_path)
    assert ids == {f"x{n}" for n in range(30) if n not in (0, 3)} | {"r0", "r1", "r2"}
    assert [file.line for file in report.unread][:3] == [1, 4, 5]
    assert sum(report.skipped.values()) == 33


def test_a_fault_inside_an_object_of_several_lines_ends_the_file(tmp_path: Path) -> None:
    text = json.dumps({"conversations": [chat("a"), chat("b")]}, indent=0).replace('"q b"', '"q b')
    path = folder_of({"x.json": text.encode(), "ok.jsonl": ROWS}, tmp_path)
    ids, report = ids_after(path, tmp_path)
    assert ids <= {"a", "r0", "r1", "r2"} and {"r0", "r1", "r2"} <= ids
    assert len(report.unread) == 1


MUTABLE = {
    "x.zip": zip_bytes(FILES),
    "n.zip": zip_bytes({"inner.zip": zip_bytes(FILES)}),
    "x.tar": tar_bytes(FILES),
    "x.tgz": gzip.compress(tar_bytes(FILES), mtime=0),
    **{f"rows.jsonl{suffix}": pack(ROWS) for suffix, pack in COMPRESSED.items()},
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(MUTABLE)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    cut=st.none() | st.floats(0, 1),
)
def test_damaged_archives_give_conversations_or_bad_input(
    tmp_path: Path, name: str, changes: list[tuple[float, int]], cut: float | None
) -> None:
    data = bytearray(MUTABLE[name])
    for place, byte in changes:
        data[int(place * (len(data) - 1))] = byte
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(data if cut is None else data[: int(cut * len(data)) + 1])
    for target in (path, folder):
        try:
            read(target)
        except BadInput as error:
            assert name in str(error) or str(folder) in str(error)
    path.unlink()


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_folder_without_a_conversation_says_what_it_holds(tmp_path: Path, as_zip: bool) -> None:
    rows = [("a", 0, "A asks?", "2024-10-04 11:42:00"), ("b", 1, "I answer B", "2024-10-04 11:42:30")]
    members = {
        f"{name}/wxid_{name}_0_5000.csv": "id,MsgSvrID,type_name,is_sender,talker,room_name,msg,src,CreateTime\n"
        f"1,1,文本,{sent},wxid_{name},wxid_{name},{text},,{time}\n"
        for name, sent, text, time in rows
    }
    for name, text in members.items():
        (tmp_path / "chats" / name).parent.mkdir(parents=True)
        (tmp_path / "chats" / name).write_text(text, encoding="utf-8")
    path = tmp_path / "chats"
    if as_zip:
        path = tmp_path / "chats.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in members.items():
                archive.writestr(name, text)
    with MemoryStore(tmp_path / "memory.db") as store, pytest.raises(BadInput, match="only 2 × message"):
        import_paths(store, [path])
