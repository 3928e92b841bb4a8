"""Messages on their way: real mails to a server on loopback, webhooks, the outbox when the network or the process dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.alerts import addresses, sms
from engine.alerts.alert_state import Notice, NoticeKind, observe, speak
from engine.alerts.channels import KINDS
from engine.alerts.delivery import Channel, deliver, open_channel, send
from engine.alerts.message import AlertMessage, MessagePlace, compose
from engine.alerts.readings import AlertLevel, Observation, ObservationState, RunReading
from engine.alerts.silence import Silence
from engine.alerts.store import BACKOFF_S, GIVEN_UP_AFTER_S, AlertStore, OutboxRow
from engine.core.config import load_settings, save_settings
from engine.core.credentials import read_secret, save_secrets, secrets_file, variable
from engine.core.errors import BadInput, UsageProblem
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.runs.events import RunStatus
from engine.runs.own_process import engine_command, engine_environment
from tests.alert_servers import CODE, USER, MailBox, http_server, make_certificate, smtp_server
from tests.conftest import Once

NOW = 1_764_400_000.0


def a_notice(rule: str = "run.failed", subject: str = "1128-a", **figures: float | str) -> Notice:
    figures = {"error": "out of memory", "fault": "memory", "step": 812, "max_steps": 2000, **figures}
    one = Observation(
        rule=rule, subject=subject, state=ObservationState.BAD, level=AlertLevel.CRITICAL, figures=figures
    )
    return speak(observe({}, [one], NOW), Silence(), NOW)[1][0]


PLACE = MessagePlace(
    host="mini",
    folder=Path("/home/me/my data"),
    runs={
        "1128-a": RunReading(
            run_id="1128-a", kind="train", status=RunStatus.FAILED, step=812, max_steps=2000, loss=1.612, best_loss=1.604,
            log_tail=("step 811: <b>bold</b>", "RuntimeError: can't allocate memory"),
        )
    },
)  # fmt: skip


def message(secrets: tuple[str, ...] = (), **figures: float | str) -> AlertMessage:
    return compose(a_notice("run.failed", "1128-a", **figures), PLACE, secrets=secrets)


def row(of: AlertMessage, channel: str = "mail") -> OutboxRow:
    return OutboxRow(
        id=1, channel=channel, level=of.level, title=of.title, text=of.text, html=of.html, short=of.short,
        created_at=NOW, attempts=0, next_at=NOW, sent_at=None, given_up_at=None, error="",
    )  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "data")


@pytest.fixture(scope="session")
def certificate(once: Once) -> tuple[Path, Path]:
    folder = once("alert-certificate", lambda folder: make_certificate(folder) and None)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def trusted(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    return certificate


def mail_channel(box: MailBox, mode: str) -> Channel:
    login = {} if mode == "insecure" else {"user": USER, "password": CODE}
    return Channel(
        "mail",
        "mail",
        {
            "host": "127.0.0.1",
            "port": str(box.port),
            "mode": mode,
            "from": USER,
            "to": "you@example.com",
            **login,
        },
    )


# What a message says


def test_a_message_says_what_since_when_where_the_figures_the_log_and_what_to_do() -> None:
    made = message()
    assert made.title == "[critical] mini: training failed: out of memory"
    for part in (
        "out of memory", "2025-11-29", "host mini", "/home/me/my data", "run 1128-a train (failed)", "step 812 of 2000",
        "loss 1.612, best 1.604", "can't allocate memory", "give it a smaller batch",
        "h2q-tui runs resume 1128-a --data-dir '/home/me/my data'",
    ):  # fmt: skip
        assert part in made.text
    assert "&lt;b&gt;bold" in made.html and "<b>bold" not in made.html


def test_no_secret_stands_in_a_message() -> None:
    made = message(
        (CODE, "hunter2hunter2"), error=f"login with {CODE} failed, token=abcdefghijkl {'hunter2' * 2}"
    )
    for text in (made.title, made.text, made.html, made.short):
        assert CODE not in text and "hunter2" not in text and "abcdefghijkl" not in text


def test_a_title_and_a_short_text_are_one_line_whatever_the_error_says() -> None:
    made = message(error="first line\r\nBcc: everybody@example.com\n\nbody")
    assert "\n" not in made.title + made.short and "\r" not in made.title + made.short


# Mail


@pytest.mark.parametrize("mode", ["insecure", "ssl", "starttls"])
def test_a_mail_arrives_as_html_with_the_same_as_text(mode: str, trusted: tuple[Path, Path]) -> None:
    with smtp_server(mode, None if mode == "insecure" else trusted) as box:
        assert send(mail_channel(box, mode), row(message())) == ""
    (mail,) = box.mails
    assert mail["Subject"] == "[critical] mini: training failed: out of memory"
    assert mail["To"] == "you@example.com" and USER in mail["From"]
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None and html is not None
    assert "runs resume 1128-a" in plain.get_content() and "<table" in html.get_content()
    assert "<table" not in plain.get_content()


@pytest.mark.parametrize("mode", ["ssl", "starttls"])
def test_a_certificate_that_nobody_vouches_for_is_refused(mode: str, certificate: tuple[Path, Path]) -> None:
    with smtp_server(mode, certificate) as box:
        error = send(mail_channel(box, mode), row(message()))
    assert "certificate" in error.lower() and box.mails == []


def test_a_wrong_code_is_an_error_that_does_not_show_it(
    trusted: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "engine.alerts.channels.CONNECT_S", 1
    )  # apprise waits so long for the server's last word
    with smtp_server("starttls", trusted) as box:
        channel = mail_channel(box, "starttls")
        wrong = Channel("mail", "mail", {**channel.fields, "password": "WRONGCODEWRONGCO"})
        error = send(wrong, row(message()))
    assert error and "WRONGCODE" not in error and box.mails == []


@pytest.mark.parametrize(
    ("kind", "host"), [("126", "smtp.126.com"), ("163", "smtp.163.com"), ("qq", "smtp.qq.com")]
)
def test_a_mailbox_goes_to_its_own_server_with_tls_from_the_first_byte(kind: str, host: str) -> None:
    import apprise

    url = KINDS[kind].url
    assert url is not None
    service = apprise.Apprise()
    assert service.add(url({"user": f"me@{kind}.com", "password": "a:b/c@d%", "to": "you@example.com"}))
    made: Any = service[0]
    assert (made.smtp_host, made.port, made.secure_mode) == (host, 465, "ssl")
    assert (made.user, made.password) == (f"me@{kind}.com", "a:b/c@d%")
    assert made.from_addr[1] == f"me@{kind}.com" and made.targets == [(False, "you@example.com")]


FIELDS: dict[str, dict[str, str]] = {
    "wecom": {"password": "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=693a91f6-7aoc-4bc4-97a0-0ec2sifa5aaa"},
    "dingtalk": {"password": "https://oapi.dingtalk.com/robot/send?access_token=66ab9c1fd2e34f57", "sign_secret": "SEC123"},
    "feishu": {"password": "https://open.feishu.cn/open-apis/bot/v2/hook/6a1b2c3d-1111-2222-3333-444455556666"},
    "ntfy": {"server": "http://127.0.0.1:8080", "password": "my-topic", "token": "tk_abcdef"},
    "bark": {"password": "https://api.day.app/AbCdEf123/"},
    "serverchan": {"password": "SCT1234567890AAAAAA"},
    "slack": {"password": "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"},
    "telegram": {"password": "123456789:AAHabcdefghijklmnopqrstuvwxyz012345", "chat": "-10012315544"},
    "twilio": {"sid": "AC" + "0" * 32, "password": "f" * 32, "from": "+15551112222", "to": "+8613800138000"},
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(FIELDS))
def test_the_fields_of_a_service_make_an_address_that_apprise_takes_and_hides(kind: str) -> None:
    import apprise

    url, fields = KINDS[kind].url, FIELDS[kind]
    assert url is not None
    service = apprise.Apprise()
    assert service.add(url({one.name: fields.get(one.name, one.default) for one in KINDS[kind].fields}))
    made: Any = service[0]
    shown = made.url(privacy=True)
    secret = fields["password"].rstrip("/").rpartition("/")[2].rpartition("=")[2]
    # Of ntfy the topic is the secret, which apprise shows.
    assert secret not in shown or kind == "ntfy"


def test_every_kind_is_either_sent_by_apprise_or_by_us() -> None:
    from engine.alerts.delivery import _SENDERS

    assert {kind.id for kind in KINDS.values() if kind.url is None} == set(_SENDERS)


# Webhooks


def hook(url: str, **more: str) -> Channel:
    return Channel("hook", "webhook", {"password": url, **more})


def test_a_webhook_gets_json_with_its_token() -> None:
    with http_server() as server:
        url = f"http://127.0.0.1:{server.port}/in?room=7"
        assert send(hook(url, private="yes", token="t0k3n"), row(message())) == ""
    ((path, headers, body),) = server.requests
    assert path == "/in?room=7" and headers["Authorization"] == "Bearer t0k3n"
    assert json.loads(body)["title"].startswith("[critical]") and json.loads(body)["level"] == "critical"


def test_a_redirection_is_not_followed() -> None:
    with http_server() as server, http_server() as elsewhere:
        server.status, server.location = 302, f"http://127.0.0.1:{elsewhere.port}/"
        error = send(hook(f"http://127.0.0.1:{server.port}/", private="yes"), row(message()))
    assert "redirection" in error and elsewhere.requests == []


SSRF = [
    "http://127.0.0.1/", "http://127.1/", "http://127.0.0.2:8080/", "http://2130706433/", "http://0177.0.0.1/",
    "http://0x7f.0.0.1/", "http://0x7f000001/", "http://017700000001/", "http://localhost/", "http://LOCALHOST./",
    "http://[::1]/", "http://[0:0:0:0:0:0:0:1]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::127.0.0.1]/",
    "http://0.0.0.0/", "http://0/", "http://[::]/", "http://10.0.0.1/", "http://172.16.5.4/", "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/", "http://2852039166/", "http://[fe80::1]/", "http://[fd00::1]/",
    "http://[fc00:ec2::254]/", "http://100.64.0.1/", "http://224.0.0.1/", "http://255.255.255.255/", "http://[ff02::1]/",
    "http://[2002:7f00:1::]/", "http://[64:ff9b::7f00:1]/", "http://[::ffff:10.0.0.1]/", "http://[2001:db8::1]/", "http://240.0.0.1/",
    "http://198.18.0.1/", "http://１２７.0.0.1/", "http://①②⑦.0.0.1/", "http://me@127.0.0.1/", "http://example.com\\@127.0.0.1/",
    "http://127.0.0.1#@example.com/", "http://127。0。0。1/", "ftp://127.0.0.1/", "file:///etc/passwd", "gopher://127.0.0.1:25/_",
    "http://", "http:///x", "http://a b/", "http://127.0.0.1:99999/", "//127.0.0.1/",
]  # fmt: skip


@pytest.mark.parametrize("url", SSRF)
def test_a_webhook_leads_nowhere_private(url: str) -> None:
    with pytest.raises((UsageProblem, OSError)):
        addresses.check_target(url)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::6810:84e5", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]
)  # fmt: skip
def test_the_public_network_is_allowed(address: str) -> None:
    import ipaddress

    assert addresses.is_public(ipaddress.ip_address(address))


def resolving(monkeypatch: pytest.MonkeyPatch, answers: Iterator[list[str]]) -> None:
    """A name server that says something else each time it is asked."""

    def lookup(_host: str, port: int, *_more: object, **_named: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(answers)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


@pytest.mark.parametrize("answer", [["10.0.0.8"], ["8.8.8.8", "127.0.0.1"], ["169.254.169.254"]])
def test_a_name_that_leads_to_a_private_address_is_refused(
    answer: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, iter([answer]))
    with pytest.raises(UsageProblem, match="not on the public network"):
        addresses.check_target("https://hook.example.com/x")


def test_a_name_is_asked_once_and_the_address_that_was_checked_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with http_server() as server, monkeypatch.context() as patch:
        resolving(patch, iter([["127.0.0.1"]]))
        target = addresses.check_target(f"http://hook.example.com:{server.port}/x", allow_private=True)
        patch.undo()
        # A second question to the name server would fail: example.com is not there.
        assert addresses.post(target, b"{}", {}, timeout_s=5) == 200
    assert server.requests[0][1]["Host"] == f"hook.example.com:{server.port}"


# SMS: the examples that the vendors publish


def test_the_signature_of_alibaba_cloud_is_that_of_its_example() -> None:
    parameters = {
        "AccessKeyId": "testId", "Action": "SendSms", "Format": "XML", "OutId": "123", "PhoneNumbers": "15300000001",
        "RegionId": "cn-hangzhou", "SignName": "阿里云短信测试专用", "SignatureMethod": "HMAC-SHA1",
        "SignatureNonce": "45e25e9b-0a6f-4070-8c85-2956eda1b466", "SignatureVersion": "1.0",
        "TemplateCode": "SMS_71390007", "TemplateParam": '{"customer":"test"}', "Timestamp": "2017-07-12T02:42:19Z",
        "Version": "2017-05-25",
    }  # fmt: skip
    assert sms.aliyun_signature(parameters, "testSecret") == "zJDF+Lrzhj/ThnlvIToysFRq6t4="


def test_the_signature_of_tencent_cloud_is_that_of_its_example() -> None:
    payload = rb'{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}'
    header = sms.tencent_authorization(
        secret_id="AKID" + "*" * 32, secret_key="*" * 32, service="cvm", host="cvm.tencentcloudapi.com",
        action="DescribeInstances", payload=payload, timestamp=1551113065,
    )  # fmt: skip
    assert header.endswith(
        "/2019-02-25/cvm/tc3_request, SignedHeaders=content-type;host;x-tc-action, "
        "Signature=10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f"
    )


# Secrets


def test_secrets_are_in_a_file_of_their_own_that_only_its_owner_reads(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_secrets(workspace, "mail", {"password": CODE})
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_secret(workspace, "mail", "password") == CODE
    monkeypatch.setenv(variable("mail", "password"), "from the environment")
    assert read_secret(workspace, "mail", "password") == "from the environment"
    monkeypatch.delenv(variable("mail", "password"))
    path.chmod(0o640)
    with pytest.raises(BadInput, match="others can read"):
        read_secret(workspace, "mail", "password")


def test_a_channel_lies_in_the_settings_without_its_secret(workspace: Workspace) -> None:
    configure(workspace, 25)
    text = workspace.settings_file.read_text(encoding="utf-8")
    assert "you@example.com" in text and CODE not in text
    again = load_settings(workspace)
    save_settings(workspace, again)
    assert load_settings(workspace) == again
    assert open_channel(workspace, again, "mail").fields["password"] == CODE


def test_a_channel_without_its_secret_says_what_is_missing(workspace: Workspace) -> None:
    configure(workspace, 25)
    secrets_file(workspace).unlink()
    with pytest.raises(UsageProblem, match="lacks its authorisation code"):
        open_channel(workspace, Settings(alert_channels={"m": {"kind": "126", "user": "a", "to": "b"}}), "m")


# The outbox


def configure(workspace: Workspace, port: int, mode: str = "insecure") -> None:
    fields = {
        "kind": "mail",
        "host": "127.0.0.1",
        "port": str(port),
        "mode": mode,
        "from": USER,
        "to": "you@example.com",
    }
    save_settings(
        workspace, Settings(alert_channels={"mail": fields}, quiet_hours="22:00-07:00", theme="dark")
    )
    save_secrets(workspace, "mail", {"password": CODE})


def put(workspace: Workspace, count: int = 1, now: float = NOW) -> None:
    with AlertStore(workspace) as store, store.transaction():
        for number in range(count):
            store.tell(
                a_notice(subject=f"run-{number:03d}"), message(error=f"number {number}"), ["mail"], now
            )


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_what_cannot_be_sent_waits_longer_each_time_and_arrives_when_the_server_is_back(
    workspace: Workspace,
) -> None:
    port = closed_port()
    configure(workspace, port)
    put(workspace)
    clock = NOW
    for wait in (*BACKOFF_S, BACKOFF_S[-1]):
        assert deliver(workspace, clock=partial(float, clock)) == 0
        with AlertStore(workspace) as store:
            (waiting,) = store.outbox(unsent=True)
            assert waiting.next_at == clock + wait and waiting.error
            clock = waiting.next_at
        assert deliver(workspace, clock=partial(float, clock - 1)) == 0
    with smtp_server("plain", port=port) as box:
        assert deliver(workspace, clock=lambda: clock) == 1
        assert deliver(workspace, clock=lambda: clock + 9999) == 0
    assert len(box.mails) == 1


def test_after_a_week_a_message_is_given_up_and_can_be_tried_again(workspace: Workspace) -> None:
    configure(workspace, closed_port())
    put(workspace)
    late = NOW + GIVEN_UP_AFTER_S + 1
    deliver(workspace, clock=lambda: late)
    with AlertStore(workspace) as store:
        assert store.next_due() is None and store.outbox()[0].given_up_at == late
        assert store.try_again(late) == 1 and store.next_due() == late


def test_the_most_serious_message_goes_first(workspace: Workspace) -> None:
    with smtp_server("plain") as box:
        configure(workspace, box.port)
        with AlertStore(workspace) as store, store.transaction():
            for level in reversed(AlertLevel):
                made = AlertMessage(level, f"[{level}]", "text", "<p>text</p>", "text")
                store.tell(a_notice(), made, ["mail"], NOW)
        assert deliver(workspace, clock=lambda: NOW) == 4
    assert [mail["Subject"] for mail in box.mails] == [f"[{level}]" for level in AlertLevel]


def test_one_message_that_is_refused_does_not_hold_up_the_others(workspace: Workspace) -> None:
    with http_server() as server:
        fields = {"kind": "webhook", "private": "yes"}
        save_settings(workspace, Settings(alert_channels={"mail": fields, "gone": {"kind": "nothing"}}))
        save_secrets(workspace, "mail", {"password": f"http://127.0.0.1:{server.port}/"})
        put(workspace, 3)
        with AlertStore(workspace) as store, store.transaction():
            store.tell(a_notice(), message(), ["gone"], NOW)
        assert deliver(workspace, clock=lambda: NOW) == 3
    with AlertStore(workspace) as store:
        (left,) = store.outbox(unsent=True)
    assert left.channel == "gone" and "unknown kind" in left.error


def test_a_delivery_that_is_killed_again_and_again_loses_nothing(workspace: Workspace) -> None:
    """Killed with SIGKILL at moments that move through the delivery; at least once, and every message arrives."""
    total = 12
    with smtp_server("plain") as box:
        configure(workspace, box.port)
        put(workspace, total, time.time() - 60)
        killed = 0
        for attempt in range(6):
            process = subprocess.Popen(
                [*engine_command(), "deliver", str(workspace.root)], env=engine_environment()
            )
            deadline, seen = time.monotonic() + 30, len(box.mails)
            while (
                len(box.mails) < seen + 1 + attempt % 2
                and process.poll() is None
                and time.monotonic() < deadline
            ):
                time.sleep(0.002)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
            process.wait()
        assert killed >= 3
        deliver(workspace)
    arrived = {next(part for part in (mail.get_body(("plain",)).get_content()).split("\n") if "number " in part).strip() for mail in box.mails}  # type: ignore[union-attr]  # fmt: skip
    assert arrived == {f"number {number}" for number in range(total)}
    with AlertStore(workspace) as store:
        assert store.outbox(unsent=True) == []


def test_two_deliveries_at_the_same_time_send_each_message_once(workspace: Workspace) -> None:
    with smtp_server("plain") as box:
        configure(workspace, box.port)
        put(workspace, 5)
        threads = [threading.Thread(target=deliver, args=(workspace,)) for _n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        deliver(workspace)
    assert len(box.mails) == 5


def test_a_notice_and_the_state_that_it_tells_are_written_together(workspace: Workspace) -> None:
    notice = a_notice()
    states = {state.fingerprint: state for state in notice.states}
    with AlertStore(workspace) as store:
        with pytest.raises(RuntimeError), store.transaction():
            store.save_states({}, states)
            store.tell(notice, message(), ["mail"], NOW)
            raise RuntimeError("killed")
        assert store.states() == {} and store.outbox() == [] and store.notices() == []
        with store.transaction():
            store.save_states({}, states)
            store.tell(notice, message(), ["mail"], NOW)
        assert store.states() == states and len(store.outbox()) == 1
        assert (
            store.notices()[0].fingerprints == tuple(states) and store.notices()[0].kind == NoticeKind.ALERT
        )
    assert (workspace.alerts / "outbox.db").stat().st_mode & 0o777 == 0o600
