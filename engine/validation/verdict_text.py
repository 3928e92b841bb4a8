"""The verdict in words: figures, reasons and the sentence, in the language of the reader. Imports nothing heavy.

A verdict holds its reasons as data (`VerdictReason`); the functions that make them and say them stand here together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from engine.core.i18n import N_, _, n_, with_percent
from engine.validation.report import GeneralPart, Verdict, VerdictReason, WorstTenth
from engine.validation.sequential import MIN_CLUSTERS


def few_groups(have: int, needed: int) -> VerdictReason:
    return VerdictReason("few_groups", {"have": have, "needed": needed})


def p_reason(p: float, alpha: float) -> VerdictReason:
    """p against alpha, whichever is below."""
    return VerdictReason("significant" if p < alpha else "not_significant", {"p": p, "alpha": alpha})


def no_score(name: str, cases: int) -> VerdictReason:
    return VerdictReason("no_score", {"name": name, "n": cases})


def no_answer(name: str, calls: int) -> VerdictReason:
    return VerdictReason("no_answer", {"name": name, "n": calls})


def minority_reason(worst: WorstTenth) -> VerdictReason:
    return VerdictReason("minority", {"n": worst.groups, "loss": worst.loss, "limit": worst.limit})


def next_window_reason(groups: int) -> VerdictReason:
    """The test set that would decide."""
    return VerdictReason("next_window", {"n": groups})


NOT_BETTER = VerdictReason("not_better")
GENERAL_UNMEASURED = VerdictReason("general_unmeasured")
EXTERNAL = VerdictReason("external")
"""External scores do not cover general text."""


LANGUAGES = {
    "zh": N_("Chinese"),
    "ja": N_("Japanese"),
    "ko": N_("Korean"),
    "en": N_("Latin letters"),
    "ru": N_("Cyrillic letters"),
    "ar": N_("Arabic letters"),
}


def general_reasons(parts: Sequence[GeneralPart], margin: float) -> list[VerdictReason]:
    """What is lost, named as closely as possible, then the texts that do not count."""
    reasons = []
    lost = [part for part in parts if part.passed is False]
    for against in dict.fromkeys(part.against for part in lost):
        known = {(part.kind, part.name) for part in lost if not part.against} if against else set()
        here = [part for part in lost if part.against == against and (part.kind, part.name) not in known]
        closest = next(
            (kind for kind in ("text", "language", "all") if any(p.kind == kind for p in here)), ""
        )
        here = [part for part in here if part.kind == closest]
        if here:
            values: dict[str, str | int | float | list[str]] = {
                "kind": closest,
                "names": [part.name for part in here],
                "against": against,
                "upper": max(part.upper95 or 0.0 for part in here),
                "margin": margin,
            }
            reasons.append(VerdictReason("general_lost", values))
    unknown = [part.name for part in parts if part.kind == "text" and not part.counted and not part.against]
    if unknown:
        reasons.append(VerdictReason("general_unknown", {"names": unknown}))
    reasons += [
        VerdictReason("first_not_compared", {"first": part.against})
        for part in parts
        if part.against and part.kind == "all" and not part.blocks
    ]
    return reasons


def reason_text(reason: VerdictReason) -> str:
    """A reason in words; "" for a code or values that a later version wrote."""
    say = _SAID.get(reason.code)
    try:
        return say(reason.values) if say is not None else ""
    except (KeyError, TypeError, ValueError):
        return ""


def why_of(verdict: Verdict, *, window: int | None = None) -> list[VerdictReason]:
    """The reasons of a verdict, from its figures.

    `window`: groups of a test set that would decide, where more conversations would.
    """
    delta, p, worst = verdict.delta, verdict.p_value, verdict.worst_tenth
    passed = verdict.noninferiority.get("passed", True)
    scores = (verdict.base, verdict.new)
    why: list[VerdictReason] = []
    if verdict.n_groups < MIN_CLUSTERS:
        why.append(few_groups(verdict.n_groups, MIN_CLUSTERS))
    elif any(score.failed or score.failed_answers for score in scores):
        pass
    elif delta is None or p is None or delta <= 0:
        why.append(NOT_BETTER)
    elif worst is not None and not worst.passed:
        pass
    elif p >= verdict.alpha:
        why += [p_reason(p, verdict.alpha), *([next_window_reason(window)] if window is not None else [])]
    elif passed is None:
        why.append(GENERAL_UNMEASURED)
    elif passed:
        why.append(p_reason(p, verdict.alpha))
    why += [no_score(score.name, score.failed) for score in scores if score.failed]
    why += [no_answer(score.name, score.failed_answers) for score in scores if score.failed_answers]
    if worst is not None and not worst.passed:
        why.append(minority_reason(worst))
    if _is_external(verdict):
        return [*why, EXTERNAL]
    return why + general_reasons(verdict.general, float(verdict.noninferiority.get("margin") or 0.0))


def reasons_of(verdict: Verdict) -> list[str]:
    """The reasons in the language of the reader.

    A report of an earlier version has them as text alone; they are said again where its figures give as many.
    """
    said = _said(verdict)
    return list(verdict.reasons) if said is None else [text for text in said if text]


def _said(verdict: Verdict) -> list[str] | None:
    """None where the figures do not give the reasons that were written."""
    why = verdict.why or why_of(verdict)
    if not verdict.why and len(why) != len(verdict.reasons):
        return None
    written = [*verdict.reasons, *[""] * len(why)]
    return [reason_text(reason) or old for reason, old in zip(why, written, strict=False)]


def _is_external(verdict: Verdict) -> bool:
    return not verdict.noninferiority and verdict.base.nll_per_byte is None


def sentence_of(verdict: Verdict) -> str:
    """The verdict as one or two sentences in the language of the reader; without a reason that it needs, as written."""
    reasons = _said(verdict) or []
    rows = _is_external(verdict)
    base = verdict.base.mean if rows else verdict.base.nll_per_byte
    said = _sentence(
        verdict.decision,
        relative_size(verdict.delta, abs(base or 0.0)),
        verdict.p_value,
        verdict.needed_cases,
        reasons,
        rows=rows,
        worse=verdict.decision == "keep" and (verdict.delta or 0.0) <= 0,
    )
    return said or verdict.sentence


def in_words(verdict: Verdict) -> Verdict:
    """The verdict with its reasons and its sentence written in the language of this process."""
    written = msgspec.structs.replace(verdict, reasons=[reason_text(reason) for reason in verdict.why])
    return msgspec.structs.replace(written, sentence=sentence_of(written))


def _few_groups(values: Mapping[str, Any]) -> str:
    return n_(
        "{have} group of conversations, {needed} are needed",
        "{have} groups of conversations, {needed} are needed",
        values["have"],
    ).format(**values)


def _not_significant(values: Mapping[str, Any]) -> str:
    return _("{p}, below {alpha} is needed").format(p=p_text(values["p"]), alpha=f"{values['alpha']:.3g}")


def _significant(values: Mapping[str, Any]) -> str:
    return _("{p}, below {alpha}").format(p=p_text(values["p"]), alpha=f"{values['alpha']:.3g}")


def _no_score(values: Mapping[str, Any]) -> str:
    return n_("{name} has no score for {n} case", "{name} has no score for {n} cases", values["n"]).format(
        **values
    )


def _no_answer(values: Mapping[str, Any]) -> str:
    return n_("{name} failed to answer {n} time", "{name} failed to answer {n} times", values["n"]).format(
        **values
    )


def _minority(values: Mapping[str, Any]) -> str:
    return n_(
        "the worst tenth, {n} group of conversations, is {loss} worse, the limit is {limit}",
        "the worst tenth, {n} groups of conversations, is {loss} worse, the limit is {limit}",
        values["n"],
    ).format(n=values["n"], loss=percent(values["loss"]), limit=percent(values["limit"]))


def _next_window(values: Mapping[str, Any]) -> str:
    return n_(
        "a test set of {n} group would decide it at its first look",
        "a test set of {n} groups would decide it at its first look",
        values["n"],
    ).format(**values)


def _general_unknown(values: Mapping[str, Any]) -> str:
    return n_(
        "the general text {names} does not count: the base is no better than guessing there",
        "the general texts {names} do not count: the base is no better than guessing there",
        len(values["names"]),
    ).format(names=_(", ").join(values["names"]))


def _general_lost(values: Mapping[str, Any]) -> str:
    """One sentence about parts of one kind, with the largest loss among them."""
    names = values["names"]
    if values["kind"] == "text":
        where = n_("on the general text {names}", "on the general texts {names}", len(names)).format(
            names=_(", ").join(names)
        )
    elif values["kind"] == "language":
        labels = [_(LANGUAGES[name]) if name in LANGUAGES else _("other letters") for name in names]
        where = _("on general text in {languages}").format(languages=_(", ").join(labels))
    else:
        where = _("on general text")
    text = (
        _("{where} it may be up to {upper} worse than {first}, the first of its line; the limit is {margin}")
        if values["against"]
        else _("{where} it may be up to {upper} worse, the limit is {margin}")
    )
    return text.format(
        where=where,
        upper=percent(values["upper"]),
        first=values["against"],
        margin=percent(values["margin"]),
    )


_SAID: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "few_groups": _few_groups,
    "not_better": lambda _values: _("it is not better"),
    "significant": _significant,
    "not_significant": _not_significant,
    "next_window": _next_window,
    "general_unmeasured": lambda _values: _("the general set could not be measured"),
    "no_score": _no_score,
    "no_answer": _no_answer,
    "minority": _minority,
    "external": lambda _values: _("external scores do not cover general text"),
    "general_lost": _general_lost,
    "general_unknown": _general_unknown,
    "first_not_compared": lambda values: _(
        "{first}, the first model of its line, could not be compared on general text"
    ).format(**values),
}


def percent(value: float) -> str:
    """The absolute value of a share: "0.4 %", "2 %", "12 %"; "< 0.1 %" instead of a rounded 0."""
    if 0 < abs(value) < 0.0005:
        return "< " + with_percent("0.1")
    digits = 1 if abs(value) < 0.0995 else 0
    return with_percent(f"{abs(value) * 100:.{digits}f}".removesuffix(".0"))


def p_text(p: float) -> str:
    """ "p = 0.21", "p < 0.0001"."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def relative_size(delta: float | None, scale: float) -> str:
    """ "2 % better": relative to `scale`, absolute where that is 0."""
    if delta is None:
        return _("nothing measured")
    amount = percent(delta / scale) if scale > 1e-9 else f"{abs(delta):.3g}"
    if delta == 0:
        return _("no difference")
    return (
        _("{amount} better").format(amount=amount) if delta > 0 else _("{amount} worse").format(amount=amount)
    )


def _sentence(
    decision: str,
    size: str,
    p: float | None,
    needed: int | None,
    reasons: Sequence[str],
    *,
    rows: bool,
    worse: bool,
) -> str:
    """ "" where it needs a reason and there is none."""
    if decision == "promote":
        return _("PROMOTE — {size}, {p}.").format(size=size, p=p_text(p or 0.0))
    if decision == "inconclusive":
        if not reasons:
            return ""
        text = _("INCONCLUSIVE — {reason}.").format(reason=reasons[0])
        return text + (" " + _missing(needed, rows) if needed else "")
    if needed is not None and p is not None:
        return _("KEEP BASE — {size}, {p}.").format(size=size, p=p_text(p)) + " " + _more_needed(needed, rows)
    if not worse:
        return _("KEEP BASE — {size}: {reason}.").format(size=size, reason=reasons[0]) if reasons else ""
    return _("KEEP BASE — {size}.").format(size=size)


def _missing(needed: int, rows: bool) -> str:
    if rows:
        return n_("{n} more is needed for a verdict.", "{n} more are needed for a verdict.", needed).format(
            n=needed
        )
    return n_(
        "About {n} more conversation is needed for a verdict.",
        "About {n} more conversations are needed for a verdict.",
        needed,
    ).format(n=needed)


def _more_needed(needed: int, rows: bool) -> str:
    if rows:
        return n_(
            "About {n} more group would decide it.", "About {n} more groups would decide it.", needed
        ).format(n=needed)
    return n_(
        "About {n} more conversation would decide it.",
        "About {n} more conversations would decide it.",
        needed,
    ).format(n=needed)
