"""Speed of `train --mode lora` on SmolLM2-135M against plain PEFT with the Trainer of transformers, in one run.

Both train the same rows for the same steps with the same settings (rank 16, alpha 32, 2e-4 linear, warm-up 5, batch 4), each
in a process of its own; a third process judges both adapters on held-out rows in float32. The program's general set,
checkpoints and GGUF copy are part of its time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench.result import Benchmark, BenchResult, compare
from engine.core.paths import shipped
from tests.smollm2 import smollm2_path

if TYPE_CHECKING:
    from engine.runs.events import JournalRecord

ROWS = 246
"""Conversations; one in ten is held out."""
FULL_STEPS, SHORT_STEPS = 20, 4
OURS = [sys.executable, "-m", "tui.cli.main", "--lang", "en"]
READY_S = 15.0
"""Allowed from the command to the first step."""
HELD_OUT_MARGIN = 1.005
MIN_SHARE_BESIDE = 0.5
MIN_USE = 0.35
MAX_SAMPLES_SHARE = 0.03
POLL_S = 0.5


class TrainedFigures(msgspec.Struct, frozen=True):
    """One training command, from the start of its process."""

    ready_s: float
    """Until its first step begins."""
    whole_s: float
    """Until its adapter is written."""
    cpu_s: float
    """Processor time until then."""
    peak_mb: float
    step_s: float
    """Mean of the steps after the first."""
    adapter: str
    samples_s: float = 0.0
    """Seconds of what the model in training wrote for the person who waits."""


def speed(full: bool) -> list[BenchResult]:
    """Wall time of the whole command, time to the first step, peak memory and held-out loss."""
    gguf = smollm2_path()
    if not gguf.is_file():
        print(f"lora.speed skipped: {gguf} is not there (python -m tests.smollm2)", file=sys.stderr)
        return []
    steps = FULL_STEPS if full else SHORT_STEPS
    load = f"{steps} steps, load {os.getloadavg()[0]:.1f} before"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rows.json").write_text(json.dumps(rows()), encoding="utf-8")
        _child("write", folder, gguf)
        ours = train_ours(folder, gguf, steps, "ours")
        plain = {
            dtype: msgspec.convert(_child(f"plain-{dtype}", folder, gguf, steps), TrainedFigures)
            for dtype in (("bfloat16", "float32") if full else ("bfloat16",))
        }
        dtype, theirs = min(plain.items(), key=lambda one: one[1].whole_s)
        lowest = min(plain.values(), key=lambda one: one.peak_mb)
        loss = _child("judge", folder, gguf, 0, ours.adapter, theirs.adapter)
        limits = _child("limits", folder, gguf)
        how = f"SmolLM2-135M, LoRA r16, {load}; baseline: PEFT and the Trainer of transformers in {dtype}"
        results = [
            compare(
                "lora.command",
                ours=ours.whole_s,
                baseline=theirs.whole_s,
                target=2.0,
                unit="s",
                lower_is_better=True,
                notes=(
                    f"{how}; a step {ours.step_s:.2f} s against {theirs.step_s:.2f} s, "
                    f"processor time {ours.cpu_s:.0f} s against {theirs.cpu_s:.0f} s"
                ),
            ),
            compare(
                "lora.first_step",
                ours=ours.ready_s,
                baseline=READY_S,
                target=1.0,
                unit="s",
                lower_is_better=True,
                notes=f"from the command to the first step; baseline: the limit ({theirs.ready_s:.0f} s with PEFT)",
            ),
            compare(
                "lora.peak",
                ours=ours.peak_mb,
                baseline=lowest.peak_mb,
                target=1 / 0.6,
                unit="MB",
                lower_is_better=True,
                notes="peak of the process; baseline: the smaller of PEFT's",
            ),
            compare(
                "lora.held_out",
                ours=loss["ours"],
                baseline=loss["theirs"],
                target=1 / HELD_OUT_MARGIN,
                unit="nats/token",
                lower_is_better=True,
                notes=f"answers of held-out rows in float32, {loss['base']:.4f} without an adapter; same steps",
            ),
            compare(
                "lora.use",
                ours=limits["step_flop"] / ours.step_s / 1e9,
                baseline=limits["gemm_flops"] / 1e9,
                target=MIN_USE,
                unit="GFLOP/s",
                lower_is_better=False,
                notes="products of a mean step in its time; baseline: the fastest product of this shape alone",
            ),
        ]
        results.append(
            compare(
                "lora.samples",
                ours=max(ours.samples_s, 0.01),
                baseline=MAX_SAMPLES_SHARE * ours.whole_s,
                target=1.0,
                unit="s",
                lower_is_better=True,
                notes="completions for the samples panel; baseline: 3 % of the command",
            )
        )
        if full:
            with _busy():
                beside = train_ours(folder, gguf, steps, "beside")
            results.append(
                compare(
                    "lora.beside",
                    ours=1 / beside.step_s,
                    baseline=1 / ours.step_s,
                    target=MIN_SHARE_BESIDE,
                    unit="steps/s",
                    lower_is_better=False,
                    notes="beside a process that keeps one core busy; baseline: alone",
                )
            )
    return results


def rows() -> list[dict[str, str]]:
    """Alpaca rows from the shipped play: a speech and what is said next."""
    text = (shipped("data") / "sample" / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    speeches = [part.strip() for part in text.split("\n\n") if ":" in part]
    made: list[dict[str, str]] = []
    at = 0
    while len(made) < ROWS:
        at = (at + 5 + len(made) * 7 % 20) % (len(speeches) - 4)
        heard = speeches[at]
        answer = "\n\n".join(speeches[at + 1 : at + 2 + len(made) % 3])
        if 40 < len(heard) < 400 and 40 < len(answer) < 700:
            question = f"Who speaks next, and what?\n\n{heard}"
            made.append({"instruction": question, "input": "", "output": answer})
    return made


def train_ours(folder: Path, gguf: Path, steps: int, name: str) -> TrainedFigures:
    """Runs the program's own command. Its training part ends when the stage of that name does."""
    from engine.runs.events import CheckpointWritten, ModelSample, Step

    workspace = folder / name
    began, epoch = time.perf_counter(), time.time()
    process = subprocess.Popen(
        [
            *OURS, "--data-dir", str(workspace), "train", "--mode", "lora", "--model", str(gguf),
            "--data", str(folder / "rows.json"), "--max-steps", str(steps), "--min-corpus", "1",
            # PEFT does not hold its adapter to the base: the same work on both sides.
            "--set", "lora_hold=0",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    records = _until_adapter(process, workspace)
    # The comparison on held-out rows, which follows, is no part of the training.
    os.kill(process.pid, signal.SIGTERM)
    output = process.stdout.read().decode()
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    finished = [record.t for record in records if _is_end(record)]
    if not finished:
        raise RuntimeError(f"after {time.perf_counter() - began:.0f} s: {output[-500:]}")
    whole = finished[0]
    done = [(record.t, record.event) for record in records if isinstance(record.event, Step)]
    first_ts, first = done[0]
    # The last thing before the first step.
    ready = next(record.t for record in records if isinstance(record.event, CheckpointWritten))
    last_ts, last = done[-1]
    (adapter,) = workspace.glob("**/adapter_config.json")
    return TrainedFigures(
        ready_s=ready - epoch,
        whole_s=whole - epoch,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss / 1024,
        step_s=(last_ts - first_ts) / max(1, last.step - first.step),
        adapter=str(adapter.parent),
        samples_s=sum(record.event.seconds for record in records if isinstance(record.event, ModelSample)),
    )


def _until_adapter(process: subprocess.Popen[bytes], workspace: Path) -> list[JournalRecord]:
    """The records of the run until its adapter is written, or the process ends."""
    from engine.runs.journal import JournalReader

    reader: JournalReader | None = None
    records: list[JournalRecord] = []
    while True:
        # Not `poll`: the resources that the process has used are asked for when it is waited for.
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        if reader is None and (journals := list(workspace.glob("runs/*/events.jsonl"))):
            reader = JournalReader(journals[0])
        records += reader.poll() if reader is not None else []
        if ended or any(map(_is_end, records)):
            return records
        time.sleep(POLL_S)


def _is_end(record: JournalRecord) -> bool:
    from engine.runs.events import StageChanged

    event = record.event
    return isinstance(event, StageChanged) and (event.name, event.state) == ("lora", "done")


class _busy:
    """A process that keeps one core busy."""

    def __enter__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", "while True: pass"])

    def __exit__(self, *_problem: object) -> None:
        self._process.kill()
        self._process.wait()


def _child(what: str, folder: Path, gguf: Path, steps: int = 0, *adapters: str) -> dict[str, Any]:
    """Runs this module in a separate process; returns its last line of output."""
    command = [sys.executable, "-m", "bench.lora_speed", what, str(folder), str(gguf), str(steps), *adapters]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"BENCH_BEGAN": str(time.time())},
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-500:] or what)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _write(folder: Path, gguf: Path) -> dict[str, Any]:
    """The base as a Hugging Face directory in float32, for PEFT."""
    import torch

    from engine.models.gguf.model import open_gguf

    model = open_gguf(gguf)
    loaded: Any = model.load(torch.float32)
    loaded.save_pretrained(folder / "base")
    model.tokenizer().save_pretrained(folder / "base")
    return {}


def _tokenized(folder: Path, tokenizer: Any, rows: list[dict[str, Any]]) -> list[dict[str, list[int]]]:
    """Ids and labels of conversations, on the answer and its end."""
    found = []
    for row in rows:
        talk = [{"role": one["role"], "content": one["content"]} for one in row["messages"]]
        ids = tokenizer.apply_chat_template(talk, tokenize=True, return_dict=False)
        before = tokenizer.apply_chat_template(
            talk[:-1], tokenize=True, add_generation_prompt=True, return_dict=False
        )
        end = len(ids) - 1  # the line break behind <|im_end|>
        labels = [-100] * len(before) + ids[len(before) : end] + [-100] * (len(ids) - end)
        found.append({"input_ids": ids, "labels": labels})
    return found


def _split(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows that the program trained on, and those that it held out."""
    (path,) = (folder / "ours").glob("training/train_data_*.jsonl")
    train = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    known = {row["messages"][0]["content"].strip() for row in train}
    held = [
        {
            "messages": [
                {"role": "user", "content": row["instruction"]},
                {"role": "assistant", "content": row["output"]},
            ]
        }
        for row in json.loads((folder / "rows.json").read_text(encoding="utf-8"))
        if row["instruction"].strip() not in known
    ]
    return train, held


def _plain(folder: Path, dtype: str, steps: int) -> dict[str, Any]:
    """What a person would write instead."""
    began = float(os.environ["BENCH_BEGAN"])
    import resource

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    set_seed(0)
    auto: Any = AutoModelForCausalLM
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    model: Any = auto.from_pretrained(folder / "base", dtype=getattr(torch, dtype))
    config = LoraConfig(
        task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear"
    )
    model = get_peft_model(model, config)
    data = _tokenized(folder, tokenizer, _split(folder)[0])
    begins: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_all: Any, **_more: Any) -> None:
            begins.append(time.time())

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, Any]:
        length = max(len(one["input_ids"]) for one in batch)

        def padded(values: list[list[int]], fill: int) -> Any:
            return torch.tensor([one + [fill] * (length - len(one)) for one in values])

        return {
            "input_ids": padded([one["input_ids"] for one in batch], 2),
            "labels": padded([one["labels"] for one in batch], -100),
            "attention_mask": padded([[1] * len(one["input_ids"]) for one in batch], 0),
        }

    make: Any = Trainer
    trainer = make(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder / "trainer"),
            max_steps=steps,
            per_device_train_batch_size=4,
            learning_rate=2e-4,
            lr_scheduler_type="linear",
            warmup_steps=5,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            seed=0,
            weight_decay=0.0,
            max_grad_norm=1.0,
        ),
        train_dataset=data,
        data_collator=collate,
        callbacks=[Clock()],
    )
    trainer.train()
    ended = time.time()
    out = folder / f"plain-{dtype}"
    model.save_pretrained(out)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures: dict[str, Any] = msgspec.to_builtins(
        TrainedFigures(
            ready_s=begins[0] - began,
            whole_s=time.time() - began,
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_mb=usage.ru_maxrss / 1024,
            step_s=(ended - begins[1]) / max(1, len(begins) - 1),
            adapter=str(out),
        )
    )
    return figures


def _judge(folder: Path, ours: str, theirs: str) -> dict[str, Any]:
    """Mean loss per token of the held-out answers, by plain PEFT in float32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    auto: Any = AutoModelForCausalLM
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    data = _tokenized(folder, tokenizer, _split(folder)[1])
    found = {}
    for name, adapter in (("base", ""), ("ours", ours), ("theirs", theirs)):
        model: Any = auto.from_pretrained(folder / "base", dtype=torch.float32)
        if adapter:
            model = PeftModel.from_pretrained(model, adapter)
        model.eval()
        total = count = 0.0
        for row in data:
            labels = torch.tensor([row["labels"]])
            with torch.no_grad():
                loss = model(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss
            tokens = int((labels[:, 1:] != -100).sum())
            total, count = total + float(loss) * tokens, count + tokens
        found[name] = total / count
    return found


def _limits(folder: Path) -> dict[str, Any]:
    """FLOP of a mean step, and the rate of the fastest product of its largest layer."""
    import torch
    import torch.nn.functional as F
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder / "base")
    data = _tokenized(folder, AutoTokenizer.from_pretrained(folder / "base"), _split(folder)[0])
    tokens = 4 * sum(len(row["input_ids"]) for row in data) / len(data)
    trained = 4 * sum(sum(label != -100 for label in row["labels"]) for row in data) / len(data)
    hidden, ffn = config.hidden_size, config.intermediate_size
    key = config.num_key_value_heads * config.head_dim
    shapes = [
        (hidden, hidden),
        (hidden, key),
        (hidden, key),
        (hidden, hidden),
        (hidden, ffn),
        (hidden, ffn),
        (ffn, hidden),
    ]
    body = config.num_hidden_layers * sum(one * two for one, two in shapes)
    adapter = config.num_hidden_layers * 16 * sum(one + two for one, two in shapes)
    # Forward and input gradients; of the adapter the weights' gradients, too.
    flop = tokens * (4 * body + 6 * adapter) + trained * 4 * hidden * config.vocab_size
    x, weight = torch.randn(int(tokens), hidden), torch.randn(ffn, hidden)
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        one, two = x.to(dtype), weight.to(dtype)
        times = []
        for _round in range(30):
            begin = time.perf_counter()
            F.linear(one, two)
            times.append(time.perf_counter() - begin)
        rates.append(2 * x.numel() * ffn / min(times))
    return {"step_flop": flop, "gemm_flops": max(rates)}


BENCHMARKS = (
    Benchmark("lora.speed", "LoRA on SmolLM2-135M against PEFT and the Trainer of transformers", speed, 100),
)

if __name__ == "__main__":
    action, where, base, count, *paths = sys.argv[1:]
    match action.partition("-"):
        case "write", _, _:
            result = _write(Path(where), Path(base))
        case "plain", _, dtype_name:
            result = _plain(Path(where), dtype_name, int(count))
        case "judge", _, _:
            result = _judge(Path(where), *paths)
        case _:
            result = _limits(Path(where))
    print(json.dumps(result))
