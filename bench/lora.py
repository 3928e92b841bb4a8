"""Memory of LoRA: a random model with the dimensions of Qwen2.5 0.5 B, trained by the product in a separate
process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench.result import Benchmark, BenchResult, compare

VOCAB = 151_936
LIMIT_MB = 2560.0
"""2.5 GB."""
LENGTH = 512
STEPS = 3


@dataclass(frozen=True)
class RandomBaseShape:
    """Dimensions of a random Qwen2 with tied embeddings."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int


HALF_BILLION = RandomBaseShape(hidden=896, layers=24, heads=14, kv_heads=2, ffn=4864)
SMALL = RandomBaseShape(hidden=256, layers=4, heads=4, kv_heads=2, ffn=768)


def memory(full: bool) -> list[BenchResult]:
    """Peak of the whole process: loading, tokenizer, rendering, steps, the checkpoint and the adapter's
    files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _child("write", folder, HALF_BILLION if full else SMALL)
        if full:
            ours = _child("train", folder, HALF_BILLION)
            return [
                compare(
                    "lora.memory",
                    ours=ours["peak_mb"],
                    baseline=LIMIT_MB,
                    target=1.0,
                    unit="MB",
                    lower_is_better=True,
                    notes=(
                        f"0.5 B bf16 base, rank 16 on every linear layer, 1 x {LENGTH}, {ours['steps']} steps at "
                        f"{ours['tokens_per_s']:.0f} tokens/s; the limit is 2.5 GB, the process sampled every 10 ms"
                    ),
                )
            ]
        ours, whole = _child("train", folder, SMALL), _child("train-whole", folder, SMALL)
        return [
            compare(
                "lora.memory",
                ours=ours["peak_mb"],
                baseline=whole["peak_mb"],
                target=1.15,
                unit="MB",
                lower_is_better=True,
                notes=f"small base with a vocabulary of {VOCAB:,}, 1 x {LENGTH}; baseline holds all logits at once",
            )
        ]


def _child(what: str, folder: Path, shape: RandomBaseShape) -> dict[str, float]:
    """Runs this module in a separate process; returns its last line of output."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.lora", what, str(folder), json.dumps(msgspec.to_builtins(shape))],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else what)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _write(folder: Path, shape: RandomBaseShape) -> dict[str, float]:
    """The base: random weights in bf16 and a byte-level BPE of Qwen's size."""
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
        dtype=torch.bfloat16,
    )
    make: Any = Qwen2ForCausalLM
    torch.set_default_dtype(torch.bfloat16)
    make(config).save_pretrained(folder / "base")
    wrapped: Any = PreTrainedTokenizerFast
    wrapped(
        tokenizer_object=_tokenizer(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=(
            "{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] "
            "+ '<|im_end|>' + '\\n' }}{%- endfor %}"
            "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
        ),
    ).save_pretrained(folder / "base")
    talk = [
        {"role": "user", "content": "Tell me everything."},
        {"role": "assistant", "content": "The quick brown fox jumps over the lazy dog. " * 400},
    ]
    rows = (json.dumps({"id": f"c{n}", "cluster": f"k{n}", "messages": talk}) for n in range(STEPS))
    (folder / "data.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return {}


def _tokenizer() -> Any:
    """As many tokens and merges as Qwen's, so that it takes as much memory."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [(one, two) for one in letters for two in letters]
    triples = [(pair[0] + pair[1], one) for pair in pairs[: len(pairs) // 2] for one in letters[:3]]
    merges = [*pairs, *triples][: VOCAB - 300 - len(letters)]
    words = [*letters, *(one + two for one, two in merges)]
    tokenizer = Tokenizer(
        models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=merges)
    )
    byte_level: Any = pre_tokenizers.ByteLevel
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in special])
    return tokenizer


def _train(folder: Path, *, whole: bool) -> dict[str, float]:
    """Trains as `train --mode lora` does; peak of this process in MB, loading included."""
    peak = _ResidentPeak()
    from engine.core.paths import Workspace
    from engine.models import adapters
    from engine.models.base_models import find_base
    from engine.models.card import Lineage
    from engine.runs.context import RunContext
    from engine.runs.events import Step
    from engine.runs.journal import JournalReader, JournalWriter
    from engine.runs.kinds import TrainMode, TrainParams
    from engine.runs.rundir import RunDir
    from engine.runs.spec import encode_spec, make_spec
    from engine.training.lora import train
    from engine.training.recipe import Phase, recipe_for

    if whole:
        # The baseline: a plain cross-entropy over all logits.
        adapters.has_linear_head = lambda model: False  # type: ignore[attr-defined]

    @dataclass(frozen=True)
    class BenchDataset:
        path: Path
        lineage: Lineage

    ws = Workspace(folder / ("whole" if whole else "ws"))
    params = TrainParams(
        mode=TrainMode.LORA,
        context=LENGTH,
        batch_size=1,
        epochs=1,
        max_steps=STEPS,
        four_bit=False,
        # With the default budget a CPU without fast bf16 would load the base in float32.
        max_memory_gb=LIMIT_MB / 1024,
    )
    spec = make_spec(ws.root, params)
    spec.folder.mkdir(parents=True)
    (spec.folder / "spec.json").write_bytes(encode_spec(spec))
    run_dir = RunDir(spec.folder)
    ctx = RunContext(run_dir, JournalWriter(run_dir.events_path))
    train.train_lora(
        ctx,
        recipe_for(params, Phase.LORA),
        find_base(ws, str(folder / "base")),
        BenchDataset(folder / "data.jsonl", Lineage()),
        name="adapter",
        out=ws.adapters / "adapter",
    )
    records = JournalReader(run_dir.events_path).poll()
    steps = [record.event for record in records if isinstance(record.event, Step)]
    reported = max(
        (record.event.peak_mb for record in records if hasattr(record.event, "peak_mb")), default=0.0
    )
    return {
        "peak_mb": max(peak.mb, reported),
        "steps": float(len(steps)),
        "tokens_per_s": steps[-1].tokens_per_s if steps else 0.0,
    }


class _ResidentPeak:
    """Peak resident memory of this process, sampled every 10 ms."""

    def __init__(self) -> None:
        self.mb = 0.0
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        import psutil

        process = psutil.Process()
        while True:
            self.mb = max(self.mb, process.memory_info().rss / 2**20)
            time.sleep(0.01)


BENCHMARKS = (
    Benchmark("lora.memory", "LoRA on a 0.5 B base of bf16 at 1 x 512: the peak of its process", memory, 40),
)

if __name__ == "__main__":
    action, where, form = sys.argv[1:]
    result = (
        _write(Path(where), msgspec.convert(json.loads(form), RandomBaseShape))
        if action == "write"
        else _train(Path(where), whole=action == "train-whole")
    )
    print(json.dumps(result))
