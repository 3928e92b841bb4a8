"""A report as the results and the samples of lm-evaluation-harness, for one of its two models. Imports nothing heavy.

The rows have the keys that `--log_samples` writes (lm_eval/evaluator.py and lm_eval/loggers/evaluation_tracker.py), so
that its viewers read them. Two tasks: the NLL of held-out answers as `loglikelihood_rolling`, and answers to held-out
questions as `generate_until`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from engine.core.chat import Role
from engine.memory.records import Conversation
from engine.validation.report import AnswerPair, CaseScore, ValidationReport

NLL_TASK = "h2q_held_out"
ANSWER_TASK = "h2q_answers"
SIDES = ("base", "new")
_ROLLING = ("bits_per_byte", "byte_perplexity")
_HIGHER = {"bits_per_byte": False, "byte_perplexity": False, "bytes": True}

ReadConversation = Callable[[str], Conversation | None]
"""The conversation with an id; None where memory has it no more."""


def model_folder(name: str) -> str:
    """The folder of a model, its name cleaned as lm-evaluation-harness does; never a hidden one or a parent."""
    cleaned = re.sub(r"[\"<>:/|\\?*\[\]]+", "__", name).lstrip(".")
    return cleaned or "model"


def samples(report: ValidationReport, side: str, read: ReadConversation) -> dict[str, list[dict[str, Any]]]:
    """The rows of each task for the model `side`, "base" or "new"; tasks without rows are left out."""
    rows = {
        NLL_TASK: [_nll_row(n, case, side, read(case.conversation)) for n, case in enumerate(report.cases)],
        ANSWER_TASK: [_answer_row(n, answer, side) for n, answer in enumerate(report.answers)],
    }
    return {task: found for task, found in rows.items() if found}


def results(
    report: ValidationReport, side: str, rows: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """The file `results_<date>.json` that belongs to these rows."""
    score = report.verdict.base if side == "base" else report.verdict.new
    return {
        "results": {task: {"alias": task, **_aggregate(task, found)} for task, found in rows.items()},
        "group_subtasks": {task: [] for task in rows},
        "configs": {
            task: {
                "task": task,
                "output_type": "loglikelihood_rolling" if task == NLL_TASK else "generate_until",
                "num_fewshot": 0,
            }
            for task in rows
        },
        "versions": dict.fromkeys(rows, 1),
        "n-shot": dict.fromkeys(rows, 0),
        "higher_is_better": {
            task: {name: _HIGHER[name] for name in found[0]["metrics"]} for task, found in rows.items()
        },
        "n-samples": {
            task: {"original": len(found), "effective": len(found)} for task, found in rows.items()
        },
        "config": {"model": "h2q-tui", "model_args": f"pretrained={score.name}", "limit": None},
        "date": report.created_at,
        "model_source": "h2q-tui",
        "model_name": score.name,
        "model_name_sanitized": model_folder(score.name),
        "task_hashes": {
            task: _hash("".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in found))
            for task, found in rows.items()
        },
    }


def _nll_row(number: int, case: CaseScore, side: str, conversation: Conversation | None) -> dict[str, Any]:
    turns = conversation.turns if conversation is not None else ()
    doc = {
        "conversation": case.conversation,
        "cluster": case.cluster,
        "messages": [{"role": str(turn.role), "content": turn.text} for turn in turns],
    }
    scored = "\n".join(turn.text for turn in turns if turn.role is Role.ASSISTANT)
    log_likelihood = -(case.base if side == "base" else case.new) * case.bytes
    metrics = {name: [log_likelihood, case.bytes] for name in _ROLLING}
    return _row(number, doc, scored, [scored], [log_likelihood], metrics)


def _answer_row(number: int, answer: AnswerPair, side: str) -> dict[str, Any]:
    given = answer.base if side == "base" else answer.new
    doc = {"question": answer.question, "answer": answer.wanted, "conversation": answer.conversation}
    arguments = [answer.question, {"until": [], "do_sample": True}]
    metrics = {"bytes": len(given.encode("utf-8", "replace"))}
    return _row(number, doc, answer.wanted, arguments, [given], metrics)


def _row(
    number: int,
    doc: dict[str, Any],
    target: str,
    arguments: Sequence[Any],
    responses: Sequence[str | float],
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    said = [str(response) for response in responses]
    return {
        "doc_id": number,
        "doc": doc,
        "target": target,
        "arguments": {"gen_args_0": {f"arg_{n}": value for n, value in enumerate(arguments)}},
        "resps": [said],
        "filtered_resps": said[:1],
        "filter": "none",
        "metrics": list(metrics),
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(str(arguments[0])),
        "target_hash": _hash(target),
        **metrics,
    }


def _aggregate(task: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, float | str]:
    if task == NLL_TASK:
        size = sum(row["bits_per_byte"][1] for row in rows) or 1
        nats = -sum(row["bits_per_byte"][0] for row in rows) / size
        figures = {"bits_per_byte": nats / math.log(2), "byte_perplexity": math.exp(min(nats, 700.0))}
    else:
        figures = {"bytes": sum(row["bytes"] for row in rows) / len(rows)}
    found: dict[str, float | str] = {}
    for name, value in figures.items():
        found |= {f"{name},none": value, f"{name}_stderr,none": "N/A"}
    return found


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()
