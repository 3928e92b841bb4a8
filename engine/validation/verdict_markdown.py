"""A report as Markdown for people, in the language of the reader. Imports nothing heavy."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from engine.core.i18n import _, with_percent
from engine.core.local_time import local_time
from engine.validation.report import AnswerPair, Measure, ValidationReport
from engine.validation.served_text import served_sentences
from engine.validation.summary_text import plain_sentences, shown_as, similarity_lines
from engine.validation.verdict_text import reasons_of, sentence_of
from engine.validation.votes import case_key, vote_on


def markdown(report: ValidationReport) -> str:
    """The whole report. Texts of conversations stand in fences, which nothing in them can close."""
    verdict = report.verdict
    parts = [
        f"# {_line(verdict.base.name)} → {_line(verdict.new.name)}",
        f"**{_line(sentence_of(verdict))}**",
        "\n".join(plain_sentences(report)),
        _("{date}, look {look} at test set {window}; {cases} cases in {groups} groups").format(
            date=local_time("%Y-%m-%d %H:%M", report.created_at),
            look=verdict.look,
            window=report.window_id,
            cases=verdict.n_cases,
            groups=verdict.n_groups,
        ),
        _table(report.measures),
        _list(
            [
                *reasons_of(verdict),
                *(served_sentences(report.served) if report.served is not None else []),
                *similarity_lines(report.similarity),
            ]
        ),
        *(_answer(report, number, answer) for number, answer in enumerate(report.answers, 1)),
        _cases(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(measures: Sequence[Measure]) -> str:
    head = [_("measure"), _("base"), _("new model"), "Δ", with_percent("95")]
    rows = [head, ["---", "---:", "---:", "---:", "---"]]
    for measure in measures:
        span = (
            "" if measure.low is None or measure.high is None else f"{measure.low:+.3f} … {measure.high:+.3f}"
        )
        rows.append(
            [
                f"{_line(measure.name)}, {measure.unit}",
                _figure(measure.base),
                _figure(measure.new),
                "" if measure.delta is None else f"{measure.delta:+.3f}",
                span,
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _answer(report: ValidationReport, number: int, answer: AnswerPair) -> str:
    vote = vote_on(report, case_key(report, number))
    voted = {
        "base": _("blind vote: the base"),
        "new": _("blind vote: the new model"),
        "equal": _("blind vote: equal"),
    }
    parts = [
        f"## {number}. {shown_as(answer) or _('question')}",
        voted[vote.choice] if vote is not None and vote.choice in voted else "",
    ]
    for label, text in (
        (_("asked"), answer.question),
        (_("base"), answer.base),
        (_("new model"), answer.new),
        (_("wanted"), answer.wanted),
    ):
        parts.append(f"{label}\n\n{_fenced(text)}")
    return "\n\n".join(part for part in parts if part)


def _cases(report: ValidationReport) -> str:
    """All cases, the worst loss first."""
    if not report.cases:
        return ""
    rows = [
        [_("conversation"), _("base"), _("new model"), _("gain, bits/byte")],
        ["---", "---:", "---:", "---:"],
    ]
    for case in sorted(report.cases, key=lambda case: case.base - case.new):
        gain = (case.base - case.new) / math.log(2)
        rows.append(
            [
                _line(case.conversation),
                f"{case.base / math.log(2):.3f}",
                f"{case.new / math.log(2):.3f}",
                f"{gain:+.3f}",
            ]
        )
    title = "## " + _("Held-out conversations, the worst loss first")
    return title + "\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_line(line)}" for line in lines)


def _line(text: str) -> str:
    """One line without what Markdown would read as markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
