"""What a person does with alerts and channels: see, acknowledge, mute, add a channel, try it."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from engine.alerts.alert_state import AlertState, Notice, NoticeKind, acknowledge
from engine.alerts.channels import KINDS
from engine.alerts.message import AlertMessage, MessagePlace, compose
from engine.alerts.readings import AlertLevel
from engine.alerts.store import AlertStore, OutboxRow, ToldNotice
from engine.core.config import load_settings, save_settings
from engine.core.credentials import save_secrets
from engine.core.errors import H2QError, UsageProblem
from engine.core.i18n import _
from engine.core.paths import Workspace


def open_alerts(workspace: Workspace) -> list[AlertState]:
    """The alerts in force, the most serious and then the oldest first. Empty where nothing was ever watched."""
    return alert_overview(workspace, 0)[0]


def alert_overview(
    workspace: Workspace, limit: int, now: float | None = None
) -> tuple[list[AlertState], list[ToldNotice], float | None]:
    """The alerts in force, what was told, and when a mute of everything ends, in one look at the database."""
    if not AlertStore.exists(workspace):
        return [], [], None
    with AlertStore(workspace) as store:
        states = [state for state in store.states().values() if state.firing]
        mutes = store.mutes(time.time() if now is None else now)
        told = store.notices(limit)
    states.sort(key=lambda state: (state.level.rank, state.bad_since or 0.0))
    return states, told, max((mute.until for mute in mutes if mute.pattern == "*"), default=None)


def count_unseen(workspace: Workspace) -> int:
    """Alerts in force that nobody has acknowledged; 0 also when the database cannot be read. Never raises."""
    try:
        return sum(state.acknowledged_at is None for state in open_alerts(workspace))
    except (sqlite3.Error, OSError):
        return 0


def told_notices(workspace: Workspace, limit: int = 50) -> list[ToldNotice]:
    """What was told, newest first."""
    if not AlertStore.exists(workspace):
        return []
    with AlertStore(workspace) as store:
        return store.notices(limit)


def acknowledge_alerts(workspace: Workspace, pattern: str, now: float | None = None) -> list[AlertState]:
    """Marks the alerts in force that match as seen: they are not repeated. Returns them.

    `pattern` is a fingerprint or a part of it with `*`, `all`, or the id of a run. Raises UsageProblem for one that matches none.
    """
    now = time.time() if now is None else now
    if not AlertStore.exists(workspace):
        raise _no_match(pattern)
    with AlertStore(workspace) as store, store.transaction():
        before = store.states()
        seen = {
            key: acknowledge(state, now)
            for key, state in before.items()
            if state.firing and _matches(state, pattern)
        }
        store.save_states(before, {**before, **seen})
    if not seen:
        raise _no_match(pattern)
    return list(seen.values())


def mute_alerts(workspace: Workspace, pattern: str, seconds: float, now: float | None = None) -> float:
    """Holds back the alerts that match for `seconds`; 0 ends a mute. Returns when it ends. Critical alerts are not held."""
    now = time.time() if now is None else now
    until = now + seconds if seconds > 0 else 0.0
    with AlertStore(workspace) as store:
        store.mute("*" if pattern == "all" else pattern, until)
    return until


def _matches(state: AlertState, pattern: str) -> bool:
    if pattern in ("all", state.rule, state.subject, state.fingerprint):
        return True
    return fnmatchcase(state.fingerprint, pattern)


def _no_match(pattern: str) -> UsageProblem:
    text = _("no alert is in force") if pattern == "all" else _("no alert in force matches {pattern}")
    return UsageProblem(text.format(pattern=pattern), hint="h2q-tui notify list")


def add_channel(workspace: Workspace, name: str, kind_id: str, fields: Mapping[str, str]) -> None:
    """Writes a channel into the settings, its secrets apart. An existing one of the name is replaced.

    Raises UsageProblem for an unknown kind or field and for one that is missing. A secret that is missing is read
    from elsewhere later.
    """
    kind = KINDS.get(kind_id)
    if kind is None:
        raise UsageProblem(
            _("there is no kind of channel {kind}; there are {kinds}").format(
                kind=kind_id, kinds=_(", ").join(KINDS)
            ),
            hint="h2q-tui notify setup",
        )
    known = {one.name: one for one in kind.fields}
    unknown = [field for field in fields if field not in known]
    missing = [
        one
        for one in kind.fields
        if one.needed and not one.secret and not (fields.get(one.name) or one.default)
    ]
    if unknown:
        raise UsageProblem(
            _("{kind} has no field {field}; it has {fields}").format(
                kind=kind_id, field=unknown[0], fields=_(", ").join(known)
            )
        )
    if missing:
        raise UsageProblem(
            _("the field {field} is missing: {title}").format(
                field=missing[0].name, title=_(missing[0].title)
            ),
            hint="h2q-tui notify setup",
        )
    for one in kind.fields:
        if one.choices and fields.get(one.name, one.default) not in one.choices:
            raise UsageProblem(
                _("{field} takes one of {choices}, not {value}").format(
                    field=one.name, choices=_(", ").join(one.choices), value=fields[one.name]
                )
            )
    if not name.replace("-", "").replace("_", "").isalnum():
        raise UsageProblem(_("the name of a channel consists of letters, digits, - and _"))
    settings = load_settings(workspace)
    public = {field: value for field, value in fields.items() if value and not known[field].secret}
    secret = {field: value for field, value in fields.items() if value and known[field].secret}
    save_secrets(workspace, name, secret)
    channels = {**settings.alert_channels, name: {"kind": kind_id, **public}}
    save_settings(workspace, msgspec.structs.replace(settings, alert_channels=channels))


def _no_channel(name: str) -> UsageProblem:
    return UsageProblem(_("there is no channel {name}").format(name=name), hint="h2q-tui notify channels")


def remove_channel(workspace: Workspace, name: str) -> None:
    """Deletes a channel, its secrets and what waits for it. Raises UsageProblem for one that is not there."""
    settings = load_settings(workspace)
    if name not in settings.alert_channels:
        raise _no_channel(name)
    channels = {key: value for key, value in settings.alert_channels.items() if key != name}
    save_settings(workspace, msgspec.structs.replace(settings, alert_channels=channels))
    save_secrets(workspace, name, {})
    if AlertStore.exists(workspace):
        with AlertStore(workspace) as store:
            store.drop_channel(name)


def muted_until(workspace: Workspace, now: float | None = None) -> float | None:
    """When the mute of everything ends; None without one."""
    return alert_overview(workspace, 0, now)[2]


def send_tests(workspace: Workspace, names: Sequence[str] = ()) -> dict[str, str]:
    """Sends a test message to the channels `names`, to all without any; returns the error of each, "" for success.

    Raises UsageProblem when there is no such channel. It takes as long as the servers do.
    """
    from engine.alerts.delivery import open_channel, send

    settings = load_settings(workspace)
    names = names or list(settings.alert_channels)
    if not names:
        raise UsageProblem(_("there is no channel yet"), hint="h2q-tui notify setup")
    for name in names:
        if name not in settings.alert_channels:
            raise _no_channel(name)
    notice = Notice(kind=NoticeKind.TEST, level=AlertLevel.INFO, at=time.time(), states=())
    made = compose(notice, MessagePlace(host=socket.gethostname(), folder=workspace.root))
    results = {}
    for name in names:
        try:
            results[name] = send(open_channel(workspace, settings, name), _test_row(made))
        except H2QError as problem:
            results[name] = str(problem)
    return results


def _test_row(made: AlertMessage) -> OutboxRow:
    """A message that is sent without standing in the outbox."""
    now = time.time()
    return OutboxRow(
        id=0, channel="", level=made.level, title=made.title, text=made.text, html=made.html, short=made.short,
        created_at=now, attempts=0, next_at=now, sent_at=None, given_up_at=None, error="",
    )  # fmt: skip
