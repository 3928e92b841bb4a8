"""A chat on the terminal or through a pipe: questions in, answers out, the context kept between them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing

from engine.chats.record import STOPPED, ChatRecord
from engine.chats.store import ChatStore
from engine.core.chat import ChatMessage
from engine.core.errors import H2QError, error_text
from engine.core.i18n import _
from engine.inference.client import InferenceClient
from engine.inference.language_model import Finish, Generated, Sampling
from tui.cli import output, session
from tui.cli.chat_input import read_question
from tui.terminal.text import plain


class TerminalChat:
    """A chat with one model: its messages so far and its sampling."""

    def __init__(self, client: InferenceClient, model: str, sampling: Sampling, system: str | None) -> None:
        self.client = client
        self.model = model
        self._sampling = sampling
        self._system = system
        self.messages: list[ChatMessage] = []
        self.history: ChatStore | None = None
        """Where the chat is stored; None: nowhere."""
        self.clear()

    def clear(self) -> None:
        """Drop all messages except the system prompt."""
        self.messages = [ChatMessage(role="system", content=self._system)] if self._system else []
        self.record = ChatRecord(model=self.model, system=self._system or "", sampling=self._sampling)

    async def ask(self, question: str, *, show: bool) -> str:
        """Returns the answer and adds it to the messages; with `show` it is printed as it is generated.

        An answer that is stopped stays in the chat as far as it came; a question that fails leaves it.
        """
        self.messages.append(ChatMessage(role="user", content=question))
        deltas: list[str] = []
        try:
            async with aclosing(self.client.generate(self.model, self.messages, self._sampling)) as stream:
                async for delta in stream:
                    deltas.append(delta)
                    if show:
                        sys.stdout.write(plain(delta))
                        sys.stdout.flush()
        except asyncio.CancelledError:
            self._answered(question, deltas)
            raise
        except BaseException:
            self.messages.pop()
            raise
        if show:
            sys.stdout.write("\n")
            sys.stdout.flush()
        note_ending(self.client.last, self._sampling)
        self._answered(question, deltas)
        return "".join(deltas)

    def _answered(self, question: str, deltas: list[str]) -> None:
        text = "".join(deltas)
        if not text:
            self.messages.pop()
            return
        self.messages.append(ChatMessage(role="assistant", content=text))
        if self.history is not None:
            answer = self.record.ask(question).begin(self.model)
            answer.text, answer.finish = text, STOPPED
            if self.client.last is not None:
                answer.end(self.client.last)
            try:
                self.history.save(self.record, time.time())
            except OSError as problem:
                output.echo(
                    _("the chat is not stored: {reason}").format(reason=error_text(problem)), error=True
                )


def note_ending(done: Generated | None, sampling: Sampling) -> None:
    """Says on the error stream what is cut, so that the output is the answer alone."""
    if done is None:
        return
    if done.finish is Finish.LENGTH:
        cut = _("the answer is cut at its maximum length: --max-bytes")
        if sampling.max_tokens is not None and done.tokens >= sampling.max_tokens:
            cut = _("the answer is cut at its maximum length: --max-tokens")
        elif done.context and done.prompt_tokens + done.tokens >= done.context:
            cut = _("the answer is cut: the context of {n} tokens is full").format(n=f"{done.context:,}")
        output.echo(cut, error=True)
    if done.cut_question:
        note = _("the question is longer than the context ({n} tokens): its beginning was left out")
        output.echo(note.format(n=f"{done.context:,}"), error=True)


async def ask_each(chat: TerminalChat, questions: Sequence[str], *, keep: bool) -> None:
    """Ask the questions in order; with `keep` each sees the earlier ones."""
    answers = []
    many = len(questions) > 1
    for question in questions:
        if not keep:
            chat.clear()
        command = question.strip() if keep else ""
        if command == "exit":
            break
        if command == "clear":
            chat.clear()
        if keep and command in ("clear", ""):
            continue
        if many:
            output.echo(f"> {question}")
        answer = await chat.ask(question, show=not session.options.json)
        answers.append(entry(chat.model, question, answer, chat.client.last))
    if session.options.json:
        output.echo_json({"answers": answers} if many or not answers else answers[0])


def entry(model: str, question: str, answer: str, stats: Generated | None) -> dict[str, object]:
    """One answer in the JSON of the command."""
    return {
        "model": model,
        "prompt": question,
        "answer": answer,
        "finish": None if stats is None else str(stats.finish),
        "bytes": None if stats is None else stats.bytes,
        "prompt_tokens": None if stats is None else stats.prompt_tokens or None,
        "tokens": None if stats is None else stats.tokens or None,
        "context": None if stats is None else stats.context or None,
        "dropped_turns": None if stats is None else stats.dropped_turns,
        "cut_question": None if stats is None else stats.cut_question,
        "seconds": None if stats is None else round(stats.seconds, 3),
        "bytes_per_s": None if stats is None else round(stats.bytes_per_s, 1),
        "tokens_per_s": None if stats is None else round(stats.tokens_per_s, 1),
        "seed": None if stats is None else stats.seed,
    }


def _input(prompt: str) -> str:
    """`input`; with --json the prompt is not part of the output."""
    if not session.options.json:
        return input(prompt)
    print(prompt, end="", file=sys.stderr, flush=True)
    return input()


def chat_loop(chat: TerminalChat) -> None:
    """Read questions until `exit` or ctrl+d. Ctrl+c stops an answer, or empties the line, and never ends the chat."""
    with contextlib.suppress(ImportError):
        # Arrow keys, earlier lines, and pasted lines as one question.
        import readline

        if "libedit" not in (readline.__doc__ or ""):
            readline.parse_and_bind("set enable-bracketed-paste on")
    output.echo(_("chatting with {model}: clear empties the context, exit leaves").format(model=chat.model))
    answers = []
    while True:
        try:
            question = read_question(_input)
        except EOFError:
            output.echo()
            break
        except KeyboardInterrupt:
            output.echo()
            output.echo(_("ctrl+d or exit leaves"))
            continue
        if question == "exit":
            break
        if question == "clear":
            chat.clear()
            output.echo(_("context cleared"))
        elif question:
            try:
                answer = asyncio.run(chat.ask(question, show=not session.options.json))
            except KeyboardInterrupt:
                output.echo()
            except H2QError as problem:
                # The chat so far is worth more than the question: it can be asked again.
                output.echo()
                output.echo(error_text(problem), error=True)
            else:
                answers.append(entry(chat.model, question, answer, chat.client.last))
    if session.options.json:
        output.echo_json({"answers": answers})
