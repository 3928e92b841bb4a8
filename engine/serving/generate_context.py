"""The conversation in a reply of /api/generate, which the next request may send back.

Clients treat `context` as opaque numbers. Here they are the characters of the conversation as JSON, not tokens: so it is
rendered, shortened and kept from spelling control tokens as every other conversation, and fits any model.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.core.chat import ChatMessage
from engine.http.refused import bad_request
from engine.serving.front import chat_messages

_TURNS = msgspec.json.Decoder(list[tuple[str, str]])


def context_of(messages: Sequence[ChatMessage], answer: str) -> list[int]:
    """The numbers for `messages` and the answer to them."""
    turns = [*((one.role, one.content) for one in messages), ("assistant", answer)]
    return [ord(character) for character in msgspec.json.encode(turns).decode()]


def turns_of(context: Sequence[int]) -> list[ChatMessage]:
    """The conversation of a reply before. Raises RequestRefused for numbers of another server."""
    try:
        turns = _TURNS.decode("".join(map(chr, context)))
    except (ValueError, OverflowError) as problem:
        raise bad_request(
            "context is not from a reply of this server; send the conversation to /api/chat"
        ) from problem
    return chat_messages(turns)
