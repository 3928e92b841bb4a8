"""Uploads that no hive may take: files, archives, announcements and raw requests, each with why it is hostile."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from safetensors.numpy import save

from tests.hive_server import config, matrices, weights, zipped

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class HostileFile:
    """A file in the form of HiveMind's client."""

    why: str
    data: bytes


def _with_header(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def _entry(name: str, shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {name: {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}


def hostile_weights(seed: int) -> dict[str, bytes]:
    """Files that are no adapter of the tests' base, by why."""
    rng = random.Random(seed)
    good = weights(seed)
    tensors = matrices(seed)
    names = sorted(tensors)
    one = rng.choice(names)

    def changed(name: str, value: Any) -> bytes:
        return save({**tensors, name: value})

    def poked(value: float) -> bytes:
        values = tensors[one].copy()
        values.flat[rng.randrange(values.size)] = value
        return changed(one, values)

    rows, columns = tensors[one].shape
    return {
        "empty": b"",
        "truncated": good[: rng.randrange(1, len(good))],
        "trailing bytes": good + rng.randbytes(rng.randrange(1, 64)),
        "no header": rng.randbytes(rng.randrange(1, 4096)),
        "header longer than the file": struct.pack("<Q", 1 << 40) + good[8:],
        "header of 2^63": struct.pack("<Q", 1 << 63) + good[8:],
        "header of 2 MB": _with_header({"__metadata__": {"x": "y" * (2 << 20)}}),
        "header is no JSON": _with_header(b"{" * 100),
        "deep header": _with_header(b"[" * 5000 + b"]" * 5000),
        "header is a list": _with_header([1, 2]),
        "no tensors": _with_header({}),
        "a million tensors": _with_header(b"{" + b",".join(b'"%d":0' % n for n in range(50_000)) + b"}"),
        "traversal": _with_header(_entry("../../../../etc/cron.d/x", [1], 0, 4), b"\0" * 4),
        "escape in a name": _with_header(_entry("\x1b[2J\u202e", [1], 0, 4), b"\0" * 4),
        "huge shape": _with_header(_entry(names[0], [0, 1 << 40], 0, 0)),
        "negative shape": _with_header(_entry(names[0], [-1, -4], 0, 16), b"\0" * 16),
        "overlap": _with_header({**_entry(names[0], [1], 0, 4), **_entry(names[1], [1], 0, 4)}, b"\0" * 4),
        "hole": _with_header(_entry(names[0], [1], 4, 8), b"\0" * 8),
        "another dtype": _with_header(_entry(names[0], [2], 0, 16, "F64"), b"\0" * 16),
        "NaN": poked(float("nan")),
        "infinity": poked(float("inf")),
        "minus infinity": poked(float("-inf")),
        "float64": changed(one, tensors[one].astype("f8")),
        "integers": changed(one, tensors[one].astype("i4")),
        "transposed": changed(one, np.ascontiguousarray(tensors[one].T)),
        "one dimension": changed(one, tensors[one].reshape(-1)),
        "wider": changed(one, np.zeros((rows + rng.randrange(1, 9), columns), "f4")),
        "a lone matrix": save({name: value for name, value in tensors.items() if name != one}),
        "a missing layer": save({name: value for name, value in tensors.items() if ".layers.1." not in name}),
        "another layer": save(
            {name.replace("layers.1", "layers.7"): value for name, value in tensors.items()}
        ),
        "another module": save({name.replace("q_proj", "k_proj"): value for name, value in tensors.items()}),
        "one more tensor": changed("base_model.model.lm_head.weight", np.ones((4, 4), "f4")),
        "an embedding": changed(
            "base_model.model.model.embed_tokens.lora_embedding_A", np.ones((4, 4), "f4")
        ),
        "another rank": weights(seed, rank=rng.choice((1, 2, 3, 5, 8))),
        "B is zero": save({n: np.zeros_like(v) if "lora_B" in n else v for n, v in tensors.items()}),
        "A is zero": save({n: np.zeros_like(v) if "lora_A" in n else v for n, v in tensors.items()}),
        "all zero": save({n: np.zeros_like(v) for n, v in tensors.items()}),
        "a pickle": b"\x80\x04\x95" + rng.randbytes(200),
        "GGUF": b"GGUF" + rng.randbytes(200),
        "a random byte in the header": _flipped(good, rng),
    }


def _flipped(good: bytes, rng: random.Random) -> bytes:
    """A digit of a shape or an offset is another one."""
    (length,) = struct.unpack("<Q", good[:8])
    places = [at for at in range(8, 8 + length) if chr(good[at]).isdigit() and chr(good[at - 1]) in "[,"]
    at = rng.choice(places)
    digit = str((int(chr(good[at])) + rng.randrange(1, 9)) % 10).encode()
    return good[:at] + digit + good[at + 1 :]


def hostile_configs() -> dict[str, bytes]:
    """Configurations beside good weights, by why."""
    changes: dict[str, dict[str, Any]] = {
        "another method": {"peft_type": "LOHA"},
        "DoRA": {"use_dora": True},
        "a bias": {"bias": "all"},
        "modules to save": {"modules_to_save": ["lm_head"]},
        "PiSSA": {"init_lora_weights": "pissa"},
        "a regular expression": {"target_modules": "(a+)+$"},
        "a pattern that runs for ever": {"rank_pattern": {"(a+)+$": 4}},
        "no targets": {"target_modules": []},
        "a target that is not there": {"target_modules": ["q_proj"]},
        "more targets": {"target_modules": ["q_proj", "v_proj", "o_proj"], "layers_to_transform": [0]},
        "another rank": {"r": 16},
        "rank 0": {"r": 0},
        "negative rank": {"r": -4},
        "alpha is infinite": {"lora_alpha": 1e308},
        "rank is a text": {"r": "4"},
        "another base": {"base_model_name_or_path": "meta-llama/Llama-3-8B"},
        "alpha is 0": {"lora_alpha": 0},
    }
    found = {why: json.dumps(config(**change)).encode() for why, change in changes.items()}
    return {
        **found,
        "no JSON": b"{",
        "a list": b"[]",
        "nothing": b"",
        "NaN": json.dumps(config()).replace('"lora_alpha": 8', '"lora_alpha": NaN').encode(),
        "twice": b'{"r": 4, ' + json.dumps(config()).encode()[1:],
        "2 MB": json.dumps(config(note="x" * (2 << 20))).encode(),
        "not UTF-8": json.dumps(config()).encode().replace(b"someone", b"\xff\xfe"),
    }


def hostile_archives(seed: int) -> dict[str, bytes]:
    """Zip files, by why."""
    rng = random.Random(seed)
    good = {CONFIG: json.dumps(config()).encode(), WEIGHTS: weights(seed)}
    whole = zipped(good)
    return {
        "cut off": whole[: rng.randrange(30, len(whole) - 1)],
        "bytes changed": _changed(whole, rng),
        "traversal": zipped({f"../../{CONFIG}": good[CONFIG], f"../../{WEIGHTS}": good[WEIGHTS]}),
        "absolute": zipped({f"/tmp/{CONFIG}": good[CONFIG], f"/tmp/{WEIGHTS}": good[WEIGHTS]}),
        "a bomb": _bomb(),
        "no weights": zipped({CONFIG: good[CONFIG]}),
        "no configuration": zipped({WEIGHTS: good[WEIGHTS]}),
        "a pickle": zipped({CONFIG: good[CONFIG], "adapter_model.bin": b"\x80\x04"}),
        "nothing": zipped({}),
        "twice": _twice(good),
        "two folders": zipped({f"a/{CONFIG}": good[CONFIG], f"b/{WEIGHTS}": good[WEIGHTS]}),
        "bzip2": zipped(good, zipfile.ZIP_BZIP2),
        "encrypted": _flagged(whole, 1),
        "many members": zipped({**good, **{f"{n}": b"" for n in range(5000)}}, zipfile.ZIP_STORED),
        "a size that lies": _lying(whole),
        "a link": _link(good),
        "a zip in a zip": zipped({WEIGHTS: whole, CONFIG: good[CONFIG]}),
        "only an end": b"PK\x05\x06" + b"\0" * 18,
        "only a beginning": b"PK\x03\x04" + rng.randbytes(400),
        "an endless deflate": zipped({CONFIG: good[CONFIG]}) + zlib.compress(b"\0" * 100_000),
    }


@cache
def _bomb() -> bytes:
    """64 MB of zeros in 64 KB."""
    return zipped({CONFIG: json.dumps(config()).encode(), WEIGHTS: b"\0" * (64 << 20)})


def _changed(data: bytes, rng: random.Random) -> bytes:
    """Bytes of the packed weights are others: their checksum does not fit."""
    start = data.index(WEIGHTS.encode()) + 200
    changed = bytearray(data)
    for _n in range(20):
        changed[start + rng.randrange(400)] ^= rng.randrange(1, 256)
    return bytes(changed)


def _twice(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in [*files.items(), (WEIGHTS, weights(99))]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                archive.writestr(name, data)
    return buffer.getvalue()


def _flagged(data: bytes, flag: int) -> bytes:
    """The general purpose flag is set in all headers."""
    changed = bytearray(data)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            changed[at + place] |= flag
    return bytes(changed)


def _lying(data: bytes) -> bytes:
    """The directory says that the members are 16 bytes."""
    changed = bytearray(data)
    at = -1
    while (at := data.find(b"PK\x01\x02", at + 1)) >= 0:
        changed[at + 24 : at + 28] = struct.pack("<L", 16)
    return bytes(changed)


def _link(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(CONFIG, files[CONFIG])
        info = zipfile.ZipInfo(WEIGHTS)
        info.external_attr = 0o120777 << 16
        archive.writestr(info, b"/etc/passwd")
    return buffer.getvalue()


def hostile_files(seed: int) -> Iterator[HostileFile]:
    """Files for the form of HiveMind's client; each seed makes others."""
    packed = json.dumps(config()).encode()
    for why, data in hostile_weights(seed).items():
        yield HostileFile(f"weights: {why}", zipped({CONFIG: packed, WEIGHTS: data}))
        yield HostileFile(f"alone: {why}", data)
    for why, text in hostile_configs().items():
        yield HostileFile(f"configuration: {why}", zipped({CONFIG: text, WEIGHTS: weights(seed)}))
    for why, data in hostile_archives(seed).items():
        yield HostileFile(f"archive: {why}", data)


USERS = ("", "..", ".", "../x", "a/b", "a\\b", "/etc", "aggregated", "LATEST", ".uploads", "a b", "\u202ex", "x\x00", "x" * 65, "~", "-", "..\u2044", "con:", "a\nb", "%2e%2e")  # fmt: skip
"""Names of users that are none."""
NUMBERS = ("-1", "1e9", "NaN", "9" * 30, "0x10", "٣", "1.5")
"""Counts that are none."""

_BODY = b'--x\r\nContent-Disposition: form-data; name="user_id"\r\n\r\neve\r\n--x--\r\n'


def _request(*lines: str, body: bytes = b"") -> bytes:
    head = ["POST /api/v1/adapter/upload HTTP/1.1", "Host: localhost", *lines, "", ""]
    return "\r\n".join(head).encode() + body


RAW: dict[str, bytes] = {
    "two lengths": _request("Content-Length: 5", "Content-Length: 50", body=_BODY),
    "a list of lengths": _request("Content-Length: 5, 50", body=_BODY),
    "length and chunked": _request(f"Content-Length: {len(_BODY)}", "Transfer-Encoding: chunked", "Content-Type: multipart/form-data; boundary=x", body=b"0\r\n\r\n"),
    "chunked twice": _request("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "gzip, chunked": _request("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "negative length": _request("Content-Length: -5"),
    "length with a sign": _request("Content-Length: +5", body=b"hello"),
    "length with an underscore": _request("Content-Length: 1_0", body=b"0123456789"),
    "no host": b"POST /api/v1/adapter/upload HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "two hosts": _request("Host: evil.example", "Content-Length: 0"),
    "another host": b"POST /api/v1/adapter/upload HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n",
    "a page of another site": _request("Origin: https://evil.example", f"Content-Length: {len(_BODY)}", "Content-Type: multipart/form-data; boundary=x", body=_BODY),
    "a bare line feed": b"POST /api/v1/adapter/upload HTTP/1.1\nHost: localhost\n\n",
    "a wrong chunk": _request("Transfer-Encoding: chunked", "Content-Type: multipart/form-data; boundary=x", body=b"ZZ\r\nx\r\n"),
    "a folded header": _request("X: a\r\n b", "Content-Length: 0"),
    "a NUL in a header": _request("X: a\0b", "Content-Length: 0"),
    "a long header": _request("X: " + "a" * (1 << 20), "Content-Length: 0"),
    "no boundary": _request(f"Content-Length: {len(_BODY)}", "Content-Type: multipart/form-data", body=_BODY),
    "another boundary": _request(f"Content-Length: {len(_BODY)}", "Content-Type: multipart/form-data; boundary=y", body=_BODY),
    "no form": _request(f"Content-Length: {len(_BODY)}", "Content-Type: application/json", body=_BODY),
    "no file": _request(f"Content-Length: {len(_BODY)}", "Content-Type: multipart/form-data; boundary=x", body=_BODY),
    "a form without an end": _request("Content-Length: 20", "Content-Type: multipart/form-data; boundary=x", body=_BODY[:20]),
    "traversal in the path": b"GET /api/v1/adapter/download/..%2f..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "traversal in an upload": b"PUT /api/v1/uploads/..%2f..%2fregistry.db?offset=0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}  # fmt: skip
"""Requests as bytes on a connection."""

ANNOUNCED: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "no bytes": lambda data: {"size": 0},
    "negative": lambda data: {"size": -1},
    "larger than a hive takes": lambda data: {"size": 1 << 50},
    "no number": lambda data: {"size": "x"},
    "another base": lambda data: {"config": config(base_model_name_or_path="other/model")},
    "another fingerprint": lambda data: {"base_fingerprint": "cd" * 32},
    "a regular expression": lambda data: {"config": config(target_modules="(a+)+$")},
    "absurd samples": lambda data: {"training_samples": 1 << 60},
    "negative samples": lambda data: {"training_samples": -1},
    "no configuration": lambda data: {"config": {}},
    "a list": lambda data: {"config": []},
    "traversal": lambda data: {"user_id": "../../x"},
}
"""Announcements that are refused before a byte is taken; changes of a good one."""
