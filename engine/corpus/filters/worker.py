"""A worker process that filters conversations: batches on stdin, results on stdout, until stdin ends.

It opens no file and no database. It ends with its parent process, because stdin then closes.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import IO

import msgspec

from engine.corpus.filters.run import FilteredConversation, FilterTask, filter_conversation
from engine.corpus.filters.time_limit import interruptible
from engine.corpus.filters.turn import FilterSettings

_LENGTH = struct.Struct("<Q")
_SETTINGS = msgspec.msgpack.Decoder(FilterSettings)
TASKS = msgspec.msgpack.Decoder(list[FilterTask])
RESULTS = msgspec.msgpack.Decoder(list[FilteredConversation])
_ENCODER = msgspec.msgpack.Encoder()


def send(pipe: IO[bytes], message: bytes) -> None:
    """Writes a message with its length. Raises OSError when the other process is gone."""
    pipe.write(_LENGTH.pack(len(message)) + message)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes | None:
    """The next message; None at the end of the stream or for an incomplete message."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    size = _LENGTH.unpack(head)[0]
    body = pipe.read(size)
    return body if len(body) == size else None


def main() -> None:
    """The first message is a FilterSettings; each further one a list of FilterTask."""
    with os.fdopen(0, "rb") as requests, os.fdopen(os.dup(1), "wb") as responses:
        # Output of a library must not mix with the results.
        os.dup2(2, 1)
        first = receive(requests)
        if first is None:
            return
        settings = _SETTINGS.decode(first)
        while (message := receive(requests)) is not None:
            with interruptible():
                results = [filter_conversation(task, settings) for task in TASKS.decode(message)]
            send(responses, _ENCODER.encode(results))


if __name__ == "__main__":
    main()
    sys.exit(0)
