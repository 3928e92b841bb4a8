"""The kinds of channel: what each asks for, and the address that apprise sends to.

A channel of the settings has a name, a kind and its public fields. Its secret fields are not in the settings
(`credentials.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from engine.core.i18n import N_

CONNECT_S, READ_S = 10, 20
"""Timeouts of an attempt; a wrong password on port 465 would wait for its end."""
Fields = Mapping[str, str]


@dataclass(frozen=True)
class ChannelField:
    """One thing that a channel asks for.

    Attributes:
        title: what to type, marked for the catalogs.
        secret: it is kept apart from the settings and never shown.
        needed: an empty answer is refused.
        choices: the values that it takes; empty for any.
    """

    name: str
    title: str
    secret: bool = False
    needed: bool = True
    default: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChannelKind:
    """A way to send messages.

    Attributes:
        title: its name in the guided setup, marked for the catalogs.
        url: the address for apprise, from all fields; None for a kind that is sent by this program itself.
        html: it takes HTML.
        short: it takes one line.
        help: where to find what is asked for, marked for the catalogs.
    """

    id: str
    title: str
    fields: tuple[ChannelField, ...]
    url: Callable[[Fields], str] | None = None
    html: bool = False
    short: bool = False
    help: str = ""


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _query(**values: str) -> str:
    given = {"cto": str(CONNECT_S), "rto": str(READ_S), "overflow": "split", **values}
    return "&".join(f"{key}={_quoted(value)}" for key, value in given.items() if value)


def _mail(fields: Fields) -> str:
    """Mail by SMTP. The certificate is always verified; without TLS only where that was chosen."""
    mode = fields.get("mode") or "ssl"
    scheme = "mailto" if mode == "insecure" else "mailtos"
    user, password = fields.get("user", ""), fields.get("password", "")
    login = f"{_quoted(user)}:{_quoted(password)}@" if user else ""
    sender = fields.get("from") or user
    place = f"{fields['host']}:{fields.get('port') or '465'}"
    return (
        f"{scheme}://{login}{place}?{_query(mode=mode, to=fields['to'], **{'from': f'h2q-tui <{sender}>'})}"
    )


def _preset(host: str) -> Callable[[Fields], str]:
    """A mail service whose address is the account, by its own server: apprise has no row for 126.com."""
    return lambda fields: _mail(
        {**fields, "host": host, "port": "465", "mode": "ssl", "from": fields["user"]}
    )


def _last_part(text: str) -> str:
    """The key in a webhook's address, where the whole address was pasted."""
    if "://" not in text:
        return text.strip()
    parts = urlsplit(text.strip())
    query = dict(pair.partition("=")[::2] for pair in parts.query.split("&"))
    return query.get("key") or query.get("access_token") or parts.path.rstrip("/").rpartition("/")[2]


def _dingtalk(fields: Fields) -> str:
    signing, token = fields.get("sign_secret", ""), _quoted(_last_part(fields["password"]))
    return f"dingtalk://{f'{_quoted(signing)}@' if signing else ''}{token}/?{_query()}"


def _slack(fields: Fields) -> str:
    text = fields["password"].strip()
    return f"slack://{'/'.join(map(_quoted, urlsplit(text).path.split('/')[-3:] if '://' in text else text.split('/')))}/?{_query()}"


def _server(fields: Fields, default: str) -> tuple[str, str]:
    """Whether https, and host with port, of a server that one may run oneself."""
    text = fields.get("server") or default
    parts = urlsplit(text if "://" in text else f"https://{text}")
    return "" if parts.scheme == "http" else "s", parts.netloc


def _ntfy(fields: Fields) -> str:
    secure, place = _server(fields, "https://ntfy.sh")
    token = fields.get("token", "")
    login, query = (f"{_quoted(token)}@", _query(auth="token")) if token else ("", _query())
    return f"ntfy{secure}://{login}{place}/{_quoted(fields['password'])}?{query}"


def _bark(fields: Fields) -> str:
    secure, place = _server(fields, "https://api.day.app")
    return f"bark{secure}://{place}/{_quoted(_last_part(fields['password']))}?{_query()}"


_ADDRESS = ChannelField("user", N_("your mail address"))
_TO = ChannelField("to", N_("send to (mail address)"))
_CODE = ChannelField("password", N_("authorisation code (not the password of the mailbox)"), secret=True)
_PHONE = ChannelField("to", N_("phone number, such as +8613800138000"))
_CODE_HELP = N_("In the mailbox: Settings → POP3/SMTP/IMAP → switch SMTP on → authorisation code.")


def _mailbox(id_: str, title: str, host: str) -> ChannelKind:
    return ChannelKind(id_, title, (_ADDRESS, _CODE, _TO), _preset(host), html=True, help=_CODE_HELP)


_KINDS = (
    _mailbox("126", N_("Mail by 126.com"), "smtp.126.com"),
    _mailbox("163", N_("Mail by 163.com"), "smtp.163.com"),
    _mailbox("qq", N_("Mail by QQ"), "smtp.qq.com"),
    ChannelKind(
        "mail",
        N_("Mail by another server"),
        (
            ChannelField("host", N_("SMTP server")),
            ChannelField("port", N_("port: 465 (ssl), 587 (starttls)"), default="465"),
            ChannelField(
                "mode",
                N_("encryption: ssl, starttls or insecure"),
                default="ssl",
                choices=("ssl", "starttls", "insecure"),
            ),
            ChannelField("user", N_("user name"), needed=False),
            ChannelField("password", N_("password"), secret=True, needed=False),
            ChannelField("from", N_("sender (mail address)"), needed=False),
            _TO,
        ),
        _mail,
        html=True,
    ),
    ChannelKind(
        "wecom",
        N_("WeCom (企业微信) group robot"),
        (ChannelField("password", N_("key of the robot, or its webhook address"), secret=True),),
        lambda fields: f"wecombot://{_quoted(_last_part(fields['password']))}/?{_query()}",
    ),
    ChannelKind(
        "dingtalk",
        N_("DingTalk (钉钉) group robot"),
        (
            ChannelField("password", N_("access token of the robot, or its webhook address"), secret=True),
            ChannelField("sign_secret", N_("secret for signing (SEC…)"), secret=True, needed=False),
        ),
        _dingtalk,
    ),
    ChannelKind(
        "feishu",
        N_("Feishu (飞书) group robot"),
        (ChannelField("password", N_("token of the robot, or its webhook address"), secret=True),),
        lambda fields: f"feishu://{_quoted(_last_part(fields['password']))}/?{_query()}",
    ),
    ChannelKind(
        "ntfy",
        "ntfy",
        (
            ChannelField("server", N_("server"), needed=False, default="https://ntfy.sh"),
            ChannelField("password", N_("topic; whoever knows it can read along"), secret=True),
            ChannelField("token", N_("access token"), secret=True, needed=False),
        ),
        _ntfy,
    ),
    ChannelKind(
        "bark",
        "Bark",
        (
            ChannelField("server", N_("server"), needed=False, default="https://api.day.app"),
            ChannelField("password", N_("key of the device"), secret=True),
        ),
        _bark,
    ),
    ChannelKind(
        "serverchan",
        N_("ServerChan (Server 酱)"),
        (ChannelField("password", N_("SendKey"), secret=True),),
        lambda fields: f"schan://{_quoted(fields['password'])}/?{_query()}",
    ),
    ChannelKind(
        "slack",
        "Slack",
        (ChannelField("password", N_("webhook address of the app"), secret=True),),
        _slack,
    ),
    ChannelKind(
        "telegram",
        "Telegram",
        (
            ChannelField("password", N_("token of the bot"), secret=True),
            ChannelField("chat", N_("id of the chat")),
        ),
        lambda fields: f"tgram://{fields['password'].strip()}/{_quoted(fields['chat'])}/?{_query()}",
    ),
    ChannelKind(
        "twilio",
        N_("SMS by Twilio"),
        (
            ChannelField("sid", N_("account SID")),
            ChannelField("password", N_("auth token"), secret=True),
            ChannelField("from", N_("sender (phone number)")),
            _PHONE,
        ),
        lambda fields: (
            f"twilio://{_quoted(fields['sid'])}:{_quoted(fields['password'])}@{_quoted(fields['from'])}/{_quoted(fields['to'])}?{_query()}"
        ),
        short=True,
    ),
    ChannelKind(
        "aliyun",
        N_("SMS by Alibaba Cloud (阿里云)"),
        (
            ChannelField("key_id", "AccessKey ID"),
            ChannelField("password", "AccessKey Secret", secret=True),
            ChannelField("sign", N_("signature (签名)")),
            ChannelField("template", N_("template code, such as SMS_123456789")),
            ChannelField("parameter", N_("the template's parameter"), needed=False, default="content"),
            _PHONE,
        ),
        short=True,
    ),
    ChannelKind(
        "tencent",
        N_("SMS by Tencent Cloud (腾讯云)"),
        (
            ChannelField("key_id", "SecretId"),
            ChannelField("password", "SecretKey", secret=True),
            ChannelField("app", "SmsSdkAppId"),
            ChannelField("sign", N_("signature (签名)")),
            ChannelField("template", N_("template id")),
            ChannelField("region", N_("region"), needed=False, default="ap-guangzhou"),
            _PHONE,
        ),
        short=True,
    ),
    ChannelKind(
        "webhook",
        N_("Webhook (JSON)"),
        (
            ChannelField("password", N_("address"), secret=True),
            ChannelField("token", N_("bearer token"), secret=True, needed=False),
            ChannelField(
                "private",
                N_("may it lead to a private address? yes or no"),
                needed=False,
                default="no",
                choices=("no", "yes"),
            ),
        ),
    ),
)
KINDS: dict[str, ChannelKind] = {kind.id: kind for kind in _KINDS}
MAIL_DOMAINS = {
    "126.com": "126",
    "163.com": "163",
    "qq.com": "qq",
    "foxmail.com": "qq",
}
"""For `setup --quick`: the kind that an address tells."""
