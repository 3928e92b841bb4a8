"""The rules about the machine: pure functions of one reading.

Each bound has two values: one that raises the alert and a milder one that ends it, so that a value that stands on the bound
does not make the alert come and go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from engine.alerts import rules
from engine.alerts.readings import AlertLevel, MachineReading, Observation, ObservationState, RunReading

GB = 1 << 30
CPU_ABOVE, CPU_BELOW = 90.0, 80.0
"""Percent of all cores."""
MEMORY_ABOVE, MEMORY_BELOW, MEMORY_CRITICAL = 85.0, 80.0, 96.0
SWAP_ABOVE, SWAP_BELOW = GB, GB // 4
"""Growth in ten minutes."""
DISK_BELOW, DISK_ABOVE, DISK_CRITICAL = 5 * GB, 10 * GB, GB
FULL_WITHIN_S, NOT_FULL_FOR_S = 2 * 3600.0, 3 * 3600.0
HEAT_MARGIN_C = 5.0
BATTERY_BELOW, BATTERY_ABOVE = 20.0, 25.0
SLOWER = 0.75
"""Share of the usual tokens/s below which a run is slower than usual."""


def observe_machine(
    machine: MachineReading, runs: Collection[RunReading] = (), firing: Collection[str] = ()
) -> Iterator[Observation]:
    """What the rules find. `firing` holds the fingerprints of the alerts in force: for them the milder bounds count."""
    yield from _cpu(machine, runs, rules.MACHINE_CPU.id in firing)
    yield from _memory(machine, rules.MACHINE_MEMORY.id in firing)
    if machine.swap_grown is not None:
        bound = SWAP_BELOW if rules.MACHINE_SWAP.id in firing else SWAP_ABOVE
        yield _observed(rules.MACHINE_SWAP, machine.swap_grown > bound, grown=machine.swap_grown)
    if machine.oom_kills is not None:
        yield _observed(rules.MACHINE_OOM, machine.oom_kills > 0, kills=machine.oom_kills)
    yield from _disk(machine, firing)
    if machine.temperature_c is not None:
        limit = machine.temperature_limit_c
        bound_c = limit - HEAT_MARGIN_C if rules.MACHINE_HEAT.id in firing else limit
        yield _observed(
            rules.MACHINE_HEAT, machine.temperature_c >= bound_c, celsius=machine.temperature_c, limit=limit
        )
    at_work = any(run.alive and not run.over for run in runs)
    if machine.battery_percent is None or not at_work:
        yield _observed(rules.MACHINE_BATTERY, False)
    else:
        least = BATTERY_ABOVE if rules.MACHINE_BATTERY.id in firing else BATTERY_BELOW
        yield _observed(
            rules.MACHINE_BATTERY, machine.battery_percent < least, battery=machine.battery_percent
        )
    if machine.ollama is not None:
        yield _observed(rules.MACHINE_OLLAMA, not machine.ollama)


def _observed(
    rule: rules.AlertRule, bad: bool, level: AlertLevel | None = None, **figures: float | str
) -> Observation:
    state = ObservationState.BAD if bad else ObservationState.GOOD
    return Observation(rule=rule.id, state=state, level=level, figures=figures)


def is_slower(run: RunReading) -> bool:
    """Whether the run makes clearly fewer tokens a second than usual."""
    return (
        run.tokens_per_s is not None
        and bool(run.usual_tokens_per_s)
        and run.tokens_per_s < SLOWER * (run.usual_tokens_per_s or 0.0)
    )


def _cpu(machine: MachineReading, runs: Collection[RunReading], firing: bool) -> Iterator[Observation]:
    """A busy processor is what a training wants: it is bad when others make it busy, or when the training slows down."""
    if machine.cpu_percent is None:
        return
    bound = CPU_BELOW if firing else CPU_ABOVE
    others = machine.cpu_others_percent
    by_others = others is not None and others > bound
    slowed = [run for run in runs if is_slower(run)] if machine.cpu_percent > bound else []
    figures: dict[str, float | str] = {"cpu": machine.cpu_percent, "busiest": machine.busiest}
    if others is not None:
        figures["others"] = others
    if slowed:
        figures["run"] = slowed[0].run_id
        figures["tokens_per_s"] = slowed[0].tokens_per_s or 0.0
        figures["usual"] = slowed[0].usual_tokens_per_s or 0.0
    yield _observed(rules.MACHINE_CPU, by_others or bool(slowed), None, **figures)


def _memory(machine: MachineReading, firing: bool) -> Iterator[Observation]:
    if machine.memory_percent is None:
        return
    used = machine.memory_percent
    level = AlertLevel.CRITICAL if used > MEMORY_CRITICAL else None
    bad = used > (MEMORY_BELOW if firing else MEMORY_ABOVE)
    yield _observed(
        rules.MACHINE_MEMORY, bad, level, memory=used, available=machine.memory_available or 0.0, busiest=machine.busiest
    )  # fmt: skip


def _disk(machine: MachineReading, firing: Collection[str]) -> Iterator[Observation]:
    if machine.disk_free is None:
        return
    free, full_in = machine.disk_free, machine.disk_full_in_s
    bad = free < (DISK_ABOVE if rules.MACHINE_DISK.id in firing else DISK_BELOW)
    level = AlertLevel.CRITICAL if free < DISK_CRITICAL else None
    yield _observed(rules.MACHINE_DISK, bad, level, free=free)
    within = NOT_FULL_FOR_S if rules.MACHINE_DISK_SOON.id in firing else FULL_WITHIN_S
    soon = full_in is not None and full_in < within
    yield _observed(rules.MACHINE_DISK_SOON, soon, None, free=free, full_in=full_in or 0.0)
