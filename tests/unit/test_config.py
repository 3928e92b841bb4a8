from __future__ import annotations

import stat
from pathlib import Path
from typing import get_args

import pytest

from engine.core.config import load_settings, non_default_training_settings, save_settings, with_overrides
from engine.core.errors import BadInput, UsageProblem
from engine.core.paths import Workspace
from engine.core.settings import PiiTypeName, Settings, setting_infos


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "config").mkdir()
    return Workspace(tmp_path)


def test_no_file_means_the_defaults(workspace: Workspace) -> None:
    assert load_settings(workspace) == Settings()


def test_saved_settings_are_loaded_back(workspace: Workspace) -> None:
    settings = Settings(language="zh", max_memory_gb=2.5, keys={"runs.stop": "x"}, first_start_done=True)
    save_settings(workspace, settings)
    assert load_settings(workspace) == settings
    assert stat.S_IMODE(workspace.settings_file.stat().st_mode) == 0o600
    save_settings(workspace, Settings(theme="nord", keys={"runs.stop": "x"}))
    assert load_settings(workspace) == Settings(theme="nord", keys={"runs.stop": "x"})


def test_comments_and_unknown_keys_survive_a_save(workspace: Workspace) -> None:
    workspace.settings_file.write_text(
        '# mine\nlanguage = "en"  # for now\nfuture = 3\n[keys]\n"a.b" = "c"\n[newer]\nx = 1\n',
        encoding="utf-8",
    )
    save_settings(workspace, Settings(language="zh", max_memory_gb=1.0, keys={"a.b": "c"}))
    text = workspace.settings_file.read_text(encoding="utf-8")
    for kept in ("# mine", "# for now", "future = 3", "[newer]", '"a.b" = "c"'):
        assert kept in text
    assert load_settings(workspace) == Settings(language="zh", max_memory_gb=1.0, keys={"a.b": "c"})


@pytest.mark.parametrize(
    ("text", "names", "line"),
    [
        ("theme = 'a'\nlanguage = \n", "TOML", 2),
        ('theme = "a"\nmax_memory_gb = "four"\n', "max_memory_gb", 2),
        ("near_threshold = 2.0\n", "near_threshold", 1),
        ('review = "sometimes"\n', "review", 1),
        ('\n[keys]\n"runs.stop" = 3\n', "keys", 2),
        ("first_start_done = 1\n", "first_start_done", 1),
    ],
)
def test_a_broken_setting_is_named_with_its_line(
    workspace: Workspace, text: str, names: str, line: int
) -> None:
    workspace.settings_file.write_text(text, encoding="utf-8")
    for attempt in (lambda: load_settings(workspace), lambda: save_settings(workspace, Settings(theme="b"))):
        with pytest.raises(BadInput, match=names) as caught:
            attempt()
        assert caught.value.line == line
        assert str(workspace.settings_file) in str(caught.value)
    assert workspace.settings_file.read_text(encoding="utf-8") == text


def test_settings_that_are_not_utf8_are_refused(workspace: Workspace) -> None:
    workspace.settings_file.write_bytes(b'a = 1\ntheme = "\xff"\n')
    with pytest.raises(BadInput, match="UTF-8") as caught:
        load_settings(workspace)
    assert caught.value.line == 2


def test_each_type_of_pii_may_be_handled_differently(workspace: Workspace) -> None:
    from engine.corpus.filters.pii import PiiType

    assert set(get_args(PiiTypeName)) == {type_.value for type_ in PiiType}
    workspace.settings_file.write_text('[sensitive_types]\nPHONE = "drop"\nIP = "keep"\n', encoding="utf-8")
    settings = load_settings(workspace)
    assert settings.sensitive_types == {"PHONE": "drop", "IP": "keep"}
    save_settings(workspace, settings)
    assert load_settings(workspace) == settings
    workspace.settings_file.write_text('[sensitive_types]\nTELEFON = "drop"\n', encoding="utf-8")
    with pytest.raises(BadInput, match="TELEFON"):
        load_settings(workspace)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("memory_buffer_gb", "-1", "memory_buffer_gb takes a number from 0 to 64, not -1"),
        ("memory_buffer_gb", "nan", "memory_buffer_gb takes a number from 0 to 64, not nan"),
        ("max_memory_gb", "0", "max_memory_gb takes a number above 0 and up to 1024, not 0"),
        ("micro_batch_size", "1.5", "micro_batch_size takes a whole number from 0 to 4096, not 1.5"),
        ("micro_batch_size", "x", "micro_batch_size takes a whole number from 0 to 4096, not x"),
        ("max_cpu_percent", "101", "max_cpu_percent takes a number from 1 to 100, not 101"),
        ("unload_ollama", "perhaps", "unload_ollama takes one of true, false, not perhaps"),
        ("review", "often", "review takes one of auto, manual, not often"),
    ],
)
def test_an_invalid_value_is_refused_with_the_bounds_of_the_setting(
    workspace: Workspace, name: str, value: str, sentence: str
) -> None:
    with pytest.raises(UsageProblem) as invalid:
        with_overrides(Settings(), {name: value})
    assert invalid.value.message == sentence
    assert invalid.value.hint == f"h2q-tui train --set {name}={_default(name)}"
    quoted = value if value.lstrip("-").replace(".", "").isdigit() or value == "nan" else f'"{value}"'
    workspace.settings_file.write_text(f"theme = 'a'\n{name} = {quoted}\n", encoding="utf-8")
    with pytest.raises(BadInput) as written:
        load_settings(workspace)
    assert sentence in written.value.message
    assert written.value.hint == f"${{EDITOR:-vi}} +2 {workspace.settings_file}"


def _default(name: str) -> str:
    value = getattr(Settings(), name)
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def test_a_run_logs_the_training_settings_that_are_not_at_their_defaults() -> None:
    assert non_default_training_settings(Settings(theme="nord")) == ""
    changed = Settings(theme="nord", micro_batch_size=3, max_cpu_percent=20.0, cpu_affinity="0-1")
    assert (
        non_default_training_settings(changed) == "micro_batch_size=3, cpu_affinity=0-1, max_cpu_percent=20"
    )


def test_every_row_offers_valid_values_with_a_label_each() -> None:
    for name, info in setting_infos().items():
        assert not info.labels or len(info.labels) == len(info.values), name
        for value in info.values if info.title else ():
            with_overrides(Settings(), {name: value})
        if info.title and name != "theme":
            assert getattr(Settings(), name) in info.values, name
