"""Journal events as text for the user: one line each, the same in the app, on the terminal and in `engine.log`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from engine.core.i18n import N_, _, bracketed, colon, n_, p_, with_percent
from engine.core.local_time import local_time
from engine.runs import events as e
from engine.runs.events import Event, RunStatus
from engine.runs.work import WorkDone

_STAGES = {
    "base": N_("base model"),
    "import": N_("import"),
    "scratch": N_("training from scratch"),
    "corpus": N_("corpus"),
    "native": N_("training on the corpus"),
    "lora": N_("training an adapter"),
    "serve": N_("making a model for the built-in server"),
    "message": N_("choosing conversations to put before every chat"),
    "validate": N_("validation"),
    "measure": N_("evaluating the model in use"),
    "material": N_("synthetic data"),
    "canary": N_("answers and canary"),
    "promote": N_("promotion"),
    "export": N_("export"),
    "cost": N_("NLL increase"),
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


_EVALUATIONS = {"general": N_("general text"), "held out": N_("held out")}


def evaluation_name(name: str) -> str:
    """Displayed name of a held-out loss."""
    return _(_EVALUATIONS.get(name, name))


def stage_name(name: str) -> str:
    """Displayed name of a stage or phase."""
    return _(_STAGES.get(name, name))


def status_name(status: RunStatus) -> str:
    """Displayed name of a status."""
    return _(_STATUSES[status])


def format_duration(seconds: float | None) -> str:
    """`02:14`, `1:02:14` or `3 d 04:00`; `–` when unknown."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return "–"
    days, rest = divmod(int(seconds + 0.5), 86400)
    hours, rest = divmod(rest, 3600)
    if days:
        return _("{days} d {hours}:{minutes}").format(
            days=days, hours=f"{hours:02d}", minutes=f"{rest // 60:02d}"
        )
    clock = f"{rest // 60:02d}:{rest % 60:02d}"
    return f"{hours}:{clock}" if hours else clock


def format_left(seconds: float) -> str:
    """Time left of a run, as it changes: `00:40`, `14 min`, `3 h 20 min`."""
    if seconds < 600:
        return format_duration(seconds)
    minutes = round(seconds / 60)
    if minutes < 120:
        return _("{minutes} min").format(minutes=minutes)
    return _("{hours} h {minutes} min").format(hours=minutes // 60, minutes=minutes % 60)


def format_about(seconds: float) -> str:
    """An estimate, rounded: `40 s`, `4 min`, `3 h 20 min`."""
    if seconds < 90:
        return _("{n} s").format(n=max(5, 5 * round(seconds / 5)))
    minutes = round(seconds / 60)
    if minutes < 120:
        return _("{minutes} min").format(minutes=minutes)
    return _("{hours} h {minutes} min").format(hours=minutes // 60, minutes=minutes % 60)


def work_text(work: WorkDone) -> str:
    """`27 %, 14 min left`: the same words for the whole run everywhere; "" when nothing is known."""
    parts = [] if work.share is None else [percent_done(work)]
    if work.left_s is not None:
        parts.append(_("{eta} left").format(eta=format_left(work.left_s)))
    return _(", ").join(parts)


def percent_done(work: WorkDone) -> str:
    """`27 %`: 100 only when the run is done."""
    share = work.share or 0.0
    return with_percent(str(100 if share >= 1 else min(99, int(100 * share))))


def format_figure(value: float | None, digits: int = 3) -> str:
    """A loss or another figure; `–` for None, `2.50e+09` for one that is out of all bounds."""
    if value is None:
        return "–"
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.2e}"


def format_rate(value: float) -> str:
    """A rate per second, as `28.4k`."""
    return f"{value / 1000:.1f}k" if value >= 1000 else f"{value:.0f}"


def format_perplexity(loss: float | None) -> str:
    """Perplexity per byte, exp(loss); `–` for None and where it would overflow the column."""
    return "–" if loss is None or loss > 50 else f"{math.exp(loss):.2f}"


def describe(event: Event) -> tuple[str, str] | None:
    """`(level, text)` of an event for the log; None for figures that are plotted, not read."""
    formatter = _FORMATTERS.get(type(event))
    return None if formatter is None else formatter(event)


def _started(event: e.Started) -> tuple[str, str]:
    text = _("engine started, process {pid}").format(pid=event.pid)
    return "info", bracketed(text, event.scope) if event.scope else text


def _status(event: e.StatusChanged) -> tuple[str, str]:
    word = status_name(event.status)
    return "info", colon(word, event.reason) if event.reason else word


def _stage(event: e.StageChanged) -> tuple[str, str]:
    place = f"{event.index}/{event.total} " if event.total else ""
    state = {
        "started": _("started"),
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
        step=event.step, name=evaluation_name(event.name), loss=format_figure(event.loss)
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
        text += _(", general text {loss} (perplexity {perplexity})").format(
            loss=format_figure(event.eval_loss), perplexity=format_perplexity(event.eval_loss)
        )
    return "info", text


def rank_lost_text(event: e.RankLost) -> str:
    """Which process was lost, and why: short enough for a plot."""
    if event.rank is None:
        return _("a process was lost: {reason}").format(reason=event.reason)
    return _("rank {rank} was lost: {reason}").format(rank=event.rank, reason=event.reason)


def rank_text(one: e.RankHealth) -> str:
    """One process of a training with several, and when it last reported."""
    return _("rank {rank}: process {pid} on {host}, {rate} tok/s, {mb} MB, seen at {time}").format(
        rank=one.rank,
        pid=one.pid,
        host=one.host,
        rate=format_rate(one.tokens_per_s),
        mb=f"{one.used_mb:,.0f}",
        time=local_time("%H:%M:%S", one.seen),
    )


def _rank_lost(event: e.RankLost) -> tuple[str, str]:
    return "warning", _("step {step}: {words}; restart {restart} of {limit}").format(
        step=event.step, words=rank_lost_text(event), restart=event.restarts, limit=event.limit
    )


def _checkpoint_failed(event: e.CheckpointFailed) -> tuple[str, str]:
    return "error", _("the checkpoint of step {step} could not be written: {reason}").format(
        step=event.step, reason=event.reason
    )


def _checkpoint(event: e.CheckpointWritten) -> tuple[str, str]:
    return "info", _("checkpoint {step} written, verified ({ms} ms)").format(
        step=event.step, ms=f"{event.seconds * 1000:.0f}"
    )


def _command(event: e.CommandHandled) -> tuple[str, str]:
    command = f"{event.name} {event.value}".strip()
    answer = event.reply or (_("accepted") if event.accepted else _("refused"))
    return "info" if event.accepted else "warning", colon(command, answer)


_CAUSES = {
    "not finite": N_("the loss or its gradient is NaN or infinite"),
    "spike": N_("the loss or its gradient spiked"),
    "data": N_("the batch is damaged"),
    "unlike": N_("a batch unlike the rest"),
    "weights": N_("the weights are corrupted"),
    "divergence": N_("the loss stayed above its minimum"),
    "file": N_("a file could not be read or written"),
}


def recovery_text(event: e.RecoveryAction) -> str:
    """Cause and action of a recovery, without step and samples: short enough for a plot."""
    cause = _(_CAUSES.get(event.cause, event.cause))
    if event.action == "returned" and event.back_to is not None:
        return _("{cause}: back to step {step} at half the learning rate").format(
            cause=cause, step=event.back_to
        )
    action = {
        "discarded": _("discarded"),
        "skipped": _("skipped"),
        "clipped": _("learnt, with its gradient scaled down"),
        "stopped": _("stopped"),
        "retried": _("retried"),
    }.get(event.action, event.action)
    return colon(cause, action)


def _recovery(event: e.RecoveryAction) -> tuple[str, str]:
    text = _("step {step}: {words}").format(step=event.step, words=recovery_text(event))
    if event.detail:
        text = bracketed(text, event.detail)
    if event.samples:
        text += _("; samples {names}").format(names=_(", ").join(event.samples))
    level = {"stopped": "error", "clipped": "info"}.get(event.action, "warning")
    return level, text


def governor_text(event: e.GovernorAction) -> str:
    """Action of the governor, without figures: short enough for a plot."""
    return {
        "caches": _("memory: caches freed"),
        "smaller": _("memory: micro-batches of {tokens} bytes, more of them per step").format(
            tokens=event.pass_tokens
        ),
        "recompute": _("memory: activations are recomputed instead of kept"),
        "stop": _("memory: saving a checkpoint, then stopping"),
        "limit": _("memory: the budget is {budget} MB").format(budget=round(event.budget_mb)),
        "pause": _("paused until the machine is free"),
        "resume": _("resumed"),
    }.get(event.action, event.action)


def budget_reason_text(reason: str) -> str:
    """The bound that set the memory budget, from `MemoryUsage.reason`."""
    return {
        "max_memory_gb": _("as set"),
        "cgroup": _("cgroup limit"),
        "available": _("70 % of the free memory"),
    }.get(reason, reason)


def governor_cause_text(event: e.GovernorAction) -> str:
    """The figures that caused an action of the governor."""
    words = {
        "budget": _("{used} MB of {budget} MB used"),
        "allocation": _("out of memory at {used} MB of {budget} MB"),
        "set": _("set by command; {used} MB used"),
        "cgroup": _("the cgroup limit changed; {used} MB used"),
        "pressure": _("other programs waited for memory {value} % of the last 10 s, limit {bound} %"),
        "level": _("macOS memory pressure level {value}, limit {bound}"),
        "battery": _("battery at {value} %, limit {bound} %"),
        "temperature": _("processor at {value} °C, limit {bound} °C"),
    }.get(event.cause, "{used} / {budget} MB")
    return words.format(
        used=round(event.used_mb),
        budget=round(event.budget_mb),
        value=f"{event.value or 0.0:.0f}",
        bound=f"{event.bound or 0.0:.0f}",
    )


def _governor(event: e.GovernorAction) -> tuple[str, str]:
    words = bracketed(governor_text(event), governor_cause_text(event))
    text = _("step {step}: {words}").format(step=event.step, words=words)
    level = {"stop": "error", "resume": "info", "limit": "info"}.get(event.action, "warning")
    return level, text


def _memory_plan(event: e.MemoryPlan) -> tuple[str, str]:
    unit = _("tokens") if event.phase == "lora" else _("bytes")

    def size(windows: int) -> str:
        if event.context == 0:
            return _("{count} {unit}").format(count=windows, unit=unit)
        return _("{windows} × {context} {unit}").format(windows=windows, context=event.context, unit=unit)

    measured = _(", ").join(
        _("{size} {mb} MB").format(size=size(windows), mb=round(mb)) for windows, mb in event.measured
    )
    parts = [
        _("memory: {program} MB before the first step").format(program=round(event.program_mb)),
        _("measured {measured}").format(measured=measured),
    ]
    if event.estimate_mb is not None:
        parts.append(_("estimated {estimate} MB").format(estimate=round(event.estimate_mb)))
    parts.append(
        _("micro-batches of {size} fit {room} of {budget} MB").format(
            size=size(event.windows), room=round(event.room_mb), budget=round(event.budget_mb)
        )
    )
    return "detail", _("; ").join(parts)


_DROP_STAGES = {
    "collect": N_("no pair"),
    "low_value": N_("low value"),
    "sensitive": N_("PII"),
    "injection": N_("prompt injection marker"),
    "exact": N_("exact duplicate"),
    "near": N_("near duplicate"),
    "semantic": N_("semantic duplicate"),
    "rule": N_("rule"),
}
"""Corpus stages that drop conversations."""


def _funnel(event: e.Funnel) -> tuple[str, str]:
    parts = [
        n_("{n} conversation collected", "{n} conversations collected", event.collected).format(
            n=event.collected
        )
    ]
    parts += [
        f"{_(_DROP_STAGES.get(stage, stage))} −{count}" for stage, count in event.dropped.items() if count
    ]
    if event.redacted:
        parts.append(_("{n} redacted").format(n=event.redacted))
    parts.append(_("{n} accepted").format(n=event.accepted))
    parts.append(
        _("{train} in the training set, {test} in the test set").format(train=event.train, test=event.test)
    )
    return "info", " ▸ ".join(parts)


def _promoted(event: e.Promoted) -> tuple[str, str]:
    if event.previous:
        return "info", _("{name} is in use now, instead of {previous}").format(
            name=event.name, previous=event.previous
        )
    return "info", _("{name} is in use now").format(name=event.name)


def cycle_text(event: e.EvolutionCycle) -> str:
    """Result of a cycle: `cycle 2 of 3: kept, perplexity 3.41 → 3.30 (+3.2 %), p = 0.001 (interim look 2 requires < 0.025)`."""
    head = _("cycle {cycle} of {cycles}").format(cycle=event.cycle, cycles=event.cycles)
    if event.state == "began":
        return colon(head, _("started with {champion}").format(champion=event.champion))
    word = {
        "kept": _("kept"),
        "dropped": p_("candidate", "dropped"),
        "collapsed": _("dropped: model collapse"),
    }
    text = colon(head, word.get(event.state, event.state))
    if event.before and event.after:
        text += _(", perplexity {before} → {after} ({gain} %)").format(
            before=format_figure(event.before),
            after=format_figure(event.after),
            gain=f"{100 * relative_gain(event):+.1f}",
        )
    if event.p_value is not None and event.alpha is not None:
        text += _(", p = {p} (interim look {look} requires < {alpha})").format(
            p=f"{event.p_value:.3g}", look=event.look, alpha=f"{event.alpha:.3g}"
        )
    return text


def relative_gain(event: e.EvolutionCycle) -> float:
    """Relative reduction of the perplexity; above 0 is better, 0 without a measurement."""
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


_FORMATTERS: dict[type[Event], Callable[[Any], tuple[str, str]]] = {
    e.Started: _started,
    e.StatusChanged: _status,
    e.StageChanged: _stage,
    e.Evaluated: _evaluated,
    e.EpochDone: _epoch,
    e.CheckpointWritten: _checkpoint,
    e.CheckpointFailed: _checkpoint_failed,
    e.RankLost: _rank_lost,
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
