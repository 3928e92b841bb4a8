"""Plans an export: checks its source, names and options before anything is written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.core.errors import BadInput, UsageProblem
from engine.core.i18n import _
from engine.core.outputs import MODEL_FOLDER, check_output_file, check_output_folder, check_output_parent
from engine.core.paths import Workspace
from engine.export.gguf_writer import check_gguf_adapter, check_gguf_model
from engine.export.hf_model import DTYPES
from engine.export.quant import Quant
from engine.export.report import is_foreign
from engine.export.source import ExportSource, find_export_source
from engine.models.card import WEIGHTS_FILE
from engine.models.hf import context_of
from engine.models.ollama.create import modelfile
from engine.models.weights import PrunedWeights, Weights
from engine.runs.kinds import ExportParams

OLLAMA_CONTEXT = 4096
"""Maximum context in Ollama unless the user configures more: every token takes memory."""


@dataclass(frozen=True)
class ExportPlan:
    """A checked export."""

    source: ExportSource
    params: ExportParams
    quant: str
    path: Path
    only_adapter: bool
    weights: Weights
    """The weights to write: the source's, merged with its adapter and pruned."""

    @property
    def format(self) -> str:
        if self.params.to == "hf":
            return "hf"
        return "gguf-adapter" if self.only_adapter else "gguf"

    @property
    def weights_file(self) -> Path:
        return self.path / WEIGHTS_FILE if self.params.to == "hf" else self.path

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.weights.shapes.values())


def plan_export(ws: Workspace, params: ExportParams) -> ExportPlan:
    """Finds the source and checks the options. Raises BadInput, UsageProblem, ServiceUnreachable."""
    source = find_export_source(ws, params.name)
    # Ollama puts one adapter on a model: on a tag that has one the result is merged.
    one_more = source.base.lora is not None
    tagged = (
        params.to == "ollama" and source.adapter is not None and bool(source.base.ollama_tag) and not one_more
    )
    only_adapter = (params.adapter or tagged) and not params.prune
    command = f"h2q-tui export {params.name} --to {params.to}"
    if params.adapter and source.adapter is None:
        raise UsageProblem(_("{name} is not an adapter").format(name=params.name), hint=command)
    if params.adapter and (params.to == "hf" or params.prune):
        raise UsageProblem(
            _(
                "--adapter works with --to gguf or ollama and without --prune; the adapter itself already is a PEFT directory"
            ),
            hint=f"h2q-tui export {params.name} --to gguf --adapter",
        )
    if params.adapter and one_more:
        raise UsageProblem(
            _("{tag} has an adapter already, and Ollama takes one; without --adapter both are merged").format(
                tag=source.base.ollama_tag
            ),
            hint=command,
        )
    if not 0 <= params.prune < 1:
        raise UsageProblem(_("--prune takes a share from 0 to less than 1"), hint=f"{command} --prune 0.3")
    choices = list(DTYPES) if params.to == "hf" else list(Quant)
    stored = source.base.weight_format.lower()
    default = stored if params.to == "hf" and stored in DTYPES else "bf16" if params.to == "hf" else "f16"
    quant = params.quant or default
    if quant not in choices:
        raise UsageProblem(
            _("--quant takes {choices} with --to {to}, not {value}").format(
                choices=_(", ").join(choices), to=params.to, value=quant
            ),
            hint=f"{command} --quant f16",
        )
    folder = Path(params.output) if params.output else ws.exports
    check_output_parent(folder, hint=f"{command} --output OTHER-FOLDER")
    pruned = f"-pruned{round(100 * params.prune)}" if params.prune else ""
    stem = f"{source.name}{pruned}"
    if params.to == "hf":
        path = folder / f"{stem}-hf"
    else:
        path = folder / f"{stem}{'-adapter' if only_adapter else ''}-{quant}.gguf"
    if path.resolve() in (source.base.path.resolve(), source.adapter):
        raise UsageProblem(
            _("the export would overwrite its source"), hint=f"{command} --output OTHER-FOLDER"
        )
    format_ = "hf" if params.to == "hf" else "gguf"
    if format_ == "hf":
        check_output_folder(path, MODEL_FOLDER, hint=f"{command} --output OTHER-FOLDER")
    else:
        check_output_file(path, hint=f"{command} --output OTHER-FOLDER")
    if is_foreign(path, format_):
        raise BadInput(
            _("the output path exists and is not an export"),
            path=path,
            hint=f"{command} --output OTHER-FOLDER",
        )
    weights = PrunedWeights(source.weights, params.prune) if params.prune else source.weights
    if only_adapter:
        check_gguf_adapter(source.config, source.pairs, Quant(quant))
    elif format_ == "gguf":
        check_gguf_model(source.config, weights.shapes, Quant(quant))
        _vocabulary = source.vocabulary
    return ExportPlan(source, params, quant, path, only_adapter, weights)


def modelfile_of(plan: ExportPlan) -> str:
    return modelfile(
        (plan.source.base.ollama_tag or str(plan.source.base.path)) if plan.only_adapter else str(plan.path),
        adapter=plan.path if plan.only_adapter else None,
        system=plan.params.system or plan.source.base.system,
        parameters=ollama_parameters(plan),
        messages=plan.source.base.messages,
    )


def ollama_parameters(plan: ExportPlan) -> dict[str, Any]:
    """Parameters of the model in Ollama: its context, because Ollama's default differs from the model's."""
    return {"num_ctx": min(context_of(plan.source.config), OLLAMA_CONTEXT)}
