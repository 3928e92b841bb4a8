"""Exported GGUF files in llama.cpp: logits, token ids, answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput
from engine.core.paths import shipped
from engine.export.gguf_writer import write_gguf_adapter, write_gguf_model
from engine.export.llama_cpp import LlamaCpp
from engine.export.quant import Quant, type_for
from engine.export.vocabulary import plain_template
from engine.models import chatml
from engine.models.gguf.file import read_gguf
from engine.models.gguf.model import open_gguf
from engine.models.weights import PrunedWeights, SafetensorsWeights
from tests.export_models import (
    LLAMA3_ROPE,
    TALK,
    YARN,
    difference,
    llama_answer,
    log_probabilities,
    source_of,
    write_arch,
    write_gguf,
)
from tests.hf_models import GENERATION, KNOWN, tiny_tokenizer, write_hf
from tests.models import talk, write_tiny


def hf(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    make: Any = AutoModelForCausalLM
    return make.from_pretrained(folder, local_files_only=True).eval()


def conversations(count: int = 20) -> list[list[ChatMessage]]:
    lines = (
        (shipped("data") / "sample" / "memory" / "crosswoz.jsonl").read_text(encoding="utf-8").splitlines()
    )
    return [
        [ChatMessage(role=m["role"], content=m["content"]) for m in json.loads(line)["messages"][:3]]
        for line in lines[:count]
    ]


@pytest.mark.parametrize(
    ("arch", "tied", "rope"),
    [("qwen2", False, YARN), ("qwen3", True, None), ("llama", False, LLAMA3_ROPE), ("llama", True, None)],
)
def test_logits_in_llama_cpp_match_torch(
    tmp_path: Path, arch: str, tied: bool, rope: dict[str, Any] | None
) -> None:
    folder = write_arch(tmp_path / "model", arch, tied=tied, rope=rope)
    ids = tiny_tokenizer()(TALK)["input_ids"]
    expected = log_probabilities(hf(folder), ids)
    for quant, allowed in ((Quant.F32, 1e-4), (Quant.F16, 1e-2)):
        path = write_gguf(tmp_path / f"{quant}.gguf", folder, quant)
        with LlamaCpp(path) as served:
            assert served.tokenize(TALK) == ids
            assert difference(served, expected, ids) < allowed
        read = open_gguf(path)
        assert read.tokenizer()(TALK)["input_ids"] == ids
        # Half precision rounds the weights before llama.cpp sees them.
        assert float((log_probabilities(read.load(torch.float32), ids) - expected).abs().max()) < allowed


@pytest.mark.parametrize("quant", [Quant.Q8_0, Quant.Q4_0])
def test_dequantized_weights_match_those_of_llama_cpp(tmp_path: Path, quant: Quant) -> None:
    folder = write_arch(tmp_path / "model", "llama")
    path = write_gguf(tmp_path / "model.gguf", folder, quant)
    ids = tiny_tokenizer()(TALK)["input_ids"]
    with LlamaCpp(path) as served:
        # llama.cpp rounds activations to eight bits too; another order of blocks would differ by whole nats.
        assert difference(served, log_probabilities(open_gguf(path).load(torch.float32), ids), ids) < 0.25


def test_a_trained_answer_is_reproduced_in_llama_cpp(knowing_hf: Path, tmp_path: Path) -> None:
    model, tokenizer = hf(knowing_hf), tiny_tokenizer()
    for quant in (Quant.F16, Quant.Q8_0):
        path = write_gguf(tmp_path / f"{quant}.gguf", knowing_hf, quant)
        with LlamaCpp(path) as served:
            for question, answer in KNOWN:
                asked = [{"role": "user", "content": question}]
                prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
                assert served.template(asked) == prompt
                ids = tokenizer(prompt, return_tensors="pt")
                said = model.generate(**ids, max_new_tokens=40, do_sample=False)[
                    0, ids["input_ids"].shape[1] :
                ]
                expected = tokenizer.decode(said, skip_special_tokens=True)
                assert expected == answer
                assert llama_answer(served, asked) == expected


def test_a_native_model_answers_in_llama_cpp_as_in_torch(knowing: Path, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "native.gguf", knowing, Quant.F16)
    ids = chatml.render(talk("你叫什么？", "我是小Q。")).ids
    with LlamaCpp(path) as served:
        assert llama_answer(served, [{"role": "user", "content": "你叫什么？"}]) == "我是小Q。"
        assert llama_answer(served, [{"role": "user", "content": "Two and two?"}]) == "Four."
        assert difference(served, log_probabilities(hf(knowing), ids), ids) < 1e-2
        for messages in conversations():
            asked = [{"role": m.role, "content": m.content} for m in messages]
            ours = chatml.render(messages, add_generation_prompt=True).ids
            assert served.tokenize(served.template(asked)) == ours


def test_twenty_conversations_have_the_same_ids_in_llama_cpp(tmp_path: Path) -> None:
    from engine.models.chat_template import ChatTemplate

    path = write_gguf(tmp_path / "model.gguf", write_arch(tmp_path / "model", "qwen3"))
    chat = ChatTemplate(tiny_tokenizer())
    with LlamaCpp(path) as served:
        for messages in conversations():
            asked = [{"role": m.role, "content": m.content} for m in messages]
            assert served.tokenize(served.template(asked)) == chat.prompt(messages)


@pytest.mark.parametrize(("arch", "rslora"), [("qwen2", True), ("qwen3", False), ("llama", False)])
def test_an_adapter_changes_logits_in_llama_cpp_as_in_torch(tmp_path: Path, arch: str, rslora: bool) -> None:
    from peft import LoraConfig, get_peft_model

    folder = write_arch(tmp_path / "base", arch)
    ids = tiny_tokenizer()(TALK)["input_ids"]
    before = log_probabilities(hf(folder), ids)
    make: Any = get_peft_model
    adapted = make(
        hf(folder),
        LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", use_rslora=rslora, task_type="CAUSAL_LM",
                   rank_pattern={"q_proj": 8}, alpha_pattern={"v_proj": 3}),
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.05)
    adapted.save_pretrained(tmp_path / "adapter")
    expected = log_probabilities(adapted.eval(), ids)
    assert float((expected - before).abs().max()) > 0.1

    source = source_of(tmp_path / "adapter")
    base = write_gguf(tmp_path / "base.gguf", folder)
    alone = tmp_path / "adapter.gguf"
    write_gguf_adapter(alone, source.config, source.pairs, Quant.F16, name="adapter")
    with LlamaCpp(base, adapter=alone) as served:
        assert difference(served, expected, ids) < 1e-2
    with LlamaCpp(write_gguf(tmp_path / "merged.gguf", tmp_path / "adapter")) as served:
        assert difference(served, expected, ids) < 1e-3


def test_a_trained_answer_of_an_adapter_is_reproduced_in_llama_cpp(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    folder, tokenizer = write_hf(tmp_path / "base"), tiny_tokenizer()
    question, answer = KNOWN[1]
    text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    make: Any = get_peft_model
    torch.manual_seed(0)
    adapted = make(
        hf(folder), LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=2e-2)
    for _step in range(40):
        adapted(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.save_pretrained(tmp_path / "adapter")
    source = source_of(tmp_path / "adapter")
    base = write_gguf(tmp_path / "base.gguf", folder, Quant.F16)
    write_gguf_adapter(tmp_path / "adapter.gguf", source.config, source.pairs, Quant.F16, name="adapter")
    asked = [{"role": "user", "content": question}]
    with LlamaCpp(base) as served:
        assert llama_answer(served, asked, limit=20) != answer
    with LlamaCpp(base, adapter=tmp_path / "adapter.gguf") as served:
        assert llama_answer(served, asked) == answer
    with LlamaCpp(write_gguf(tmp_path / "merged.gguf", tmp_path / "adapter", Quant.Q8_0)) as served:
        assert llama_answer(served, asked) == answer


def test_generation_tags_do_not_change_the_prompt() -> None:
    import jinja2

    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    plain = plain_template(GENERATION)
    assert plain is not None
    assert "generation %}" not in plain
    expected = tiny_tokenizer(GENERATION).apply_chat_template(messages, tokenize=False)
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    assert environment.from_string(plain).render(messages=messages) == expected
    assert plain_template("{%- endgeneration -%}") == "{%- endif -%}"


def test_the_file_has_lineage_metadata(tmp_path: Path) -> None:
    card = write_tiny(tmp_path / "native-1", [talk("a", "b")], steps=1, base="scratch-1")
    metadata = read_gguf(write_gguf(tmp_path / "m.gguf", tmp_path / "native-1")).metadata
    assert metadata["general.name"] == "native-1"
    assert metadata["general.base_model.0.name"] == metadata["h2q.base"] == "scratch-1"
    assert metadata["h2q.weights_sha256"] == card.weights_sha256


def test_the_output_matrix_keeps_eight_bits() -> None:
    assert type_for(Quant.Q4_0, "output.weight", (8, 64), tied=False).name == "Q8_0"
    assert type_for(Quant.Q4_0, "token_embd.weight", (8, 64), tied=True).name == "Q8_0"
    assert type_for(Quant.Q4_0, "token_embd.weight", (8, 64), tied=False).name == "Q4_0"
    assert type_for(Quant.Q4_0, "blk.0.ffn_up.weight", (8, 48), tied=False).name == "F16"
    assert type_for(Quant.Q4_0, "output_norm.weight", (64,), tied=False).name == "F32"


def test_pruning_zeroes_only_the_smallest_weights_of_each_matrix(tmp_path: Path) -> None:
    weights = SafetensorsWeights(write_arch(tmp_path / "model", "qwen3"))
    pruned = PrunedWeights(weights, 0.3)
    for name, shape in weights.shapes.items():
        whole, left = weights.rows(name, 0, shape[0]), pruned.rows(name, 0, shape[0])
        if len(shape) == 2 and ".layers." in name:
            gone = left == 0
            assert abs(float(gone.float().mean()) - 0.3) < 0.01
            assert float(whole[gone].abs().max()) <= float(whole[~gone].abs().min())
            assert torch.equal(pruned.rows(name, 1, 3), left[1:3])
        else:
            assert torch.equal(whole, left)


def test_an_unsupported_model_is_rejected_without_a_file(tmp_path: Path) -> None:
    folder = write_arch(tmp_path / "model", "qwen3")
    source = source_of(folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+"
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BadInput, match="qwen2"):
        _ = source.vocabulary
    source.config.rope_parameters = {"rope_type": "longrope", "rope_theta": 1.0}
    with pytest.raises(BadInput, match="longrope"):
        write_gguf_model(
            tmp_path / "out" / "x.gguf",
            source.config,
            source.weights,
            read_gguf_vocabulary(),
            Quant.F16,
            name="x",
        )
    assert not list(tmp_path.glob("out/*"))


def read_gguf_vocabulary() -> Any:
    from engine.export.vocabulary import Vocabulary

    return Vocabulary(["a"], [1], ["a a"], "qwen2", (), None, None, False, None, False)


def test_values_beyond_f16_are_rejected(tmp_path: Path) -> None:
    source = source_of(write_arch(tmp_path / "model", "qwen3"))

    class Loud:
        shapes = source.weights.shapes

        def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
            return source.weights.rows(name, start, stop) * 1e9

    with pytest.raises(BadInput, match="f32"):
        write_gguf_model(
            tmp_path / "out" / "x.gguf", source.config, Loud(), source.vocabulary, Quant.F16, name="x"
        )
    assert not list(tmp_path.glob("out/*"))
