"""The process of the gate: `python -m engine gate`, with a `GateRequest` as one line of JSON on stdin."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.core.errors import BadInput, H2QError, NotEnoughData, error_text, first_line
from engine.core.filenames import text_to_path
from engine.core.i18n import _, set_language
from engine.core.json_text import encode_json
from engine.core.paths import Workspace
from engine.corpus.dataset import DatasetRow
from engine.hive.child_process import end_with_stdin
from engine.hive.gate import GateAnswer, GateRequest, GateResult
from engine.memory.importers.fields import ImportOptions
from engine.memory.importers.formats import ImportFile, find_importer, import_files
from engine.memory.records import Conversation
from engine.models.base_models import model_path
from engine.models.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from engine.runs.network_guard import loopback_only
from engine.training.lora.files import in_clusters, near_clusters, rows_of
from engine.validation.cases import cut_general, score_cases
from engine.validation.paired import (
    case_scores,
    open_models,
    paired_cases,
    require_better_than_uniform,
    score_general_set,
)
from engine.validation.validate import shipped_texts
from engine.validation.verdict import nll_verdict


def main() -> int:
    """Writes a `GateAnswer` as one line on stdout; exit code 2 when nothing could be compared."""
    line = sys.stdin.buffer.readline()
    end_with_stdin()
    try:
        request = msgspec.json.decode(line, type=GateRequest)
        if request.language:
            set_language(request.language)
        # What libraries print must not come before the answer.
        with contextlib.redirect_stdout(sys.stderr), loopback_only():
            answer = GateAnswer(result=judge(request))
    except H2QError as problem:
        answer = GateAnswer(error=problem.message)
    except OSError as problem:
        answer = GateAnswer(error=error_text(problem))
    except Exception as problem:  # the answer is the only way to the server
        answer = GateAnswer(error=first_line(problem))
    sys.stdout.write(encode_json(answer).decode() + "\n")
    sys.stdout.flush()
    return 0 if answer.result is not None else 2


def judge(request: GateRequest) -> GateResult:
    """The verdict of the candidate against the version in use, or against the base.

    Raises BadInput for what cannot be read, NotEnoughData without a held-out answer.
    """
    started = time.monotonic()
    ws = Workspace(text_to_path(request.workspace))
    held = read_held_out(text_to_path(request.held_out))
    base = model_path(ws, request.base)
    with contextlib.ExitStack() as stack:
        new = stack.enter_context(_on_base(text_to_path(request.candidate), base))
        served = stack.enter_context(_on_base(text_to_path(request.served), base)) if request.served else None
        reference = served or base
        first = base if served is not None else None
        models = open_models(ws, reference, new, first)
        context = min(model.eval_context for model in models)
        cases, new_cases = paired_cases(models[0], models[1], held, context)
        if not cases:
            raise NotEnoughData(_("the held-out conversations have no answer that the models can read"))
        old_nll, new_nll = score_cases(models[0], cases), score_cases(models[1], new_cases)
        require_better_than_uniform(models[0].name, reference, cases, old_nll)
        blocks = cut_general(shipped_texts(), context)
        general = score_general_set(models, blocks, context, "", lambda _tokens: None)
    scores = case_scores(cases, old_nll, new_nll)
    verdict = nll_verdict(
        scores,
        base_name=_("the version in use") if served is not None else _("the base"),
        new_name=_("the candidate"),
        look=request.look,
        general=general,
        failed_base=sum(not math.isfinite(score) for score in old_nll),
        failed_new=sum(not math.isfinite(score) for score in new_nll),
    )
    return GateResult(
        decision=verdict.decision,
        gain=verdict.delta,
        sentence=verdict.sentence,
        n_cases=verdict.n_cases,
        n_groups=verdict.n_groups,
        p_value=verdict.p_value,
        against="served" if served is not None else "base",
        reasons=verdict.reasons,
        seconds=time.monotonic() - started,
    )


def read_held_out(path: Path) -> list[DatasetRow]:
    """The conversations of a file or folder with an answer, near duplicates in one cluster. Raises BadInput."""
    with tempfile.TemporaryDirectory() as scratch:
        rows, _skipped = rows_of(_conversations(path, Path(scratch)))
    return list(in_clusters(rows, near_clusters(rows)).values())


def _conversations(path: Path, scratch: Path) -> Iterator[Conversation]:
    for entry in import_files(path, "auto", scratch):
        if not isinstance(entry, ImportFile):
            if entry.error is not None:
                raise entry.error
            continue
        for item in find_importer(entry.format).read(entry.file.path, ImportOptions()):
            if isinstance(item, Conversation):
                yield item


@contextlib.contextmanager
def _on_base(adapter: Path, base: Path) -> Iterator[Path]:
    """The adapter as one on the operator's own base: its configuration names a path of another machine."""
    try:
        config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise BadInput(_("the adapter's configuration is broken"), path=adapter / ADAPTER_CONFIG) from problem
    with tempfile.TemporaryDirectory() as folder:
        config["base_model_name_or_path"] = str(base)
        (Path(folder) / ADAPTER_CONFIG).write_text(json.dumps(config), encoding="utf-8")
        (Path(folder) / ADAPTER_WEIGHTS).symlink_to((adapter / ADAPTER_WEIGHTS).resolve())
        yield Path(folder)
