"""Pictures of the app for the documentation, from a real workspace in a real terminal:

python -m bench.pictures WORKSPACE            # data/pictures/<tab>-<language>.svg
python -m bench.pictures --record FOLDER      # the whole loop: data/pictures/loop.cast and loop.svg
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyte

from bench.terminal import PtyProcess
from bench.terminal_frames import Frame, asciicast, frame_of, svg, thinned

OUT = Path(__file__).parents[1] / "data" / "pictures"
COLUMNS, ROWS = 110, 34
LOOP_COLUMNS, LOOP_ROWS = 90, 26
ENVIRONMENT = {"COLORTERM": "", "TERM": "xterm-256color", "OLLAMA_HOST": "127.0.0.1:1"}
FAST_FRAME_S = 0.35
"""How long a frame of a part that is shown fast stays."""
MOST_FAST = 30
"""Frames of such a part."""


class FilmedApp:
    """The app in a terminal, its screen, and the frames that were kept of it."""

    def __init__(
        self, arguments: Sequence[str], columns: int, rows: int, environment: dict[str, str]
    ) -> None:
        command = [sys.executable, "-m", "tui.cli.main", *arguments]
        self.process = PtyProcess(command, {**ENVIRONMENT, **environment}, columns=columns, rows=rows)
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._fed = 0
        self.frames: list[Frame] = []
        self._clock = 0.0

    def __enter__(self) -> FilmedApp:
        self.process.__enter__()
        return self

    def __exit__(self, *problem: object) -> None:
        self.process.__exit__(None, None, None)

    @property
    def text(self) -> str:
        return "\n".join(self.screen.display)

    def read(self, seconds: float) -> None:
        """Takes in what the app draws for some time."""
        self.process.read(seconds, until=None)
        self._stream.feed(self.process.output[self._fed :])
        self._fed = len(self.process.output)

    def until(self, words: str, seconds: float = 60.0) -> None:
        """Reads until the screen shows `words`. Raises TimeoutError."""
        self.wait(lambda: words in self.text, seconds, words)

    def wait(self, done: Callable[[], bool], seconds: float, what: str, *, every: float = 0.0) -> None:
        """Reads until `done`; with `every`, keeps a frame each so many seconds, shown fast."""
        end, kept, first = time.monotonic() + seconds, time.monotonic(), len(self.frames)
        while not done():
            if time.monotonic() > end:
                raise TimeoutError(f"the app does not show {what!r}:\n{self.text}")
            self.read(0.1)
            if every and time.monotonic() - kept >= every:
                kept = time.monotonic()
                self.keep(FAST_FRAME_S)
        if fast := self.frames[first:]:
            self.frames[first:] = thinned(fast, MOST_FAST, FAST_FRAME_S)
            self._clock = self.frames[-1].at + FAST_FRAME_S

    def press(self, keys: str, *, settle: float = 1.0) -> None:
        """Types keys, and takes in their result."""
        os.write(self.process.master, keys.encode())
        self.read(settle)

    def keep(self, seconds: float) -> None:
        """Keeps the screen as a frame that is shown for some time."""
        if not self.frames or self.frames[-1].rows != frame_of(self.screen, 0.0).rows:
            self.frames.append(frame_of(self.screen, self._clock))
        self._clock += seconds

    def type(self, text: str) -> None:
        """Types text as a person does, and keeps it."""
        for character in text:
            self.press(character, settle=0.15)
            self.keep(0.07)


TABS = (
    ("train", "1", 3.0),
    ("corpus", "2", 3.0),
    ("validate", "3", 3.0),
    ("health", "5", 75.0),
    ("hive", "6", 4.0),
    ("chat", "4", 4.0),
)
"""Name, key and seconds until the tab has something to show: the Health tab collects a history. In the Chat tab, which comes
last, the field has the keys."""


def take_pictures(workspace: Path, out: Path, languages: Sequence[str]) -> None:
    """A picture of each tab in each language."""
    for language in languages:
        arguments = ["--lang", language, "--data-dir", str(workspace)]
        with FilmedApp(arguments, COLUMNS, ROWS, {}) as stage:
            stage.until("2 Corpus" if language == "en" else "2 语料")
            stage.read(4.0)
            for name, keys, seconds in TABS:
                stage.press(keys, settle=seconds)
                if name == "chat":
                    _ask(stage, language)
                picture = svg([frame_of(stage.screen, 0.0)], COLUMNS, f"h2q-tui: {name}")
                (out / f"{name}-{language}.svg").write_text(picture, encoding="utf-8")


def _ask(stage: FilmedApp, language: str) -> None:
    """A question and its answer."""
    question = (
        "My neighbour's drill starts at seven. What can I say?"
        if language == "en"
        else "你好，推荐一家餐馆吧"
    )
    stage.press(question, settle=1.0)
    stage.press("\r", settle=5.0)
    answering = "esc stop" if language == "en" else "esc 停止"
    stage.wait(lambda: answering not in stage.text, 240.0, "an answer")
    stage.read(2.0)


def record_loop(folder: Path, out: Path) -> None:
    """The whole loop in an empty workspace: sample, review, training, verdict, chat."""
    home = folder / "home"
    (home / "Downloads").mkdir(parents=True, exist_ok=True)
    arguments = ["--lang", "en", "--data-dir", str(folder / "workspace")]
    with FilmedApp(arguments, LOOP_COLUMNS, LOOP_ROWS, {"HOME": str(home)}) as stage:
        _begin(stage)
        _train(stage)
        _judge_and_chat(stage)
    title = "h2q-tui: from conversations to a model of one's own"
    (out / "loop.cast").write_text(asciicast(stage.frames, LOOP_COLUMNS, LOOP_ROWS, title), encoding="utf-8")
    (out / "loop.svg").write_text(svg(stage.frames, LOOP_COLUMNS, title), encoding="utf-8")


def _begin(stage: FilmedApp) -> None:
    """First start, the sample, a few decisions."""
    stage.until("Make your own model")
    stage.read(1.5)
    stage.keep(3.0)
    stage.press("2")
    stage.until("take the sample")
    stage.keep(1.5)
    stage.press("s", settle=0.5)
    stage.wait(lambda: "reviewed 0 of" in stage.text, 240.0, "the corpus", every=0.7)
    stage.read(2.0)
    stage.keep(2.0)
    for keys in ("j", "j", "a", "j", "x"):
        stage.press(keys, settle=0.8)
        stage.keep(0.7)
    stage.press("\r", settle=1.0)
    stage.keep(1.5)


def _train(stage: FilmedApp) -> None:
    """The sheet, and the run until its verdict."""
    stage.press("1")
    stage.keep(1.0)
    stage.press("n", settle=3.0)
    stage.keep(2.5)
    stage.press("\r", settle=3.0)
    stage.until("tok/s", 300.0)
    stage.wait(
        lambda: "done:" in stage.text or "failed" in stage.text, 2400.0, "the end of the run", every=9.0
    )
    stage.keep(3.0)


def _judge_and_chat(stage: FilmedApp) -> None:
    """The verdict, an answer, and the palette."""
    stage.press("3", settle=3.0)
    stage.keep(3.0)
    stage.press("4", settle=4.0)
    stage.type("What should I plant in March?")
    stage.press("\r", settle=1.0)
    stage.wait(lambda: "esc stop" not in stage.text, 240.0, "an answer", every=0.5)
    stage.read(1.0)
    stage.keep(3.0)
    stage.press("\x10", settle=1.5)
    stage.type("health")
    stage.keep(1.2)
    stage.press("\r", settle=5.0)
    stage.keep(3.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, help="a workspace with a trained model, or an empty folder with --record"
    )
    parser.add_argument("--record", action="store_true", help="record the whole loop")
    parser.add_argument("--language", choices=["en", "zh"], help="only this language")
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.record:
        record_loop(chosen.folder, chosen.out)
    else:
        take_pictures(chosen.folder, chosen.out, [chosen.language] if chosen.language else ["en", "zh"])


if __name__ == "__main__":
    main()
