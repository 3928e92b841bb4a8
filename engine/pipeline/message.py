"""`train --mode message`: the conversations of the corpus that fit stand before every chat of a served model.

Nothing is trained: this is prompting. The verdict and the promotion are those of a training.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from engine.core.chat import ChatMessage
from engine.core.config import load_settings
from engine.core.errors import H2QError, NotEnoughData, UsageProblem
from engine.core.files import fsync_dir, locked_folder, make_dirs, write_synced, write_text
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.corpus.message_choice import Candidate, ChosenConversation, candidates, choose
from engine.corpus.training_set import TrainingSet
from engine.export.create_model import CreateRequest, create_model
from engine.inference.language_model import ANSWER_TOKENS
from engine.inference.llama.parameters import fit_memory
from engine.machine.budget import resolve_budget
from engine.memory.store import MemoryStore
from engine.models.base_models import BaseModel, find_base
from engine.models.card import CARD_FILE, GGUF_ADAPTER, Lineage, ModelCard, encode_card, load_card
from engine.models.catalog import not_served
from engine.models.chat_template import ChatTemplate
from engine.models.hf import load_chat_template
from engine.models.ollama.create import modelfile
from engine.models.ollama.model_store import ModelStore
from engine.models.registry import in_use
from engine.models.resolve import ModelKind, find_place
from engine.pipeline.corpus import counted_pairs, prepare_corpus
from engine.pipeline.lora import beats_model_in_use
from engine.pipeline.promote import promote_if_better
from engine.pipeline.report import MessageBudget, TrainResult, finish, status_of
from engine.pipeline.served import ServedTag, create_in_ollama, personal_name, remove_unfinished, report_check
from engine.pipeline.stages import StagePlan, TrainedModel, TrainRequest, announce_work
from engine.pipeline.validate import validate_candidate
from engine.runs.context import RunContext, RunResult
from engine.runs.estimates import Workload
from engine.runs.kinds import TrainMode, TrainParams

CONTEXT = 4096
"""Tokens of prompt and answer of a new model at most, unless `--context` says otherwise."""
_QUESTION_SHARE = 16
_QUESTION = [ChatMessage(role="user", content="a")]


def make_message_model(ctx: RunContext, request: TrainRequest) -> RunResult:
    """`train --mode message`: choose, create, judge, promote."""
    params, ws = request.params, ctx.workspace
    base = choose_served_base(ws, params, ctx.settings.lora_base)
    context = _context(ctx, params, base)
    remove_unfinished(ws)
    plan = StagePlan(("corpus", "message", "validate", "promote"), before=request.stages_before)
    ctx.log(
        _(
            "your conversations are put before every chat with {name}: this is prompting, its weights stay as they are"
        ).format(name=base.name)
    )
    with MemoryStore(ws.memory_db) as store:
        announce_work(ctx, _workload(base, store.count()))
        try:
            corpus = prepare_corpus(ctx, plan, store, base=_compared(base), min_pairs=params.min_corpus)
        except NotEnoughData as problem:
            result = TrainResult("skipped", base=base.name, pairs=counted_pairs(store), error=str(problem))
            return finish(ctx, request, result)
        test = len(corpus.window.conversations)
        announce_work(ctx, _workload(base, len(corpus.dataset.conversations), test))
        with plan.open(ctx, "message") as stage:
            began = time.monotonic()
            made, budget = _make(ctx, store, base, corpus.dataset, context)
            model = replace(made, seconds=time.monotonic() - began)
            check = report_check(ctx, made.folder.name, base)
            stage.detail = budget.text
        report = validate_candidate(
            ctx, plan, store, corpus.window, base=_compared(base), new=model.folder, texts=[]
        )
        allowed = (
            params.promote
            and not check.faults
            and beats_model_in_use(ctx, store, corpus.window, report, base=base.name, new=model.folder)
        )
    promoted = promote_if_better(
        ctx,
        plan,
        model.folder,
        report,
        newest_conversation=model.lineage.newest_conversation,
        allowed=allowed,
    )
    result = TrainResult(
        status_of(report, promoted=promoted),
        base=base.name,
        new=model.folder.name,
        pairs=corpus.pairs,
        dataset=str(corpus.dataset.path),
        lineage=model.lineage,
        training_time_s=model.seconds,
        validation=report,
        budget=budget,
        served=ServedTag(tag=budget.tag, check=check, ollama=budget.ollama),
    )
    return finish(ctx, request, result)


def message_fits(ctx: RunContext, params: TrainParams) -> tuple[bool, str]:
    """Whether `--mode auto` can mean message, and the reason. Loads no weights."""
    if params.data:
        return False, ""
    try:
        base = choose_served_base(ctx.workspace, params, ctx.settings.lora_base)
        _context(ctx, params, base)
    except H2QError as problem:
        return False, problem.message
    return True, _("conversations before every chat of {name} need no training").format(name=base.name)


def question_space(context: int) -> int:
    """Tokens that are kept for the answer, as every backend keeps them, and for the question."""
    return min(ANSWER_TOKENS, context // 2) + context // _QUESTION_SHARE


def choose_served_base(ws: Workspace, params: TrainParams, configured: str) -> BaseModel:
    """The base: `--model`, else that of the model in use, else `configured`; of a message model its own base.

    Raises UsageProblem when there is none or llama.cpp cannot serve it, BadInput for a broken one.
    """
    name = params.model or _base_in_use(ws) or configured
    if not name:
        raise UsageProblem(
            _("message needs a base: a GGUF file or a tag"),
            hint="h2q-tui train --mode message --model FILE.gguf",
        )
    place = find_place(ws, name)
    if place.kind is ModelKind.SERVED:
        return find_base(ws, load_card(place.path).base_path)
    if place.kind is ModelKind.NATIVE:
        raise not_served(place.name, place.reference)
    base = find_base(ws, name)
    if not base.is_gguf:
        raise not_served(base.name, place.reference)
    return base


def _base_in_use(ws: Workspace) -> str:
    used = in_use(ws)
    if used is None:
        return ""
    try:
        kind = find_place(ws, used).kind
    except H2QError:
        return ""
    return used if kind in (ModelKind.SERVED, ModelKind.ADAPTER) else ""


def _context(ctx: RunContext, params: TrainParams, base: BaseModel) -> int:
    """`num_ctx` of the new model: as asked for, where the model and the memory budget allow it.

    Raises BadInput when the budget allows no conversation at all.
    """
    budget = resolve_budget(load_settings(ctx.workspace).max_memory_gb, params.max_memory_gb)
    ctx.set_budget(budget.mb, budget.reason)
    weights_mb = base.path.stat().st_size / 2**20
    fits = fit_memory(base.dimensions, weights_mb, budget.mb).context
    return min(params.context or CONTEXT, fits)


def _make(
    ctx: RunContext, store: MemoryStore, base: BaseModel, data: TrainingSet, context: int
) -> tuple[TrainedModel, MessageBudget]:
    """Chooses the conversations and creates the model. Raises NotEnoughData when not one fits."""
    ws = ctx.workspace
    plain = load_chat_template(replace(base, messages=()))
    found = [_spelled(one, plain) for one in candidates(store)]
    chosen, tokens = fit_conversations(ctx, found, base, plain, context)
    name = personal_name(ws, base)
    turns = [message for one in chosen for message in one.messages]
    lineage = _lineage_of(data, chosen)
    parameters = {"num_ctx": context}
    statuses = create_model(
        ws,
        CreateRequest(
            name,
            from_=_source(base),
            messages=turns,
            parameters=parameters,
            replace=False,
            card=name,
            conversations=[(one.id, len(one.messages)) for one in chosen],
        ),
    )
    for _status in statuses:
        ctx.check_stop()
    stored = ModelStore(ws).find(name)
    budget = MessageBudget(
        conversations=len(chosen),
        of=len(found),
        tokens=tokens,
        context=context,
        reserve=question_space(context),
        tag=stored.tag,
        modelfile=str(ws.training / f"Modelfile_{name}"),
        ollama=create_in_ollama(ctx, base, name, messages=turns, parameters=parameters),
    )
    write_text(Path(budget.modelfile), _modelfile(base, name, turns, budget), mode=0o600)
    card = ModelCard(
        name=name,
        mode=TrainMode.MESSAGE.value,
        base=base.name,
        base_path=str(base.adapter) if base.adapter is not None else base.source,
        base_sha256=base.sha256,
        served=name,
        run_id=ctx.spec.run_id,
        created_at=time.time(),
        parameters=base.parameters,
        context=context,
        weights_sha256=stored.digest,
        lineage=lineage,
    )
    folder = _write_card(ws, card)
    ctx.log(budget.text)
    return TrainedModel(folder, card.lineage, 0.0), budget


def fit_conversations(
    ctx: RunContext, found: list[Candidate], base: BaseModel, plain: ChatTemplate, context: int
) -> tuple[list[ChosenConversation], int]:
    """The conversations to put before every chat, and the tokens of a prompt with them and a shortest question.

    The prompt is rendered as the served model renders it: with `question_space` it fits into `context`. Raises
    NotEnoughData when not one conversation fits.
    """
    bare = len(plain.prompt(_QUESTION))

    def count(messages: Sequence[ChatMessage]) -> int:
        return len(plain.prompt([*messages, *_QUESTION])) - bare

    allowed = context - question_space(context)
    space = allowed - bare
    while space > 0:
        chosen = choose(found, space, count, ctx.check_stop)
        if not chosen:
            break
        turns = tuple(message for one in chosen for message in one.messages)
        tokens = len(load_chat_template(replace(base, messages=turns)).prompt(_QUESTION))
        if tokens <= allowed:
            return chosen, tokens
        # Tokens join or part where conversations meet.
        space -= tokens - allowed
    raise NotEnoughData(
        _("not one of {n} conversations fits before a chat of {context} tokens").format(
            n=len(found), context=f"{context:,}"
        ),
        hint=f"h2q-tui train --mode message --context {2 * context}",
    )


def _spelled(candidate: Candidate, plain: ChatTemplate) -> Candidate:
    """The conversation as text for every program: no content spells a control token."""
    messages = [
        msgspec.structs.replace(message, content=plain.spelled(message.content))
        for message in candidate.row.messages
    ]
    return replace(candidate, row=msgspec.structs.replace(candidate.row, messages=messages))


def _lineage_of(data: TrainingSet, chosen: Sequence[ChosenConversation]) -> Lineage:
    """Only the chosen conversations: the others are in no way part of the model."""
    times = [one.time for one in chosen if one.time is not None]
    return msgspec.structs.replace(
        data.lineage,
        conversations=sorted(one.id for one in chosen),
        clusters=sorted({one.cluster for one in chosen if one.cluster}),
        newest_conversation=max(times, default=None),
    )


def _compared(base: BaseModel) -> Path:
    return base.adapter or base.place


def _source(base: BaseModel) -> str:
    """The base for `create_model`."""
    if base.adapter is not None:
        return str(base.adapter)
    return base.source if base.ollama_tag else str(base.path)


def _modelfile(base: BaseModel, name: str, turns: Sequence[ChatMessage], budget: MessageBudget) -> str:
    """The Modelfile for people: the same model for `ollama create`."""
    adapter = base.adapter / GGUF_ADAPTER if base.adapter is not None else base.lora
    return modelfile(
        base.ollama_tag or str(base.path),
        adapter=adapter if adapter is not None and not base.ollama_tag else None,
        system=base.system if not base.ollama_tag else "",
        parameters={"num_ctx": budget.context},
        messages=turns,
        note="\n".join(
            (
                name,
                _("{base} with your conversations before every chat: prompting, not training").format(
                    base=base.name
                ),
                budget.text,
            )
        ),
    )


def _write_card(ws: Workspace, card: ModelCard) -> Path:
    """The folder of the new model; it appears whole."""
    make_dirs(ws.models)
    folder = ws.models / card.name
    with locked_folder(ws.models, f".{card.name}.new.") as temporary:
        write_synced(temporary / CARD_FILE, encode_card(card))
        temporary.chmod(0o755)
        fsync_dir(temporary)
        temporary.rename(folder)
    fsync_dir(ws.models)
    return folder


def _workload(base: BaseModel, conversations: int, test: int = 0) -> Workload:
    return Workload(
        TrainMode.MESSAGE,
        conversations=conversations,
        test=test,
        base=base.name,
        base_parameters=base.parameters,
    )
