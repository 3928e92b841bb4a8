"""The client of a hive server: asks, uploads in parts that survive a cut, downloads.

It speaks to the server that the person named and to no other: no proxy, no redirection. Failures of the network are
tried again with growing pauses. All methods block: call them in a thread. The app uses it, so it imports nothing
heavy; the token stands in a header and nowhere else.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

import msgspec

from engine.core.credentials import HIVE, read_secret, variable
from engine.core.errors import BadInput, H2QError, RunFailed, ServiceUnreachable, UsageProblem
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.hive.address import HiveAddress
from engine.hive.outgoing import OutgoingAdapter
from engine.hive.protocol import (
    API,
    SERVER_NAME,
    AdapterInfo,
    AdapterList,
    Admitted,
    Aggregated,
    AggregateRequest,
    Contributor,
    ContributorList,
    HiveStatus,
    OpenUpload,
    Refusal,
    RoundInfo,
    RoundList,
    ServerInfo,
    UploadState,
    VersionInfo,
    VersionList,
)
from engine.hive.shares import PendingUpload, SharedAdapter, change_shares, read_shares

if TYPE_CHECKING:
    import httpx

PART = 2 << 20
"""Bytes of a part of an upload."""
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try."""
LONGEST_PAUSE = 60.0
"""A server that asks for more is not waited for."""
_ANSWER_LIMIT = 8 << 20
_TRY_AGAIN = (429, 502, 503, 504)
_CONNECT_S, _IO_S, _AGGREGATE_S = 5.0, 60.0, 1800.0

Progress = Callable[[int, int], None]
"""Called with the bytes that have arrived and all bytes. What it raises ends the transfer."""
T = TypeVar("T")


class AdapterRefused(BadInput):
    """The server did not take an adapter; `rule` is a `protocol.Rule`."""

    def __init__(self, message: str, rule: str) -> None:
        super().__init__(message)
        self.rule = rule


class HiveClient:
    """A connection to one server; use it in a `with` block."""

    def __init__(
        self,
        address: HiveAddress,
        token: str = "",
        *,
        pauses: Sequence[float] = PAUSES,
        part: int = PART,
        on_wait: Callable[[float, str], None] | None = None,
    ) -> None:
        """`pauses`: seconds before each further try; `part`: bytes of a part of an upload; `on_wait` is called before a pause
        with its seconds and why.

        Raises UsageProblem for a token that cannot be sent, BadInput for certificates that cannot be read.
        """
        import httpx

        if token and not (token.isascii() and token.isprintable() and " " not in token):
            raise UsageProblem(
                _("the token for the hive is not one: it has spaces or other characters"),
                hint=f"unset {variable(HIVE, 'token')}",
            )
        self.address = address
        self._pauses = tuple(pauses)
        self._part = part
        self._on_wait = on_wait or (lambda _seconds, _reason: None)
        self._http = httpx.Client(
            base_url=address.url,
            trust_env=False,
            follow_redirects=False,
            verify=_certificates(address.ca_file),
            timeout=httpx.Timeout(_IO_S, connect=_CONNECT_S),
            headers={
                "user-agent": SERVER_NAME,
                "accept-encoding": "identity",
                **({"authorization": f"Bearer {token}"} if token else {}),
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    # Questions

    def server(self) -> ServerInfo:
        return self._ask(ServerInfo, "GET", "/server")

    def status(self) -> HiveStatus:
        return self._ask(HiveStatus, "GET", "/status")

    def adapters(self, user: str = "") -> list[AdapterInfo]:
        """Those of `user`, else all; newest first."""
        found = self._ask(AdapterList, "GET", "/adapters" + (f"?user={quote(user, safe='')}" if user else ""))
        return found.adapters

    def versions(self) -> list[VersionInfo]:
        """Newest first."""
        return self._ask(VersionList, "GET", "/versions").versions

    def rounds(self) -> list[RoundInfo]:
        """Newest first."""
        return self._ask(RoundList, "GET", "/rounds").rounds

    def contributors(self) -> list[Contributor]:
        return self._ask(ContributorList, "GET", "/contributors").contributors

    def aggregate(self, request: AggregateRequest) -> Aggregated:
        """Asks the server to join what waits. Never tried twice: the first try may still be at work."""
        body = msgspec.json.encode(request)
        return self._ask(Aggregated, "POST", "/aggregate", body=body, tries=1, read_s=_AGGREGATE_S)

    # Transfers

    def upload(
        self,
        ws: Workspace,
        adapter: OutgoingAdapter,
        progress: Progress = lambda _done, _all: None,
        *,
        user: str = "",
    ) -> Admitted:
        """Sends an adapter, or the rest of one whose upload was cut off, also by another process.

        `user` is the name of the sender on a server without tokens; "": the server's own for a person without one.

        Raises AdapterRefused, BadInput for a file that changes meanwhile, ServiceUnreachable, OSError.
        """
        upload = self._open(ws, adapter, user)
        with suppress(_Gone):
            return self._send(ws, adapter, upload, progress)
        # The server has forgotten the upload: it was given up there.
        self._forget(ws, adapter)
        with suppress(_Gone):
            return self._send(ws, adapter, self._open(ws, adapter, user), progress)
        raise ServiceUnreachable(
            _("{server} forgets uploads; nothing was shared").format(server=self.address.url)
        )

    def _open(self, ws: Workspace, adapter: OutgoingAdapter, user: str) -> UploadState:
        known = read_shares(ws).upload_id(self.address.url, adapter.sha256)
        if known:
            with suppress(_Gone):
                return self._ask(UploadState, "GET", f"/uploads/{quote(known, safe='')}")
            self._forget(ws, adapter)
        announced = OpenUpload(
            sha256=adapter.sha256,
            size=adapter.size,
            config=adapter.config,
            base_model=adapter.base_model,
            base_fingerprint=adapter.base_fingerprint,
            training_samples=adapter.samples,
            user_id=user,
        )
        state = self._ask(UploadState, "POST", "/uploads", body=msgspec.json.encode(announced))
        with change_shares(ws) as shares:
            shares.pending.append(
                PendingUpload(sha256=adapter.sha256, place=self.address.url, upload_id=state.upload_id)
            )
        return state

    def _send(
        self, ws: Workspace, adapter: OutgoingAdapter, state: UploadState, progress: Progress
    ) -> Admitted:
        path = f"/uploads/{quote(state.upload_id, safe='')}"
        offset, failures, sent = state.offset, 0, 0
        while offset < adapter.size and not state.adapter_id:
            progress(offset, adapter.size)
            part = b"".join(adapter.chunks(offset, self._part))
            if len(part) != min(self._part, adapter.size - offset):
                raise BadInput(_("the adapter changed while it was sent"), path=adapter.folder)
            try:
                state = self._ask(
                    UploadState, "PUT", f"{path}?offset={offset}", body=part, tries=1, binary=True
                )
            except (ServiceUnreachable, _OtherOffset):
                # What has arrived is what the server says, not what was sent.
                if failures >= len(self._pauses):
                    raise
                self._pause(failures, _("the connection was cut"))
                failures += 1
                state = self._ask(UploadState, "GET", path, patient=True)
            if state.offset > offset:
                failures, sent = 0, sent + state.offset - offset
            offset = state.offset
            if not 0 <= offset <= adapter.size:
                raise self._not_a_hive()
        progress(adapter.size, adapter.size)
        try:
            admitted = self._ask(Admitted, "POST", f"{path}/finish", patient=True)
        except AdapterRefused:
            self._forget(ws, adapter, sent)
            raise
        if admitted.sha256 not in ("", adapter.sha256):
            raise self._not_a_hive()
        self._forget(ws, adapter, sent, admitted)
        return admitted

    def _forget(
        self, ws: Workspace, adapter: OutgoingAdapter, sent: int = 0, admitted: Admitted | None = None
    ) -> None:
        """The upload is over; `admitted`: with success."""
        with change_shares(ws) as shares:
            shares.pending = [
                one for one in shares.pending if (one.place, one.sha256) != (self.address.url, adapter.sha256)
            ]
            shares.bytes_sent += sent
            known = {(one.place, one.adapter_id) for one in shares.shared}
            if admitted is not None and (self.address.url, admitted.adapter_id) not in known:
                shares.shared.append(
                    SharedAdapter(
                        name=adapter.name,
                        sha256=adapter.sha256,
                        place=self.address.url,
                        adapter_id=admitted.adapter_id,
                        round=admitted.round,
                        bytes=adapter.size,
                        at=time.time(),
                        conversations=adapter.lineage.conversations,
                        clusters=adapter.lineage.clusters,
                    )
                )

    def download(
        self, version: VersionInfo, file: Path, progress: Progress = lambda _done, _all: None
    ) -> int:
        """Writes the archive of a version to `file`, new or with the beginning of the same archive; returns its bytes.

        Raises ServiceUnreachable, RunFailed for an archive that is far larger than announced, OSError.
        """
        limit = version.bytes + _ANSWER_LIMIT
        failures, before = 0, 0
        while True:
            have = file.stat().st_size if file.exists() else 0
            failures, before = (0, have) if have > before else (failures, before)
            try:
                return self._fetch(version, file, have, limit, progress)
            except ServiceUnreachable:
                if failures >= len(self._pauses):
                    raise
                self._pause(failures, _("the connection was cut"))
                failures += 1

    def _fetch(self, version: VersionInfo, file: Path, have: int, limit: int, progress: Progress) -> int:
        import httpx

        path = f"{API}/versions/{quote(version.version, safe='')}/archive"
        headers = {"range": f"bytes={have}-"} if have else {}
        try:
            with self._http.stream("GET", path, headers=headers) as reply:
                if reply.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                    file.unlink()
                    raise ServiceUnreachable(_("the archive on the server is another one"))
                if reply.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
                    reply.read()
                    raise self._refused(reply)
                resumed = reply.headers.get("content-range", "").startswith(f"bytes {have}-")
                done = have if resumed else 0
                whole = done + int(reply.headers.get("content-length", 0))
                with file.open("ab" if resumed else "wb") as out:
                    for chunk in reply.iter_raw():
                        done += len(chunk)
                        if done > limit:
                            raise RunFailed(
                                _("the archive is larger than {server} said").format(server=self.address.url)
                            )
                        out.write(chunk)
                        progress(done, max(whole, done))
                if done < whole:
                    raise ServiceUnreachable(_("the connection was cut"))
                return done
        except (httpx.HTTPError, ssl.SSLError) as problem:
            raise self._unreachable(problem) from problem

    # One request

    def _ask(
        self,
        kind: type[T],
        method: str,
        path: str,
        *,
        body: bytes = b"",
        binary: bool = False,
        tries: int = 0,
        patient: bool = False,
        read_s: float = _IO_S,
    ) -> T:
        """The answer of the server as `kind`. `tries` 0: as often as there are pauses, and once more; a server that is not there is
        asked twice, unless `patient`."""
        for number in range(tries or len(self._pauses) + 1):
            last = number == (tries or len(self._pauses) + 1) - 1
            try:
                return self._decoded(kind, self._answer(method, path, body, binary=binary, read_s=read_s))
            except _TryAgain as problem:
                if last or (problem.refused_connection and number >= 1 and not patient):
                    raise problem.error from problem.error.__cause__
                self._pause(number, problem.error.message, problem.after_s)
        raise AssertionError("the last try returns or raises")

    def _answer(self, method: str, path: str, body: bytes, *, binary: bool, read_s: float) -> httpx.Response:
        import httpx

        headers = (
            {"content-type": "application/octet-stream" if binary else "application/json"} if body else {}
        )
        timeout = httpx.Timeout(_IO_S, connect=_CONNECT_S, read=read_s)
        try:
            with self._http.stream(
                method, API + path, content=body or None, headers=headers, timeout=timeout
            ) as reply:
                text = b""
                for chunk in reply.iter_raw():
                    text += chunk
                    if len(text) > _ANSWER_LIMIT:
                        raise self._not_a_hive()
                reply._content = text
        except (httpx.HTTPError, ssl.SSLError) as problem:
            refused = isinstance(problem, httpx.ConnectError)
            raise _TryAgain(self._unreachable(problem), refused_connection=refused) from problem
        if reply.status_code in _TRY_AGAIN:
            raise _TryAgain(self._refused(reply), after_s=_retry_after(reply))
        if reply.status_code >= httpx.codes.MULTIPLE_CHOICES:
            raise self._refused(reply)
        return reply

    def _decoded(self, kind: type[T], reply: httpx.Response) -> T:
        try:
            return msgspec.json.decode(reply.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise self._not_a_hive() from problem

    def _pause(self, number: int, reason: str, wanted_s: float = 0.0) -> None:
        seconds = max(self._pauses[min(number, len(self._pauses) - 1)], wanted_s) if self._pauses else 0.0
        if wanted_s > LONGEST_PAUSE:
            raise ServiceUnreachable(
                _("{server} asks to wait {seconds:.0f} seconds").format(
                    server=self.address.url, seconds=wanted_s
                )
            )
        self._on_wait(seconds, reason)
        time.sleep(seconds)

    def _refused(self, reply: httpx.Response) -> H2QError:
        """The error for an answer that is none."""
        server, status = self.address.url, reply.status_code
        try:
            refusal = msgspec.json.decode(reply.content, type=Refusal)
        except (msgspec.DecodeError, UnicodeDecodeError):
            refusal = Refusal(detail="")
        detail = refusal.detail if isinstance(refusal.detail, str) else _first_message(refusal.detail)
        if status == 401 or (status == 403 and not detail):
            return UsageProblem(
                _("{server} does not accept the token, or asks for one").format(server=server),
                hint=f"export {variable(HIVE, 'token')}=TOKEN",
            )
        if refusal.rule:
            return AdapterRefused(
                _("the server refused the adapter: {reason} (rule: {rule})").format(
                    reason=detail.rstrip("."), rule=refusal.rule
                ),
                refusal.rule,
            )
        if status == 404:
            return _Gone(detail or _("{server} has nothing there").format(server=server))
        if status == 409:
            return _OtherOffset(detail or _("the connection was cut"))
        if not detail:
            return self._not_a_hive()
        text = _("{server} refused: {reason}").format(server=server, reason=detail.rstrip("."))
        if status == 403:
            return UsageProblem(text)
        return ServiceUnreachable(text) if status >= 500 else BadInput(text)

    def _unreachable(self, problem: Exception) -> ServiceUnreachable:
        reason = str(problem).partition("\n")[0][:200] or type(problem).__name__
        hint = "h2q-tui hive serve" if self.address.local else ""
        return ServiceUnreachable(
            _("the hive server at {server} does not answer: {reason}").format(
                server=self.address.url, reason=reason
            ),
            hint=hint,
        )

    def _not_a_hive(self) -> ServiceUnreachable:
        return ServiceUnreachable(
            _("what answers at {server} is not a hive server").format(server=self.address.url)
        )


class _Gone(BadInput):
    """The server has nothing there."""


class _OtherOffset(BadInput):
    """A part does not begin where the server expects it."""


class _TryAgain(Exception):
    """A request that failed in a way that may pass."""

    def __init__(self, error: H2QError, *, after_s: float = 0.0, refused_connection: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.after_s = after_s
        self.refused_connection = refused_connection


def hive_token(ws: Workspace) -> str:
    """The token of this person; "" when there is none. Raises BadInput for a file that others can read."""
    return read_secret(ws, HIVE, "token").strip()


def _certificates(file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(Path(file).expanduser()) if file else None)
    except (OSError, ssl.SSLError) as problem:
        raise BadInput(_("the certificates cannot be read"), path=Path(file)) from problem


def _retry_after(reply: Any) -> float:
    text = reply.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0


def _first_message(details: list[Any]) -> str:
    """The first sentence of FastAPI's list of errors."""
    first = details[0] if details else {}
    return str(first.get("msg", "")) if isinstance(first, dict) else str(first)
