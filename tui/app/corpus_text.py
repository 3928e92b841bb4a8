"""Corpus terms as the user reads them: stages, reasons, PII types, dataset figures. Imports no Textual, so the
command line uses it too."""

from __future__ import annotations

from engine.core.i18n import N_, _, n_
from engine.core.paths import Workspace
from engine.corpus.enums import REASONS, Stage
from engine.corpus.preview import CONTEXT, Outlook
from engine.corpus.review.rule_suggestions import Pattern
from engine.models.registry import in_use, list_models

PII_TYPE_NAMES: dict[str, str] = {
    "PRIVATE_KEY": N_("private key"),
    "API_KEY": N_("API key"),
    "PASSWORD": N_("password"),
    "EMAIL": N_("e-mail"),
    "ID_CARD": N_("ID number"),
    "CREDIT_CODE": N_("credit code"),
    "IBAN": N_("IBAN"),
    "BANK_CARD": N_("bank card"),
    "SSN": N_("SSN"),
    "PASSPORT": N_("passport"),
    "DRIVER_LICENSE": N_("licence"),
    "IP": N_("IP address"),
    "PHONE": N_("phone"),
    "PLATE": N_("plate"),
    "WECHAT": N_("WeChat"),
    "QQ": N_("QQ"),
    "ADDRESS": N_("address"),
}
"""Short names of the PII types, for a list column and a line of reasons."""
STAGE_NAMES = {
    Stage.COLLECT: N_("no pair"),
    Stage.LOW_VALUE: N_("low value"),
    Stage.SENSITIVE: N_("private"),
    Stage.INJECTION: N_("marker"),
    Stage.EXACT: N_("copy"),
    Stage.NEAR: N_("twin"),
    Stage.SEMANTIC: N_("meaning"),
    Stage.RULE: N_("rule"),
    Stage.REVIEW: N_("review"),
    Stage.SPLIT: N_("split"),
}
"""Short names of the pipeline stages, for a list column."""


def pii_type_names(types: str) -> str:
    """Names for "PHONE, EMAIL"; "" when one of them is not a PII type."""
    parts = types.split(", ")
    if not all(part in PII_TYPE_NAMES for part in parts):
        return ""
    return _(", ").join(_(PII_TYPE_NAMES[part]) for part in parts)


def reason_text(reason: str) -> str:
    """The text of a reason code, or of the PII types that stand in its place."""
    return _(REASONS[reason]) if reason in REASONS else pii_type_names(reason) or reason


def stage_name(stage: str) -> str:
    """The name of a stage; an unknown one unchanged."""
    return next((_(name) for known, name in STAGE_NAMES.items() if known == stage), stage)


def rule_suggestion_text(pattern: Pattern) -> str:
    """ "12 of your 15 rejections share /"as an AI", 0 of 30 accepted do"."""
    return _("{n} of your {all} rejections share /{line}, {a} of {accepted} accepted do").format(
        n=pattern.rejected,
        all=pattern.of_rejected,
        line=pattern.line,
        a=pattern.accepted,
        accepted=pattern.of_accepted,
    )


def context_length(workspace: Workspace) -> int:
    """Tokens of a training window: those of the model in use, at most those of a new model."""
    used = in_use(workspace)
    return min([CONTEXT, *(card.context for card in list_models(workspace) if card.name == used)])


def dataset_figures(figures: Outlook) -> list[tuple[str, str]]:
    """The dataset in three lines: (sentence, style)."""
    lengths = _("tokens: half up to {p50}, 90 % up to {p90}, 99 % up to {p99}, longest {longest}").format(
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
        second += ", " + cut.format(n=f"{figures.cut:,}", tokens=f"{figures.cut_tokens:,}")
    replaced, left = sum(figures.replaced.values()), sum(figures.left.values())
    third = _("private text replaced: {n}").format(n=f"{replaced:,}")
    third += "   " + _("left in it: {n}").format(n=f"{left:,}")
    if figures.left:
        third += " (" + ", ".join(f"{type_} {count}" for type_, count in figures.left.items()) + ")"
    return [
        (lengths, ""),
        (second, "$text-warning" if figures.cut else ""),
        (third, "$text-error" if left else "$text-success"),
    ]
