"""The reasoning of a model is removed from its answers, in every way in which models and programs mark it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.chat import Role
from engine.memory.importers.fields import strip_reasoning
from engine.memory.importers.reasoning import without_reasoning
from engine.memory.records import Skipped

REMOVED = {
    "tag": ("<think>SECRET</think>\n\nFour.", "Four."),
    "tag of another name": ("<thinking>\nSECRET\n</thinking>\nFour.", "Four."),
    "capitals": ("<THINK>SECRET</THINK>Four.", "Four."),
    "mixed case of the two": ("<Think>SECRET</think>Four.", "Four."),
    "attribute": ('<think duration="3.2">SECRET</think>\nFour.', "Four."),
    "attributes on lines": ('<thinking\n  signature="x"\n>SECRET</thinking>\nFour.', "Four."),
    "thought": ("<thought>\nSECRET\n</thought>\n\nFour.", "Four."),
    "thoughts": ("<thoughts>SECRET</thoughts> Four.", "Four."),
    "reasoning": ("<reasoning>SECRET</reasoning>\n<answer>Four.</answer>", "Four."),
    "Claude of 2024": ("Sure.\n\n<antThinking>SECRET</antThinking>\n\nHere it is.", "Sure.\n\nHere it is."),
    "prefix of a vendor": ("<seed:think>SECRET</seed:think>Four.", "Four."),
    "other prefix": ("<longcat_think>SECRET</longcat_think>Four.", "Four."),
    "scratchpad": ("<scratchpad>SECRET</scratchpad>Four.", "Four."),
    "inner monologue": ("<inner_monologue>SECRET</inner_monologue>\nFour.", "Four."),
    "thought process": ("<thought_process>SECRET</thought_process>\nFour.", "Four."),
    "chain of thought": ("<chain_of_thought>SECRET</chain_of_thought>\nFour.", "Four."),
    "reflection within thinking": ("<thinking>a<reflection>SECRET</reflection>b</thinking><output>Four.</output>", "Four."),
    "empty": ("<think>\n\n</think>\n\nFour.", "Four."),
    "escaped": ("&lt;think&gt;SECRET&lt;/think&gt;\nFour.", "Four."),
    "closing tag alone below an open fence": ("```\nSECRET\n</think>\n\nFour.", "Four."),
    "Ollama in a terminal": ("Thinking...\nSECRET\n...done thinking.\n\nFour.", "Four."),
    "folded with its time": ("<details><summary>🤔 Thought Process (12s)</summary>SECRET</details>Four.", "Four."),
    "folded behind a request": ("<details><summary>点击查看思考过程</summary>SECRET</details>四。", "四。"),
    "callout": ("> [!NOTE]- Thinking\n> SECRET\n\nFour.", "Four."),
    "closing tag alone": ("SECRET, so it is four.\n</think>\n\nFour.", "Four."),
    "closing tag alone in a line": ("SECRET so four.</think>Four.", "Four."),
    "closing tag alone, with code before": ("SECRET `x` \n```py\ny\n```\n</think>\nFour.", "Four."),
    "closing tag of another name alone": ("SECRET\n</thinking>\nFour.", "Four."),
    "two closing tags": ("<think>SECRET</think>SECRET too</think>Four.", "Four."),
    "opening tag twice": ("<think>\n<think>\nSECRET</think>\nFour.", "Four."),
    "nested": ("<think>a <think>SECRET</think> c SECRET</think>\nFour.", "Four."),
    "closing tag quoted in the reasoning": ("<think>SECRET I write `</think>` SECRET\n</think>\nFour.", "Four."),
    "never closed": ("<think>\nSECRET and SECRET", ""),
    "never closed, with code": ("<think>\n```\nSECRET\n```\nSECRET", ""),
    "never closed at a later line": ("Four.\n\n<think>\nSECRET", "Four."),
    "in the middle": ("It is four.\n\n<think>SECRET</think>\n\nReally.", "It is four.\n\nReally."),
    "in the middle of a line": ("It is four. <think>SECRET</think> Really.", "It is four. Really."),
    "within a sentence": ("It is <think>SECRET\nSECRET</think>\nfour.", "It is four."),
    "two": ("<think>SECRET</think>\nFour.\n<think>SECRET\n</think>\nFive.", "Four.\nFive."),
    "Magistral": ("[THINK]SECRET[/THINK]Four.", "Four."),
    "Magistral, cut": ("[THINK]SECRET", ""),
    "Magistral, prefilled": ("SECRET[/THINK]\nFour.", "Four."),
    "brackets": ("[thinking]\nSECRET\n[/thinking]\nFour.", "Four."),
    "Chinese brackets": ("【思考】SECRET【/思考】四。", "四。"),
    "Kimi": ("◁think▷SECRET◁/think▷Four.", "Four."),
    "Kimi, cut": ("◁think▷SECRET", ""),
    "Cohere": ("<|START_THINKING|>SECRET<|END_THINKING|><|START_RESPONSE|>Four.<|END_RESPONSE|>", "Four."),
    "Sky-T1": (
        "<|begin_of_thought|>\nSECRET\n<|end_of_thought|>\n\n<|begin_of_solution|>\nFour.\n<|end_of_solution|>",
        "Four.",
    ),
    "Apertus": ("<|inner_prefix|>SECRET<|inner_suffix|>Four.", "Four."),
    "MedGemma": ("<unused94>thought\nSECRET<unused95>Four.", "Four."),
    "Gemma": ("<|channel>thought\nSECRET<channel|>Four.", "Four."),
    "Solar": ("<|think|>SECRET<|end|><|begin|>assistant<|content|>Four.", "Four."),
    "gpt-oss": (
        "<|channel|>analysis<|message|>SECRET<|end|><|start|>assistant<|channel|>final<|message|>Four.<|return|>",
        "Four.",
    ),
    "gpt-oss, after the prompt": ("analysis<|message|>SECRET<|end|><|start|>assistant<|channel|>final<|message|>Four.", "Four."),
    "gpt-oss, words before a call": (
        "<|channel|>analysis<|message|>SECRET<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>",
        "I look.",
    ),
    "gpt-oss, cut": ("<|channel|>analysis<|message|>SECRET", ""),
    "gpt-oss without its tokens": ("analysisThe user SECRET.assistantfinalFour.", "Four."),
    "gpt-oss without its tokens, cut": ("analysisWe need SECRET", ""),
    "Granite": ("Here is my thought process: SECRET\nHere is my response: Four.", "Four."),
    "Huatuo": ("## Thinking\n\nSECRET\n\n## Final Response\n\nFour.", "Four."),
    "Open WebUI": ('<details type="reasoning" done="true">\n<summary>Thought for 2 s</summary>\n> SECRET\n</details>\nFour.', "Four."),
    "Open WebUI, cut": ('<details type="reasoning" done="false">\n> SECRET', ""),
    "folded": ("<details><summary>Thought for 5 seconds</summary>\n\nSECRET\n\n</details>\n\nFour.", "Four."),
    "folded, with a sign": ("<details open>\n<summary>💭 <b>Thinking</b></summary>\nSECRET</details>\nFour.", "Four."),
    "folded in Chinese": ("<details>\n<summary>思考过程</summary>\nSECRET\n</details>\n四。", "四。"),
    "folded with time in Chinese": ("<details><summary>已深度思考（用时 5 秒）</summary>SECRET</details>四。", "四。"),
    "copied line": ("Thought for 12 seconds\n\nFour.", "Four."),
    "copied line with minutes": ("Thought for 1m 12s\nFour.", "Four."),
    "copied line of a moment": ("Thought for a couple of seconds\n\nFour.", "Four."),
    "copied line in Chinese": ("已深度思考（用时 5 秒）\n四。", "四。"),
    "copied line in Chinese without brackets": ("已思考 12 秒\n\n四。", "四。"),
    "copied line in a fence": ("```plaintext\nThought for 2 seconds\n```\n\nFour.", "Four."),
    "copied line above a quote": ("**Thought for 3s**\n\n> SECRET\n> SECRET\n\nFour.", "Four."),
    "quote with a title": ("> 💭 Thinking\n>\n> SECRET\n\nFour.", "Four."),
    "short name": ("<cot>SECRET</cot>Four.", "Four."),
    "name of two words": ("<deepthink>SECRET</deepthink>\nFour.", "Four."),
    "name with a hyphen": ("<scratch-pad>SECRET</scratch-pad>Four.", "Four."),
    "escaped for Markdown": ("\\<think\\>SECRET\\</think\\>Four.", "Four."),
    "DeepSeek's signs": ("<｜begin▁of▁think｜>SECRET<｜end▁of▁think｜>Four.", "Four."),
    "analysis above a marked answer": ("<analysis>SECRET</analysis>\n<answer>Four.</answer>", "Four."),
    "below a byte order mark": ("\ufeff<think>SECRET</think>Four.", "Four."),
    "fence of thinking": ("```thinking\nSECRET\n```\nFour.", "Four."),
}  # fmt: skip

KEPT = [
    "Four.",
    "The <think> tag is what DeepSeek writes.",
    "Models write <think> and </think> around it.",
    "Models write <think>...</think> around it.",
    "DeepSeek wraps it: <think> ... </think>, then it answers.",
    "I use the tag <think>\nto show it, and </think>\nto end it.",
    "The <think> tag opens it.\nThe </think> tag closes it.",
    "Wrap it into <think>…</think> tags.",
    "DeepSeek 用<think>标签表示思考，用</think>标签结束。",
    "<think> is a tag that opens reasoning.",
    "<think>, <thinking> and <thought> are tags.",
    "Use `<think>x</think>` for it.",
    'Search for "</think>" and cut there.',
    "```xml\n<think>\nhello\n</think>\n```\nThat is it.",
    "- Like this:\n\n  ```\n  <think>x</think>\n  ```\n",
    "1. ```\n   <think>x\n   ```\n2. fine",
    "~~~\n```\n</think>\n~~~\nfine",
    "````md\n```\n<think>x</think>\n```\n````\n",
    "See [thinking](https://example.org) and [reasoning][1].",
    "He sat there. [thinking] Then he rose.",
    "[thinking]\nHe sat there.",
    "<details><summary>Solution</summary>Four.</details>",
    "<details><summary>思考题答案</summary>四。</details>",
    "analysis of the data: none.",
    "Our analysis\nshows it. The assistant final grade is A.",
    "The word `assistantfinal` is a leak.",
    "I thought for 12 seconds about it.",
    "He won.\n\nThought for 12 seconds\n\nHe lost.",
    "## Reasoning\n\nTwo and two.\n\n## Answer\n\nFour.",
    "> To be, or not to be\n\nHamlet.",
    "```python\nprint(1)\n```",
    "a < b and think > c",
    "<thinker>Rodin</thinker>",
    "Use <thin> or <reasonable>.",
    "x = [think, about]",
    "Tool: <|end|> of text.",
    "<analysis>\nSales rose.\n</analysis>",
    "Write <details><summary>Reasoning</summary>x</details> in Markdown.",
]


@pytest.mark.parametrize("name", REMOVED)
def test_reasoning_is_removed(name: str) -> None:
    text, answer = REMOVED[name]
    clean, removed = without_reasoning(text)
    assert clean == answer
    assert set(removed) == {"reasoning"}
    # Nothing more is found in what is left.
    assert without_reasoning(clean) == (clean, [])


@pytest.mark.parametrize("text", KEPT)
def test_what_only_speaks_of_it_stays(text: str) -> None:
    assert without_reasoning(text) == (text, [])


@pytest.mark.parametrize("name", REMOVED)
def test_the_same_words_of_a_user_stay(name: str) -> None:
    text, _answer = REMOVED[name]
    assert strip_reasoning(text, Role.USER) == (text, ())
    assert strip_reasoning(text, Role.SYSTEM) == (text, ())


@pytest.mark.parametrize(
    "name", [name for name, (text, _) in REMOVED.items() if "```" not in text and "`" not in text]
)
def test_the_same_marks_in_a_fence_stay(name: str) -> None:
    text = f"It looks like this:\n\n```\n{REMOVED[name][0]}\n```\n\nThat is all."
    assert without_reasoning(text) == (text, [])


@pytest.mark.parametrize("text", ["<think/>Four.", "<|channel|>final<|message|>Four.<|return|>"])
def test_marks_without_reasoning_go_uncounted(text: str) -> None:
    assert without_reasoning(text) == ("Four.", [])


def test_calls_of_tools_are_counted_apart() -> None:
    text = 'a <details type="reasoning" done="true">x\ny</details>\n b<details type="tool_calls">z</details>c'
    assert strip_reasoning(text, Role.ASSISTANT) == (
        "a bc",
        (Skipped(reason="reasoning"), Skipped(reason="tool message")),
    )
    call = (
        "<|channel|>commentary to=functions.ls <|constrain|>json<|message|>{}<|call|>"
        "<|start|>functions.ls to=assistant<|channel|>commentary<|message|>a.txt<|end|>"
        "<|start|>assistant<|channel|>final<|message|>One file.<|return|>"
    )
    assert without_reasoning(call) == ("One file.", ["tool message", "tool message"])


PARTS = st.sampled_from(
    ["<think>", "</think>", "<thought>", "</thought>", "[THINK]", "[/THINK]", "```", "`", "\n", " ", "a word", "Four.",
     "<details type=\"reasoning\">", "</details>", "<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "<|end|>",
     "<|think|>", "assistantfinal", "analysis", "> ", "Thought for 2 s", "是", "- ", "<think", "◁think▷", "<think/>"]
)  # fmt: skip


@given(st.lists(PARTS, max_size=14).map("".join))
def test_only_whole_pieces_go_and_what_goes_is_counted(text: str) -> None:
    clean, removed = without_reasoning(text)
    assert bool(removed) or "|>" in text or "<think/>" in text or clean == text
    # What stays stands in the text in its order.
    place = 0
    for sign in clean:
        place = text.index(sign, place) + 1


@given(
    st.text(alphabet="SECRT \n`<>-*abc.", max_size=60), st.text(alphabet="abc .\n", min_size=1, max_size=30)
)
def test_all_between_two_tags_at_the_beginning_goes(thought: str, answer: str) -> None:
    clean, removed = without_reasoning(f"<think>\n{thought}\n</think>\n\nX{answer}")
    assert (clean, removed) == (f"X{answer}".strip("\n"), ["reasoning"])


PUMPS = [
    "<think>", "</think>", "<think ", "<think>a</think>", "x <think> y ", "`", "`` ", "```\n", "[THINK]", "[/THINK]x ", "<details",
    '<details type="reasoning">', '<details type="reasoning"', "<details><summary>", "</details>", "<|channel|>analysis<|message|>",
    "<|start|>assistant", "<|start|>", "<|end|>", "<|think|>", "assistantfinal", "analysis", "> ", " ", "\n", "<", "[", "<unused94>",
    "<think>`</think>", "a</think> ", "<think>\n", "```x\n<think>\n", "#", "Thought for ", "\n> Thinking", "_", "<think> and </think> ",
]  # fmt: skip


@pytest.mark.parametrize("pump", PUMPS)
def test_any_text_is_read_in_linear_time(pump: str) -> None:
    text = pump * 20_000
    begun = time.process_time()
    without_reasoning(text)
    without_reasoning(f"a{text}")
    without_reasoning(f"<think>{text}")
    # Quadratic time would be minutes.
    assert time.process_time() - begun < 20
