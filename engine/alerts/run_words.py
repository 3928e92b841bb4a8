"""The words of the alerts about a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.alerts.faults import Fault
from engine.alerts.machine_words import Made, number
from engine.core.i18n import N_, _, colon, with_percent
from engine.runs.event_text import format_about, format_figure, format_rate, stage_name

Figures = Mapping[str, float | str]

_FAULTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    Fault.MEMORY: (N_("out of memory"), N_("give it a smaller batch, or close other programs, and resume it"), ("runs", "resume", "RUN")),
    Fault.DEVICE: (N_("error of the GPU"), N_("close what uses the GPU, or train on the CPU, and resume it"), ("runs", "resume", "RUN")),
    Fault.DISK: (N_("the disk is full"), N_("free some space and resume it; finished work is kept"), ("runs", "resume", "RUN")),
    Fault.FILES: (N_("too many open files"), N_("raise the limit of open files and resume it"), ("$ulimit", "-n", "8192")),
    Fault.PERMISSION: (N_("no permission"), N_("check who owns the data folder"), ("check",)),
    Fault.MODULE: (N_("a library is missing or does not fit"), N_("install the program again"), ("check",)),
    Fault.CONNECTION: (N_("a service does not answer"), N_("start the service (Ollama, for example) and resume the run"), ("runs", "resume", "RUN")),
    Fault.EMPTY: (N_("nothing to train on"), N_("after the filters there was no data left; see what they drop"), ("corpus", "stats")),
    Fault.DATA: (N_("a file is missing or damaged"), N_("see which file the log names"), ("runs", "show", "RUN")),
    Fault.CHECKPOINT: (N_("a checkpoint is damaged"), N_("resume it: the newest intact checkpoint is used"), ("runs", "resume", "RUN")),
    Fault.SHAPE: (N_("weights or batches do not fit together"), N_("see the log; was a model or a setting replaced?"), ("runs", "show", "RUN")),
    Fault.DIVERGED: (N_("the training diverged"), N_("train again with a lower learning rate"), ("runs", "show", "RUN")),
    Fault.DATABASE: (N_("the database cannot be read or written"), N_("check it; a backup may be needed"), ("check",)),
    Fault.SETTINGS: (N_("a setting is invalid"), N_("correct the setting that the error names"), ("runs", "show", "RUN")),
}  # fmt: skip
_OTHER = (N_("internal error"), N_("read the log, then resume it"), ("runs", "show", "RUN"))

_DECISIONS = {
    "promote": N_("the new model is better"),
    "keep": N_("the model in use stays"),
    "inconclusive": N_("too few conversations to decide"),
}


def _for_run(command: tuple[str, ...], run: str) -> tuple[str, ...]:
    return tuple(run if word == "RUN" else word for word in command)


def _step(figures: Figures) -> str:
    return _("step {step} of {steps}").format(
        step=f"{number(figures, 'step'):.0f}", steps=f"{number(figures, 'max_steps'):.0f}"
    )


def _losses(figures: Figures) -> str:
    return _("loss {loss}, best {best}").format(
        loss=format_figure(number(figures, "loss")), best=format_figure(number(figures, "best"))
    )


def _failed(figures: Figures, run: str) -> Made:
    kind, advice, command = _FAULTS.get(str(figures.get("fault", "")), _OTHER)
    error, hint = str(figures.get("error", "")), str(figures.get("hint", ""))
    what = error.removesuffix(f" → {hint}") if hint else error
    return colon(_("training failed"), _(kind)), what or _(kind), _(advice), _for_run(command, run)


def _died(figures: Figures, run: str) -> Made:
    what = _("its process is gone without a last word, at {step}: it was killed, or the machine restarted")
    advice = _("see if the kernel killed it for want of memory, then resume it from its checkpoint")
    return _("the run died"), what.format(step=_step(figures)), advice, ("runs", "resume", run)


def _silent(figures: Figures, run: str) -> Made:
    what = _("its process lives and has written nothing for {time}").format(
        time=format_about(number(figures, "silent"))
    )
    advice = _("if it stays silent, stop it and resume it from its checkpoint")
    return _("the run is silent"), what, advice, ("runs", "show", run)


def _stalled(figures: Figures, run: str) -> Made:
    idle, stage = format_about(number(figures, "idle")), stage_name(str(figures.get("stage", "")))
    what = _("no progress for {time}, at {step} ({stage})").format(
        time=idle, step=_step(figures), stage=stage
    )
    advice = _("see what the machine waits for; stop it and resume it from its checkpoint if nothing moves")
    return _("no progress for {time}").format(time=idle), what, advice, ("runs", "show", run)


def _diverged(figures: Figures, run: str) -> Made:
    what = _("training went back to an earlier checkpoint at {step}: {losses}").format(
        step=_step(figures), losses=_losses(figures)
    )
    advice = _("if it happens again, train with a lower learning rate")
    return _("the training diverges"), what, advice, ("runs", "show", run)


def _not_finite(figures: Figures, run: str) -> Made:
    what = _("the loss or its gradient was NaN or infinite {n} times in a row, at {step}").format(
        n=f"{number(figures, 'count'):.0f}", step=_step(figures)
    )
    return (
        _("loss NaN or infinite"),
        what,
        _("lower the learning rate, or look at the data"),
        ("runs", "show", run),
    )


def _rises(figures: Figures, run: str) -> Made:
    what = colon(_step(figures), _losses(figures))
    return (
        _("the loss rises"),
        what,
        _("lower the learning rate, or go back to a checkpoint"),
        ("runs", "show", run),
    )


def _checkpoint(figures: Figures, run: str) -> Made:
    what = _("the checkpoint at {step} could not be written: {reason}").format(
        step=_step(figures), reason=figures.get("error", "")
    )
    advice = _("training continues, but a crash would lose its progress: free some space")
    return _("no checkpoint can be written"), what, advice, ("$df", "-h")


def _budget(figures: Figures, run: str) -> Made:
    used, budget = f"{number(figures, 'used_mb') / 1024:.1f}", f"{number(figures, 'budget_mb') / 1024:.1f}"
    what = _("it uses {used} of {budget} GB").format(used=used, budget=budget)
    return _("the run is over its memory budget"), what, _("give it a smaller batch"), ("runs", "show", run)


def _paused(figures: Figures, run: str) -> Made:
    advice = _("it resumes by itself once the cause is gone")
    return _("the run paused itself"), str(figures.get("reason", "")), advice, ("runs", "show", run)


def _slow(figures: Figures, run: str) -> Made:
    speed, usual = number(figures, "tokens_per_s"), number(figures, "usual")
    drop = with_percent(f"−{100 * (1 - speed / usual):.0f}") if usual else "–"
    what = _("{speed} tok/s instead of {usual}").format(speed=format_rate(speed), usual=format_rate(usual))
    cause = str(figures.get("cause", ""))
    return (
        _("tokens/s {drop}").format(drop=drop),
        colon(what, cause) if cause else what,
        _("see what else the machine is doing"),
        ("monitor",),
    )


def _finished(figures: Figures, run: str) -> Made:
    if figures.get("status") == "skipped":
        return _("nothing was trained"), str(figures.get("error", "")), "", ("runs", "show", run)
    steps = f"{number(figures, 'max_steps'):.0f}"
    what = _("{steps} steps, {losses}").format(steps=steps, losses=_losses(figures))
    return _("the run is done"), what if steps != "0" else "", "", ("runs", "show", run)


def _verdict(figures: Figures, run: str) -> Made:
    what, promoted = str(figures.get("sentence", "")), str(figures.get("promoted", ""))
    decision = str(figures.get("decision", ""))
    if promoted:
        what = _("{sentence}; {name} is in use").format(sentence=what, name=promoted)
    return (
        _("verdict: {decision}").format(
            decision=_(_DECISIONS[decision]) if decision in _DECISIONS else decision
        ),
        what,
        "",
        ("runs", "show", run),
    )


WORDS: dict[str, Callable[[Figures, str], Made]] = {
    "run.failed": _failed,
    "run.died": _died,
    "run.silent": _silent,
    "run.stalled": _stalled,
    "run.diverged": _diverged,
    "run.not_finite": _not_finite,
    "run.loss_rises": _rises,
    "run.checkpoint": _checkpoint,
    "run.budget": _budget,
    "run.paused": _paused,
    "run.slow": _slow,
    "run.finished": _finished,
    "run.verdict": _verdict,
}
RECOVERED: dict[str, Callable[[Figures], str]] = {
    "run.failed": lambda _f: _("it was resumed, or another run has taken its place"),
    "run.died": lambda _f: _("it was resumed, or another run has taken its place"),
    "run.silent": lambda _f: _("it writes again"),
    "run.stalled": lambda _f: _("it makes progress again"),
    "run.diverged": lambda f: colon(_("training is well past it"), _losses(f)),
    "run.not_finite": lambda _f: _("the loss is a number again"),
    "run.loss_rises": lambda f: _losses({"loss": f.get("loss_now", 0.0), "best": f.get("best_now", 0.0)}),
    "run.checkpoint": lambda _f: _("a checkpoint has been written"),
    "run.budget": lambda f: _("it uses {used} of {budget} GB").format(
        used=f"{number(f, 'used_mb_now') / 1024:.1f}", budget=f"{number(f, 'budget_mb') / 1024:.1f}"
    ),
    "run.paused": lambda _f: _("the run is at work again"),
    "run.slow": lambda f: _("{speed} tok/s again").format(speed=format_rate(number(f, "tokens_per_s_now"))),
}
