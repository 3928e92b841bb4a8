"""Texts that are not UTF-8: UTF-16 is read, others are named, and the command of the hint converts them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import BadInput
from engine.memory.importers.readers.encodings import legacy_encoding, text_encoding
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import import_paths

SIMPLIFIED = "用户：你好，请问今天天气怎么样？\n助手：今天晴，最高二十度。\n"
TRADITIONAL = "User: 你好，請問今天天氣如何？\nAssistant: 今天晴，最高二十度。\n"
TEXTS = {
    "GB18030": SIMPLIFIED,
    "BIG5": TRADITIONAL,
    "SHIFT_JIS": "User: 今日の天気はどうですか。\nAssistant: 晴れです。気温は二十度になります。\n",
    "EUC-JP": "User: 今日の天気はどうですか。\nAssistant: 晴れです。気温は二十度になります。\n",
    "CP949": "User: 오늘 날씨가 어떻습니까?\nAssistant: 맑습니다. 기온은 이십 도입니다.\n",
    "CP1251": "User: Какая сегодня погода?\nAssistant: Сегодня солнечно, двадцать градусов.\n",
    "KOI8-R": "User: Какая сегодня погода?\nAssistant: Сегодня солнечно, двадцать градусов.\n",
    "CP1252": "User: It’s a “café”, isn’t it?\nAssistant: Yes – that’s what they’re called.\n",
    "ISO-8859-1": "User: Quel café est préféré à Genève?\nAssistant: Le café de la Gare, très apprécié.\n",
}


def as_json(text: str) -> str:
    question, answer = (line.partition(": " if ": " in line else "：")[2] for line in text.splitlines())
    rows = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": rows}, ensure_ascii=False)


def imported(path: Path, where: Path) -> list[str]:
    with MemoryStore(where / "memory.db") as store:
        import_paths(store, [path])
        return [turn.text for conversation in store.conversations() for turn in conversation.turns]


@pytest.mark.parametrize("bom", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("text", [SIMPLIFIED, "User: hi\nAssistant: hello\n", as_json(SIMPLIFIED)])
def test_unicode_is_read_with_and_without_a_mark(tmp_path: Path, text: str, encoding: str, bom: bool) -> None:
    if encoding == "utf-32-le" and not bom:
        pytest.skip("no program writes it")
    path = tmp_path / "x.txt"
    path.write_bytes((("\ufeff" if bom else "") + text).encode(encoding))
    assert len(imported(path, tmp_path)) == 2


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
@pytest.mark.parametrize("encoding", TEXTS)
def test_another_encoding_is_named_and_the_hint_converts_it(tmp_path: Path, encoding: str, kind: str) -> None:
    text = TEXTS[encoding] if kind == "txt" else as_json(TEXTS[encoding])
    path = tmp_path / f"my chat.{kind}"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(BadInput, match=f"in {encoding}, not in UTF-8.*line 1") as caught:
        imported(path, tmp_path)
    converted = run_hint(caught.value.hint, tmp_path)
    assert converted.read_text(encoding="utf-8") == text
    assert len(imported(converted, tmp_path)) == 2


def run_hint(hint: str, folder: Path) -> Path:
    """Types the hint in `folder`; the file that it wrote."""
    if shutil.which("iconv") is None or shutil.which(hint.split()[0]) is None:
        pytest.skip("the command is not installed")
    before = set(folder.iterdir())
    subprocess.run(["bash", "-c", hint], cwd=folder, check="UTF-8 -c" not in hint and " -c" not in hint)
    (written,) = set(folder.iterdir()) - before
    return written


def zipped(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


PACKED: dict[str, Callable[[str, bytes], bytes]] = {
    "x.zip": zipped,
    "x.tar.gz": tarred,
    "chat.txt.gz": lambda _name, data: gzip.compress(data),
    "chat.txt.bz2": lambda _name, data: bz2.compress(data),
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("member", ["chat.txt", "a b/[1] chat?.txt"])
def test_the_hint_reaches_into_archives(tmp_path: Path, name: str, member: str) -> None:
    path = tmp_path / name
    path.write_bytes(PACKED[name](member, SIMPLIFIED.encode("gb18030")))
    with pytest.raises(BadInput, match=f"{name}.*line 1") as caught:
        imported(path, tmp_path)
    assert run_hint(caught.value.hint, tmp_path).read_text(encoding="utf-8") == SIMPLIFIED


def test_a_member_of_an_inner_archive_has_no_command(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zipped("in.zip", zipped("chat.txt", SIMPLIFIED.encode("gb18030"))))
    with pytest.raises(BadInput, match=r"x\.zip: in\.zip: chat\.txt, line 1") as caught:
        imported(path, tmp_path)
    assert "iconv" not in caught.value.hint


def test_a_damaged_byte_is_no_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(SIMPLIFIED.encode().replace("晴".encode(), b"\xe6\x99"))
    with pytest.raises(BadInput, match=r"damaged.*line 2") as caught:
        imported(path, tmp_path)
    assert len(imported(run_hint(caught.value.hint, tmp_path), tmp_path)) == 2


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4, b"%PDF-1.7\n" + bytes(range(256)) * 4]
)
def test_a_file_that_is_no_text_gets_no_conversion(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(BadInput, match="not a text") as caught:
        imported(path, tmp_path)
    assert "iconv" not in caught.value.hint


@given(st.binary(max_size=300))
def test_any_bytes_have_an_encoding(data: bytes) -> None:
    data.decode(text_encoding(data), "replace")
    legacy_encoding(data)


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=200))
def test_utf8_is_never_taken_for_another_encoding(text: str) -> None:
    if "\0" not in text:
        assert text_encoding(text.encode()) in ("utf-8-sig", "utf-16", "utf-32")
