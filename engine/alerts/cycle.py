"""One round of the watcher: readings in, notices and their messages out, in one transaction."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from engine.alerts import rules
from engine.alerts.alert_state import (
    AlertState,
    Notice,
    firing_fingerprints,
    is_forgotten,
    observe,
    speak,
)
from engine.alerts.diagnosis import causes_text
from engine.alerts.machine_rules import observe_machine
from engine.alerts.message import MessagePlace, compose
from engine.alerts.readings import AlertLevel, MachineReading, Observation, ObservationState, RunReading
from engine.alerts.run_rules import observe_gone, observe_run
from engine.alerts.silence import Silence, is_quiet, parse_quiet_hours
from engine.alerts.store import AlertStore
from engine.core.errors import UsageProblem
from engine.core.settings import Settings


def observations(
    machine: MachineReading, runs: Sequence[RunReading], firing: Collection[str]
) -> Iterator[Observation]:
    """What all rules find in the readings of one moment."""
    of_machine = list(observe_machine(machine, runs, firing))
    yield from of_machine
    yield from observe_gone(runs, firing)
    # One cause, one alert: a processor that is too busy already says which run it slows down.
    told_by_cpu = {
        one.figures.get("run")
        for one in of_machine
        if one.rule == rules.MACHINE_CPU.id and one.state is ObservationState.BAD
    }
    for run in runs:
        for one in observe_run(run, machine.t, firing):
            if one.rule == rules.RUN_SLOW.id and one.state is ObservationState.BAD:
                if run.run_id in told_by_cpu and one.fingerprint not in firing:
                    continue
                one = msgspec.structs.replace(one, figures={**one.figures, "cause": causes_text(machine)})
            yield one


def silence_at(store: AlertStore, settings: Settings, now: float) -> Silence:
    """What is suppressed at `now`. Hours that cannot be read suppress nothing."""
    local = time.localtime(now)
    try:
        hours = parse_quiet_hours(settings.quiet_hours)
    except UsageProblem:
        hours = None
    return Silence(quiet=is_quiet(hours, local.tm_hour * 60 + local.tm_min), mutes=store.mutes(now))


def channels_for(settings: Settings, level: AlertLevel) -> list[str]:
    """The channels that get a message of `level`."""
    enough = level.rank <= AlertLevel(settings.alert_level).rank
    return list(settings.alert_channels) if enough else []


def run_cycle(
    store: AlertStore,
    machine: MachineReading,
    runs: Sequence[RunReading],
    settings: Settings,
    place: MessagePlace,
    *,
    secrets: tuple[str, ...] = (),
) -> list[Notice]:
    """Takes one moment into the store; returns what is reported. Writes nothing when nothing changed."""
    now = machine.t
    silence = silence_at(store, settings, now)
    before = store.states()
    after, notices = _advance(before, machine, runs, silence)
    if after == before:
        return []
    with store.transaction():
        # A person may have acknowledged something in between.
        before = store.states()
        after, notices = _advance(before, machine, runs, silence)
        store.save_states(before, after)
        for notice in notices:
            message = compose(notice, place, secrets=secrets)
            store.tell(notice, message, channels_for(settings, notice.level), now)
    return notices


def _advance(
    states: Mapping[str, AlertState], machine: MachineReading, runs: Sequence[RunReading], silence: Silence
) -> tuple[dict[str, AlertState], list[Notice]]:
    firing = firing_fingerprints(states)
    seen = observe(states, observations(machine, runs, firing), machine.t)
    after, notices = speak(seen, silence, machine.t)
    return {key: one for key, one in after.items() if not is_forgotten(one, machine.t)}, notices
