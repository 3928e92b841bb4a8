"""When an alert speaks: a state machine of each fingerprint, pure and with the clock as an argument.

`observe` takes the observations of one moment into the states, `speak` decides what is said then. A fingerprint speaks at most
once in `SPEAK_EVERY_S`; what changed in between is summed up by the next notice. One that comes and goes all the time
is reported twice, and then when it has been calm for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

import msgspec

from engine.alerts.readings import AlertLevel, Observation, ObservationState
from engine.alerts.rules import CLEAR_READINGS, RULES
from engine.alerts.silence import Silence

SPEAK_EVERY_S = 300.0
REPEAT_AFTER_S = 4 * 3600.0
"""After which an alert that nobody acknowledged is reported again, if it is an error or critical."""
MAX_REPEATS = 6
"""A day of them: who has not come by then is not waiting for the seventh."""
PER_HOUR = 3
"""Notices of one fingerprint in any hour, at most."""
HOUR_S = 3600.0
FLAPS = 6
"""Changes in half an hour that make an alert one that comes and goes."""
FLAP_WINDOW_S, CALM_S = 1800.0, 900.0
_CHANGES_KEPT = 32


class AlertPhase(StrEnum):
    """What a fingerprint is, whether or not it was told."""

    CLEAR = "clear"
    PENDING = "pending"
    """Bad, for less time than the rule asks for."""
    FIRING = "firing"
    HAPPENED = "happened"
    """An event: it is sent once."""


class AlertState(msgspec.Struct, frozen=True, kw_only=True):
    """One fingerprint. Times are seconds since the epoch."""

    fingerprint: str
    rule: str
    subject: str = ""
    level: AlertLevel
    phase: AlertPhase = AlertPhase.CLEAR
    bad_since: float | None = None
    """Beginning of the present or the last time."""
    good_readings: int = 0
    ended_at: float | None = None
    changes: tuple[float, ...] = ()
    """When it fired and cleared, the last ones."""
    untold: int = 0
    """Changes since the last notice."""
    first_untold_at: float | None = None
    told_firing: bool = False
    """What the last notice said: whether it was in force."""
    told_level: AlertLevel | None = None
    told_at: tuple[float, ...] = ()
    """Times of the notices of the last hour, and of the last one."""
    told_summed: bool = False
    """The last notice summed up several changes."""
    held: bool = False
    """Something to tell was suppressed by quiet hours or a mute."""
    repeats: int = 0
    acknowledged_at: float | None = None
    figures: dict[str, float | str] = {}
    figures_at: float = 0.0

    @property
    def firing(self) -> bool:
        return self.phase is AlertPhase.FIRING

    @property
    def open(self) -> bool:
        """Whether a person who looks at the alerts should see it first."""
        return self.phase is AlertPhase.FIRING


class NoticeKind(StrEnum):
    """Why something is reported."""

    ALERT = "alert"
    RECOVERY = "recovery"
    EVENT = "event"
    DIGEST = "digest"
    """It changed several times since it was last told."""
    REPEAT = "repeat"
    SUMMARY = "summary"
    """What was suppressed while it was quiet, of several fingerprints."""
    TEST = "test"


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something to tell: one state, or several in a summary."""

    kind: NoticeKind
    level: AlertLevel
    at: float
    states: tuple[AlertState, ...]
    """As they are now."""
    changes: int = 1
    """Changes that it sums up."""
    since: float | None = None
    """The first of them."""


def observe(
    states: Mapping[str, AlertState], observations: Iterable[Observation], now: float
) -> dict[str, AlertState]:
    """The states after `observations`; those without one stay as they are."""
    after = dict(states)
    for one in observations:
        rule = RULES[one.rule]
        state = after.get(one.fingerprint)
        if state is None:
            if one.state in (ObservationState.GOOD, ObservationState.MOOT):
                continue
            state = AlertState(
                fingerprint=one.fingerprint, rule=one.rule, subject=one.subject, level=one.level or rule.level
            )
        after[one.fingerprint] = _TRANSITIONS[one.state](state, one, now)
    return after


def _bad(state: AlertState, one: Observation, now: float) -> AlertState:
    rule, replace = RULES[state.rule], msgspec.structs.replace
    level = one.level or rule.level
    if state.firing:
        level = min(level, state.level, key=lambda known: known.rank)
        state = replace(state, good_readings=0, level=level)
        if now - state.figures_at >= 60.0 or level is not state.told_level:
            state = replace(state, figures=one.figures, figures_at=now)
        return state
    if state.phase is not AlertPhase.PENDING:
        began = now if one.since is None else min(now, one.since)
        state = replace(state, phase=AlertPhase.PENDING, bad_since=began, ended_at=None)
    state = replace(state, good_readings=0, level=level, figures=one.figures, figures_at=now)
    if state.bad_since is not None and now - state.bad_since < rule.hold_s:
        return state
    return replace(_changed(state, now), phase=AlertPhase.FIRING, acknowledged_at=None, repeats=0)


def _good(state: AlertState, one: Observation, now: float) -> AlertState:
    replace = msgspec.structs.replace
    if state.phase is AlertPhase.PENDING:
        return replace(state, phase=AlertPhase.CLEAR, bad_since=None)
    if not state.firing:
        return state
    if state.good_readings + 1 < CLEAR_READINGS:
        return replace(state, good_readings=state.good_readings + 1)
    figures = {**state.figures, **{f"{name}_now": value for name, value in one.figures.items()}}
    return replace(
        _changed(state, now), phase=AlertPhase.CLEAR, good_readings=0, ended_at=now, figures=figures, figures_at=now
    )  # fmt: skip


def _moot(state: AlertState, _one: Observation, now: float) -> AlertState:
    """It ends without a word: what replaced it is reported by another rule."""
    if state.phase not in (AlertPhase.PENDING, AlertPhase.FIRING) and not state.untold:
        return state
    return msgspec.structs.replace(
        state, phase=AlertPhase.CLEAR, good_readings=0, ended_at=now, untold=0, first_untold_at=None,
        told_firing=False, held=False,
    )  # fmt: skip


def _happened(state: AlertState, one: Observation, now: float) -> AlertState:
    if state.phase is AlertPhase.HAPPENED:
        return state
    began = now if one.since is None else min(now, one.since)
    return msgspec.structs.replace(
        _changed(state, now), phase=AlertPhase.HAPPENED, bad_since=began, figures=one.figures, figures_at=now
    )


_TRANSITIONS: dict[ObservationState, Callable[[AlertState, Observation, float], AlertState]] = {
    ObservationState.BAD: _bad,
    ObservationState.GOOD: _good,
    ObservationState.MOOT: _moot,
    ObservationState.HAPPENED: _happened,
}


def _changed(state: AlertState, now: float) -> AlertState:
    first = state.first_untold_at if state.untold else now
    return msgspec.structs.replace(
        state,
        changes=(*state.changes, now)[-_CHANGES_KEPT:],
        untold=state.untold + 1,
        first_untold_at=first,
    )


def speak(
    states: Mapping[str, AlertState], silence: Silence, now: float
) -> tuple[dict[str, AlertState], list[Notice]]:
    """What is reported at `now`, the most serious first, and the states in which it is reported."""
    after, notices, late = dict(states), [], []
    for key, state in states.items():
        kind = _wanted(state, now)
        if kind is None:
            if state.held:
                after[key] = msgspec.structs.replace(state, held=False)
            continue
        if silence.holds(state.fingerprint, state.level, now):
            if not state.held:
                after[key] = msgspec.structs.replace(state, held=True)
            continue
        if not _may_speak(state, now):
            continue
        if state.held:
            late.append((state, kind))
        else:
            notices.append(_notice(state, kind, now))
        after[key] = _told(state, kind, now)
    if len(late) == 1:
        notices.append(_notice(*late[0], now))
    elif late:
        late.sort(key=lambda one: (not one[0].firing, one[0].level.rank))
        worst = min((state.level for state, _kind in late), key=lambda level: level.rank)
        notices.append(
            Notice(
                kind=NoticeKind.SUMMARY,
                level=worst,
                at=now,
                states=tuple(state for state, _kind in late),
                changes=sum(max(1, state.untold) for state, _kind in late),
                since=min(
                    now if state.first_untold_at is None else state.first_untold_at for state, _kind in late
                ),
            )
        )
    return after, sorted(notices, key=lambda notice: notice.level.rank)


def _wanted(state: AlertState, now: float) -> NoticeKind | None:
    """What there is to tell about `state`; None for nothing new."""
    if state.phase is AlertPhase.HAPPENED:
        return NoticeKind.EVENT if state.untold else None
    if state.untold >= 2 and state.told_at:
        return NoticeKind.DIGEST
    if state.untold and state.firing != state.told_firing:
        return NoticeKind.ALERT if state.firing else NoticeKind.RECOVERY
    if state.untold:
        # It came and went before it was told at all.
        return NoticeKind.DIGEST
    if not state.firing:
        return None
    if state.told_level is not None and state.level.rank < state.told_level.rank:
        return NoticeKind.ALERT
    waited = now - state.told_at[-1] if state.told_at else 0.0
    matters = state.level.rank <= AlertLevel.ERROR.rank
    if matters and state.acknowledged_at is None and waited >= REPEAT_AFTER_S and state.repeats < MAX_REPEATS:
        return NoticeKind.REPEAT
    return None


def is_flapping(state: AlertState, now: float) -> bool:
    """Whether it has changed all the time lately, and still does."""
    lately = [t for t in state.changes if now - t <= FLAP_WINDOW_S]
    return len(lately) >= FLAPS and now - lately[-1] < CALM_S


def _may_speak(state: AlertState, now: float) -> bool:
    if not state.told_at:
        return True
    lately = [t for t in state.told_at if now - t < HOUR_S]
    if len(lately) >= PER_HOUR:
        return False
    gap = HOUR_S if state.told_summed and is_flapping(state, now) else SPEAK_EVERY_S
    return now - state.told_at[-1] >= gap


def _notice(state: AlertState, kind: NoticeKind, now: float) -> Notice:
    return Notice(
        kind=kind,
        level=state.level,
        at=now,
        states=(state,),
        changes=max(1, state.untold),
        since=state.bad_since if state.first_untold_at is None else state.first_untold_at,
    )


def _told(state: AlertState, kind: NoticeKind, now: float) -> AlertState:
    return msgspec.structs.replace(
        state,
        untold=0,
        first_untold_at=None,
        told_firing=state.firing,
        told_level=state.level,
        told_at=(*(t for t in state.told_at if now - t < HOUR_S), now),
        told_summed=kind is NoticeKind.DIGEST,
        held=False,
        repeats=state.repeats + (kind is NoticeKind.REPEAT),
    )


def firing_fingerprints(states: Mapping[str, AlertState]) -> frozenset[str]:
    """The alerts in force: for them the milder bounds of the rules count."""
    return frozenset(key for key, state in states.items() if state.firing)


def acknowledge(state: AlertState, now: float) -> AlertState:
    """The person has seen it: it is not repeated; its end is still told."""
    return msgspec.structs.replace(state, acknowledged_at=now)


def is_forgotten(state: AlertState, now: float) -> bool:
    """Whether nothing is lost when the state is deleted. Events are kept longer, for they must not be told again."""
    if state.firing or state.untold or state.phase is AlertPhase.PENDING:
        return False
    last = max((*state.told_at, *state.changes, state.ended_at or 0.0), default=0.0)
    return now - last > (30 if state.phase is AlertPhase.HAPPENED else 7) * 24 * HOUR_S
