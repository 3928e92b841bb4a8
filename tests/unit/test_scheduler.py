"""The texts for launchd, systemd and cron, and the times of scheduled runs."""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import subprocess
import time
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import BadInput, UsageProblem
from engine.core.paths import Workspace
from engine.runs import lock, runner
from engine.runs.kinds import TrainParams
from engine.runs.launch import create_run
from engine.runs.rundir import TRAIN_LOCK, load_view
from engine.runs.spec import make_spec
from engine.scheduler import cron, launchd, systemd
from engine.scheduler.plan import (
    DAYS,
    Frequency,
    RunSchedule,
    ServiceManager,
    create_schedule,
    is_missed,
    last_time,
    load_schedule,
    next_time,
    save_schedule,
)
from tests.run_kinds import use_here

SPECIAL_PATH = "/home/li/我的 数据/100% \"real\" $HOME 'q'"


def schedule(workspace: str = "/home/li/h2q", **more: object) -> RunSchedule:
    base = RunSchedule(
        every=Frequency.WEEKLY,
        hour=3,
        minute=5,
        by=ServiceManager.SYSTEMD,
        workspace=workspace,
        program=["/opt/h 2/bin/h2q-tui"],
        environment={"H2Q_SCHEDULED": "1"},
        installed_at=0.0,
    )
    return msgspec.structs.replace(base, **more)


def test_systemd_units_have_the_expected_text() -> None:
    assert systemd.service_text(schedule()).splitlines() == [
        "[Unit]",
        "Description=h2q-tui trains on /home/li/h2q",
        "",
        "[Service]",
        "Type=oneshot",
        'Environment="H2Q_SCHEDULED=1"',
        'ExecStart="/opt/h 2/bin/h2q-tui" "train" "--run-once" "--data-dir" "/home/li/h2q" "--lang" "en" "--quiet"',
        "SuccessExitStatus=3",
        "TimeoutStartSec=infinity",
        "Nice=10",
    ]
    text = systemd.timer_text(schedule())
    assert "OnCalendar=Sun *-*-* 03:05:00\nPersistent=true\n" in text
    assert "WantedBy=timers.target" in text
    assert "OnCalendar=*-*-* 03:05:00\n" in systemd.timer_text(schedule(every=Frequency.DAILY))


def test_special_characters_in_a_path_are_escaped_for_systemd() -> None:
    line = next(
        line
        for line in systemd.service_text(schedule(SPECIAL_PATH)).splitlines()
        if line.startswith("ExecStart")
    )
    assert '"/home/li/我的 数据/100%% \\"real\\" $$HOME \'q\'"' in line


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
@pytest.mark.parametrize("workspace", ["/home/li/h2q", SPECIAL_PATH])
def test_systemd_analyze_verifies_the_units(tmp_path: Path, workspace: str) -> None:
    plan = schedule(workspace, program=["/bin/true"])
    (tmp_path / "h2q-tui-x.service").write_text(systemd.service_text(plan), encoding="utf-8")
    (tmp_path / "h2q-tui-x.timer").write_text(systemd.timer_text(plan), encoding="utf-8")
    answer = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    ours = [line for line in (answer.stdout + answer.stderr).splitlines() if "h2q-tui-x" in line]
    assert ours == []


@pytest.mark.parametrize("workspace", ["/home/li/h2q", SPECIAL_PATH])
def test_launchd_agents_are_valid_property_lists(workspace: str) -> None:
    plan = schedule(workspace, by=ServiceManager.LAUNCHD)
    agents = [plistlib.loads(text) for text in launchd.agents(plan).values()]
    assert (
        [agent["Label"] for agent in agents] == list(launchd.agents(plan)) == list(launchd.labels(plan.tag))
    )
    at_time, at_login = agents
    assert at_time["ProgramArguments"] == plan.train
    assert at_time["ProgramArguments"][1:5] == ["train", "--run-once", "--data-dir", workspace]
    assert at_time["StartCalendarInterval"] == {"Hour": 3, "Minute": 5, "Weekday": 0}
    assert "RunAtLoad" not in at_time
    assert at_login["ProgramArguments"] == plan.catch_up and at_login["RunAtLoad"] is True
    assert at_time["EnvironmentVariables"] == {"H2Q_SCHEDULED": "1"}
    assert at_time["StandardErrorPath"].startswith(workspace)


def test_launchd_and_cron_number_the_days_from_sunday() -> None:
    for day, number in zip(DAYS, (1, 2, 3, 4, 5, 6, 0), strict=True):
        plan = schedule(day=day)
        first = plistlib.loads(next(iter(launchd.agents(plan).values())))
        assert first["StartCalendarInterval"]["Weekday"] == number
        assert cron.entries(plan)[0].startswith(f"5 3 * * {number} ")
    daily = schedule(every=Frequency.DAILY)
    assert (
        "Weekday" not in plistlib.loads(next(iter(launchd.agents(daily).values())))["StartCalendarInterval"]
    )
    assert cron.entries(daily)[0].startswith("5 3 * * * ")


def test_cron_lines_reach_the_shell_unchanged() -> None:
    plan = schedule(SPECIAL_PATH)
    for line, command_line in zip(cron.entries(plan), (plan.train, plan.catch_up), strict=True):
        command = line.split(maxsplit=1)[1] if line.startswith("@reboot") else line.split(maxsplit=5)[5]
        assert "%" not in command.replace("\\%", "")
        # The line as cron passes it to the shell, split by the shell.
        assert shlex.split(command.replace("\\%", "%"))[:-3] == ["H2Q_SCHEDULED=1", *command_line]


TABS = st.text(alphabet=st.sampled_from("ab #*%\n0h2q-tui天"), max_size=60).map(
    lambda text: text if not text or text.endswith("\n") else text + "\n"
)


@given(TABS, TABS)
def test_other_crontab_entries_are_unchanged(before: str, after: str) -> None:
    lines = cron.entries(schedule())
    placed = cron.with_block(before, "aa", lines) + after
    assert cron.has_block(placed, "aa")
    assert cron.without_block(placed, "aa") == before + after
    replaced = cron.with_block(placed, "aa", ["@daily true"])
    assert cron.without_block(replaced, "aa") == before + after
    assert "@daily true" in replaced and lines[0] not in replaced
    assert not cron.has_block(placed, "bb")


def test_a_crontab_without_a_last_newline_keeps_its_last_line() -> None:
    assert cron.with_block("@daily a", "aa", ["@daily b"]).splitlines()[:2] == [
        "@daily a",
        "# h2q-tui aa begin",
    ]


def test_a_block_without_an_end_line_is_an_error() -> None:
    with pytest.raises(BadInput, match="but no line"):
        cron.without_block("# h2q-tui aa begin\n@daily mine\n", "aa")


@pytest.mark.parametrize("at", ["24:00", "3", "3:5", "03:60", "", "-1:00", "03:00:00", "三点"])
def test_an_invalid_time_is_rejected(tmp_path: Path, at: str) -> None:
    with pytest.raises(UsageProblem):
        create_schedule(
            Workspace(tmp_path), Frequency.DAILY, at, "sun", ServiceManager.CRON, language="en", now=0.0
        )


def test_a_path_with_control_characters_is_rejected(tmp_path: Path) -> None:
    for name in ("a\nb", "a\\b"):
        with pytest.raises(BadInput):
            create_schedule(
                Workspace(tmp_path / name),
                Frequency.DAILY,
                "3:00",
                "sun",
                ServiceManager.CRON,
                language="en",
                now=0.0,
            )


def test_a_schedule_is_saved_with_an_absolute_command(tmp_path: Path) -> None:
    ws = Workspace(tmp_path / "我的 数据")
    created = create_schedule(
        ws, Frequency.WEEKLY, "3:05", "Sunday", ServiceManager.CRON, language="zh", now=5.0
    )
    save_schedule(ws, created)
    assert load_schedule(ws) == created
    assert Path(created.program[0]).is_absolute() and created.day == "sun"
    assert created.train[-5:] == ["--data-dir", str(ws.root), "--lang", "zh", "--quiet"]
    save_schedule(ws, None)
    assert load_schedule(ws) is None
    ws.config.mkdir(exist_ok=True)
    (ws.config / "schedule.json").write_text("{")
    with pytest.raises(BadInput):
        load_schedule(ws)


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
    st.sampled_from(list(Frequency)),
    st.sampled_from(DAYS),
    st.integers(0, 23),
    st.integers(0, 59),
)
def test_now_is_between_the_last_and_the_next_time(
    now: datetime, every: Frequency, day: str, hour: int, minute: int
) -> None:
    plan = schedule(every=every, day=day, hour=hour, minute=minute)
    last, coming = last_time(plan, now), next_time(plan, now)
    assert last <= now < coming
    assert coming - last == timedelta(days=7 if every is Frequency.WEEKLY else 1)
    assert (last.hour, last.minute) == (hour, minute)
    assert every is Frequency.DAILY or DAYS[last.weekday()] == day


def test_a_missed_time_is_caught_up_once() -> None:
    def at(text: str) -> float:
        return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M"))

    plan = schedule(installed_at=at("2026-11-10 12:00"))
    sunday = at("2026-11-15 03:05")
    assert not is_missed(plan, sunday - 60, None)
    assert is_missed(plan, sunday + 3600, None)
    assert is_missed(plan, sunday + 3600, at("2026-11-14 09:00"))
    assert not is_missed(plan, sunday + 7200, sunday + 3600)
    assert not is_missed(schedule(installed_at=sunday + 60), sunday + 3600, None)
    assert is_missed(plan, sunday + 7 * 86400, sunday)


@pytest.mark.parametrize(("scheduled", "code", "status"), [(True, 0, "skipped"), (False, 5, "failed")])
def test_a_scheduled_run_is_skipped_while_another_run_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduled: bool, code: int, status: str
) -> None:
    ws = Workspace(tmp_path / "ws")
    run = create_run(ws, make_spec(ws.root, TrainParams(scheduled=scheduled, wait=False)))
    monkeypatch.setattr(runner, "KINDS", use_here("tests.run_kinds:impatient"))
    fd = lock.acquire(ws.runs / TRAIN_LOCK)
    assert fd is not None
    try:
        assert runner.main(run.path) == code
    finally:
        os.close(fd)
    finished = load_view(run).finished
    assert finished is not None and (str(finished.status), finished.exit_code) == (status, code)
    assert "training" in finished.error


@pytest.mark.parametrize(("scheduled", "code"), [(True, 0), (False, 3)])
def test_a_scheduled_run_is_skipped_when_the_corpus_is_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduled: bool, code: int
) -> None:
    ws = Workspace(tmp_path / "ws")
    run = create_run(ws, make_spec(ws.root, TrainParams(scheduled=scheduled)))
    monkeypatch.setattr(runner, "KINDS", use_here("tests.run_kinds:too_little"))
    assert runner.main(run.path) == code
    finished = load_view(run).finished
    assert finished is not None and (str(finished.status), finished.exit_code) == ("skipped", code)
    assert "49 of 50 pairs" in finished.error
