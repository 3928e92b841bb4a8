"""Delivery of the outbox: every due message to its channel, at least once.

It runs in a process of its own that ends when nothing is due: a server that hangs delays nobody else, and apprise is loaded
only while something is sent. A message leaves the outbox when its channel has accepted it; a process that is killed
in between sends it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.alerts import addresses, sms
from engine.alerts.channels import CONNECT_S, KINDS
from engine.alerts.redact import redact
from engine.alerts.store import AlertStore, OutboxRow
from engine.core.config import load_settings
from engine.core.credentials import read_secret
from engine.core.errors import H2QError, UsageProblem, error_text
from engine.core.files import try_lock
from engine.core.i18n import _, set_language, system_language
from engine.core.paths import Workspace
from engine.core.settings import Settings

LOCK_NAME = "deliver.lock"
_GIVES_UP = 2
_REASON = re.compile(r"(?:Socket|I/O) Exception: |Response Details:\s*")
"""How apprise begins the reason of a failure; its other debug lines may hold secrets."""
_KEPT_SENT_S = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Channel:
    """One channel of the settings with its secrets.

    Attributes:
        fields: public and secret ones.
    """

    name: str
    kind: str
    fields: Mapping[str, str]

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that no text may hold."""
        kind = KINDS.get(self.kind)
        names = [one.name for one in kind.fields if one.secret] if kind else []
        return tuple(filter(None, (self.fields.get(name, "") for name in names)))


def open_channel(workspace: Workspace, settings: Settings, name: str) -> Channel:
    """The channel `name`. Raises UsageProblem for one that is not there or incomplete, BadInput for its secrets."""
    given = settings.alert_channels.get(name)
    if given is None:
        raise UsageProblem(_("there is no channel {name}").format(name=name), hint="h2q-tui notify setup")
    kind = KINDS.get(given.get("kind", ""))
    if kind is None:
        raise UsageProblem(
            _("channel {name} has an unknown kind: {kind}").format(name=name, kind=given.get("kind", "")),
            hint="h2q-tui notify setup",
        )
    fields = {one.name: given.get(one.name, "") or one.default for one in kind.fields if not one.secret}
    for one in kind.fields:
        if one.secret:
            fields[one.name] = read_secret(workspace, name, one.name)
        if one.needed and not fields[one.name]:
            raise UsageProblem(
                _("channel {name} lacks its {field}").format(name=name, field=_(one.title)),
                hint="h2q-tui notify setup",
            )
    return Channel(name, kind.id, fields)


def send(channel: Channel, row: OutboxRow) -> str:
    """Sends one message; returns the error without secrets, "" when the channel has accepted it."""
    try:
        sender = _SENDERS.get(channel.kind, _by_apprise)
        error = sender(channel, row)
    except (H2QError, OSError, ValueError, http.client.HTTPException) as problem:
        error = error_text(problem) or type(problem).__name__
    return redact(" ".join(error.split()), channel.secrets)


def _by_apprise(channel: Channel, row: OutboxRow) -> str:
    import apprise

    kind = KINDS[channel.kind]
    assert kind.url is not None
    service = apprise.Apprise()
    with _captured_log() as lines:
        if not service.add(kind.url(channel.fields)):
            return _("the fields of the channel do not make a valid address")
        if kind.short:
            result = service.notify(body=row.short, body_format=apprise.NotifyFormat.TEXT)
        elif kind.html:
            result = service.notify(body=row.html, title=row.title, body_format=apprise.NotifyFormat.HTML)
        else:
            result = service.notify(body=row.text, title=row.title, body_format=apprise.NotifyFormat.TEXT)
    if result:
        return ""
    return "; ".join(dict.fromkeys(lines)) or _("the service refused the message")


@contextlib.contextmanager
def _captured_log() -> Iterator[list[str]]:
    """What apprise says about a failure: it logs the reason and returns none."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if record.levelno >= logging.WARNING:
                lines.append(text)
            elif match := _REASON.match(text):
                lines.append(text[match.end() :])

    logger = logging.getLogger("apprise")
    handler, before, passed_on = Keep(logging.DEBUG), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = passed_on


def _by_webhook(channel: Channel, row: OutboxRow) -> str:
    """Posts JSON. A redirection counts as a failure: it may lead anywhere."""
    allowed = channel.fields.get("private") == "yes"
    target = addresses.check_target(channel.fields["password"], allow_private=allowed)
    body = {
        "version": 1,
        "id": row.id,
        "level": row.level.value,
        "title": row.title,
        "text": row.text,
        "created_at": row.created_at,
    }
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "h2q-tui"}
    if token := channel.fields.get("token"):
        headers["Authorization"] = f"Bearer {token}"
    data = json.dumps(body, ensure_ascii=False).encode()
    status = addresses.post(target, data, headers, timeout_s=CONNECT_S)
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return _("the server answered with a redirection ({status}), which is not followed").format(
            status=status
        )
    return _("the server answered {status}").format(status=status)


def _by_aliyun(channel: Channel, row: OutboxRow) -> str:
    return sms.send_aliyun(channel.fields, row.short)


def _by_tencent(channel: Channel, row: OutboxRow) -> str:
    return sms.send_tencent(channel.fields, row.short)


_SENDERS: dict[str, Callable[[Channel, OutboxRow], str]] = {
    "webhook": _by_webhook,
    "aliyun": _by_aliyun,
    "tencent": _by_tencent,
}


def deliver(workspace: Workspace, *, clock: Callable[[], float] = time.time) -> int:
    """Sends what is due; returns how many messages were accepted. Another process that delivers already does it all.

    A channel that fails twice in a row is left alone for this round: its other messages wait as well. Twice, so that one message
    that a service refuses does not hold up the rest.
    """
    with AlertStore(workspace) as store, _only_one(workspace) as alone:
        if not alone:
            return 0
        settings = load_settings(workspace)
        accepted = 0
        failures: dict[str, list[str]] = {}
        while rows := store.due(clock()):
            for row in rows:
                before = failures.setdefault(row.channel, [])
                error = before[-1] if len(before) >= _GIVES_UP else _try_send(workspace, settings, row)
                if error:
                    before.append(error)
                    store.failed(row, error, clock())
                else:
                    before.clear()
                    store.sent(row, clock())
                    accepted += 1
        store.forget_sent(clock() - _KEPT_SENT_S)
        return accepted


def _try_send(workspace: Workspace, settings: Settings, row: OutboxRow) -> str:
    try:
        return send(open_channel(workspace, settings, row.channel), row)
    except H2QError as problem:
        return problem.message


@contextlib.contextmanager
def _only_one(workspace: Workspace) -> Iterator[bool]:
    """Whether this process is the one that delivers."""
    fd = os.open(workspace.alerts / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield try_lock(fd)
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def main(data_dir: Path) -> int:
    """`python -m engine deliver DATA_DIR`."""
    workspace = Workspace(data_dir)
    settings = load_settings(workspace)
    set_language(system_language() if settings.language == "auto" else settings.language)
    deliver(workspace)
    return 0
