"""Uploads in parts: what has arrived durably, and where the next part starts."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from engine.core.files import fsync_dir
from engine.core.i18n import _
from engine.hive.admission import check_size
from engine.hive.intake import Announced, Intake
from engine.hive.lora_file import HEADER_LIMIT, BadAdapter, parse_header
from engine.hive.protocol import OpenUpload, UploadState
from engine.http.refused import RequestRefused

EXPIRES_S = 86_400.0
_KEPT_FREE = 256 << 20
"""Bytes of the disk that uploads leave."""
_WRITTEN = 1 << 16
"""Bytes that are written together."""


class Uploads:
    """The uploads of a hive that are under way."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._folder = intake.store.uploads
        self._registry = intake.store.registry
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    def open(self, user: str, request: OpenUpload) -> UploadState:
        """Announces an adapter. Raises BadAdapter, RequestRefused (too many are open), OSError."""
        check_size(request.size, self._intake.limits.max_bytes)
        self._intake.check_announced(_announced(user, request))
        check_space(self._folder, request.size)
        upload = UploadState(
            upload_id=secrets.token_hex(16), offset=0, size=request.size, expires_at=time.time() + EXPIRES_S
        )
        with (self._folder / upload.upload_id).open("xb"):
            pass
        fsync_dir(self._folder)
        with self._registry.transaction() as db:
            (count,) = db.execute(
                "SELECT count(*) FROM uploads WHERE user_id = ? AND admitted = '' AND expires_at > ?",
                (user, time.time()),
            ).fetchone()
            if count >= self._intake.limits.open_uploads:
                (self._folder / upload.upload_id).unlink()
                raise RequestRefused(429, _("too many uploads are open; finish one or wait"))
            db.execute(
                "INSERT INTO uploads (id, user_id, announced, size, received, expires_at) VALUES (?, ?, ?, ?, 0, ?)",
                (upload.upload_id, user, msgspec.json.encode(request).decode(), request.size, upload.expires_at),
            )  # fmt: skip
        return upload

    def state(self, upload_id: str, user: str) -> UploadState:
        """Raises RequestRefused (404) for an upload that is not there, expired, or not of `user`; "": of anybody."""
        row = self._registry.row(
            "SELECT * FROM uploads WHERE id = ?1 AND ?2 IN ('', user_id) AND expires_at > ?3",
            (upload_id, user, time.time()),
        )
        if row is None:
            raise RequestRefused(404, _("there is no such upload"))
        offset = row["received"]
        if not row["admitted"]:
            with suppress(OSError):
                offset = min(offset, self._file(row["id"]).stat().st_size)
        return UploadState(
            upload_id=row["id"],
            offset=offset,
            size=row["size"],
            expires_at=row["expires_at"],
            adapter_id=row["admitted"],
        )

    def user_of(self, upload_id: str) -> str:
        """Who opened an upload. Raises RequestRefused (404)."""
        row = self._registry.row("SELECT user_id FROM uploads WHERE id = ?", (upload_id,))
        if row is None:
            raise RequestRefused(404, _("there is no such upload"))
        return str(row[0])

    async def receive(
        self, upload_id: str, user: str, offset: int, parts: AsyncIterator[bytes]
    ) -> UploadState:
        """Appends a part and returns what is durable then. What arrived of a part that broke off is kept.

        Raises RequestRefused, BadAdapter for a header that is refused, OSError.
        """
        upload = await asyncio.to_thread(self.state, upload_id, user)
        if upload.adapter_id or offset != upload.offset:
            raise OffsetDiffers(upload)
        with self._claimed(upload_id):
            return await self._append(upload, parts)

    @contextmanager
    def _claimed(self, upload_id: str) -> Iterator[None]:
        """One request at a time. Raises RequestRefused (409)."""
        with self._lock:
            if upload_id in self._busy:
                raise RequestRefused(409, _("another request for this upload is at work"))
            self._busy.add(upload_id)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(upload_id)

    async def _append(self, upload: UploadState, parts: AsyncIterator[bytes]) -> UploadState:
        fd = os.open(
            self._file(upload.upload_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        arrived = upload.offset
        try:
            # What came after the last answer was never acknowledged.
            os.ftruncate(fd, arrived)
            try:
                async for block in _blocks(parts):
                    if arrived + len(block) > upload.size:
                        raise RequestRefused(413, _("more bytes arrived than were announced"))
                    await asyncio.to_thread(_write_at, fd, block, arrived)
                    arrived += len(block)
            finally:
                # Shielded: a client that leaves cancels the request, not the record of what it has sent.
                await asyncio.shield(asyncio.to_thread(self._record, fd, upload, arrived))
        finally:
            os.close(fd)
        return msgspec.structs.replace(upload, offset=arrived)

    def _record(self, fd: int, upload: UploadState, arrived: int) -> None:
        os.fsync(fd)
        with self._registry.transaction() as db:
            db.execute("UPDATE uploads SET received = ? WHERE id = ?", (arrived, upload.upload_id))

    def check_header(self, upload: UploadState) -> None:
        """Refuses an upload by its header once that has arrived, and deletes it. Raises BadAdapter."""
        fd = os.open(self._file(upload.upload_id), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            length = int.from_bytes(os.pread(fd, 8, 0), "little")
            if upload.offset < 8 or (length <= HEADER_LIMIT and upload.offset < min(8 + length, upload.size)):
                return
            parse_header(length, os.pread(fd, min(length, HEADER_LIMIT), 8), upload.size)
        except BadAdapter:
            self._delete(upload.upload_id)
            raise
        finally:
            os.close(fd)

    def finish(self, upload_id: str, user: str) -> str:
        """Admits an upload that has arrived in full; the id of the adapter. A second call answers the same.

        Raises RequestRefused while something is missing, BadAdapter as `Intake.take`: the upload is
        deleted then.
        """
        with self._claimed(upload_id):
            upload = self.state(upload_id, user)
            if upload.adapter_id:
                return upload.adapter_id
            if upload.offset != upload.size:
                raise OffsetDiffers(upload)
            row = self._registry.row("SELECT user_id, announced FROM uploads WHERE id = ?", (upload_id,))
            assert row is not None
            announced = _announced(row[0], msgspec.json.decode(row[1], type=OpenUpload))
            try:
                stored = self._intake.take(announced, self._file(upload_id), upload_id=upload_id)
            except BadAdapter:
                self._delete(upload_id)
                raise
            with self._registry.transaction() as db:
                db.execute("UPDATE uploads SET admitted = ? WHERE id = ?", (stored.id, upload_id))
            self._file(upload_id).unlink(missing_ok=True)
            return stored.id

    def drop(self, upload_id: str, user: str) -> None:
        """Forgets an upload. Raises RequestRefused (404)."""
        self.state(upload_id, user)
        with self._claimed(upload_id):
            self._delete(upload_id)

    def _delete(self, upload_id: str) -> None:
        with self._registry.transaction() as db:
            db.execute("DELETE FROM uploads WHERE id = ?", (upload_id,))
        self._file(upload_id).unlink(missing_ok=True)

    def _file(self, upload_id: str) -> Path:
        """The upload's id was made here: it comes from a row."""
        return self._folder / upload_id


def check_space(folder: Path, size: int) -> None:
    """Raises RequestRefused (507) where the disk has no room for `size` bytes."""
    if shutil.disk_usage(folder).free < size + _KEPT_FREE:
        raise RequestRefused(507, _("the disk of the hive is full"))


class OffsetDiffers(RequestRefused):
    """Status 409 with the state of the upload: the client continues from there."""

    def __init__(self, upload: UploadState) -> None:
        super().__init__(409, _("the next part starts at {offset}").format(offset=upload.offset))
        self.upload = upload


def _announced(user: str, request: OpenUpload) -> Announced:
    return Announced(
        user=user,
        config=msgspec.json.encode(request.config),
        base_model=request.base_model,
        base_fingerprint=request.base_fingerprint,
        sha256=request.sha256,
        training_samples=request.training_samples,
        epochs=request.epochs,
    )


async def _blocks(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The parts of a body, small ones joined; what came before a failure is yielded too."""
    block = bytearray()
    try:
        async for part in parts:
            if not block and len(part) >= _WRITTEN:
                yield part
                continue
            block += part
            if len(block) >= _WRITTEN:
                yield bytes(block)
                block = bytearray()
    except Exception:
        if block:
            yield bytes(block)
        raise
    if block:
        yield bytes(block)


def _write_at(fd: int, data: bytes, position: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, position)
        rest, position = rest[written:], position + written
