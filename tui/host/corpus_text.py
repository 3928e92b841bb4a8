"""Corpus terms as the user reads them: stages, reasons, PII types, dataset figures. Imports no Textual, so the
command line uses it too."""

from __future__ import annotations

from engine.core.i18n import _, bracketed, n_
from engine.core.paths import Workspace
from engine.corpus.enums import PII_LABELS, REASON_LABELS, STAGE_LABELS, STATE_LABELS
from engine.corpus.preview import DEFAULT_CONTEXT, DatasetSummary
from engine.corpus.review.rule_suggestions import RuleSuggestion
from engine.models.registry import in_use, list_models


def pii_type_names(types: str) -> str:
    """Names for "PHONE, EMAIL"; "" when one of them is not a PII type."""
    parts = types.split(", ")
    if not all(part in PII_LABELS for part in parts):
        return ""
    return _(", ").join(_(PII_LABELS[part]) for part in parts)


def reason_text(reason: str) -> str:
    """The text of a reason code, or of the PII types that stand in its place."""
    return _(REASON_LABELS[reason]) if reason in REASON_LABELS else pii_type_names(reason) or reason


def stage_name(stage: str) -> str:
    """The name of a stage; an unknown one unchanged."""
    return next((_(name) for known, name in STAGE_LABELS.items() if known == stage), stage)


def state_name(state: str) -> str:
    """The name of a state; an unknown one unchanged."""
    return next((_(name) for known, name in STATE_LABELS.items() if known == state), state)


def rule_suggestion_text(pattern: RuleSuggestion) -> str:
    """ "12 of your 15 rejections share /"as an AI", 0 of 30 accepted do"."""
    return _("{n} of your {all} rejections match /{line}, {a} of {accepted} accepted ones do").format(
        n=pattern.rejected,
        all=pattern.of_rejected,
        line=pattern.line,
        a=pattern.accepted,
        accepted=pattern.of_accepted,
    )


def context_length(workspace: Workspace) -> int:
    """Tokens of a training window: those of the model in use, at most those of a new model."""
    used = in_use(workspace)
    return min([DEFAULT_CONTEXT, *(card.context for card in list_models(workspace) if card.name == used)])


def dataset_figures(figures: DatasetSummary) -> list[tuple[str, str]]:
    """The dataset in three lines: (sentence, style)."""
    lengths = _(
        "tokens per conversation: median {p50}, 90 % up to {p90}, 99 % up to {p99}, maximum {longest}"
    ).format(
        p50=f"{figures.p50:,}", p90=f"{figures.p90:,}", p99=f"{figures.p99:,}", longest=f"{figures.longest:,}"
    )
    windowed = n_(
        "{n} is longer than the window of {context}",
        "{n} are longer than the window of {context}",
        figures.windowed,
    )
    cut = n_("{n} loses {tokens} tokens of an answer", "{n} lose {tokens} tokens of answers", figures.cut)
    second = windowed.format(n=f"{figures.windowed:,}", context=f"{figures.context:,}")
    if figures.cut:
        second += _(", ") + cut.format(n=f"{figures.cut:,}", tokens=f"{figures.cut_tokens:,}")
    replaced, left = sum(figures.replaced.values()), sum(figures.left.values())
    third = _("PII redacted: {n}").format(n=f"{replaced:,}")
    third += "   " + _("PII remaining: {n}").format(n=f"{left:,}")
    if figures.left:
        types = _(", ").join(f"{type_} {count}" for type_, count in figures.left.items())
        third = bracketed(third, types)
    return [
        (lengths, ""),
        (second, "$text-warning" if figures.cut else ""),
        (third, "$text-error" if left else "$text-success"),
    ]
