"""A hive without a server: adapters in a folder that several people can reach (a network drive, a stick), each signed.

The signature is HMAC-SHA256 with a key file that the people share by a way that they trust; it is never in the folder.
So nobody without the key can put an adapter there or change one unseen; those who have the key could sign in each
other's names. Ed25519 would tell them apart, and needs a library that this program does not have.

    FOLDER/MEMBER/NAME-SHA/  manifest.json  manifest.sig  adapter_config.json  adapter_model.safetensors

The app reads it, so it imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.core.errors import BadInput, H2QError, UsageProblem
from engine.core.filenames import printable_name, shell_command, shell_word
from engine.core.files import (
    check_free_space,
    file_sha256,
    fsync_dir,
    locked_folder,
    make_dirs,
    sync_file,
    write_bytes,
    write_synced,
)
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.hive.lora_file import read_lora
from engine.hive.outgoing import OutgoingAdapter
from engine.hive.shares import SharedAdapter, change_shares
from engine.models.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from engine.models.registry import NAME

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
KEY_FILE = "hive.key"
_FORMAT = 1
_MANIFEST_LIMIT = 1 << 16
_KEY_BYTES = 32
_MOST_ENTRIES = 10_000
_CHUNK = 1 << 20


class SignedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file as it was signed."""

    bytes: int
    sha256: str


class FolderManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json`."""

    format: int
    member: str
    name: str
    created_at: float
    base_model: str
    base_fingerprint: str
    samples: int
    files: dict[str, SignedFile]


@dataclass(frozen=True)
class SharedFolderEntry:
    """One adapter of the folder."""

    path: Path
    id: str
    """MEMBER/NAME-SHA, as the folder has it."""
    manifest: FolderManifest | None
    """None when it does not verify: nothing that an unsigned file says is used."""
    problem: str = ""
    """Why it is refused; "" when it verifies."""


def key_file(ws: Workspace) -> Path:
    """Where the key of the folder is kept where no other file is named."""
    return ws.config / KEY_FILE


def read_key(file: Path) -> bytes:
    """The key of the members. Raises UsageProblem without one, BadInput for one that others can read."""
    try:
        found, text = file.stat(), file.read_bytes()
    except FileNotFoundError as problem:
        raise UsageProblem(
            _("there is no key for the folder: ask a member for the file, or make one by sharing an adapter")
            + f" ({printable_name(str(file))})",
            hint=shell_command("h2q-tui", "hive", "list", "--folder", "DIR", "--key-file", "FILE"),
        ) from problem
    except OSError as problem:
        raise BadInput(_("the key cannot be read"), path=file) from problem
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise BadInput(_("others can read the key"), path=file, hint=f"chmod 600 {shell_word(file)}")
    try:
        key = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise BadInput(_("this is not a key of a hive folder"), path=file)
    return key


def make_key(file: Path) -> bytes:
    """Writes a new key, mode 0600. Raises FileExistsError where a file is, OSError."""
    make_dirs(file.parent)
    key = secrets.token_bytes(_KEY_BYTES)
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, key.hex().encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
    fsync_dir(file.parent)
    return key


def put_adapter(ws: Workspace, adapter: OutgoingAdapter, folder: Path, member: str, key: bytes) -> str:
    """Writes an adapter into the folder, signed; returns its id. One that is there already is left as it is.

    Raises UsageProblem for a name that cannot be a folder, RunFailed without space, OSError.
    """
    check_member(member)
    if not folder.is_dir():
        raise BadInput(_("the shared folder does not exist"), path=folder)
    target = folder / member / f"{adapter.name}-{adapter.sha256[:12]}"
    if not target.exists():
        _write(adapter, target, member, key)
    entry_id = f"{member}/{target.name}"
    with change_shares(ws) as shares:
        if not any((one.place, one.adapter_id) == (str(folder), entry_id) for one in shares.shared):
            shares.bytes_sent += adapter.size
            shares.shared.append(
                SharedAdapter(
                    name=adapter.name,
                    sha256=adapter.sha256,
                    place=str(folder),
                    adapter_id=entry_id,
                    bytes=adapter.size,
                    at=time.time(),
                    conversations=adapter.lineage.conversations,
                    clusters=adapter.lineage.clusters,
                )
            )
    return entry_id


def check_member(name: str) -> None:
    """Raises UsageProblem for a name that cannot be that of a member."""
    if not NAME.fullmatch(name):
        raise UsageProblem(
            _("a name is needed under which you share: letters, digits, _ . and -"),
            hint="h2q-tui hive upload --folder DIR --user-id NAME",
        )


def _write(adapter: OutgoingAdapter, target: Path, member: str, key: bytes) -> None:
    check_free_space(target.parent.parent, adapter.size)
    make_dirs(target.parent)
    with locked_folder(target.parent, ".new.") as new:
        with (new / ADAPTER_WEIGHTS).open("wb") as out:
            for chunk in adapter.chunks():
                out.write(chunk)
        sync_file(new / ADAPTER_WEIGHTS)
        write_synced(new / ADAPTER_CONFIG, adapter.config_bytes)
        manifest = FolderManifest(
            format=_FORMAT,
            member=member,
            name=adapter.name,
            created_at=time.time(),
            base_model=adapter.base_model,
            base_fingerprint=adapter.base_fingerprint,
            samples=adapter.samples,
            files={file.name: SignedFile(bytes=file.bytes, sha256=file.sha256) for file in adapter.files},
        )
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
        write_synced(new / MANIFEST, text)
        write_bytes(new / SIGNATURE, _signature(key, text).encode() + b"\n")
        new.chmod(0o755)
        new.rename(target)
        fsync_dir(target.parent)


def folder_entries(folder: Path, key: bytes) -> list[SharedFolderEntry]:
    """Every adapter of the folder, newest first, those that do not verify last. Raises BadInput for a folder that is none."""
    if not folder.is_dir():
        raise BadInput(_("the shared folder does not exist"), path=folder)
    entries: list[SharedFolderEntry] = []
    for member in sorted(folder.iterdir()):
        if member.name.startswith(".") or not member.is_dir() or member.is_symlink():
            continue
        for path in sorted(member.iterdir()):
            if not path.name.startswith(".") and len(entries) < _MOST_ENTRIES:
                entries.append(verify_entry(path, key))
    return sorted(
        entries, key=lambda one: -one.manifest.created_at if one.manifest is not None else float("inf")
    )


def find_entry(folder: Path, key: bytes, wanted: str) -> SharedFolderEntry:
    """The entry with this id or name, the newest of several. Raises BadInput where there is none, or it does not verify."""
    entries = folder_entries(folder, key)
    for entry in entries:
        named = entry.manifest is not None and entry.manifest.name == wanted
        if entry.id == wanted or entry.path.name == wanted or named:
            if entry.problem:
                raise BadInput(entry.problem, path=entry.path)
            return entry
    raise BadInput(
        _("the folder has no adapter {name}").format(name=wanted),
        hint=shell_command("h2q-tui", "hive", "list", "--folder", folder),
    )


def copy_entry(entry: SharedFolderEntry, folder: Path) -> None:
    """Copies the two files of an adapter into `folder`, as they were signed. Raises BadInput when one changes meanwhile, OSError."""
    assert entry.manifest is not None
    for name, signed in entry.manifest.files.items():
        digest, done = hashlib.sha256(), 0
        with (entry.path / name).open("rb") as source, (folder / name).open("wb") as out:
            while done <= signed.bytes and (chunk := source.read(_CHUNK)):
                done += len(chunk)
                digest.update(chunk)
                out.write(chunk)
        if digest.hexdigest() != signed.sha256:
            raise BadInput(_("{name} is not the file that was signed").format(name=name), path=entry.path)


def verify_entry(path: Path, key: bytes) -> SharedFolderEntry:
    """The adapter in `path`, read whole, and why it is refused."""
    entry_id = f"{path.parent.name}/{path.name}"
    try:
        return SharedFolderEntry(path, entry_id, _verified(path, key))
    except (H2QError, OSError) as problem:
        reason = problem.reason if isinstance(problem, BadInput) else str(problem)
        return SharedFolderEntry(path, entry_id, None, reason)


def _verified(path: Path, key: bytes) -> FolderManifest:
    """Raises BadInput and OSError."""
    text = _small(path / MANIFEST)
    if not hmac.compare_digest(
        _signature(key, text), _small(path / SIGNATURE).decode("ascii", "replace").strip()
    ):
        raise BadInput(_("its signature does not match: it was changed, or signed with another key"))
    try:
        manifest = msgspec.json.decode(text, type=FolderManifest)
    except msgspec.DecodeError as problem:
        raise BadInput(_("its manifest is broken")) from problem
    here = f"{manifest.member}/{manifest.name}"
    weights = manifest.files.get(ADAPTER_WEIGHTS)
    if (
        manifest.format != _FORMAT
        or manifest.files.keys() != {ADAPTER_WEIGHTS, ADAPTER_CONFIG}
        or weights is None
        or f"{path.parent.name}/{path.name}" != f"{here}-{weights.sha256[:12]}"
    ):
        raise BadInput(_("its manifest belongs to another adapter"))
    for name, signed in manifest.files.items():
        file = path / name
        if not stat.S_ISREG(file.lstat().st_mode) or file.stat().st_size != signed.bytes:
            raise BadInput(_("{name} is not the file that was signed").format(name=name))
        if file_sha256(file) != signed.sha256:
            raise BadInput(_("{name} is not the file that was signed").format(name=name))
    read_lora(path)
    return manifest


def _small(file: Path) -> bytes:
    """A regular file of a few kilobytes. Raises BadInput for anything else."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise BadInput(_("it is not signed: {name} is missing").format(name=file.name)) from problem
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise BadInput(_("{name} is not the file that was signed").format(name=file.name))
        data = os.read(fd, _MANIFEST_LIMIT + 1)
    finally:
        os.close(fd)
    if len(data) > _MANIFEST_LIMIT:
        raise BadInput(_("its manifest is broken"))
    return data


def _signature(key: bytes, text: bytes) -> str:
    return hmac.new(key, b"h2q-hive-folder\0" + text, hashlib.sha256).hexdigest()
