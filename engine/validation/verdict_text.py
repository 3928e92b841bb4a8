"""The verdict in words: sizes, chances and the sentence that a person reads first."""

from __future__ import annotations

from engine.core.i18n import _, n_


def percent(value: float) -> str:
    """A share for a sentence, without its sign: "0.4 %", "2 %", "12 %"; one that is not nothing is not "0 %"."""
    if 0 < abs(value) < 0.0005:
        return "< 0.1 %"
    digits = 1 if abs(value) < 0.0995 else 0
    return f"{abs(value) * 100:.{digits}f}".removesuffix(".0") + " %"


def p_text(p: float) -> str:
    """A p value for a sentence: "p = 0.21", "p < 0.0001"."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def size_words(delta: float | None, scale: float) -> str:
    """The difference in words: relative where there is a scale, absolute otherwise."""
    if delta is None:
        return _("nothing measured")
    amount = percent(delta / scale) if scale > 1e-9 else f"{abs(delta):.3g}"
    if delta == 0:
        return _("no difference")
    return (
        _("{amount} better").format(amount=amount) if delta > 0 else _("{amount} worse").format(amount=amount)
    )


def sentence_for(
    decision: str,
    size: str,
    p: float | None,
    needed: int | None,
    reasons: list[str],
    *,
    rows: bool,
    worse: bool,
) -> str:
    """What a person reads first (UX, sheet Validate)."""
    if decision == "promote":
        return _("PROMOTE — {size}, {p}.").format(size=size, p=p_text(p or 0.0))
    if decision == "inconclusive":
        said = _("INCONCLUSIVE — {reason}.").format(reason=reasons[0])
        return said + (" " + _missing(needed) if needed else "")
    if needed is not None and p is not None:
        return _("KEEP BASE — {size}, {p}.").format(size=size, p=p_text(p)) + " " + _more(needed, rows)
    if not worse:
        return _("KEEP BASE — {size}: {reason}.").format(size=size, reason=reasons[0])
    return _("KEEP BASE — {size}.").format(size=size)


def _missing(needed: int) -> str:
    return n_("{n} more is needed for a verdict.", "{n} more are needed for a verdict.", needed).format(
        n=needed
    )


def _more(needed: int, rows: bool) -> str:
    if rows:
        return n_(
            "About {n} more group would decide it.", "About {n} more groups would decide it.", needed
        ).format(n=needed)
    return n_(
        "About {n} more conversation would decide it.",
        "About {n} more conversations would decide it.",
        needed,
    ).format(n=needed)
