"""Names of models, by which transcripts and data sets label answers: `GPT-4`, `claude-3-opus`, `豆包`."""

from __future__ import annotations

import re

_MODEL = re.compile(
    r"(?:open ?ai|chat ?gpt|gpt|claude|anthropic|gemini|bard|bing|copilot|deepseek|qwen|qwq|kimi|llama|mistral|mixtral|le chat|"
    r"grok|glm|chatglm|doubao|ernie|hunyuan|gemma|phi|yi|baichuan|internlm|perplexity|meta ai|minimax|command r|"
    r"o[134](?![a-z])|豆包|元宝|通义千问|通义|千问|文心一言|文心|智谱清言|智谱|讯飞星火|星火|混元|天工|海螺|月之暗面|深度求索)"
    r"(?:[ \-_/.:]{0,2}(?:\d[\w.]{0,11}|v\d[\w.]{0,9}|r\d|k\d|mini|pro|max|plus|flash|turbo|ultra|lite|air|instant|chat|code|sonnet|"
    r"haiku|opus|fable|nano|preview|latest|thinking|instruct|large|small|medium|advanced|ai|gpt|深度思考|助手)){0,6}",
    re.IGNORECASE,
)


def is_model_name(name: str) -> bool:
    """Whether a name is that of a model that many people talk to, with or without its version."""
    return bool(_MODEL.fullmatch(name.strip()))
