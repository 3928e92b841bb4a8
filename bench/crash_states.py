"""Crash states: records file operations and enumerates the disk states that a power failure may leave.

The disk model is the weakest that POSIX allows (ALICE, OSDI 2014): unsynced writes may be present, missing, torn at
a sector or zeros; a new name, a rename or a removal is durable only after its folder is synced, and any subset of
the pending ones may have happened.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

SECTOR = 512
ROOT = 0


@dataclass(frozen=True)
class Write:
    """`data` at `offset` of a file."""

    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Entry:
    """In `folder`, `old` is removed and `name` refers to `inode`; either may be empty."""

    folder: int
    inode: int
    name: str = ""
    old: str = ""
    is_folder: bool = False


@dataclass(frozen=True)
class Sync:
    """All earlier operations on this file or folder are durable."""

    inode: int


@dataclass(frozen=True)
class Acknowledged:
    """The program reported something as durable."""

    value: Any


Operation = Write | Entry | Sync | Acknowledged


class Recorder:
    """Records the file operations of this process under `root`. Only calls of `os` are seen, not `open()`.

    Raises ValueError for a rename between two folders, which the model does not cover.
    """

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self.operations: list[Operation] = []
        self.fail_at: int | None = None
        """Index of the operation that fails with `error`, from 0."""
        self.error = 0
        self.calls = 0
        self._inodes: dict[str, int] = {self.root: ROOT}
        self._last_inode = ROOT
        self._files: dict[int, tuple[int, int]] = {}
        """Descriptor to inode and file offset."""

    def acknowledge(self, value: Any) -> None:
        self.operations.append(Acknowledged(value))

    @contextmanager
    def recording(self) -> Iterator[Recorder]:
        with ExitStack() as stack:
            for name in ("open", "write", "fsync", "close", "mkdir", "rmdir", "unlink", "rename", "replace"):
                stack.enter_context(patch.object(os, name, self._wrapped(name, getattr(os, name))))
            yield self

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        record = getattr(self, f"_{'rename' if name == 'replace' else name}")

        def wrapper(*arguments: Any, **options: Any) -> Any:
            return record(call, *arguments, **options)

        return wrapper

    def _path(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The resolved path; None outside `root`."""
        if isinstance(path, int):
            return None
        base = Path(f"/proc/self/fd/{dir_fd}").readlink() if dir_fd is not None else Path.cwd()
        full = base / os.fspath(path)
        resolved = str(full.parent.resolve() / full.name)
        return resolved if resolved == self.root or resolved.startswith(self.root + os.sep) else None

    def _check(self) -> None:
        self.calls += 1
        if self.fail_at is not None and self.calls > self.fail_at:
            self.fail_at = None
            raise OSError(self.error, os.strerror(self.error))

    def _inode(self, path: str) -> int:
        if path not in self._inodes:
            self._last_inode += 1
            self._inodes[path] = self._last_inode
        return self._inodes[path]

    def _entry(self, path: str, inode: int, old: str = "", *, is_folder: bool = False) -> None:
        folder, name = os.path.split(path)
        self.operations.append(Entry(self._inode(folder), inode, name, old, is_folder))

    def _open(self, call: Any, path: Any, flags: int, *rest: Any, dir_fd: int | None = None) -> int:
        full = self._path(path, dir_fd)
        is_new = full is not None and bool(flags & os.O_CREAT) and not os.path.lexists(full)
        if full is not None and flags & os.O_CREAT:
            self._check()
        fd: int = call(path, flags, *rest, dir_fd=dir_fd)
        if full is not None:
            if is_new:
                self._inodes.pop(full, None)
                self._entry(full, self._inode(full))
            self._files[fd] = (self._inode(full), 0)
        return fd

    def _write(self, call: Any, fd: int, data: Any) -> int:
        known = self._files.get(fd)
        if known is not None:
            self._check()
        done: int = call(fd, data)
        if known is not None:
            inode, at = known
            self.operations.append(Write(inode, at, bytes(data[:done])))
            self._files[fd] = (inode, at + done)
        return done

    def _fsync(self, call: Any, fd: int) -> None:
        if fd in self._files:
            self._check()
            self.operations.append(Sync(self._files[fd][0]))
        call(fd)

    def _close(self, call: Any, fd: int) -> None:
        self._files.pop(fd, None)
        call(fd)

    def _mkdir(self, call: Any, path: Any, *rest: Any, **options: Any) -> None:
        full = self._path(path)
        if full is not None:
            self._check()
        call(path, *rest, **options)
        if full is not None:
            self._inodes.pop(full, None)
            self._entry(full, self._inode(full), is_folder=True)

    def _rename(self, call: Any, old: Any, new: Any, **options: Any) -> None:
        source, target = self._path(old), self._path(new)
        if source is not None:
            self._check()
        call(old, new, **options)
        if source is None or target is None:
            return
        if Path(source).parent != Path(target).parent:
            raise ValueError("a rename between two folders")
        inode = self._inode(source)
        inside = [path for path in self._inodes if path.startswith(source + os.sep)]
        moved = {target + path[len(source) :]: self._inodes.pop(path) for path in (source, *inside)}
        self._inodes |= moved
        self._entry(target, inode, Path(source).name)

    def _unlink(self, call: Any, path: Any, *, dir_fd: int | None = None) -> None:
        self._remove(call, path, dir_fd)

    def _rmdir(self, call: Any, path: Any, *, dir_fd: int | None = None) -> None:
        self._remove(call, path, dir_fd)

    def _remove(self, call: Any, path: Any, dir_fd: int | None) -> None:
        full = self._path(path, dir_fd)
        if full is not None:
            self._check()
        call(path, dir_fd=dir_fd)
        if full is not None:
            self._inodes.pop(full, None)
            folder, name = os.path.split(full)
            self.operations.append(Entry(self._inode(folder), -1, "", name))


@dataclass
class DiskModel:
    """The durable state, and the pending operations since."""

    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    files: dict[int, bytes] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    acknowledged: list[Any] = field(default_factory=list)

    def apply(self, operation: Operation) -> None:
        match operation:
            case Write():
                self.writes.append(operation)
            case Entry():
                self.entries.append(operation)
            case Acknowledged(value):
                self.acknowledged.append(value)
            case Sync(inode):
                for entry in [entry for entry in self.entries if entry.folder == inode]:
                    _link(self.folders, entry)
                    self.entries.remove(entry)
                for write in [write for write in self.writes if write.inode == inode]:
                    self.files[inode] = _written(self.files.get(inode, b""), write)
                    self.writes.remove(write)

    def state(self, entries: list[Entry], writes: list[Write]) -> dict[str, bytes | None]:
        """Path to content (None: a folder) if these pending operations reached the disk."""
        folders = {inode: dict(names) for inode, names in self.folders.items()}
        files = dict(self.files)
        for entry in entries:
            _link(folders, entry)
        for write in writes:
            files[write.inode] = _written(files.get(write.inode, b""), write)
        return dict(_tree(folders, files, ROOT, ""))

    def states(self, chance: random.Random, samples: int) -> Iterator[dict[str, bytes | None]]:
        """None, all, names without data, torn and zeroed data, and random subsets of the pending operations."""
        entries, writes = self.entries, self.writes
        yield self.state([], [])
        yield self.state(entries, writes)
        yield self.state(entries, [])
        if writes:
            yield self.state(entries, [*writes[:-1], _torn(writes[-1], chance)])
            yield self.state(entries, [*writes[:-1], _zeros(writes[-1])])
        for _sample in range(samples if entries or writes else 0):
            yield self.state(
                [entry for entry in entries if chance.random() < 0.5],
                [
                    chance.choice((write, _torn(write, chance), _zeros(write)))
                    for write in writes
                    if chance.random() < 0.7
                ],
            )


def _link(folders: dict[int, dict[str, int]], entry: Entry) -> None:
    names = folders.setdefault(entry.folder, {})
    if entry.old:
        names.pop(entry.old, None)
    if entry.name:
        names[entry.name] = entry.inode
    if entry.is_folder:
        folders.setdefault(entry.inode, {})


def _written(old: bytes, write: Write) -> bytes:
    return old[: write.offset].ljust(write.offset, b"\0") + write.data + old[write.offset + len(write.data) :]


def _torn(write: Write, chance: random.Random) -> Write:
    """Truncated at the end of a sector."""
    sectors = len(write.data) // SECTOR
    return Write(write.inode, write.offset, write.data[: SECTOR * chance.randint(0, sectors)])


def _zeros(write: Write) -> Write:
    """The length reached the disk, the data did not."""
    return Write(write.inode, write.offset, bytes(len(write.data)))


def _tree(
    folders: dict[int, dict[str, int]], files: dict[int, bytes], folder: int, prefix: str
) -> Iterator[tuple[str, bytes | None]]:
    for name, inode in folders.get(folder, {}).items():
        path = f"{prefix}{name}"
        if inode in folders:
            yield path, None
            yield from _tree(folders, files, inode, f"{path}/")
        else:
            yield path, files.get(inode, b"")


def build(root: Path, state: dict[str, bytes | None]) -> None:
    """Creates a state under the empty or missing folder `root`."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in state.items():
        path = root / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def crash_states(
    operations: list[Operation], *, samples: int, seed: int = 0
) -> Iterator[tuple[list[Any], dict[str, bytes | None]]]:
    """The distinct states after each operation, with the values acknowledged by then."""
    disk, chance, seen = DiskModel(), random.Random(seed), set()
    for operation in operations:
        disk.apply(operation)
        for state in disk.states(chance, samples):
            key = hash((len(disk.acknowledged), tuple(sorted(state.items(), key=lambda item: item[0]))))
            if key not in seen:
                seen.add(key)
                yield list(disk.acknowledged), state
