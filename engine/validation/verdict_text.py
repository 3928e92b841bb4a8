"""The verdict in words: figures, reasons and the sentence."""

from __future__ import annotations

from collections.abc import Sequence

from engine.core.i18n import N_, _, n_, with_percent
from engine.validation.general import MARGIN
from engine.validation.report import GeneralPart, WorstTenth


def minority_reason(worst: WorstTenth) -> str:
    return n_(
        "the worst tenth, {n} group of conversations, is {loss} worse, the limit is {limit}",
        "the worst tenth, {n} groups of conversations, is {loss} worse, the limit is {limit}",
        worst.groups,
    ).format(n=worst.groups, loss=percent(worst.loss), limit=percent(worst.limit))


LANGUAGES = {
    "zh": N_("Chinese"),
    "ja": N_("Japanese"),
    "ko": N_("Korean"),
    "en": N_("Latin letters"),
    "ru": N_("Cyrillic letters"),
    "ar": N_("Arabic letters"),
}


def general_reasons(parts: Sequence[GeneralPart]) -> list[str]:
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
            reasons.append(_lost(here, against))
    unknown = [part.name for part in parts if part.kind == "text" and not part.counted and not part.against]
    if unknown:
        reasons.append(
            n_(
                "the general text {names} does not count: the base is no better than guessing there",
                "the general texts {names} do not count: the base is no better than guessing there",
                len(unknown),
            ).format(names=_(", ").join(unknown))
        )
    reasons += [
        _("{first}, the first model of its line, could not be compared on general text").format(
            first=part.against
        )
        for part in parts
        if part.against and part.kind == "all" and not part.blocks
    ]
    return reasons


def _lost(parts: Sequence[GeneralPart], against: str) -> str:
    """One sentence about parts of one kind, with the largest loss among them."""
    kind, names = parts[0].kind, [part.name for part in parts]
    if kind == "text":
        where = n_("on the general text {names}", "on the general texts {names}", len(names)).format(
            names=_(", ").join(names)
        )
    elif kind == "language":
        labels = [_(LANGUAGES[name]) if name in LANGUAGES else _("other letters") for name in names]
        where = _("on general text in {languages}").format(languages=_(", ").join(labels))
    else:
        where = _("on general text")
    worst = max(part.upper95 or 0.0 for part in parts)
    text = (
        _("{where} it may be up to {upper} worse than {first}, the first of its line; the limit is {margin}")
        if against
        else _("{where} it may be up to {upper} worse, the limit is {margin}")
    )
    return text.format(where=where, upper=percent(worst), first=against, margin=percent(MARGIN))


def next_window_reason(groups: int) -> str:
    """The test set that would decide."""
    return n_(
        "a test set of {n} group would decide it at its first look",
        "a test set of {n} groups would decide it at its first look",
        groups,
    ).format(n=groups)


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


def verdict_sentence(
    decision: str,
    size: str,
    p: float | None,
    needed: int | None,
    reasons: list[str],
    *,
    rows: bool,
    worse: bool,
) -> str:
    """The verdict as one or two sentences."""
    if decision == "promote":
        return _("PROMOTE — {size}, {p}.").format(size=size, p=p_text(p or 0.0))
    if decision == "inconclusive":
        text = _("INCONCLUSIVE — {reason}.").format(reason=reasons[0])
        return text + (" " + _missing(needed, rows) if needed else "")
    if needed is not None and p is not None:
        return _("KEEP BASE — {size}, {p}.").format(size=size, p=p_text(p)) + " " + _more_needed(needed, rows)
    if not worse:
        return _("KEEP BASE — {size}: {reason}.").format(size=size, reason=reasons[0])
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
