"""Rewrites the files of a workspace without erased conversations: datasets, exports, reports, journals, chats, logs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from engine.chats.store import erase_from_chats
from engine.core.files import fsync_dir, write_bytes
from engine.core.paths import Workspace
from engine.corpus.export import DATASET_INFO
from engine.memory.disk_reserve import reserve_path
from engine.pipeline.erased_text import ErasedText
from engine.runs.rundir import LOG, SPEC, RunDir
from engine.validation.verdict_export import exported_files, verdicts_folder

_SAME_ROW = 0.4
"""Share of the text of an exported row without an id from which it is taken for a row of an erased conversation."""
_TEXT_KEYS = frozenset(
    (
        "answer", "completion", "content", "detail", "error", "excerpt", "first_line", "input", "instruction",
        "message", "output", "prompt", "question", "reason", "sentence", "summary", "text", "title", "value", "wanted",
    )
)  # fmt: skip
"""Keys whose values may be texts of a user, also short ones. Under other keys only long quotes count."""
_SHORT = 32
_NUMERIC_EVENT = re.compile(rb'"kind": ?"(step|evaluated|epoch|memory)"')
"""Events without texts; most of a journal."""
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|\\([nrt\"'\\])")


def erase_files(workspace: Workspace, erased: ErasedText) -> list[Path]:
    """Rewrites every file that holds one of the conversations; returns them. Raises OSError."""
    changed = [path for path in _data_files(workspace) if _erase_rows(path, erased)]
    changed += [path for path in _json_files(workspace) if _erase_values(path, erased)]
    changed += erase_from_chats(workspace, erased.quotes)
    changed += [path for path in _logs(workspace) if _empty_log(path, erased)]
    changed += [folder for folder in _verdict_folders(workspace) if _remove_export(folder, erased)]
    return changed


def remove_runs(workspace: Workspace, runs: list[RunDir]) -> None:
    """Deletes the folders of runs that are over; an interrupted deletion leaves no run behind. Raises OSError."""
    for run in runs:
        hidden = run.path.with_name(f".{run.run_id}.removed")
        shutil.rmtree(hidden, ignore_errors=True)
        run.path.rename(hidden)
        shutil.rmtree(hidden)
    if runs:
        fsync_dir(workspace.runs)


def blank_file_names(run: RunDir) -> list[Path]:
    """Blanks the names in a run's list of imported files: one of them may have held only what is erased.

    Returns the rewritten files. Raises OSError.
    """
    changed = []
    for path in (run.events_path, run.state_path):
        if not path.is_file():
            continue
        data = path.read_bytes()
        rows = data.split(b"\n") if path.suffix == ".jsonl" else [data]
        new = b"\n".join(_without_file_names(row) for row in rows)
        if new != data:
            write_bytes(path, new, mode=path.stat().st_mode & 0o777)
            changed.append(path)
    return changed


def _without_file_names(row: bytes) -> bytes:
    if b'"files"' not in row:
        return row
    try:
        value = json.loads(row)
    except (ValueError, RecursionError):
        return row
    result = value.get("data", value) if isinstance(value, dict) else {}
    files = (result.get("result") or {}).get("files") if isinstance(result, dict) else None
    if not isinstance(files, list) or len(files) < 2:
        return row
    for file in files:
        if isinstance(file, dict) and "path" in file:
            file["path"] = ""
    return json.dumps(value, ensure_ascii=False).encode()


def files_with(workspace: Workspace, text: str) -> list[Path]:
    """Files of the workspace that contain `text` as UTF-8, UTF-16 or escaped in JSON; weights are not searched."""
    escaped = json.dumps(text)[1:-1]
    wanted = {
        text.encode(),
        text.encode("utf-16-le"),
        escaped.encode(),
        json.dumps(text, ensure_ascii=False)[1:-1].encode(),
    }
    return [
        path
        for path in sorted(workspace.root.rglob("*"))
        if path.is_file()
        and not path.is_symlink()
        and not _is_weights(path)
        # Random bytes, which hold every short text by chance.
        and path != reserve_path(workspace.memory_db)
        and _contains(path, wanted)
    ]


_WEIGHTS = frozenset((".safetensors", ".gguf"))


def _is_weights(path: Path) -> bool:
    """By its name, or by its first bytes: blobs of the model store have no suffix."""
    if path.suffix in _WEIGHTS:
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


_BLOCK = 1 << 22


def _contains(path: Path, wanted: set[bytes]) -> bool:
    overlap = max(map(len, wanted)) - 1
    before = b""
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                data = before + block
                if any(text in data for text in wanted):
                    return True
                before = data[-overlap:] if overlap else b""
    except OSError:
        return False
    return False


def _data_files(workspace: Workspace) -> Iterator[Path]:
    """Datasets and exports: a file of rows, each from one conversation."""
    yield from _files(workspace.training, "*.jsonl")
    for folder in sorted(path for path in workspace.training.glob("*") if path.is_dir()):
        yield from _files(folder, "**/*.jsonl")
        yield from (path for path in _files(folder, "**/*.json") if path.name != DATASET_INFO)


def _json_files(workspace: Workspace) -> Iterator[Path]:
    """Reports, and what runs wrote except their parameters and checkpoints."""
    yield from _files(workspace.root, "*.json")
    yield from _files(workspace.status, "*.json")
    yield from _files(workspace.training, "*.json")
    for pattern in ("*/*.json", "*/*.jsonl"):
        yield from (path for path in _files(workspace.runs, pattern) if path.name != SPEC)


def _logs(workspace: Workspace) -> Iterator[Path]:
    yield from _files(workspace.root, "*.log")
    yield from _files(workspace.runs, f"*/{LOG}")
    yield from _files(workspace.runs, ".*.log")


def _verdict_folders(workspace: Workspace) -> list[Path]:
    root = verdicts_folder(workspace)
    return sorted(root.iterdir()) if root.is_dir() and not root.is_symlink() else []


def _remove_export(folder: Path, erased: ErasedText) -> bool:
    """Deletes an exported verdict that quotes one: it is written again from its report with one key.

    Of what a person put beside it only what quotes one goes, too.
    """

    def quotes(path: Path) -> bool:
        data = path.read_bytes()
        text = _unescaped(data.decode("utf-8", "replace"))
        return erased.names(data) or erased.quotes(text) or any(map(erased.quotes, text.splitlines()))

    found = [path for path in _files(folder, "**/*") if quotes(path)]
    if not found:
        return False
    for path in {*found, *exported_files(folder)}:
        path.unlink()
    for inner in (*(entry for entry in folder.iterdir() if entry.is_dir()), folder):
        # Not empty: something of the person's is left in it.
        with suppress(OSError):
            inner.rmdir()
    fsync_dir(folder.parent)
    return True


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file() and not path.is_symlink())


def _erase_rows(path: Path, erased: ErasedText) -> bool:
    data = path.read_bytes()
    array = path.suffix == ".json"
    if array:
        try:
            rows = [bytes(row) for row in msgspec.json.decode(data, type=list[msgspec.Raw])]
        except msgspec.MsgspecError:
            rows = [data]
    else:
        rows = [row for row in data.split(b"\n") if row.strip()]
    kept = [row for row in rows if not _is_erased_row(row, erased)]
    if len(kept) == len(rows):
        return False
    if not kept and path.parent.name == "export":
        path.unlink()
        fsync_dir(path.parent)
        return True
    new = b"[\n" + b",\n".join(kept) + b"\n]\n" if array else b"".join(row + b"\n" for row in kept)
    write_bytes(path, new, mode=path.stat().st_mode & 0o777)
    return True


def _is_erased_row(row: bytes, erased: ErasedText) -> bool:
    try:
        value = msgspec.json.decode(row)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # A malformed row is never read.
        return erased.names(row) or erased.quotes(_unescaped(row.decode("utf-8", "replace")))
    if not isinstance(value, dict):
        return erased.quotes(" ".join(_texts(value)))
    if _is_of(value, erased) or any(map(erased.contains_match, _texts(value))):
        return True
    if isinstance(value.get("id"), str):
        return False
    return erased.share(_texts({key: item for key, item in value.items() if key != "system"})) >= _SAME_ROW


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _is_of(value: dict[str, Any], erased: ErasedText) -> bool:
    """Whether an object is about one of the conversations, or was derived from one."""
    if any(
        isinstance(name := value.get(key), str) and name in erased.ids
        for key in ("id", "conversation", "conversation_id")
    ):
        return True
    made_from = value.get("made_from")
    return isinstance(made_from, list) and any(
        name in erased.ids for name in made_from if isinstance(name, str)
    )


def _erase_values(path: Path, erased: ErasedText) -> bool:
    data = path.read_bytes()
    lines = path.suffix == ".jsonl"
    rows = data.split(b"\n") if lines else [data]
    kept = [new for row in rows if (new := _erased_value(row, erased, pretty=not lines)) is not None]
    new = b"\n".join(kept)
    if new == data:
        return False
    write_bytes(path, new, mode=path.stat().st_mode & 0o777)
    return True


def _erased_value(row: bytes, erased: ErasedText, *, pretty: bool) -> bytes | None:
    """The row without the conversations; None when nothing is left of it."""
    if not row.strip() or _NUMERIC_EVENT.search(row, 0, 120):
        return row
    try:
        value = json.loads(row)
    except (ValueError, RecursionError):
        broken = erased.names(row) or erased.quotes(_unescaped(row.decode("utf-8", "replace")))
        return None if broken else row
    cleaned = _without(value, erased)
    if cleaned == value:
        return row
    if cleaned is None:
        return None
    encoded = json.dumps(cleaned, ensure_ascii=False, indent=2 if pretty else None).encode()
    return encoded + (b"\n" if pretty else b"")


def _without(value: Any, erased: ErasedText, *, key: str = "", listed: bool = False) -> Any:
    """`value` without the conversations; None when it is about one of them, and for a listed object that quotes one.

    The answers of a verdict carry no id: they are all removed with any of its cases.
    """
    if isinstance(value, str):
        looked_at = listed or key in _TEXT_KEYS or len(value) >= _SHORT
        return "" if looked_at and erased.quotes(value) else value
    if isinstance(value, list):
        kept = [(_without(item, erased, key=key, listed=True), item) for item in value]
        return [new for new, old in kept if new == old or (new is not None and new != "")]
    if not isinstance(value, dict):
        return value
    if _is_of(value, erased):
        return None
    cleaned = {name: _without(item, erased, key=name, listed=listed) for name, item in value.items()}
    if listed and any(item == "" and value[name] != "" for name, item in cleaned.items()):
        return None
    if value.get("prompt") and cleaned["prompt"] == "":
        # What a model answered to an erased question tells of it.
        cleaned = {name: "" if name == "text" else item for name, item in cleaned.items()}
    cases = value.get("cases")
    if isinstance(cases, list) and len(cleaned["cases"]) < len(cases) and "answers" in cleaned:
        cleaned["answers"] = []
    return cleaned


def _empty_log(path: Path, erased: ErasedText) -> bool:
    """Empties a log that quotes one: a traceback may cut a text anywhere."""
    data = path.read_bytes()
    text = _unescaped(data.decode("utf-8", "replace"))
    if not (
        erased.names(data) or any(erased.quotes(line) for line in text.splitlines()) or erased.quotes(text)
    ):
        return False
    # In place: a running inference service keeps writing into it.
    with path.open("r+b") as file:
        file.truncate(0)
    return True


def _unescaped(text: str) -> str:
    """`text` with the escapes of JSON and of Python's repr resolved."""

    def character(found: re.Match[str]) -> str:
        code = found[1] or found[2]
        return chr(int(code, 16)) if code else {"n": "\n", "r": "\r", "t": "\t"}.get(found[3], found[3])

    return _ESCAPE.sub(character, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
