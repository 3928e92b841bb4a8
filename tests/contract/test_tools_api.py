"""Tools through the built-in server, by the clients of Ollama and OpenAI, with models whose answers a schema decides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import ollama
import openai
import pytest
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel, Field

from tests.export_models import write_gguf
from tests.hf_models import write_hf
from tests.serving import serving, short_workspace
from tests.tool_templates import BARE, TAGGED

ASKED: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {"name": "weather", "description": "The weather of a city.", "parameters": CITY},
    }
]
CALLED: list[Any] = [
    *ASKED,
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
        ],
    },
    {"role": "tool", "content": "sunny, 21 degrees", "tool_name": "weather", "tool_call_id": "c1"},
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with short_workspace() as ws:
        for name, template in (("tagged", TAGGED), ("bare", BARE), ("plain", None)):
            folder = tmp_path_factory.mktemp(name)
            more = {} if template is None else {"template": template}
            write_gguf(ws.models / f"{name}.gguf", write_hf(folder / "hf", positions=2048, **more))  # type: ignore[arg-type]
        with serving(ws) as url:
            yield url


@pytest.fixture
def openai_client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=60)


@pytest.fixture
def ollama_client(url: str) -> ollama.Client:
    return ollama.Client(url, timeout=60, trust_env=False)


def test_a_model_without_a_form_for_calls_says_so_in_ollamas_words(
    openai_client: openai.OpenAI, ollama_client: ollama.Client
) -> None:
    with pytest.raises(ollama.ResponseError, match="plain does not support tools") as refused:
        ollama_client.chat("plain", ASKED, tools=TOOLS)
    assert refused.value.status_code == 400
    with pytest.raises(openai.BadRequestError, match="plain does not support tools"):
        openai_client.chat.completions.create(model="plain", messages=ASKED, tools=TOOLS)
    assert "tools" not in (ollama_client.show("plain").capabilities or [])
    assert "tools" in (ollama_client.show("tagged").capabilities or [])


@pytest.mark.parametrize("model", ["tagged", "bare"])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}], ids=str
)
def test_a_forced_call_comes_whole_and_streamed(
    openai_client: openai.OpenAI, model: str, choice: Any
) -> None:
    asked: dict[str, Any] = {
        "model": model,
        "messages": ASKED,
        "tools": TOOLS,
        "tool_choice": choice,
        # A random model repeats blanks for ever where it always takes the best token.
        "temperature": 1,
        "seed": 3,
    }
    whole = openai_client.chat.completions.create(**asked).choices[0]
    assert whole.finish_reason == "tool_calls" and not whole.message.content
    (call,) = whole.message.tool_calls or []
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Paris"})
    parts = [part.choices[0] for part in openai_client.chat.completions.create(**asked, stream=True)]
    calls = [call for part in parts for call in part.delta.tool_calls or []]
    assert [(call.index, call.function.name) for call in calls] == [(0, "weather")]
    assert json.loads(calls[0].function.arguments) == {"city": "Paris"}
    assert parts[-1].finish_reason == "tool_calls" and not "".join(part.delta.content or "" for part in parts)


class Place(BaseModel):
    city: Literal["Paris"]


class Forecast(BaseModel):
    """The weather of the next days."""

    where: Place
    others: list[Place] = Field(max_length=1)


class Map(BaseModel):
    """A map of a city."""

    where: Place


@pytest.mark.parametrize("model", ["tagged", "bare"])
@pytest.mark.parametrize("kinds", [[Forecast], [Map, Forecast]], ids=len)
def test_a_forced_call_obeys_a_schema_that_refers_to_its_own_definitions(
    openai_client: openai.OpenAI, model: str, kinds: list[type[BaseModel]]
) -> None:
    tools: list[Any] = [openai.pydantic_function_tool(kind) for kind in kinds]
    assert "$ref" in json.dumps(tools)
    reply = openai_client.chat.completions.create(
        model=model, messages=ASKED, tools=tools, tool_choice="required", temperature=1, seed=3
    )
    (call,) = reply.choices[0].message.tool_calls or []
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    (kind,) = [kind for kind in kinds if kind.__name__ == call.function.name]
    assert kind.model_validate_json(call.function.arguments, strict=True)


@pytest.mark.parametrize("stream", [False, True])
def test_ollamas_client_reads_a_call(ollama_client: ollama.Client, stream: bool) -> None:
    written = {
        "type": "object",
        "properties": {"name": {"const": "weather"}, "parameters": CITY},
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }
    got = ollama_client.chat(
        "bare", ASKED, tools=TOOLS, format=written, stream=stream, options={"temperature": 1, "seed": 3}
    )  # type: ignore[call-overload]
    parts = list(got) if stream else [got]
    calls = [call for part in parts for call in part.message.tool_calls or []]
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("weather", {"city": "Paris"})
    ]
    assert not "".join(part.message.content or "" for part in parts) and parts[-1].done_reason == "stop"


def test_calls_and_results_of_earlier_turns_are_in_the_prompt(url: str) -> None:
    body = {"model": "tagged", "messages": CALLED, "tools": TOOLS, "_debug_render_only": True}
    reply = httpx.post(f"{url}/api/chat", json=body, timeout=60, trust_env=False).json()
    prompt = reply["_debug_info"]["rendered_template"]
    assert '{"name": "weather", "arguments": {"city": "Paris"}}' in prompt
    assert (
        "<tool_response>\nsunny, 21 degrees\n</tool_response>" in prompt
        and "The weather of a city." in prompt
    )


def test_openais_arguments_as_text_and_results_are_taken(openai_client: openai.OpenAI) -> None:
    turns = json.loads(json.dumps(CALLED))
    turns[1]["tool_calls"][0]["function"]["arguments"] = '{"city": "Paris"}'
    reply = openai_client.chat.completions.create(
        model="tagged", messages=turns, tools=TOOLS, tool_choice="none", max_tokens=3, temperature=0
    )
    assert reply.choices[0].finish_reason == "length" and reply.choices[0].message.content


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tools": "all"}, "tools is a list"),
        ({"tools": [{"type": "function"}]}, "a tool is"),
        ({"tools": [{"function": {"name": "a", "parameters": 4}}]}, "parameters of a"),
        ({"messages": [{"role": "assistant", "tool_calls": 4}]}, "tool_calls is a list"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "a tool call is"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "{"}}]}
                ]
            },
            "not valid JSON",
        ),
        ({"messages": [{"role": "wizard", "content": "a"}]}, "invalid role"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "exceeds the context length"),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_bad_tools_are_refused_in_a_sentence(url: str, path: str, change: dict[str, Any], words: str) -> None:
    body = {"model": "tagged", "messages": ASKED, "tools": TOOLS, "stream": False} | change
    reply = httpx.post(url + path, json=body, timeout=60, trust_env=False)
    assert reply.status_code == 400 and words in reply.text
    assert httpx.get(f"{url}/api/version", trust_env=False).status_code == 200
