"""What the hive server and its clients say to each other: requests, answers, and the rules of admission.

`docs/HIVE.md` describes the same for people. Times are seconds since the epoch, sizes bytes, hashes SHA-256 in hex.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

API = "/api/v1"
DEFAULT_PORT = 8000
"""As in HiveMind."""
SERVER_NAME = "h2q-hive"
"""Value of the `server` header of every answer."""
LATEST = "latest"
"""The name under which the current version is asked for."""
ARCHIVE_CONFIG = "adapter_config.json"
ARCHIVE_WEIGHTS = "adapter_model.safetensors"
ARCHIVE_INFO = "aggregation_info.json"
"""The members of a downloaded archive."""
MAX_PART = 8 << 20
"""Bytes that a client should send in one part of an upload; a lost part is sent again."""


class Rule(StrEnum):
    """Why an adapter is refused: the value of `rule` in a `Refusal`."""

    SIZE = "size"
    """Larger than the server takes, or not as large as announced."""
    HEADER = "header"
    """No safetensors header of at most 1 MB that covers the file exactly."""
    CONFIG = "config"
    """The LoRA configuration is missing, invalid, or asks for what an adapter here cannot have."""
    BASE = "base"
    """Trained on another base model, by its name or its fingerprint."""
    KEYS = "keys"
    """Other tensors than the configuration and the base ask for."""
    SHAPES = "shapes"
    """A tensor of another shape than the configuration and the base ask for."""
    DTYPES = "dtypes"
    """A tensor that is neither F32, F16 nor BF16."""
    FINITE = "finite"
    """NaN or infinity."""
    UNCHANGED = "unchanged"
    """The adapter changes nothing: a B or an A is zero in every module."""
    NORM = "norm"
    """The change of the base is far larger or smaller than those of the other users."""
    HASH = "hash"
    """The bytes that arrived are not those that were announced."""
    SAMPLES = "samples"
    """The number of samples is no number that can be."""
    VOTE = "vote"
    """This user has an adapter in this round already, or somebody has sent the same one."""
    ARCHIVE = "archive"
    """The zip file is damaged, too large when unpacked, or holds no adapter."""
    USER = "user"
    """The name of the user is none, or not that of the token."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer with a status of 400 and above."""

    detail: str | list[Any]
    """One sentence; for 422 HiveMind's list of `{loc, msg, type}`."""
    rule: str = ""
    """A `Rule` for a refused adapter, else ""."""


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /api/v1/server`."""

    name: str
    """`SERVER_NAME`."""
    version: str
    base_model: str
    """"" while no adapter has said it and `hive serve --base` did not."""
    base_fingerprint: str
    """`base_sha256` of the cards of adapters; "" when unknown: the name is compared then."""
    round: int
    """Number of the round that takes adapters."""
    min_adapters: int
    """Adapters that an aggregation needs."""
    max_bytes: int
    """The largest adapter."""
    max_samples: int
    """What a larger claim of samples counts as."""
    user: str
    """Whose token was sent; "" without one."""
    gated: bool
    """Whether a version is compared with the base on held-out cases before it is published."""


class HiveStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /api/v1/status`: HiveMind's four fields, and more."""

    total_adapters: int
    total_users: int
    latest_aggregated_version: str | None
    pending_for_aggregation: int
    round: int = 0
    base_model: str = ""
    bytes_received: int = 0
    """Since the server was started, with requests that were refused."""
    bytes_sent: int = 0
    aggregating: bool = False


class OpenUpload(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /api/v1/uploads`: announces an adapter. Answered with 201 and an `UploadState`."""

    sha256: str
    """Of `adapter_model.safetensors`."""
    size: int
    config: dict[str, Any]
    """`adapter_config.json`."""
    base_model: str = ""
    """"" for `base_model_name_or_path` of the configuration."""
    base_fingerprint: str = ""
    """`base_sha256` of the adapter's card; "" when it has none."""
    training_samples: int = 0
    epochs: int = 0
    user_id: str = ""
    """Whose adapter it is, on a server without tokens; "" for the person at this machine. With a token it is the token's."""


class UploadState(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /api/v1/uploads/{upload_id}`, and the answer to every part: how much has arrived durably.

    Parts are sent with `PUT /api/v1/uploads/{upload_id}?offset=N`, raw bytes, where N is `offset`.
    """

    upload_id: str
    offset: int
    """Bytes on the disk of the server; the next part starts here."""
    size: int
    expires_at: float
    adapter_id: str = ""
    """Set when the upload was finished: an answer that was lost can be asked for again."""


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /api/v1/uploads/{upload_id}/finish` and HiveMind's `POST /api/v1/adapter/upload`: the adapter is stored."""

    success: bool = True
    adapter_id: str
    message: str = "Adapter uploaded successfully"
    round: int = 0
    sha256: str = ""
    norm: float = 0.0
    """Frobenius norm of the change of the base, scaling included."""
    samples_counted: int = 0
    """The claim of samples, capped."""


class AdapterInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One stored adapter."""

    id: str
    user_id: str
    base_model: str
    base_fingerprint: str
    uploaded_at: float
    round: int
    sha256: str
    bytes: int
    norm: float
    rank: int
    training_samples: int
    samples_counted: int
    epochs: int
    used_in: str = ""
    """The version that was joined from it; "" while it waits."""
    withdrawn: bool = False
    """By its user, or with the user's token."""


class AdapterList(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /api/v1/adapters?user=NAME`, newest first."""

    adapters: list[AdapterInfo]


class VersionState(StrEnum):
    """What became of an aggregation."""

    CURRENT = "current"
    """What `latest` is."""
    PUBLISHED = "published"
    """Published earlier; a rollback may return to it."""
    WITHDRAWN = "withdrawn"
    """A rollback left it."""
    REJECTED = "rejected"
    """The gate stopped it; it was never published."""


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that a version was joined from."""

    adapter_id: str
    user_id: str
    weight: float
    """Its share, of 1."""
    outlier: bool = False
    """Flagged by the aggregation."""


class VersionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One aggregated version and what it came from."""

    version: str
    state: VersionState
    created_at: float
    round: int
    base_model: str
    base_fingerprint: str
    previous: str
    """The version that was current before; "" for the first."""
    parents: list[Parent]
    method: str
    rank: int
    energy: float | None
    """Share of the squared norm of the joined change that was kept; None when it was not measured."""
    error_vs_exact: float | None
    """Relative Frobenius error against the exact weighted sum."""
    epsilon: float | None
    """Of central differential privacy; None without it."""
    gate: str
    """"promote", "keep", "inconclusive", or "" for a server without held-out cases."""
    gain: float | None
    """What the gate measured; None without one."""
    reason: str
    """Why the gate decided so, one sentence."""
    sha256: str
    """Of `adapter_model.safetensors`."""
    bytes: int


class VersionList(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /api/v1/versions`, newest first."""

    versions: list[VersionInfo]


class RoundInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One round: the adapters that were taken in it, and the version that came of it."""

    number: int
    opened_at: float
    closed_at: float | None
    """None for the open one."""
    adapters: int
    samples_counted: int
    version: str
    """"" for the open one."""


class RoundList(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /api/v1/rounds`, newest first."""

    rounds: list[RoundInfo]


class Contributor(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one token."""

    user_id: str
    adapters: int
    samples_counted: int
    bytes_received: int
    refused: int
    last_at: float | None


class ContributorList(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /api/v1/contributors`."""

    contributors: list[Contributor]


class AggregateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /api/v1/aggregate`; HiveMind's clients send none, and `?version=` names the version."""

    version: str = ""
    """"" for `vYYYYMMDD_HHMMSS`."""
    method: str = ""
    """"" for the one of the server."""
    rank: int = 0
    """0 for the one of the server."""


class Aggregated(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `POST /api/v1/aggregate`: HiveMind's fields, and the version in full."""

    success: bool
    """Whether the version was published."""
    version: str
    num_adapters: int
    message: str
    detail: VersionInfo


class RollbackRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /api/v1/rollback`, answered with the `VersionInfo` that is current then."""

    version: str = ""
    """"" for the one before the current one."""
