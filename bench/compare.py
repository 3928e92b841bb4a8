"""Two checkouts side by side: what a change that must not change results leaves identical.

`python -m bench.compare OLD NEW [--only STAGE …]` runs the same commands in both checkouts, with the same
interpreter, in fresh workspaces, and compares the loss curves of a fixed seed, the dataset hashes, the figures
of the verdicts and the bytes of the exports. Exit code 1 when anything differs.

Threads, number format and kernels are fixed, because a run otherwise chooses them by timing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CHILD = """
import importlib, importlib.util, sys

def first(*names):
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise SystemExit(f"none of {names}")

import torch
autotune = first("engine.training.autotune", "engine.training.tuning")
devices = first("engine.training.devices")

def tune(width, threads, **_):
    torch.set_num_threads(1)
    tuning = getattr(autotune, "CpuTuning", None) or autotune.Tuning
    return tuning(threads=1, bf16=False, fused=True, reason="fixed")

devices.tune = devices.tune_cpu = tune
devices.usable_cores = devices.physical_cores = lambda: 1
main = first("tui.cli.main", "tui.cli").main
sys.argv = ["h2q-tui", *sys.argv[1:]]
sys.exit(main())
"""
TINY_BASE = """
import sys, torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

torch.manual_seed(0)
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
special = ["<|im_start|>", "<|im_end|>"]
vocabulary = {token: number for number, token in enumerate([*alphabet, *special])}
tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.add_special_tokens(special)
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
fast.chat_template = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
fast.save_pretrained(sys.argv[1])
config = Qwen3Config(
    vocab_size=len(vocabulary), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=2048, tie_word_embeddings=True,
    eos_token_id=vocabulary["<|im_end|>"], bos_token_id=None, pad_token_id=None,
)
torch.set_num_threads(1)
model = Qwen3ForCausalLM(config)
text = open(sys.argv[2], encoding="utf-8").read()[: 1 << 16]
ids = torch.tensor(fast(text)["input_ids"])
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for step in range(150):
    rows = torch.stack([ids[n : n + 128] for n in range(step * 97 % 5000, step * 97 % 5000 + 8 * 2000, 2000)])
    loss = model(input_ids=rows, labels=rows).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
model.save_pretrained(sys.argv[1])
"""
STAGES: dict[str, list[list[str]]] = {
    "demo": [["--data-dir", "{ws}", "--lang", "zh", "demo", "--steps", "12"]],
    "corpus": [["--data-dir", "{ws}", "corpus", "export", "--format", "messages", "--output", "{out}/messages.jsonl"]],
    "scratch": [
        ["--data-dir", "{ws}", "train", "--mode", "scratch", "--run-once", "--max-steps", "16", "--seed", "3",
         "--no-promote"],
    ],
    "native": [
        ["--data-dir", "{ws}", "train", "--mode", "native", "--run-once", "--max-steps", "8", "--seed", "5",
         "--no-promote"],
    ],
    "lora": [
        ["--data-dir", "{ws}", "train", "--mode", "lora", "--model", "{base}", "--run-once", "--max-steps", "6",
         "--seed", "7", "--no-promote", "--context", "512"],
    ],
    "evolve": [["--data-dir", "{ws}", "evolve", "--cycles", "1", "--max-steps", "6"]],
    "export": [
        ["--data-dir", "{ws}", "export", "{model}", "--to", "hf", "--output", "{out}/hf"],
        ["--data-dir", "{ws}", "export", "{model}", "--to", "gguf", "--quant", "f16", "--no-measure", "--output", "{out}/f16.gguf"],
        ["--data-dir", "{ws}", "export", "{model}", "--to", "gguf", "--quant", "q8_0", "--no-measure", "--output", "{out}/q8_0.gguf"],
        ["--data-dir", "{ws}", "export", "{model}", "--to", "gguf", "--quant", "q4_0", "--no-measure", "--output", "{out}/q4_0.gguf"],
    ],
}  # fmt: skip
"""Commands of each stage; they build on each other, so `--only` keeps the demo."""

FIGURES = {
    "step": ("loss", "lr", "grad_norm", "tokens"),
    "evaluated": ("name", "loss"),
    "epoch": ("train_loss",),
}
"""What of a journal's records must be equal, field by field."""
RUN_ID = re.compile(rb"\d{4}-\d{6}-[0-9a-f]{2}")
WORKSPACE = re.compile(rb"[^\"\s]*/(?:old|new)/workspace")
CYCLE = re.compile(r"evolve-\d{4}-\d{4}")
UNSTABLE = re.compile(
    r"seconds|created|sha256|_s$|time|stamp|date|^t$|path|backup|report|run_id|peak|memory|id$|host|pid"
)


@dataclass
class Evidence:
    """What one checkout produced: name of the evidence → hash or figures, in the order of the stages."""

    found: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def main() -> int:
    """Runs both checkouts and prints one line for each piece of evidence."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", nargs="*", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--keep", type=Path, help="folder for the workspaces; kept afterwards")
    options = parser.parse_args()
    stages = [name for name in STAGES if name == "demo" or name in options.only]
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        base = folder / "base"
        if not base.exists():
            text = ROOT / "data" / "sample" / "text" / "crosswoz.txt"
            subprocess.run([sys.executable, "-c", TINY_BASE, str(base), str(text)], check=True)
        old, new = (
            gather_once(checkout.resolve(), folder / name, base, stages)
            for name, checkout in (("old", options.old), ("new", options.new))
        )
    return report(old, new)


def gather_once(checkout: Path, folder: Path, base: Path, stages: list[str]) -> Evidence:
    """`gather`, or what an earlier call with the same `--keep` folder gathered."""
    kept = folder / "evidence.json"
    if not kept.exists():
        evidence = gather(checkout, folder, base, stages)
        kept.write_text(json.dumps(vars(evidence), indent=1), encoding="utf-8")
    return Evidence(**json.loads(kept.read_text(encoding="utf-8")))


def gather(checkout: Path, folder: Path, base: Path, stages: list[str]) -> Evidence:
    """Runs the stages in `checkout` and collects what they left under `folder`."""
    evidence = Evidence()
    for stage in stages:
        for number, command in enumerate(STAGES[stage]):
            workspace, out = folder / "workspace", folder / "out"
            out.mkdir(parents=True, exist_ok=True)
            values = {"ws": workspace, "out": out, "base": base, "model": native_model(workspace)}
            done = subprocess.run(
                [sys.executable, "-c", CHILD, *(word.format(**values) for word in command)],
                cwd=checkout,
                env={**os.environ, "PYTHONPATH": str(checkout), "LC_ALL": "C.UTF-8"},
                capture_output=True,
                text=True,
                check=False,
            )
            evidence.found[f"{stage} {number}: exit code"] = done.returncode
            if done.returncode:
                evidence.failed.append(f"{checkout} {stage} {number}: {done.stderr[-2000:]}")
    evidence.found.update(journals(folder / "workspace"))
    evidence.found.update(datasets(folder / "workspace"))
    evidence.found.update(exports(folder / "out"))
    evidence.found.update(weights(folder / "workspace"))
    return evidence


def native_model(workspace: Path) -> str:
    """The native model that the demo trained; "" before it has."""
    names = sorted(path.name for path in (workspace / "models").glob("native-*"))
    return names[0] if names else ""


def journals(workspace: Path) -> Iterator[tuple[str, Any]]:
    """Loss curves and verdicts of every run, in the order of their start."""
    runs = sorted((workspace / "runs").glob("*/events.jsonl"), key=lambda path: path.stat().st_ctime_ns)
    runs.sort(key=lambda path: json.loads(path.open(encoding="utf-8").readline() or "{}").get("t", 0.0))
    for number, path in enumerate(runs):
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        kind = json.loads((path.parent / "spec.json").read_text(encoding="utf-8")).get("params", {})
        label = f"run {number} ({kind.get('kind') or kind.get('type') or kind.get('mode') or '?'})"
        for record, fields in FIGURES.items():
            rows = [
                [entry["data"].get(name) for name in fields] for entry in records if entry["kind"] == record
            ]
            if rows:
                yield f"{label}: {len(rows)} × {record}", rows
        for entry in records:
            if entry["kind"] == "verdict":
                yield f"{label}: verdict", stable(entry["data"]["verdict"])
            if entry["kind"] == "funnel":
                yield f"{label}: funnel", entry["data"]


def stable(value: Any) -> Any:
    """`value` without what differs from run to run: times, paths, sentences, the names of cycles."""
    if isinstance(value, dict):
        return {
            key: stable(entry)
            for key, entry in value.items()
            if not UNSTABLE.search(key) and key not in ("sentence", "reasons")
        }
    if isinstance(value, str):
        return CYCLE.sub("evolve", value)
    return [stable(entry) for entry in value] if isinstance(value, list) else value


def datasets(workspace: Path) -> Iterator[tuple[str, str]]:
    """Hashes of the training files, in the order in which they were written."""
    files = sorted((workspace / "training").glob("train_data_*.jsonl"))
    for number, path in enumerate(files):
        yield f"dataset {number}", digest(path)


def exports(out: Path) -> Iterator[tuple[str, str]]:
    """Hashes of the exported files; reports carry times and are left out."""
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        if "report" not in path.name:
            yield f"export {path.relative_to(out)}", digest(path)


def weights(workspace: Path) -> Iterator[tuple[str, str]]:
    """Hashes of the weights of every model and adapter."""
    for folder in ("models", "adapters"):
        for number, path in enumerate(sorted((workspace / folder).rglob("*.safetensors"))):
            yield f"weights {folder} {number}", digest(path)


def digest(path: Path) -> str:
    """The first 16 hexadecimal digits of the sha256 of the file, without what names the run and its folder."""
    data = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        lines = data.splitlines() if path.suffix == ".jsonl" else [data]
        data = b"\n".join(json.dumps(stable(json.loads(line)), sort_keys=True).encode() for line in lines)
        data = WORKSPACE.sub(b"WORKSPACE", data)
    return sha256(RUN_ID.sub(b"RUN", data)).hexdigest()[:16]


def report(old: Evidence, new: Evidence, show: Callable[[str], None] = print) -> int:
    """One line for each piece of evidence; 1 when any differs or a command failed in one checkout alone."""
    different = 0
    for name in dict.fromkeys([*old.found, *new.found]):
        before, after = old.found.get(name), new.found.get(name)
        same = before == after
        different += not same
        show(
            f"{'same     ' if same else 'DIFFERENT'} {name}" + ("" if same else f": {before} → {after}"[:600])
        )
    for failure in (*old.failed, *new.failed):
        show(f"failed: {failure}")
    show(f"{len(old.found)} pieces of evidence, {different} different")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
