"""What this workspace has shared and fetched: `hive/client.json`, changed under a lock, so that the app and a command may
both do it. Imports nothing heavy."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.files import make_dirs, write_bytes
from engine.core.i18n import _
from engine.core.paths import Workspace

FILE_NAME = "client.json"


class SharedAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that a server or a folder has accepted."""

    name: str
    """Its name in the workspace."""
    sha256: str
    """Of the weights as they were sent."""
    place: str
    """Address of the server, or the folder."""
    adapter_id: str
    round: int = 0
    bytes: int = 0
    at: float = 0.0
    conversations: list[str] = []
    """Ids of those that it was trained on: no model joined from it is judged by them, also when the adapter is gone."""
    clusters: list[str] = []


class FetchedAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """A version, or an adapter of a folder, that was fetched into the workspace."""

    name: str
    """Its name in the workspace."""
    version: str
    place: str
    sha256: str
    bytes: int = 0
    at: float = 0.0


class PendingUpload(msgspec.Struct, frozen=True, kw_only=True):
    """An upload that a server waits for the rest of."""

    sha256: str
    place: str
    upload_id: str


class Shares(msgspec.Struct, kw_only=True):
    """The content of the file."""

    shared: list[SharedAdapter] = []
    """Oldest first."""
    fetched: list[FetchedAdapter] = []
    pending: list[PendingUpload] = []
    bytes_sent: int = 0
    bytes_received: int = 0

    def upload_id(self, place: str, sha256: str) -> str:
        """The unfinished upload of these weights; "" for none."""
        return next(
            (one.upload_id for one in self.pending if one.place == place and one.sha256 == sha256), ""
        )

    def places_of(self, name: str) -> list[SharedAdapter]:
        """Where the adapter `name` was shared, oldest first."""
        return [one for one in self.shared if one.name == name]


def shares_file(ws: Workspace) -> Path:
    return ws.root / "hive" / FILE_NAME


def read_shares(ws: Workspace) -> Shares:
    """An empty record without a file. Raises BadInput for a damaged one."""
    file = shares_file(ws)
    try:
        return msgspec.json.decode(file.read_bytes(), type=Shares)
    except FileNotFoundError:
        return Shares()
    except (OSError, msgspec.DecodeError) as problem:
        raise BadInput(_("the record of what was shared is broken"), path=file) from problem


@contextmanager
def change_shares(ws: Workspace) -> Iterator[Shares]:
    """The record; what the block changes in it is written at its end. Raises BadInput and OSError."""
    file = shares_file(ws)
    make_dirs(file.parent)
    fd = os.open(file.with_name(f".{FILE_NAME}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        shares = read_shares(ws)
        yield shares
        write_bytes(file, msgspec.json.format(msgspec.json.encode(shares), indent=2), mode=0o600)
    finally:
        os.close(fd)
