"""Secrets of alert channels and of the hive: from the environment, the keyring where there is one, or a file that only
its owner reads.

They are never in the settings, and nothing prints them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from engine.core.errors import BadInput
from engine.core.filenames import shell_word
from engine.core.files import make_dirs, write_json
from engine.core.i18n import _
from engine.core.paths import Workspace

FILE_NAME = "secrets.json"
KEYRING_SERVICE = "h2q-tui"
HIVE = "@hive"
"""Channel of the secrets for the hive, `token`; no alert channel can have this name."""


def secrets_file(workspace: Workspace) -> Path:
    """The file with the secrets; it may not exist."""
    return workspace.config / FILE_NAME


def variable(channel: str, name: str) -> str:
    """The environment variable that goes before file and keyring: `H2Q_SECRET_MAIL_PASSWORD`, `H2Q_HIVE_TOKEN`."""
    if channel == HIVE:
        return f"H2Q_HIVE_{name.upper()}"
    return "H2Q_SECRET_" + re.sub(r"[^A-Z0-9]+", "_", f"{channel}_{name}".upper())


def read_secret(workspace: Workspace, channel: str, name: str) -> str:
    """The secret; "" when it is nowhere. Raises BadInput for a file that others can read, or that is broken."""
    if value := os.environ.get(variable(channel, name)):
        return value
    if value := _from_keyring(f"{channel}.{name}"):
        return value
    return _load(secrets_file(workspace)).get(channel, {}).get(name, "")


def save_secrets(workspace: Workspace, channel: str, secrets: Mapping[str, str]) -> Path:
    """Writes the secrets of a channel to the file, mode 0600; without any, they are deleted. Raises BadInput, OSError."""
    path = secrets_file(workspace)
    make_dirs(path.parent)
    known = {name: values for name, values in _load(path).items() if name != channel}
    if secrets:
        known[channel] = dict(secrets)
    write_json(path, known, mode=0o600)
    return path


def _load(path: Path) -> dict[str, dict[str, str]]:
    try:
        found = path.stat()
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(_("the secrets cannot be read"), path=path) from problem
    if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid != os.getuid():
        raise BadInput(_("others can read the secrets"), path=path, hint=f"chmod 600 {shell_word(path)}")
    with contextlib.suppress(ValueError):
        data = json.loads(text)
        if isinstance(data, dict):
            return {
                channel: {name: str(value) for name, value in values.items()}
                for channel, values in data.items()
                if isinstance(values, dict)
            }
    raise BadInput(_("the secrets are not valid JSON"), path=path)


def _from_keyring(name: str) -> str:
    """The secret in the keyring of the session, where the `keyring` package is installed and unlocked."""
    try:
        import keyring  # type: ignore[import-not-found, unused-ignore]

        return keyring.get_password(KEYRING_SERVICE, name) or ""
    except Exception:
        # Its backends raise errors of many libraries; without an answer the file is asked.
        return ""
