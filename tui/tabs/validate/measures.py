"""The table of a validation: each measure of both models, the difference, and its 95 % interval drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.content import Content

from engine.core.i18n import N_, _, n_, with_percent
from engine.validation.report import Measure, ValidationReport, Verdict
from engine.validation.sequential import alpha_for
from engine.validation.served_text import served_sentences
from engine.validation.summary_text import plain_sentences, similarity_lines
from engine.validation.verdict_text import reasons_of, sentence_of
from tui.tabs.validate.reader import OpenWindow
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import cells, fit, safe

NAMES = {
    "nll": N_("NLL of answers"),
    "general": N_("general set"),
    "older": N_("older conversations"),
    "length": N_("answer length"),
    "repetition": N_("repetition"),
    "stop": N_("stops by itself"),
    "similarity": N_("similarity"),
    "perplexity": N_("perplexity"),
    "refusals": N_("refusals"),
    "accuracy": N_("similarity ≥ 0.7"),
    "first_token": N_("first token"),
    "tokens_per_s": N_("speed"),
}
"""Names of measures; others are shown unchanged."""
NEITHER_WAY = frozenset(("length",))
"""Measures of which neither more nor less is better."""
UNITS = {
    "bits/byte": N_("bits/byte"),
    "bytes": N_("bytes"),
    "share": N_("share"),
    "cosine": N_("cosine"),
    "per byte": N_("per byte"),
}
DECISIONS = {"promote": N_("PROMOTE"), "keep": N_("KEEP BASE"), "inconclusive": N_("INCONCLUSIVE")}
DECISION_STYLE = {"promote": "$text-success", "keep": "$text-warning", "inconclusive": "$text-warning"}
FIGURE_CELLS = 7
"""Width of a figure with the space before it."""
MIN_NAME = 13
"""Minimum width of a name."""
MAX_INTERVAL = 15
"""Maximum width of a drawn interval; odd, so that zero is in the middle."""
MIN_INTERVAL = 7


def decision_sign(decision: str, glyphs: Glyphs) -> str:
    """The glyph of a decision."""
    return {"promote": glyphs.done, "keep": glyphs.kept}.get(decision, glyphs.alert)


def verdict_line(verdict: Verdict, glyphs: Glyphs) -> Content:
    """The decision with its glyph and colour, and the sentence that explains it."""
    sign = decision_sign(verdict.decision, glyphs)
    decision = DECISIONS.get(verdict.decision, verdict.decision)
    style = DECISION_STYLE.get(verdict.decision, "")
    return Content.assemble(
        safe(f"{sign} {_(decision)}", f"{style} bold"), " — ", safe(_without_decision(sentence_of(verdict)))
    )


def _without_decision(sentence: str) -> str:
    """The sentence of a report starts with the decision; next to the glyph it would be repeated."""
    for word in (*DECISIONS.values(), *map(_, DECISIONS.values())):
        for link in (" — ", "："):
            if sentence.startswith(word + link):
                return sentence.removeprefix(word + link)
    return sentence


def name_of(measure: Measure) -> str:
    """The name of a measure; "general novel" is below "general" and is only named "novel"."""
    first, _space, rest = measure.name.partition(" ")
    name = _(NAMES[first]) if first in NAMES else first
    return f"  {rest}" if rest else name


def number(value: float | None, *, signed: bool = False) -> str:
    """A figure in at most seven characters; "–" where there is none."""
    if value is None:
        return "–"
    size = abs(value)
    digits = 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-", "−")


def better(measure: Measure) -> bool | None:
    """Whether the difference is a gain beyond its interval; None where zero lies inside, or nothing is known."""
    if measure.low is None or measure.high is None or measure.low <= 0 <= measure.high:
        return None
    if measure.name in NEITHER_WAY:
        return None
    return (measure.high < 0) == measure.lower_is_better


def reach_of(measures: Iterable[Measure]) -> dict[str, float]:
    """The largest figure of each unit: intervals of one unit are drawn to one scale."""
    reach: dict[str, float] = {}
    for measure in measures:
        figures = [abs(x) for x in (measure.low, measure.high, measure.delta) if x is not None]
        reach[measure.unit] = max([reach.get(measure.unit, 0.0), *figures])
    return reach


def interval(measure: Measure, width: int, glyphs: Glyphs, reach: float = 0.0) -> str:
    """The interval in `width` cells, zero in the middle: `├──●─┤` next to or over `┊`.

    `reach` is the figure at either end; 0: the largest of the measure itself.
    """
    if measure.delta is None or measure.low is None or measure.high is None:
        return " " * width
    left, line, right, zero, mark = ("|", "-", "|", ":", "o") if glyphs.ascii else ("├", "─", "┤", "┊", "●")
    reach = reach or max(abs(measure.low), abs(measure.high), abs(measure.delta)) or 1.0
    half = width // 2

    def place(value: float) -> int:
        return max(0, min(width - 1, round(half + value / reach * half)))

    low, high, middle = place(measure.low), place(measure.high), place(measure.delta)
    drawn = [" "] * width
    drawn[half] = zero
    for at in range(low, high + 1):
        drawn[at] = line
    drawn[low], drawn[high] = left, right
    drawn[middle] = mark
    return "".join(drawn)


def measures_text(report: ValidationReport, width: int, glyphs: Glyphs) -> Content:
    """The panel: what changed for the person, the table, and the details of the verdict."""
    parts = [
        Content("\n").join([safe(line) for line in plain_sentences(report)]),
        measure_table(report, width, glyphs),
        Content("\n").join([safe(line, "$foreground-muted") for line in facts_lines(report)]),
    ]
    return Content("\n\n").join([part for part in parts if part.plain])


def measure_table(report: ValidationReport, width: int, glyphs: Glyphs) -> Content:
    """The whole table for a panel of `width` cells; the drawn intervals are dropped first in a narrow one."""
    bar = min(MAX_INTERVAL, width - MIN_NAME - 3 * FIGURE_CELLS - 2)
    bar = bar - (bar + 1) % 2 if bar >= MIN_INTERVAL else 0
    room = max(6, width - 3 * FIGURE_CELLS - bar - 2)
    head = fit(_("Measure"), room) + "".join(_right(text) for text in (_("Base"), _("New"), "Δ"))
    lines = [safe(head + ("  " + fit(with_percent("95"), bar) if bar else ""), "$foreground-muted")]
    reach = reach_of(report.measures)
    lines += [_line(measure, room, bar, glyphs, reach[measure.unit]) for measure in report.measures]
    return Content("\n").join(lines)


def _line(measure: Measure, room: int, bar: int, glyphs: Glyphs, reach: float) -> Content:
    unit = _(UNITS.get(measure.unit, measure.unit))
    name = name_of(measure)
    label = _("{name}, {unit}").format(name=name, unit=unit) if unit else name
    label = label if cells(label) <= room else name
    verdict = better(measure)
    style = "" if verdict is None else "$text-success" if verdict else "$text-error"
    sign = " " if verdict is None else "+" if verdict else glyphs.alert
    parts: list[Content] = [
        safe(fit(label, room)),
        safe(_right(number(measure.base)) + _right(number(measure.new))),
        safe(_right(number(measure.delta, signed=True)), style),
    ]
    parts.append(safe(f" {sign}" + (interval(measure, bar, glyphs, reach) if bar else ""), style))
    return Content.assemble(*parts)


def facts_lines(report: ValidationReport) -> Sequence[str]:
    """Details of the verdict: number of cases, interim look, cut share, split."""
    verdict = report.verdict
    p = "–" if verdict.p_value is None else f"{verdict.p_value:.2g}"
    lines = [
        _("{cases} cases in {groups} groups, p = {p}, required p < {alpha} (look {look})").format(
            cases=verdict.n_cases,
            groups=verdict.n_groups,
            p=p,
            alpha=f"{verdict.alpha:.3g}",
            look=verdict.look,
        )
    ]
    upper, margin = verdict.noninferiority.get("upper95"), verdict.noninferiority.get("margin")
    if upper is not None and margin is not None:
        text = (
            _("general set: at most {upper} % worse, {margin} % is the limit")
            if upper > 0
            else _("general set: at least {upper} % better; up to {margin} % worse would be accepted")
        )
        lines.append(text.format(upper=f"{abs(upper) * 100:.1f}", margin=f"{margin * 100:.0f}"))
    worst = verdict.worst_tenth
    if worst is not None:
        lines.append(
            _("worst tenth of the groups: NLL {change} %, the limit is {limit} %").format(
                change=f"{worst.loss * 100:+.1f}".replace("-", "−"), limit=f"+{worst.limit * 100:.0f}"
            )
        )
    if report.served is not None:
        lines += served_sentences(report.served)
    lines += similarity_lines(report.similarity)
    if report.split == "hash":
        lines.append(_("split by hash: the conversations have no dates"))
    if report.cut_share > 0:
        lines.append(
            _("{share} % of the answer text was beyond the context length and was not scored").format(
                share=f"{report.cut_share * 100:.1f}"
            )
        )
    return lines + reasons_of(verdict)


def judge_question(base: str, new: str, window: OpenWindow | None, *, again: bool) -> str:
    """Asks whether to judge `new` against `base`, and names the look that it takes at the test set.

    `again`: the two have a verdict already.
    """
    question = (_("Judge {new} against {base} again?") if again else _("Judge {new} against {base}?")).format(
        base=base, new=new
    )
    if window is None:
        return question
    look = window.looks + 1
    level = f"{alpha_for(look):.3g}"
    cost = n_(
        "This is look {look} at this {n} group; p < {level} is needed.",
        "This is look {look} at these {n} groups; p < {level} is needed.",
        window.groups,
    ).format(look=look, n=window.groups, level=level)
    if look > 1:
        cost = n_(
            "This is look {look} at this {n} group; the level falls to p < {level}.",
            "This is look {look} at these {n} groups; the level falls to p < {level}.",
            window.groups,
        ).format(look=look, n=window.groups, level=level)
    return f"{question} {cost}"


def empty_text(pair: tuple[str, str] | None, any_model: bool, *, any_verdict: bool = False) -> Content:
    """The text where no verdict is. `pair` are the models that can be validated: the one in use and the new one.

    `any_verdict`: other models have one.
    """
    if pair is not None:
        line = _("enter   validate {new} against {base}").format(base=pair[0], new=pair[1])
    elif any_model:
        line = _(
            "A verdict compares two models and there is only one: train another on the Train tab (1, then n)."
        )
    else:
        line = _("There is no model yet: train one on the Train tab (1, then n).")
    need = _("A verdict needs about 60 conversations: a test set of 20 groups that no model has seen.")
    if any_verdict and pair is not None:
        title = _("{new} has not been judged against {base} yet.").format(base=pair[0], new=pair[1])
        return Content("\n").join([safe(title, "bold"), Content(""), safe(line)])
    return Content("\n").join(
        [safe(_("No model has been validated yet."), "bold"), Content(""), safe(line), safe(need)]
    )


def _right(text: str) -> str:
    return " " * max(1, FIGURE_CELLS - cells(text)) + text
