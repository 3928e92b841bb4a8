"""Why a training is slower than usual: both sides joined in one line, pure functions of the readings.

"tokens/s −41 % since 14:02: swap +1.8 GB, ollama holds qwen3:8b"
"""

from __future__ import annotations

from engine.alerts.machine_rules import GB, SLOWER
from engine.alerts.readings import MachineReading, RunReading
from engine.core.i18n import _, colon, with_percent
from engine.core.local_time import local_time

SWAP_FROM, OTHERS_FROM, MEMORY_FROM = GB // 10, 25.0, 85.0
HEAT_WITHIN_C = 10.0
"""Degrees below the limit from which processors slow themselves down."""


def causes(machine: MachineReading) -> list[str]:
    """What on the machine slows a training down, the most likely first."""
    found = []
    if machine.swap_grown is not None and machine.swap_grown > SWAP_FROM:
        found.append(_("swap +{size} GB").format(size=f"{machine.swap_grown / GB:.1f}"))
    if machine.ollama_models:
        found.append(_("ollama holds {models}").format(models=_(", ").join(machine.ollama_models)))
    if machine.cpu_others_percent is not None and machine.cpu_others_percent > OTHERS_FROM:
        share = with_percent(f"{machine.cpu_others_percent:.0f}")
        if machine.busiest:
            found.append(
                _("other programs use {share} of the CPU ({process})").format(
                    share=share, process=machine.busiest
                )
            )
        else:
            found.append(_("other programs use {share} of the CPU").format(share=share))
    if machine.memory_percent is not None and machine.memory_percent > MEMORY_FROM:
        found.append(_("memory {share} full").format(share=with_percent(f"{machine.memory_percent:.0f}")))
    if (
        machine.temperature_c is not None
        and machine.temperature_c > machine.temperature_limit_c - HEAT_WITHIN_C
    ):
        found.append(_("{heat:.0f} °C").format(heat=machine.temperature_c))
    if machine.battery_percent is not None:
        found.append(_("on battery, {share}").format(share=with_percent(f"{machine.battery_percent:.0f}")))
    return found


def causes_text(machine: MachineReading) -> str:
    """The causes as one phrase; "" when nothing stands out."""
    return _(", ").join(causes(machine))


def diagnose(machine: MachineReading, run: RunReading) -> str:
    """The line for the Health tab; "" while the run is as fast as usual."""
    speed, usual = run.tokens_per_s, run.usual_tokens_per_s
    if speed is None or not usual or speed >= SLOWER * usual:
        return ""
    drop = with_percent(f"−{100 * (1 - speed / usual):.0f}")
    head = _("tokens/s {drop}").format(drop=drop)
    if run.slow_since is not None:
        head = _("tokens/s {drop} since {time}").format(drop=drop, time=local_time("%H:%M", run.slow_since))
    why = causes_text(machine)
    return colon(head, why or _("nothing on this machine stands out"))
