"""A record as one line for a person: the same words in the app's log, on the terminal and in a test."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from engine.core.i18n import N_, _, colon, n_
from engine.runs import events as e
from engine.runs.events import Event, RunStatus

_STAGES = {
    "import": N_("import"),
    "scratch": N_("training from scratch"),
    "corpus": N_("corpus"),
    "native": N_("training on the corpus"),
    "lora": N_("training an adapter"),
    "validate": N_("validation"),
    "measure": N_("measuring the champion"),
    "material": N_("new material"),
    "canary": N_("answers and canary"),
    "promote": N_("promotion"),
    "export": N_("export"),
    "cost": N_("cost in NLL"),
    "parity": N_("comparison with llama.cpp"),
    "ollama": N_("to Ollama"),
    "sample": N_("sample"),
    "report": N_("report"),
}
_STATUSES = {
    RunStatus.QUEUED: N_("queued"),
    RunStatus.RUNNING: N_("running"),
    RunStatus.PAUSED: N_("paused"),
    RunStatus.DONE: N_("done"),
    RunStatus.SKIPPED: N_("skipped"),
    RunStatus.STOPPED: N_("stopped"),
    RunStatus.FAILED: N_("failed"),
    RunStatus.DEAD: N_("dead"),
}


def stage_name(name: str) -> str:
    """The name of a stage or phase for people."""
    return _(_STAGES.get(name, name))


def status_name(status: RunStatus) -> str:
    return _(_STATUSES[status])


def format_duration(seconds: float | None) -> str:
    """`02:14`, `1:02:14`, `3 d 04:00`; `–` when not known."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return "–"
    whole = int(seconds + 0.5)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    if days:
        return _("{days} d {hours}:{minutes}").format(
            days=days, hours=f"{hours:02d}", minutes=f"{rest // 60:02d}"
        )
    clock = f"{rest // 60:02d}:{rest % 60:02d}"
    return f"{hours}:{clock}" if hours else clock


def format_figure(value: float | None, digits: int = 3) -> str:
    """A loss or the like; `–` when there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def format_rate(value: float) -> str:
    """`28.4k` for figures per second."""
    return f"{value / 1000:.1f}k" if value >= 1000 else f"{value:.0f}"


def format_perplexity(loss: float | None) -> str:
    """exp(loss), per byte."""
    return "–" if loss is None or loss > 50 else f"{math.exp(loss):.2f}"


def describe(event: Event) -> tuple[str, str] | None:
    """`(level, text)` of what a person wants to read, None for figures that are drawn, not read."""
    words = _WORDS.get(type(event))
    return None if words is None else words(event)


def _started(event: e.Started) -> tuple[str, str]:
    text = _("engine started, process {pid}").format(pid=event.pid)
    return "info", f"{text} ({event.scope})" if event.scope else text


def _status(event: e.StatusChanged) -> tuple[str, str]:
    word = status_name(event.status)
    return "info", colon(word, event.reason) if event.reason else word


def _stage(event: e.StageChanged) -> tuple[str, str]:
    place = f"{event.index}/{event.total} " if event.total else ""
    state = {
        "started": _("begins"),
        "done": _("done"),
        "skipped": _("skipped"),
        "failed": _("failed"),
        "stopped": _("stopped"),
    }.get(event.state, event.state)
    detail = f" — {event.detail}" if event.detail else ""
    return "error" if event.state == "failed" else "info", place + colon(
        stage_name(event.name), state + detail
    )


def _evaluated(event: e.Evaluated) -> tuple[str, str]:
    return "info" if event.finite else "warning", _("step {step}: loss on {name} {loss}").format(
        step=event.step, name=event.name, loss=format_figure(event.loss)
    )


def _epoch(event: e.EpochDone) -> tuple[str, str]:
    text = _("epoch {epoch} of {epochs}: loss {loss}, perplexity {perplexity}, learning rate {lr}").format(
        epoch=event.epoch,
        epochs=event.epochs,
        loss=format_figure(event.train_loss),
        perplexity=format_perplexity(event.train_loss),
        lr=f"{event.lr:.3g}",
    )
    if event.eval_loss is not None:
        text += _(", held out {loss} (perplexity {perplexity})").format(
            loss=format_figure(event.eval_loss), perplexity=format_perplexity(event.eval_loss)
        )
    return "info", text


def _checkpoint(event: e.CheckpointWritten) -> tuple[str, str]:
    return "info", _("checkpoint {step} written, verified ({ms} ms)").format(
        step=event.step, ms=f"{event.seconds * 1000:.0f}"
    )


def _command(event: e.CommandHandled) -> tuple[str, str]:
    asked = f"{event.name} {event.value}".strip()
    answer = event.reply or (_("accepted") if event.accepted else _("refused"))
    return "info" if event.accepted else "warning", colon(asked, answer)


_CAUSES = {
    "not finite": N_("the loss or its gradient was not a number"),
    "spike": N_("the loss or its gradient leapt up"),
    "weights": N_("the weights were damaged"),
    "divergence": N_("the loss stayed above its best"),
    "file": N_("a file could not be read or written"),
}


def recovery_text(event: e.RecoveryAction) -> str:
    """What went wrong and what was done, without the step and the samples: short enough for a curve."""
    cause = _(_CAUSES.get(event.cause, event.cause))
    if event.action == "returned" and event.back_to is not None:
        return _("{cause}: back to step {step} at half the learning rate").format(
            cause=cause, step=event.back_to
        )
    done = {
        "discarded": _("discarded"),
        "skipped": _("skipped"),
        "stopped": _("stopped"),
        "retried": _("tried again"),
    }.get(event.action, event.action)
    return colon(cause, done)


def _recovery(event: e.RecoveryAction) -> tuple[str, str]:
    text = _("step {step}: {words}").format(step=event.step, words=recovery_text(event))
    if event.detail:
        text += f" ({event.detail})"
    if event.samples:
        text += _("; samples {names}").format(names=", ".join(event.samples))
    return "error" if event.action == "stopped" else "warning", text


def governor_text(event: e.GovernorAction) -> str:
    """What the governor did, without the figures: short enough for a curve."""
    return {
        "caches": _("memory: caches dropped"),
        "smaller": _("memory: passes of {tokens} bytes, more of them to a step").format(
            tokens=event.pass_tokens
        ),
        "recompute": _("memory: layers are computed twice instead of kept"),
        "stop": _("memory: a checkpoint, then the end"),
        "limit": _("memory: the budget is {budget} MB").format(budget=round(event.budget_mb)),
        "pause": _("waits for the machine"),
        "resume": _("goes on"),
    }.get(event.action, event.action)


def budget_reason_text(reason: str) -> str:
    """Which bound the memory budget of a run is, by `Memory.reason` (`engine.runs.events`)."""
    return {
        "max_memory_gb": _("as set"),
        "cgroup": _("limit of the system"),
        "available": _("70 % of what was free"),
    }.get(reason, reason)


def governor_cause_text(event: e.GovernorAction) -> str:
    """The figures that made the governor act."""
    words = {
        "budget": _("{used} MB of {budget} MB used"),
        "allocation": _("memory could not be had at {used} MB of {budget} MB"),
        "set": _("as asked; {used} MB used"),
        "cgroup": _("the limit of the system has changed; {used} MB used"),
        "pressure": _("programs waited for memory {value} % of ten seconds, bound {bound} %"),
        "level": _("memory pressure of macOS at level {value}, bound {bound}"),
        "battery": _("battery at {value} %, bound {bound} %"),
        "temperature": _("processor at {value} °C, bound {bound} °C"),
    }.get(event.cause, "{used} / {budget} MB")
    return words.format(
        used=round(event.used_mb),
        budget=round(event.budget_mb),
        value=f"{event.value or 0.0:.0f}",
        bound=f"{event.bound or 0.0:.0f}",
    )


def _governor(event: e.GovernorAction) -> tuple[str, str]:
    words = f"{governor_text(event)} ({governor_cause_text(event)})"
    text = _("step {step}: {words}").format(step=event.step, words=words)
    level = {"stop": "error", "resume": "info", "limit": "info"}.get(event.action, "warning")
    return level, text


def _memory_plan(event: e.MemoryPlan) -> tuple[str, str]:
    unit = _("tokens") if event.phase == "lora" else _("bytes")
    measured = ", ".join(
        _("{windows} × {context} {unit} {mb} MB").format(
            windows=windows, context=event.context, unit=unit, mb=round(mb)
        )
        for windows, mb in event.measured
    )
    parts = [
        _("memory: {program} MB before the first step").format(program=round(event.program_mb)),
        _("measured {measured}").format(measured=measured),
    ]
    if event.estimate_mb is not None:
        parts.append(_("estimated {estimate} MB").format(estimate=round(event.estimate_mb)))
    parts.append(
        _("passes of {windows} × {context} {unit} fit into {room} of {budget} MB").format(
            windows=event.windows,
            context=event.context,
            unit=unit,
            room=round(event.room_mb),
            budget=round(event.budget_mb),
        )
    )
    return "info", _("; ").join(parts)


_LEFT_AT = {
    "collect": N_("no pair"),
    "low_value": N_("low value"),
    "sensitive": N_("private"),
    "injection": N_("marker"),
    "exact": N_("copy"),
    "near": N_("twin"),
    "semantic": N_("meaning"),
    "rule": N_("rule"),
}
"""The stages of the corpus at which a conversation is left out."""


def _funnel(event: e.Funnel) -> tuple[str, str]:
    parts = [
        n_("{n} conversation collected", "{n} conversations collected", event.collected).format(
            n=event.collected
        )
    ]
    parts += [f"{_(_LEFT_AT.get(stage, stage))} −{count}" for stage, count in event.dropped.items() if count]
    if event.redacted:
        parts.append(_("{n} redacted").format(n=event.redacted))
    parts.append(_("{n} accepted").format(n=event.accepted))
    parts.append(
        _("{train} to train on, {test} kept back to judge").format(train=event.train, test=event.test)
    )
    return "info", " ▸ ".join(parts)


def _promoted(event: e.Promoted) -> tuple[str, str]:
    if event.previous:
        return "info", _("{name} is in use now, instead of {previous}").format(
            name=event.name, previous=event.previous
        )
    return "info", _("{name} is in use now").format(name=event.name)


def cycle_text(event: e.EvolutionCycle) -> str:
    """What came of a cycle: `cycle 2 of 3: kept, perplexity 3.41 → 3.30 (+3.2 %), p = 0.001 (needed 0.025)`."""
    head = _("cycle {cycle} of {cycles}").format(cycle=event.cycle, cycles=event.cycles)
    if event.state == "began":
        return colon(head, _("begins with {champion}").format(champion=event.champion))
    word = {"kept": _("kept"), "dropped": _("dropped"), "collapsed": _("dropped, it collapses")}
    text = colon(head, word.get(event.state, event.state))
    if event.before and event.after:
        text += _(", perplexity {before} → {after} ({gain} %)").format(
            before=format_figure(event.before),
            after=format_figure(event.after),
            gain=f"{100 * relative_gain(event):+.1f}",
        )
    if event.p_value is not None and event.alpha is not None:
        text += _(", p = {p} (look {look} needs {alpha})").format(
            p=f"{event.p_value:.2g}", look=event.look, alpha=f"{event.alpha:.2g}"
        )
    return text


def relative_gain(event: e.EvolutionCycle) -> float:
    """Relative fall of the perplexity; above 0 is better, 0 where nothing was measured."""
    return 1 - event.after / event.before if event.before and event.after else 0.0


def _cycle(event: e.EvolutionCycle) -> tuple[str, str]:
    text = cycle_text(event)
    if event.reason:
        text += f" — {event.reason}"
    return "warning" if event.state == "collapsed" else "info", text


def _finished(event: e.Finished) -> tuple[str, str]:
    word = status_name(event.status)
    level = "error" if event.status is RunStatus.FAILED else "info"
    return level, colon(word, event.error) if event.error else word


_WORDS: dict[type[Event], Callable[[Any], tuple[str, str]]] = {
    e.Started: _started,
    e.StatusChanged: _status,
    e.StageChanged: _stage,
    e.Evaluated: _evaluated,
    e.EpochDone: _epoch,
    e.CheckpointWritten: _checkpoint,
    e.CommandHandled: _command,
    e.RecoveryAction: _recovery,
    e.MemoryPlan: _memory_plan,
    e.GovernorAction: _governor,
    e.Log: lambda event: (event.level, event.text),
    e.TrainingPlan: lambda event: ("info" if event.verdict_possible else "warning", event.text),
    e.Funnel: _funnel,
    e.VerdictGiven: lambda event: ("info", event.sentence),
    e.Promoted: _promoted,
    e.EvolutionCycle: _cycle,
    e.Finished: _finished,
}
