"""When an alert speaks: simulations with a clock of their own, over chosen and over random readings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.alerts import rules
from engine.alerts.alert_state import (
    HOUR_S,
    PER_HOUR,
    REPEAT_AFTER_S,
    SPEAK_EVERY_S,
    AlertPhase,
    AlertState,
    Notice,
    NoticeKind,
    acknowledge,
    observe,
    speak,
)
from engine.alerts.readings import AlertLevel, Observation, ObservationState
from engine.alerts.silence import Mute, Silence, is_quiet, parse_quiet_hours
from engine.core.errors import UsageProblem

BAD, GOOD, MOOT, HAPPENED = ObservationState
TICK = 5.0
LOUD = Silence()
States = dict[str, AlertState]


def seen(state: ObservationState, rule: str = rules.MACHINE_OLLAMA.id, subject: str = "") -> Observation:
    return Observation(rule=rule, subject=subject, state=state)


def simulate(
    moments: Iterable[tuple[float, Iterable[Observation]]],
    silence: Callable[[float], Silence] = lambda _now: LOUD,
    states: States | None = None,
) -> tuple[States, list[Notice]]:
    """Every notice of a simulation. The states are written and read again at each moment, as by a watcher that was killed."""
    states, told = states or {}, []
    for now, observations in moments:
        states = observe(states, observations, now)
        states, notices = speak(states, silence(now), now)
        states = {
            key: msgspec.json.decode(msgspec.json.encode(one), type=AlertState) for key, one in states.items()
        }
        told += notices
    return states, told


def every(
    seconds: float, until: float, state: Callable[[float], ObservationState], rule: str
) -> Iterator[tuple[float, list[Observation]]]:
    now = 0.0
    while now < until:
        yield now, [seen(state(now), rule)]
        now += seconds


def kinds(notices: list[Notice]) -> list[str]:
    return [notice.kind.value for notice in notices]


def test_a_hundred_repeats_are_one_alert_and_one_recovery() -> None:
    fault = every(
        TICK, 700 + SPEAK_EVERY_S, lambda now: BAD if 100 <= now < 600 else GOOD, rules.MACHINE_DISK.id
    )
    _states, told = simulate(fault)
    assert kinds(told) == ["alert", "recovery"]
    assert told[0].at == 100.0 and told[1].at == 600.0 + TICK


@pytest.mark.parametrize(
    "rule", sorted(rule for rule in rules.RULES if "finished" not in rule and "verdict" not in rule)
)
def test_every_rule_speaks_within_a_minute_of_lasting_trouble_and_not_before_its_duration(rule: str) -> None:
    _states, told = simulate(every(TICK, 200.0, lambda now: BAD if now >= 50 else GOOD, rule))
    hold = rules.RULES[rule].hold_s
    assert kinds(told) == ["alert"]
    assert 50 + hold <= told[0].at <= 50 + 60


def test_one_good_reading_ends_nothing_and_two_do() -> None:
    _states, told = simulate(
        (n * 400.0, [seen(state, rules.MACHINE_DISK.id)])
        for n, state in enumerate([BAD, GOOD, BAD, GOOD, GOOD])
    )
    assert [(notice.kind.value, notice.at) for notice in told] == [("alert", 0.0), ("recovery", 1600.0)]


def test_trouble_that_does_not_last_says_nothing() -> None:
    _states, told = simulate(
        every(TICK, HOUR_S, lambda now: GOOD if int(now) % 30 == 0 else BAD, rules.MACHINE_CPU.id)
    )
    assert told == []


def test_flapping_every_ten_seconds_for_an_hour_is_at_most_three_messages_and_ends_with_the_truth() -> None:
    def flaps(now: float) -> ObservationState:
        return BAD if now < HOUR_S and int(now / 10) % 2 == 0 else GOOD

    states, told = simulate(every(TICK, 3 * HOUR_S, flaps, rules.MACHINE_DISK.id))
    assert 2 <= len(told) <= 3
    assert told[0].kind is NoticeKind.ALERT and told[1].kind is NoticeKind.DIGEST
    assert not told[-1].states[0].firing and not states[rules.MACHINE_DISK.id].firing
    assert sum(notice.changes for notice in told) > 300


def test_what_changes_within_five_minutes_is_one_digest() -> None:
    def comes_back(now: float) -> ObservationState:
        return BAD if 0 <= now < 20 or 60 <= now < 80 else GOOD

    _states, told = simulate(every(TICK, HOUR_S, comes_back, rules.MACHINE_DISK.id))
    assert kinds(told) == ["alert", "digest"]
    assert told[1].at == SPEAK_EVERY_S and told[1].changes == 3


def test_what_nobody_acknowledged_is_repeated_after_four_hours_for_a_day() -> None:
    _states, told = simulate(every(60.0, 48 * HOUR_S, lambda _now: BAD, rules.RUN_FAILED.id))
    assert kinds(told) == ["alert"] + ["repeat"] * 6
    assert all(later.at - earlier.at == REPEAT_AFTER_S for earlier, later in itertools.pairwise(told))


def test_what_was_acknowledged_is_not_repeated_but_its_end_is_told() -> None:
    states, _told = simulate(every(60.0, 120.0, lambda _now: BAD, rules.RUN_SILENT.id))
    states = {key: acknowledge(state, 120.0) for key, state in states.items()}
    moments = [(120.0 + n * 60.0, [seen(BAD, rules.RUN_SILENT.id)]) for n in range(600)]
    end = [(40_000.0 + n * 60.0, [seen(GOOD, rules.RUN_SILENT.id)]) for n in range(3)]
    _states, told = simulate([*moments, *end], states=states)
    assert kinds(told) == ["recovery"]


def test_a_warning_is_not_repeated() -> None:
    _states, told = simulate(every(60.0, 24 * HOUR_S, lambda _now: BAD, rules.MACHINE_MEMORY.id))
    assert kinds(told) == ["alert"]


def test_a_warning_that_becomes_critical_is_told_again() -> None:
    worse = Observation(rule=rules.MACHINE_MEMORY.id, state=BAD, level=AlertLevel.CRITICAL)
    mild = [(n * TICK, [seen(BAD, rules.MACHINE_MEMORY.id)]) for n in range(10)]
    _states, told = simulate([*mild, *((400.0 + n * TICK, [worse]) for n in range(10))])
    assert [notice.level for notice in told] == [AlertLevel.WARNING, AlertLevel.CRITICAL]


def test_an_event_is_told_once_however_often_it_is_read() -> None:
    finished = seen(HAPPENED, rules.RUN_FINISHED.id, "1128-a@5")
    _states, told = simulate((n * TICK, [finished]) for n in range(5000))
    assert kinds(told) == ["event"]


def test_what_is_moot_ends_without_a_word() -> None:
    states, told = simulate(
        [(0.0, [seen(BAD, rules.RUN_SILENT.id)]), *((n * TICK, [seen(MOOT, rules.RUN_SILENT.id)]) for n in range(1, 99))]
    )  # fmt: skip
    assert kinds(told) == ["alert"]
    assert states[rules.RUN_SILENT.id].phase is AlertPhase.CLEAR


def test_quiet_hours_hold_all_but_critical_and_tell_once_afterwards_what_was_firing() -> None:
    def night(now: float) -> Silence:
        return Silence(quiet=now < 8 * HOUR_S)

    def moments() -> Iterator[tuple[float, list[Observation]]]:
        for n in range(int(10 * HOUR_S / 30)):
            now = n * 30.0
            yield (
                now,
                [
                    seen(BAD if 600 < now < HOUR_S else GOOD, rules.MACHINE_CPU.id),
                    seen(BAD if now > 2 * HOUR_S else GOOD, rules.RUN_FAILED.id, "a"),
                    seen(BAD if now > 3 * HOUR_S else GOOD, rules.MACHINE_OOM.id),
                    *([seen(HAPPENED, rules.RUN_FINISHED.id, "b@1")] if now > HOUR_S else []),
                ],
            )

    _states, told = simulate(moments(), night)
    during, after = [n for n in told if n.at < 8 * HOUR_S], [n for n in told if n.at >= 8 * HOUR_S]
    assert {notice.level for notice in during} == {AlertLevel.CRITICAL}
    assert kinds(after) == ["summary"]
    assert {state.rule for state in after[0].states} == {
        rules.MACHINE_CPU.id, rules.RUN_FAILED.id, rules.RUN_FINISHED.id,
    }  # fmt: skip
    assert after[0].states[0].rule == rules.RUN_FAILED.id  # what is still in force comes first


def test_a_mute_holds_only_what_it_names_until_it_ends() -> None:
    mute = Mute(pattern="machine.*", until=1000.0)

    def moments() -> Iterator[tuple[float, list[Observation]]]:
        for n in range(400):
            yield n * TICK, [seen(BAD, rules.MACHINE_OLLAMA.id), seen(BAD, rules.RUN_STALLED.id, "a")]

    _states, told = simulate(moments(), lambda _now: Silence(mutes=(mute,)))
    assert [(notice.states[0].rule, notice.at) for notice in told] == [
        (rules.RUN_STALLED.id, 0.0),
        (rules.MACHINE_OLLAMA.id, 1000.0),
    ]


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("22:00-07:00", ["22:00", "23:59", "00:00", "06:59"], ["07:00", "12:00", "21:59"]),
        ("9:00-17:30", ["09:00", "17:29"], ["17:30", "08:59", "00:00"]),
        ("00:00-06:00", ["00:00", "05:59"], ["06:00", "23:59"]),
        ("22：00－07：00".replace("－", "-"), ["23:00"], ["08:00"]),
        ("20:00-24:00", ["20:00", "23:59"], ["00:00", "19:59"]),
        ("", [], ["00:00", "12:00"]),
    ],
)
def test_quiet_hours(text: str, inside: list[str], outside: list[str]) -> None:
    def minute(clock: str) -> int:
        return int(clock[:2]) * 60 + int(clock[3:])

    hours = parse_quiet_hours(text)
    assert [is_quiet(hours, minute(clock)) for clock in inside] == [True] * len(inside)
    assert [is_quiet(hours, minute(clock)) for clock in outside] == [False] * len(outside)


@pytest.mark.parametrize(
    "text", ["22-7", "25:00-07:00", "22:00", "night", "22:60-07:00", "07:00-07:00", "24:30-07:00"]
)
def test_hours_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageProblem):
        parse_quiet_hours(text)


RULE_IDS = [rules.MACHINE_DISK.id, rules.MACHINE_CPU.id, rules.RUN_FAILED.id, rules.MACHINE_OOM.id]
LONG = st.lists(
    st.tuples(st.sampled_from(RULE_IDS), st.booleans(), st.sampled_from([1, 2, 3, 10, 60, 200])), max_size=40
)
"""Spells: a rule is bad or good for so many readings of five seconds."""


def spells(plan: list[tuple[str, bool, int]], rest_s: float) -> Iterator[tuple[float, list[Observation]]]:
    now, bad = 0.0, dict.fromkeys(RULE_IDS, False)
    for rule, value, readings in [*plan, *((rule, False, 0) for rule in RULE_IDS)]:
        bad[rule] = value
        for _reading in range(readings):
            yield now, [seen(BAD if bad[one] else GOOD, one) for one in RULE_IDS]
            now += TICK
    end = now + rest_s
    while now < end:
        yield now, [seen(GOOD, one) for one in RULE_IDS]
        now += 30.0


@given(LONG, st.floats(0, 4000), st.floats(0, 4000))
def test_whatever_the_readings_nothing_is_lost_and_nobody_is_flooded(
    plan: list[tuple[str, bool, int]], quiet_from: float, quiet_for: float
) -> None:
    def silence(now: float) -> Silence:
        return Silence(quiet=quiet_from <= now < quiet_from + quiet_for)

    states, told = simulate(spells(plan, quiet_for + 3 * HOUR_S), silence)
    by_fingerprint: dict[str, list[float]] = {}
    changes = dict.fromkeys(RULE_IDS, 0)
    for notice in told:
        if notice.level is not AlertLevel.CRITICAL:
            assert not silence(notice.at).quiet
        for state in notice.states:
            by_fingerprint.setdefault(state.fingerprint, []).append(notice.at)
            changes[state.rule] += state.untold
    for times in by_fingerprint.values():
        assert all(later - earlier >= SPEAK_EVERY_S for earlier, later in itertools.pairwise(times))
        assert all(sum(t <= other < t + HOUR_S for other in times) <= PER_HOUR for t in times)
    for state in states.values():
        assert not state.firing and not state.untold and not state.told_firing
        # Every change of it stands in a notice; it began and ended equally often.
        assert changes[state.rule] % 2 == 0
