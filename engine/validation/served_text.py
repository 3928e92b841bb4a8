"""The served-path check in words. Imports nothing heavy."""

from __future__ import annotations

from engine.core.i18n import _, n_
from engine.validation.report import ServedCheck


def served_sentences(check: ServedCheck) -> list[str]:
    """The check for people: one line when all is well, else what differs and why that is."""
    if check.problem:
        return [_("not compared with llama.cpp: {reason}").format(reason=check.problem)]
    wrong = []
    if check.same_prompts < check.prompts:
        wrong.append(
            _(
                "llama.cpp makes other prompts of {n} of {total} conversations: chat template or tokenizer"
            ).format(n=check.prompts - check.same_prompts, total=check.prompts)
        )
    if not check.stops:
        wrong.append(_("llama.cpp does not end an answer at this model's stop token"))
    if check.same_best < check.clear or check.mean_difference > check.limit:
        wrong.append(
            _(
                "llama.cpp and torch differ by {mean:.3f} nats on average (up to {limit:g} is usual) and in {n} of"
                " {total} clear best tokens: the adapter or the file"
            ).format(
                mean=check.mean_difference,
                limit=check.limit,
                n=check.clear - check.same_best,
                total=check.clear,
            )
        )
    return wrong or [
        n_(
            "llama.cpp answers what was judged: same prompts, same stop token, {mean:.3f} nats apart at {n} position",
            "llama.cpp answers what was judged: same prompts, same stop token, {mean:.3f} nats apart at {n} positions",
            check.positions,
        ).format(mean=check.mean_difference, n=check.positions)
    ]
