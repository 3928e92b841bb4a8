"""The run `export`: write a model, measure the cost in NLL, compare with llama.cpp, and create it in Ollama."""

from __future__ import annotations

import gc
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch

from engine.core.files import file_sha256, write_bytes, write_text
from engine.core.i18n import _, n_
from engine.core.json_text import encode_json
from engine.export import cost, parity
from engine.export.gguf_writer import write_gguf_adapter, write_gguf_model
from engine.export.hf_model import DTYPES, write_hf_model
from engine.export.plan import ExportPlan, modelfile_of, ollama_parameters, plan_export
from engine.export.quant import Quant
from engine.export.report import ExportReport, NllMeasurement, Parity, report_path, with_measurements
from engine.export.source import check_weights
from engine.inference.language_model import LanguageModel
from engine.inference.loader import open_weights
from engine.machine.budget import Budget, resolve_budget
from engine.models.chatml import MaskedTokens
from engine.models.gguf.model import open_gguf
from engine.models.hf import silence_transformers
from engine.models.ollama.create import check_name, create_model, server_version
from engine.models.weights import GgufWeights, SafetensorsWeights, Weights
from engine.runs.context import RunContext, RunResult
from engine.runs.events import RunStatus
from engine.runs.kinds import ExportParams
from engine.workspace.outside import outside_output

if TYPE_CHECKING:
    from transformers import PretrainedConfig

PROGRAM_MB = 1000.0
"""Resident memory of Python with torch, transformers and llama.cpp, including the evaluation of a text."""
LOGIT_TOLERANCE = 0.05
"""Largest difference of logits in f32 or f16 that rounding explains."""
ROUNDED_LOGIT_TOLERANCE = 2.0
"""The same for quantized weights and bf16: llama.cpp rounds the activations to eight bits there. SmolLM2-135M as Q4_1
differs by 0.7 to 1."""


def run(ctx: RunContext) -> RunResult:
    """Runs `ExportParams`. Raises the errors of its parts; no partial output remains."""
    params, started = ctx.params(ExportParams), time.monotonic()
    silence_transformers()
    budget = resolve_budget(ctx.settings.max_memory_gb)
    ctx.set_budget(budget.mb, budget.reason)
    plan = plan_export(ctx.workspace, params)
    stages = 1 + (2 if params.measure else 0) + (params.to == "ollama")
    if params.to == "ollama":
        check_name(params.ollama_name or plan.source.name)
        ctx.log(_("Ollama {version} is running").format(version=server_version()))
    with outside_output(ctx.workspace, plan.path):
        report = _write(ctx, plan, stages)
    # Written before the measurement: an interrupted export must be recognised as an export too.
    path = _save_report(plan, report)
    if params.measure:
        report = _measure(ctx, plan, report, budget, stages)
    if params.to == "ollama":
        report = _create_in_ollama(ctx, plan, report, stages)
    report = msgspec.structs.replace(report, seconds=round(time.monotonic() - started, 1))
    _save_report(plan, report)
    return RunResult(RunStatus.DONE, result=report, report=path)


def _save_report(plan: ExportPlan, report: ExportReport) -> Path:
    """Writes the report next to the files and returns its path. Raises OSError."""
    path = report_path(plan.path, plan.format)
    write_bytes(path, msgspec.json.format(encode_json(report), indent=2) + b"\n")
    return path


def _write(ctx: RunContext, plan: ExportPlan, stages: int) -> ExportReport:
    source = plan.source

    def step(done: int, total: int) -> None:
        ctx.check_stop()
        ctx.progress("export", done, total, unit="bytes" if plan.format == "hf" else "weights")

    with ctx.stage("export", 1, stages) as stage:
        check_weights(source, ctx.check_stop)
        notes: list[str] = []
        metadata = source.metadata() | ({"h2q.pruned": f"{plan.params.prune:g}"} if plan.params.prune else {})
        if plan.format == "hf":
            write_hf_model(plan.path, source, plan.weights, DTYPES[plan.quant], step=step)
        elif plan.only_adapter:
            write_gguf_adapter(
                plan.path, source.config, source.pairs, Quant(plan.quant), name=source.name, metadata=metadata
            )
        else:
            vocabulary = source.vocabulary
            if getattr(vocabulary, "normalizes", False):
                notes.append(
                    _(
                        "the tokenizer normalizes text to NFC and llama.cpp does not: decomposed characters get other token ids"
                    )
                )
            write_gguf_model(
                plan.path,
                source.config,
                plan.weights,
                vocabulary,
                Quant(plan.quant),
                name=source.name,
                metadata=metadata,
                step=step,
            )
        if plan.params.prune:
            notes.append(_("zeros are stored like other weights: pruning does not make the file smaller"))
        if source.base.messages and plan.params.to != "ollama":
            notes.append(
                _("the conversations before every chat are not in the file: {path} has them").format(
                    path=ctx.workspace.training / f"Modelfile_{source.name}"
                )
                if plan.format != "hf"
                else _("the conversations before every chat are not in the directory")
            )
        file = plan.weights_file
        size = file.stat().st_size
        stage.detail = _("{path}, {size:.1f} MB, {quant}").format(
            path=plan.path, size=size / 1e6, quant=plan.quant
        )
        modelfile = ""
        if plan.format != "hf":
            modelfile = str(ctx.workspace.training / f"Modelfile_{source.name}")
            write_text(Path(modelfile), modelfile_of(plan))
        for note in notes:
            ctx.log(note)
        return ExportReport(
            name=source.name,
            path=str(plan.path),
            format=plan.format,
            quant=plan.quant,
            bytes=size,
            sha256=file_sha256(file, ctx.check_stop),
            parameters=plan.parameters,
            pruned=plan.params.prune,
            notes=notes,
            modelfile=modelfile,
            card=None if source.card is None else msgspec.to_builtins(source.card),
        )


def _measure(
    ctx: RunContext, plan: ExportPlan, report: ExportReport, budget: Budget, stages: int
) -> ExportReport:
    """Adds the NLL before and after and the parity with llama.cpp, as far as memory allows."""
    source = plan.source
    dtype = _dtype_that_fits(plan, budget)
    if dtype is None:
        note = _("not measured: the weights do not fit the memory budget of {mb:.0f} MB").format(mb=budget.mb)
        for number, name in enumerate(("cost", "parity"), 2):
            with ctx.stage(name, number, stages) as stage:
                stage.skip(note)
        return msgspec.structs.replace(report, notes=[*report.notes, note])
    with ctx.stage("cost", 2, stages) as stage:
        tokenizer = cost.ExportTokenizer(source)
        limit = cost.token_limit(plan.parameters)
        sets = {
            "held_out": _held_out(ctx, tokenizer, limit),
            "general": cost.general_sequences(tokenizer, limit),
        }
        sets = {name: sequences for name, sequences in sets.items() if sequences}
        total = 2 * sum(len(sequences) for sequences in sets.values())
        done = 0

        def step(_done: int, _total: int) -> None:
            nonlocal done
            ctx.check_stop()
            done += 1
            ctx.progress("cost", done, total, unit=_("texts"))

        model = _language_model(source.config, source.weights, dtype, tokenizer)
        before = {name: cost.nll_per_byte(model, sequences, step) for name, sequences in sets.items()}
        del model
        gc.collect()
        model = _written_model(plan, dtype, tokenizer)
        after = {name: cost.nll_per_byte(model, sequences, step) for name, sequences in sets.items()}
        measured = [
            NllMeasurement(
                on=name,
                bytes=sum(sequence.trained_bytes for sequence in sequences),
                nll=after[name],
                nll_base=before[name],
            )
            for name, sequences in sets.items()
            if math.isfinite(after[name]) and math.isfinite(before[name])
        ]
        report = with_measurements(report, measured)
        stage.detail = _("; ").join(_cost_text(one) for one in measured) or _(
            "the model gives no finite likelihoods"
        )
        reason = _parity_obstacle(plan, budget)
        reference = None if reason else parity.parity_reference(model, tokenizer, ctx.check_stop)
        # Freed before llama.cpp loads the same weights: both may not fit together.
        del model
        gc.collect()
    with ctx.stage("parity", 3, stages) as stage:
        if reference is None:
            stage.skip(reason)
            return report
        result = parity.measure_parity(
            source.base.path if plan.only_adapter else plan.path,
            reference,
            adapter=plan.path if plan.only_adapter else None,
            step=ctx.check_stop,
        )
        exact = plan.quant in (Quant.F32, Quant.F16) and dtype is torch.float32 and not source.base.is_gguf
        usual = LOGIT_TOLERANCE if exact else ROUNDED_LOGIT_TOLERANCE
        stage.detail = _parity_text(result, usual)
        report = msgspec.structs.replace(report, parity=result)
        if result.same_ids < result.conversations or result.max_logit_difference > usual:
            ctx.log(_("llama.cpp and torch disagree on this file"), "warning")
    return report


def _create_in_ollama(ctx: RunContext, plan: ExportPlan, report: ExportReport, stages: int) -> ExportReport:
    source = plan.source
    name = plan.params.ollama_name or source.name
    last_status = ""

    def step(status: str) -> None:
        nonlocal last_status
        ctx.check_stop()
        if status and status != last_status:
            last_status = status
            ctx.log(status)

    with ctx.stage("ollama", stages, stages) as stage:
        create_model(
            name,
            {plan.path.name: plan.path},
            {plan.path.name: report.sha256},
            adapter_of=source.base.ollama_tag if plan.only_adapter else "",
            system=plan.params.system or source.base.system,
            parameters=ollama_parameters(plan),
            messages=source.base.messages,
            step=step,
        )
        stage.detail = f"ollama run {name}"
    return msgspec.structs.replace(report, ollama=name)


def _language_model(
    config: PretrainedConfig, weights: Weights, dtype: torch.dtype, tokenizer: cost.ExportTokenizer
) -> LanguageModel:
    return open_weights(config, weights, dtype, tokenizer.chat, eval_context=tokenizer.context)


def _written_model(plan: ExportPlan, dtype: torch.dtype, tokenizer: cost.ExportTokenizer) -> LanguageModel:
    """The written weights, read back; an adapter merged into its base."""
    if plan.only_adapter:
        return _language_model(plan.source.config, plan.weights, dtype, tokenizer)
    if plan.format == "hf":
        return _language_model(plan.source.config, SafetensorsWeights(plan.path), dtype, tokenizer)
    written = open_gguf(plan.path)
    return _language_model(written.config, GgufWeights(written), dtype, tokenizer)


def _held_out(ctx: RunContext, tokenizer: cost.ExportTokenizer, limit: int) -> list[MaskedTokens]:
    from engine.corpus.clusters import current_window
    from engine.corpus.training_set import held_out_rows
    from engine.memory.store import MemoryStore

    if not ctx.workspace.memory_db.is_file():
        return []
    with MemoryStore(ctx.workspace.memory_db) as store:
        window = current_window(store)
        return (
            []
            if window is None
            else cost.held_out_sequences(tokenizer, held_out_rows(store, window.id), limit)
        )


def _dtype_that_fits(plan: ExportPlan, budget: Budget) -> torch.dtype | None:
    """float32, so that only the export's rounding is measured; bfloat16 where that does not fit; None if neither fits."""
    available = (budget.mb - PROGRAM_MB) * 2**20
    return next(
        (t for t in (torch.float32, torch.bfloat16) if plan.parameters * t.itemsize <= available), None
    )


def _parity_obstacle(plan: ExportPlan, budget: Budget) -> str:
    """Why the export is not compared with llama.cpp; "" when it is."""
    if plan.format == "hf":
        return _("llama.cpp does not read Hugging Face directories")
    if plan.only_adapter and not plan.source.base.is_gguf:
        return _("the base model of the adapter is not a GGUF file")
    file = plan.source.base.path if plan.only_adapter else plan.path
    # llama.cpp maps the file and repacks some types in memory.
    if 2 * file.stat().st_size > (budget.mb - PROGRAM_MB) * 2**20:
        return _("not compared: the file does not fit the memory budget of {mb:.0f} MB").format(mb=budget.mb)
    return ""


def _cost_text(one: NllMeasurement) -> str:
    name = {"held_out": _("held-out conversations"), "general": _("general text")}[one.on]
    return _("{name}: {before:.4f} → {after:.4f} nats per byte ({cost:+.4f}, {share:+.2f} %)").format(
        name=name,
        before=one.nll_base,
        after=one.nll,
        cost=one.cost,
        share=100 * one.cost / one.nll_base if one.nll_base else 0.0,
    )


def _parity_text(result: Parity, limit: float) -> str:
    text = n_(
        "same token ids in {same} of {n} conversation",
        "same token ids in {same} of {n} conversations",
        result.conversations,
    ).format(same=result.same_ids, n=result.conversations)
    return text + _(", logits differ by at most {difference:.4f} (up to {limit:g} is usual)").format(
        difference=result.max_logit_difference, limit=limit
    )
