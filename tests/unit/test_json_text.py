"""JSON of texts that are not UTF-8: everything else is encoded as msgspec does it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.json_text import encode_json

ODD = "caf\udce9 \ud800"
SHOWN = "caf\\xe9 \ufffd"


class Color(StrEnum):
    RED = "red"


class Inner(msgspec.Struct, frozen=True, rename={"text": "renamed"}):
    text: str
    raw: msgspec.Raw = msgspec.Raw(b'{"a":1}')
    color: Color = Color.RED


class Tagged(msgspec.Struct, tag="kind"):
    inner: list[Inner]
    names: dict[str, int]


@dataclass(frozen=True)
class Plain:
    text: str


@pytest.mark.parametrize("text", ["plain", ODD])
def test_structs_keep_their_names_tags_enums_and_raw_json(text: str) -> None:
    shown = SHOWN if text is ODD else text
    value = {"one": Tagged(inner=[Inner(text)], names={text: 1}), "two": (Plain(text), 3, None, True)}
    assert json.loads(encode_json(value)) == {
        "one": {
            "type": "kind",
            "inner": [{"renamed": shown, "raw": {"a": 1}, "color": "red"}],
            "names": {shown: 1},
        },
        "two": [{"text": shown}, 3, None, True],
    }


def test_other_types_go_through_the_hook() -> None:
    encoded = encode_json([ODD, Path("/tmp")], enc_hook=str)
    assert json.loads(encoded) == [SHOWN, "/tmp"]


texts = st.text(st.characters(exclude_categories=[]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_any_value_is_encoded_and_valid_ones_are_unchanged(value: Any) -> None:
    decoded = json.loads(encode_json(value).decode("utf-8"))
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        return
    assert decoded == value
