"""Decompresses the Snappy block format (google/snappy, format_description.txt)."""

from __future__ import annotations

MAX_LENGTH = 64 * 2**20
"""Largest decompressed block, in bytes."""


def uvarint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer and the offset after it. Raises ValueError."""
    value = shift = 0
    while shift < 64:
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("unterminated varint")


def decompress(data: bytes) -> bytes:
    """The decompressed block. Raises ValueError when `data` is corrupt or its length exceeds `MAX_LENGTH`."""
    length, at = uvarint(data, 0)
    if length > MAX_LENGTH:
        raise ValueError("block length out of range")
    out = bytearray()
    end = len(data)
    while at < end:
        tag = data[at]
        kind = tag & 3
        at += 1
        if kind == 0:
            size = (tag >> 2) + 1
            if size > 60:
                more = size - 60
                size = int.from_bytes(data[at : at + more], "little") + 1
                at += more
            if size > end - at:
                raise ValueError("literal beyond the end")
            out += data[at : at + size]
            at += size
        else:
            if kind == 1:
                size, extra, high = ((tag >> 2) & 7) + 4, 1, (tag >> 5) << 8
            else:
                size, extra, high = (tag >> 2) + 1, 2 if kind == 2 else 4, 0
            if extra > end - at:
                raise ValueError("copy beyond the end")
            offset = high | int.from_bytes(data[at : at + extra], "little")
            at += extra
            start = len(out) - offset
            if offset == 0 or start < 0:
                raise ValueError("copy from before the beginning")
            if offset >= size:
                out += out[start : start + size]
            else:
                # Overlapping copy: the last `offset` bytes repeat.
                out += (out[start:] * (size // offset + 1))[:size]
        if len(out) > length:
            break
    if len(out) != length:
        raise ValueError("block length mismatch")
    return bytes(out)
