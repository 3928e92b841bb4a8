"""The words of the alerts about the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.core.i18n import _, with_percent
from engine.runs.event_text import format_about, format_rate

_GB = 1 << 30
Made = tuple[str, str, str, tuple[str, ...]]
"""Title, what, advice, command."""


def number(figures: Mapping[str, float | str], name: str) -> float:
    """A figure; 0 where it is missing or no number."""
    value = figures.get(name, 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def _gb(figures: Mapping[str, float | str], name: str) -> str:
    return f"{number(figures, name) / _GB:.1f}"


def _share(figures: Mapping[str, float | str], name: str) -> str:
    return with_percent(f"{number(figures, name):.0f}")


def _busiest(figures: Mapping[str, float | str]) -> str:
    name = str(figures.get("busiest", ""))
    return _("; busiest: {process}").format(process=name) if name else ""


def _cpu(figures: Mapping[str, float | str], _run: str) -> Made:
    advice = _("end what is not needed now, or let the training use less of the processor")
    command = ("monitor",)
    if number(figures, "usual"):
        speed, usual = format_rate(number(figures, "tokens_per_s")), format_rate(number(figures, "usual"))
        what = _("the CPU is {cpu} busy and the training makes {speed} tok/s instead of {usual}").format(
            cpu=_share(figures, "cpu"), speed=speed, usual=usual
        )
        return _("CPU overloaded, training slowed down"), what + _busiest(figures), advice, command
    what = _("other programs use {others} of the CPU").format(others=_share(figures, "others"))
    return _("CPU used by other programs"), what + _busiest(figures), advice, command


def _memory(figures: Mapping[str, float | str], _run: str) -> Made:
    used = _share(figures, "memory")
    what = _("{used} of the memory is in use, {free} GB are left").format(
        used=used, free=_gb(figures, "available")
    )
    advice = _("close other programs, unload models of Ollama, or give the run a smaller memory budget")
    return _("memory {used} full").format(used=used), what + _busiest(figures), advice, ("monitor",)


def _swap(figures: Mapping[str, float | str], _run: str) -> Made:
    what = _("the swap in use grew by {size} GB in ten minutes; a training that swaps is many times slower").format(
        size=_gb(figures, "grown")
    )  # fmt: skip
    return (
        _("memory is being swapped"),
        what,
        _("close other programs, or unload models of Ollama"),
        ("monitor",),
    )


def _oom(figures: Mapping[str, float | str], _run: str) -> Made:
    what = _("the kernel has killed processes for want of memory in the last ten minutes: {n}").format(
        n=f"{number(figures, 'kills'):.0f}"
    )
    advice = _("see which ones, close other programs, and give runs a smaller memory budget")
    return _("killed for want of memory"), what, advice, ("$sudo", "dmesg", "-T")


def _disk(figures: Mapping[str, float | str], _run: str) -> Made:
    free = _gb(figures, "free")
    what = _("{free} GB are free on the disk of the data folder; checkpoints need space").format(free=free)
    advice = _("delete what is not needed; h2q-tui deletes old checkpoints by itself")
    return _("disk almost full: {free} GB free").format(free=free), what, advice, ("$df", "-h")


def _disk_soon(figures: Mapping[str, float | str], _run: str) -> Made:
    when = format_about(number(figures, "full_in"))
    what = _("{free} GB are free, and at the present rate the disk is full in {when}").format(
        free=_gb(figures, "free"), when=when
    )
    return (
        _("disk full in {when}").format(when=when),
        what,
        _("find out what is writing so much"),
        ("$df", "-h"),
    )


def _heat(figures: Mapping[str, float | str], _run: str) -> Made:
    heat = _("{heat:.0f} °C").format(heat=number(figures, "celsius"))
    what = _("the CPU is at {heat}, the limit is {limit}").format(
        heat=heat, limit=_("{heat:.0f} °C").format(heat=number(figures, "limit"))
    )
    advice = _("see to the cooling; training pauses by itself at the limit of the settings")
    return _("temperature {heat}").format(heat=heat), what, advice, ("monitor",)


def _battery(figures: Mapping[str, float | str], _run: str) -> Made:
    left = _share(figures, "battery")
    what = _("the battery is at {left}, and a run is at work").format(left=left)
    return _("battery {left}").format(left=left), what, _("connect the charger"), ()


def _ollama(figures: Mapping[str, float | str], _run: str) -> Made:
    what = _("Ollama answered before and does not answer any more")
    return _("Ollama is gone"), what, _("start it again"), ("$ollama", "serve")


WORDS: dict[str, Callable[[Mapping[str, float | str], str], Made]] = {
    "machine.cpu": _cpu,
    "machine.memory": _memory,
    "machine.swap": _swap,
    "machine.oom": _oom,
    "machine.disk": _disk,
    "machine.disk_soon": _disk_soon,
    "machine.heat": _heat,
    "machine.battery": _battery,
    "machine.ollama": _ollama,
}
RECOVERED: dict[str, Callable[[Mapping[str, float | str]], str]] = {
    "machine.cpu": lambda f: _("the CPU is {cpu} busy").format(cpu=_share(f, "cpu_now")),
    "machine.memory": lambda f: _("{used} of the memory is in use").format(used=_share(f, "memory_now")),
    "machine.swap": lambda _f: _("the swap no longer grows"),
    "machine.oom": lambda _f: _("no process was killed for ten minutes"),
    "machine.disk": lambda f: _("{free} GB are free again").format(free=_gb(f, "free_now")),
    "machine.disk_soon": lambda f: _("{free} GB are free, and the disk no longer fills up").format(
        free=_gb(f, "free_now")
    ),
    "machine.heat": lambda f: _("the CPU is at {heat}").format(
        heat=_("{heat:.0f} °C").format(heat=number(f, "celsius_now"))
    ),
    "machine.battery": lambda _f: _("the machine has power again, or nothing is running"),
    "machine.ollama": lambda _f: _("Ollama answers again"),
}
