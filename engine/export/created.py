"""Whether a model that was created for the built-in server answers there as it was judged: the check after a creation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import H2QError
from engine.core.i18n import _, n_
from engine.core.paths import Workspace
from engine.corpus.dataset import DatasetRow
from engine.export.parity import conversations
from engine.inference.language_model import LanguageModel
from engine.inference.loader import open_language_model
from engine.inference.served_model import ServedModel
from engine.models.base_models import BaseModel, find_base
from engine.models.ollama.client import MODEL_PREFIX
from engine.validation.cases import EvaluationCase, cut_cases
from engine.validation.report import ServedCheck
from engine.validation.served import MOST, check_served, position_prefixes

_EFFECT_POSITIONS = 6
_SAME = 1e-3
"""Nats by which a log-probability may differ when the same prompt is read a second time from its beginning."""


class CreatedCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A created model in llama.cpp against the same files in torch."""

    served: ServedCheck
    same_text: bool = True
    """Whether llama.cpp renders the conversations as text alike; where ids differ then, the tokenizer does."""
    same_again: bool = True
    """Whether a prompt has the same probabilities again after another one was answered."""
    adapter_effect: float | None = None
    """Mean |Δ log p| between base and created model in llama.cpp, in nats; None for a model without adapter."""
    adapter_applied: bool | None = None
    """None for a model without adapter, and for an adapter that changes less than rounding does."""
    base_unchanged: bool = True

    @property
    def faults(self) -> list[str]:
        """What is wrong, in one word each: "template", "tokenizer", "stop token", "cache", "adapter", "weights", "base"."""
        served = self.served
        if served.problem:
            return []
        found = []
        if served.same_prompts < served.prompts:
            found.append("tokenizer" if self.same_text else "template")
        if not served.stops:
            found.append("stop token")
        if not self.same_again:
            found.append("cache")
        if self.adapter_applied is False:
            found.append("adapter")
        elif served.same_best < served.clear or served.mean_difference > served.limit:
            found.append("adapter" if self.adapter_effect is not None else "weights")
        if not self.base_unchanged:
            found.append("base")
        return found

    @property
    def passed(self) -> bool:
        return not self.served.problem and not self.faults


def check_created(
    ws: Workspace, tag: str, base: BaseModel, step: Callable[[], None] | None = None
) -> CreatedCheck:
    """Checks the tag that was made from `base`, as it was before. `step` may raise to stop.

    A check that cannot be made says why in `served.problem`.
    """
    try:
        model = open_language_model(ws, MODEL_PREFIX + tag)
        if not isinstance(model, ServedModel):
            problem = _("llama.cpp is not installed, or the model does not fit beside its copy in torch")
            return CreatedCheck(served=ServedCheck(problem=problem))
        return _check(ws, model, model, base, step or (lambda: None))
    except H2QError as problem:
        return CreatedCheck(served=ServedCheck(problem=problem.message))


def _check(
    ws: Workspace, model: LanguageModel, served: ServedModel, base: BaseModel, step: Callable[[], None]
) -> CreatedCheck:
    chats = conversations()
    rows = [DatasetRow(id=str(number), messages=chat[:2]) for number, chat in enumerate(chats)]
    cases = cut_cases(rows, model.eval_context, model.windows)
    questions = [EvaluationCase("", "", [], 0, 0, prompt=chat) for chat in chats]
    found = check_served(model, cases, questions)
    assert found is not None
    step()
    if found.problem:
        return CreatedCheck(served=found)
    prefixes = list(position_prefixes(cases))[:_EFFECT_POSITIONS]
    same_text = found.same_prompts == found.prompts or all(_renders_alike(served, chat) for chat in chats)
    again = _same_again(model, served, prefixes)
    step()
    effect, applied = (
        _adapter_effect(ws, model, served, base, prefixes, found.limit)
        if _has_adapter(ws, model.name)
        else (None, None)
    )
    return CreatedCheck(
        served=found,
        same_text=same_text,
        same_again=again,
        adapter_effect=effect,
        adapter_applied=applied,
        base_unchanged=find_base(ws, str(base.adapter or base.place)).sha256 == base.sha256,
    )


def _has_adapter(ws: Workspace, tag: str) -> bool:
    return find_base(ws, MODEL_PREFIX + tag).lora is not None


def _renders_alike(served: ServedModel, chat: Sequence[ChatMessage]) -> bool:
    try:
        return served.same_text(chat)
    except H2QError:
        return False


def _same_again(model: LanguageModel, served: ServedModel, prefixes: Sequence[list[int]]) -> bool:
    """The first prompt before and after the others: what they left in the cache must not be read."""
    if len(prefixes) < 2:
        return True
    with model.reproducible():
        first, *_others, again = (
            served.served_log_probs(prefix, MOST) for prefix in (*prefixes[:2], prefixes[0])
        )
    return all(abs(first[token] - again.get(token, -1e9)) <= _SAME for token in list(first)[:3])


def _adapter_effect(
    ws: Workspace,
    model: LanguageModel,
    served: ServedModel,
    base: BaseModel,
    prefixes: Sequence[list[int]],
    limit: float,
) -> tuple[float | None, bool | None]:
    """(mean |Δ log p| between base and created model in llama.cpp, whether that is nearer to torch than the base is)."""
    bare = open_language_model(ws, base.place)
    if not isinstance(bare, ServedModel):
        return None, None
    effects, created, without = [], [], []
    for prefix in prefixes:
        expected = model.next_token_log_probs(prefix)
        best = max(range(len(expected)), key=expected.__getitem__)
        one, other = (
            found.get(best, min(found.values()))
            for found in (served.served_log_probs(prefix, MOST), bare.served_log_probs(prefix, MOST))
        )
        effects.append(abs(one - other))
        created.append(abs(one - expected[best]))
        without.append(abs(other - expected[best]))
    if not effects:
        return None, None
    effect = sum(effects) / len(effects)
    if sum(without) / len(without) <= limit:
        # What the adapter changes is no larger than what rounding may change.
        return effect, None
    return effect, sum(created) < sum(without) / 2


def created_sentences(check: CreatedCheck) -> list[str]:
    """The check for people: one line when all is well, else each fault by its name."""
    served = check.served
    if served.problem:
        return [_("not compared with llama.cpp: {reason}").format(reason=served.problem)]
    if not check.faults:
        text = n_(
            "served as judged: the same ids for {n} conversation, stop token honoured, {mean:.3f} nats apart",
            "served as judged: the same ids for {n} conversations, stop token honoured, {mean:.3f} nats apart",
            served.prompts,
        ).format(n=served.prompts, mean=served.mean_difference)
        if check.adapter_applied:
            text += _(", adapter applied ({effect:.3f} nats)").format(effect=check.adapter_effect)
        return [text]
    return [*_fault_sentences(check)]


def _fault_sentences(check: CreatedCheck) -> Iterator[str]:
    served = check.served
    ids = _("{n} of {total} conversations have other ids").format(
        n=served.prompts - served.same_prompts, total=served.prompts
    )
    apart = _(
        "{mean:.3f} nats apart (up to {limit:g} is usual), {n} of {total} clear best tokens differ"
    ).format(
        mean=served.mean_difference, limit=served.limit, n=served.clear - served.same_best, total=served.clear
    )
    words = {
        "template": _("the chat template of the served model is another: {what}").format(what=ids),
        "tokenizer": _("the tokenizer of the served model is another: {what}").format(what=ids),
        "stop token": _("the served model does not end an answer at its stop token"),
        "cache": _("the served model reads what another prompt left in its cache"),
        "adapter": _("the served model does not answer with its adapter: {what}").format(what=apart),
        "weights": _("the weights of the served model are others: {what}").format(what=apart),
        "base": _("the base of the served model has changed"),
    }
    yield from (words[fault] for fault in check.faults)
