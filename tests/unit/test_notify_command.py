"""`h2q-tui notify`: channels set up without a terminal, tests, alerts, the outbox and the earlier system's file."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.alerts.alert_state import observe, speak
from engine.alerts.message import MessagePlace, compose
from engine.alerts.readings import AlertLevel, Observation, ObservationState
from engine.alerts.silence import Silence
from engine.alerts.store import AlertStore
from engine.core.config import load_settings
from engine.core.credentials import read_secret, secrets_file
from engine.core.paths import Workspace
from engine.runs.own_process import engine_environment
from tests.alert_servers import CODE, USER, smtp_server
from tests.cli import run_cli

OLD: dict[str, Any] = {
    "email": {
        "enabled": True, "smtp_server": "smtp.126.com", "smtp_port": 587, "sender_email": USER, "sender_password": CODE,
        "recipient_email": "you@host.org", "use_tls": True,
    },
    "sms": {"enabled": False, "provider": "aliyun", "api_key": "", "api_secret": "", "phone_number": "", "template_id": ""},
    "alert_levels": {"critical": "🚨", "error": "❌", "warning": "⚠️", "info": "ℹ️"},
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path / "data")


def put_alert(home: str, channel: str = "mail") -> None:
    one = Observation(
        rule="machine.disk", state=ObservationState.BAD, level=AlertLevel.ERROR, figures={"free": 3.0 * 2**30}
    )
    seen = observe({}, [one], time.time())
    after, (notice,) = speak(seen, Silence(), time.time())
    with AlertStore(Workspace(Path(home))) as store, store.transaction():
        store.save_states({}, after)
        store.tell(notice, compose(notice, MessagePlace("mini", Path(home))), [channel], notice.at)


def local_mail(home: str, port: int) -> None:
    fields = [f"--field={pair}" for pair in (f"port={port}", "host=127.0.0.1", "mode=insecure", "from=me@host.org", "to=you@host.org")]  # fmt: skip
    assert run_cli("--data-dir", home, "notify", "setup", "mail", *fields, "--no-test").code == 0


def test_a_channel_is_set_up_tried_listed_and_removed(home: str) -> None:
    with smtp_server("plain") as box:
        local_mail(home, box.port)
        tried = run_cli("--data-dir", home, "notify", "test")
    assert (tried.code, tried.out.strip()) == (0, "mail: sent") and len(box.mails) == 1
    assert "host=127.0.0.1" in run_cli("--data-dir", home, "notify", "channels").out
    gone = run_cli("--data-dir", home, "--json", "notify", "test", "mail")
    assert gone.code == 4 and json.loads(gone.out)["sent"] == {"mail": False}
    assert json.loads(gone.out)["error"].startswith("mail: ") and json.loads(gone.out)["exit_code"] == 4
    assert run_cli("--data-dir", home, "notify", "test", "nothing").code == 2
    assert run_cli("--data-dir", home, "notify", "remove", "mail").code == 0
    assert run_cli("--data-dir", home, "notify", "test").code == 2


def test_a_secret_on_the_command_line_is_refused_and_one_in_the_environment_is_taken(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "--data-dir",
        home,
        "notify",
        "setup",
        "126",
        "--no-test",
        "--field",
        f"user={USER}",
        "--field",
        "to=you@host.org",
    ]
    refused = run_cli(*words, "--field", f"password={CODE}")
    assert (
        refused.code == 2
        and "H2Q_SECRET_126_PASSWORD" in refused.err
        and CODE not in refused.err + refused.out
    )
    assert run_cli(*words).code == 2  # no terminal to ask on
    monkeypatch.setenv("H2Q_SECRET_126_PASSWORD", CODE)
    assert run_cli(*words).code == 0
    assert CODE not in secrets_file(Workspace(Path(home))).read_text()
    assert load_settings(Workspace(Path(home))).alert_channels["126"]["to"] == "you@host.org"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["mail", "--field", "host=x", "--field", "to=y", "--field", "mode=tls"], "mode takes one of"),
        (["mail", "--field", "host=x", "--field", "nothing=y"], "to"),
        (["pigeon"], "there is no kind of channel pigeon"),
        (["mail", "--field", "host"], "NAME=VALUE"),
        (["mail", "--name", "a b", "--field", "host=x", "--field", "to=y"], "letters, digits"),
    ],
)
def test_what_makes_no_channel_is_refused(home: str, words: list[str], why: str) -> None:
    refused = run_cli("--data-dir", home, "notify", "setup", *words, "--no-test")
    assert refused.code == 2 and why in refused.err
    assert not load_settings(Workspace(Path(home))).alert_channels


def test_the_quick_setup_asks_on_a_terminal_and_never_shows_the_code(home: str) -> None:
    """An address of 126.com tells the server; the code is typed and not echoed."""
    code = "from tui.cli.main import main; main()"
    main, side = pty.openpty()
    words = ["--data-dir", home, "--lang", "en", "notify", "setup", "--quick", "--no-test"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdin=side, stdout=side, stderr=side, env=engine_environment()
    )
    os.close(side)
    shown = b""
    answers = [(b"mail address", USER), (b"authorisation code (", CODE)]
    while select.select([main], [], [], 60)[0]:
        try:
            data = os.read(main, 4096)
        except OSError:
            break
        shown += data
        if not data:
            break
        # The blank comes when the terminal is ready: what is typed before, a hidden prompt discards.
        if answers and answers[0][0] in shown and shown.endswith(b": "):
            os.write(main, answers.pop(0)[1].encode() + b"\n")
    assert process.wait(30) == 0, shown
    os.close(main)
    workspace = Workspace(Path(home))
    assert load_settings(workspace).alert_channels == {"126": {"kind": "126", "user": USER, "to": USER}}
    assert read_secret(workspace, "126", "password") == CODE and CODE.encode() not in shown


def test_alerts_are_listed_acknowledged_and_muted(home: str) -> None:
    assert "No alert" in run_cli("--data-dir", home, "notify", "list").out
    put_alert(home)
    listed = run_cli("--data-dir", home, "notify", "list", "--text").out
    assert "disk almost full: 3.0 GB free" in listed and "machine.disk" in listed and "df -h" in listed
    assert "1 alert acknowledged" in run_cli("--data-dir", home, "notify", "ack", "machine.disk").out
    assert json.loads(run_cli("--data-dir", home, "--json", "notify", "list").out)["open"][0][
        "acknowledged_at"
    ]
    assert run_cli("--data-dir", home, "notify", "ack", "nothing").code == 2
    assert "Muted until" in run_cli("--data-dir", home, "notify", "mute", "machine.*", "--for", "2h").out
    assert run_cli("--data-dir", home, "notify", "mute", "--for", "2x").code == 2


def test_what_waits_is_shown_with_its_reason_and_sent_on_request(home: str) -> None:
    with smtp_server("plain") as box:
        local_mail(home, box.port)
        put_alert(home)
        box.refuses = True
        waits = run_cli("--data-dir", home, "notify", "outbox", "--send").out
        assert "next attempt at" in waits and "Try again later" in waits
        box.refuses = False
        assert "Nothing waits" in run_cli("--data-dir", home, "notify", "outbox", "--send").out
        assert "sent at" in run_cli("--data-dir", home, "notify", "outbox", "--all").out
    assert box.mails[0]["Subject"] == "[error] mini: disk almost full: 3.0 GB free"


# notification_config.json


def imported(home: str, tmp_path: Path, config: Any) -> dict[str, Any]:
    file = tmp_path / "notification_config.json"
    file.write_text(
        config if isinstance(config, str) else json.dumps(config, ensure_ascii=False), encoding="utf-8"
    )
    result = run_cli("--data-dir", home, "--json", "notify", "import", str(file))
    found: dict[str, Any] = json.loads(result.out)
    return {**found, "code": result.code}


def test_the_file_of_the_earlier_system_becomes_a_channel_with_its_secret_apart(
    home: str, tmp_path: Path
) -> None:
    assert imported(home, tmp_path, OLD)["added"] == [{"name": "mail", "kind": "126"}]
    workspace = Workspace(Path(home))
    assert load_settings(workspace).alert_channels == {
        "mail": {"kind": "126", "user": USER, "to": "you@host.org"}
    }
    assert read_secret(workspace, "mail", "password") == CODE
    assert CODE not in workspace.settings_file.read_text()


def changed(**email: object) -> dict[str, Any]:
    return {**OLD, "email": {**OLD["email"], **email}}


@pytest.mark.parametrize(
    ("email", "kind", "mode"),
    [
        ({"smtp_server": "smtp.qq.com"}, "qq", None),
        ({"smtp_server": "smtp.163.com", "smtp_port": 465, "use_ssl": True}, "163", None),
        ({"smtp_server": "mail.host.org", "smtp_port": 465}, "mail", "ssl"),
        ({"smtp_server": "mail.host.org", "smtp_port": 587}, "mail", "starttls"),
        ({"smtp_server": "mail.host.org", "smtp_port": 25, "use_tls": False}, "mail", "insecure"),
        ({"smtp_server": "mail.host.org", "smtp_port": 2465, "use_ssl": True}, "mail", "ssl"),
    ],
)
def test_the_way_of_encryption_follows_the_file(
    home: str, tmp_path: Path, email: dict[str, object], kind: str, mode: str | None
) -> None:
    assert imported(home, tmp_path, changed(**email))["added"] == [{"name": "mail", "kind": kind}]
    assert load_settings(Workspace(Path(home))).alert_channels["mail"].get("mode") == mode


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (changed(recipient_email="user@example.com"), "recipient_email"),
        (changed(recipient_email=""), "recipient_email"),
        (changed(sender_email="发件人邮箱"), "sender_email"),
        (changed(enabled=False), "email is switched off"),
        ({"email": {"enabled": True}}, "sender_email"),
        (
            {**changed(enabled=False), "sms": {"enabled": True, "provider": "aliyun", "api_key": "k"}},
            "lacks sign",
        ),
        ({"sms": {"enabled": True, "provider": "pigeon"}}, "pigeon"),
    ],
)
def test_no_recipient_is_invented_and_what_is_left_out_is_said(
    home: str, tmp_path: Path, config: dict[str, Any], why: str
) -> None:
    result = imported(home, tmp_path, config)
    assert result["added"] == [] and any(why in sentence for sentence in result["left_out"])


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"email": 5}', "\x00"])
def test_a_file_that_is_none_is_refused(home: str, tmp_path: Path, text: str) -> None:
    assert imported(home, tmp_path, text)["code"] == 2
