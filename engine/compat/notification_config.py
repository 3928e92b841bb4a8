"""`notification_config.json` of the RL-Swarm monitor, read as channels.

Its SMTP password goes where secrets are kept. A recipient that nobody chose is none: the file's placeholder is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.core.errors import BadInput
from engine.core.i18n import _

_HOSTS = {"smtp.126.com": "126", "smtp.163.com": "163", "smtp.qq.com": "qq"}
_PLACEHOLDERS = ("example.com", "your_", "your-", "发件人", "收件人", "授权码", "xxx")
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class ImportedChannel:
    """A channel of the file.

    Attributes:
        fields: public and secret ones, as `engine.alerts.channels` names them.
    """

    name: str
    kind: str
    fields: dict[str, str]


@dataclass
class NotificationConfig:
    """What the file holds, and one sentence for each part that was left out."""

    channels: list[ImportedChannel] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_notification_config(path: Path) -> NotificationConfig:
    """The channels of the file at `path`. Raises BadInput for one that is none."""
    try:
        data = json.loads(path.read_bytes()[:_MAX_BYTES])
    except OSError as problem:
        raise BadInput(problem.strerror or str(problem), path=path) from problem
    except ValueError as problem:
        raise BadInput(_("the file is not valid JSON"), path=path) from problem
    if not isinstance(data, dict) or not any(isinstance(data.get(part), dict) for part in ("email", "sms")):
        raise BadInput(_("the file has neither email nor sms"), path=path)
    found = NotificationConfig()
    _email(data.get("email"), found)
    _sms(data.get("sms"), found)
    return found


def _text(section: dict[str, Any], name: str) -> str:
    """A value as text; "" for a placeholder."""
    value = section.get(name)
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return "" if any(mark in text.lower() for mark in _PLACEHOLDERS) else text


def _email(section: Any, found: NotificationConfig) -> None:
    if not isinstance(section, dict):
        return
    if not section.get("enabled", False):
        found.left_out.append(_("email is switched off in the file"))
        return
    sender, to = _text(section, "sender_email"), _text(section, "recipient_email")
    host = _text(section, "smtp_server") or "smtp.126.com"
    if not sender or not to:
        lacking = "sender_email" if not sender else "recipient_email"
        found.left_out.append(_("email: {field} is missing or a placeholder").format(field=lacking))
        return
    secret = {"password": _text(section, "sender_password")}
    kind = _HOSTS.get(host.lower())
    if kind is not None:
        found.channels.append(ImportedChannel("mail", kind, {"user": sender, "to": to, **secret}))
        return
    port = _text(section, "smtp_port") or "587"
    if section.get("use_ssl") or port == "465":
        mode = "ssl"
    else:
        mode = "starttls" if section.get("use_tls", True) else "insecure"
    fields = {"host": host, "port": port, "mode": mode, "user": sender, "from": sender, "to": to, **secret}
    found.channels.append(ImportedChannel("mail", "mail", fields))


def _sms(section: Any, found: NotificationConfig) -> None:
    if not isinstance(section, dict):
        return
    if not section.get("enabled", False):
        found.left_out.append(_("sms is switched off in the file"))
        return
    provider = _text(section, "provider").lower()
    # What the earlier system never asked for, because it never sent an SMS.
    lacking = {"aliyun": "sign", "tencent": "app, sign", "twilio": "from"}.get(provider)
    if lacking is None:
        found.left_out.append(_("sms: the provider {name} is unknown").format(name=provider or "?"))
        return
    found.left_out.append(
        _("sms by {name}: the file lacks {fields}; h2q-tui notify setup {name} asks for them").format(
            name=provider, fields=lacking
        )
    )
