"""`h2q-tui chat`: chat with a model on the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from engine.core.i18n import N_, _
from tui.cli import output, session

if TYPE_CHECKING:
    from engine.core.chat import ChatMessage
    from engine.inference.client import InferenceClient
    from engine.inference.language_model import Generated, Sampling

DEMO_PROMPTS = (
    N_("Hello, what can you help me with?"),
    N_("Recommend a place to eat in Beijing."),
    N_("Tell me a short story."),
)


def register(app: typer.Typer) -> None:
    """Add `chat`."""

    @app.command(help=_("Chat with a model. In the chat: clear empties the context, exit leaves."))
    def chat(
        model: str | None = typer.Option(
            None, "--model", help=_("Name, directory or ollama:TAG. Default: the model in use.")
        ),
        adapter: str | None = typer.Option(
            None, "--adapter", help=_("Name or directory of an adapter; --model is then its base.")
        ),
        system: str | None = typer.Option(None, "--system", help=_("System prompt.")),
        temperature: float = typer.Option(
            0.7, "--temperature", min=0.0, max=5.0, help=_("Sampling temperature; 0: greedy.")
        ),
        top_p: float = typer.Option(
            0.9,
            "--top-p",
            min=0.0,
            max=1.0,
            help=_("Top-p: sample from the likeliest bytes up to this total probability."),
        ),
        max_bytes: int | None = typer.Option(
            None,
            "--max-bytes",
            min=1,
            help=_(
                "Largest length of an answer in bytes (a Chinese character has three). Default: 4096; 512 for a model"
                " trained here from scratch."
            ),
        ),
        seed: int | None = typer.Option(None, "--seed", help=_("The same seed gives the same answer.")),
        prompt: str | None = typer.Option(
            None, "--prompt", help=_("Ask one question, print the answer, exit.")
        ),
        demo: bool = typer.Option(False, "--demo", help=_("Ask a few sample questions.")),
    ) -> None:
        import asyncio

        from engine.core.seeds import usable_seed
        from engine.inference.client import InferenceClient
        from engine.inference.language_model import Sampling

        ws = session.workspace(create=False)
        chat = TerminalChat(
            InferenceClient(ws),
            _with_adapter(ws, adapter, model) if adapter is not None else _choose_model(ws, model),
            Sampling(
                temperature=temperature,
                top_p=top_p,
                max_bytes=max_bytes,
                seed=None if seed is None else usable_seed(seed),
            ),
            system,
        )
        if prompt is not None or demo:
            questions = [prompt] if prompt is not None else [_(text) for text in DEMO_PROMPTS]
            asyncio.run(_ask_each(chat, questions, keep=False))
        elif sys.stdin.isatty():
            _chat_loop(chat)
        else:
            asyncio.run(_ask_each(chat, [line.rstrip("\n") for line in sys.stdin], keep=True))


class TerminalChat:
    """A chat with one model: its messages so far and its sampling."""

    def __init__(self, client: InferenceClient, model: str, sampling: Sampling, system: str | None) -> None:
        self.client = client
        self.model = model
        self._sampling = sampling
        self._system = system
        self.messages: list[ChatMessage] = []
        self.clear()

    def clear(self) -> None:
        """Drop all messages except the system prompt."""
        from engine.core.chat import ChatMessage

        self.messages = [ChatMessage(role="system", content=self._system)] if self._system else []

    async def ask(self, question: str, *, show: bool) -> str:
        """Returns the answer and adds it to the messages; with `show` it is printed as it is generated."""
        from contextlib import aclosing

        from engine.core.chat import ChatMessage
        from tui.terminal.text import plain

        self.messages.append(ChatMessage(role="user", content=question))
        deltas: list[str] = []
        try:
            async with aclosing(self.client.generate(self.model, self.messages, self._sampling)) as stream:
                async for delta in stream:
                    deltas.append(delta)
                    if show:
                        sys.stdout.write(plain(delta))
                        sys.stdout.flush()
        except BaseException:
            # Without a complete answer the question is dropped, too.
            self.messages.pop()
            raise
        if show:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._note_ending()
        self.messages.append(ChatMessage(role="assistant", content="".join(deltas)))
        return "".join(deltas)

    def _note_ending(self) -> None:
        """Says on the error stream that the answer is cut, so that the output is the answer alone."""
        from engine.inference.language_model import Finish

        if self.client.last is not None and self.client.last.finish is Finish.LENGTH:
            output.echo(_("the answer is cut at its maximum length: --max-bytes"), error=True)


def _choose_model(ws: object, model: str | None) -> str:
    """The model to chat with. Raises BadInput if there is none."""
    from engine.core.errors import BadInput
    from engine.core.paths import Workspace
    from engine.models.registry import in_use

    assert isinstance(ws, Workspace)
    name = model or in_use(ws)
    if name is None:
        raise BadInput(_("there is no model in use yet"), hint="h2q-tui demo")
    return session.model_reference(ws, name)


def _with_adapter(ws: object, adapter: str, base: str | None) -> str:
    """An adapter to chat with, on its own base or on `base`. Raises BadInput if it is not an adapter."""
    from engine.core.paths import Workspace
    from engine.models.resolve import adapter_on, find_adapter

    assert isinstance(ws, Workspace)
    folder = str(find_adapter(ws, str(session.resolve(adapter)) if "/" in adapter else adapter))
    if base is None:
        return folder
    return adapter_on(folder, session.model_reference(ws, base))


async def _ask_each(chat: TerminalChat, questions: list[str], *, keep: bool) -> None:
    """Ask the questions in order; with `keep` each sees the earlier ones."""
    answers = []
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
        if len(questions) > 1:
            output.echo(f"> {question}")
        answer = await chat.ask(question, show=not session.options.json)
        answers.append(_entry(chat.model, question, answer, chat.client.last))
    if session.options.json:
        output.echo_json(answers[0] if len(questions) == 1 and answers else {"answers": answers})


def _entry(model: str, question: str, answer: str, stats: Generated | None) -> dict[str, object]:
    return {
        "model": model,
        "prompt": question,
        "answer": answer,
        "finish": None if stats is None else str(stats.finish),
        "bytes": None if stats is None else stats.bytes,
        "seconds": None if stats is None else round(stats.seconds, 3),
        "bytes_per_s": None if stats is None else round(stats.bytes_per_s, 1),
        "seed": None if stats is None else stats.seed,
    }


def _chat_loop(chat: TerminalChat) -> None:
    """Read questions until `exit` or the end of the input. Ctrl+C stops an answer, not the chat."""
    import asyncio
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (arrow keys and history in `input`)
    output.echo(_("chatting with {model}: clear empties the context, exit leaves").format(model=chat.model))
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            return
        if question == "exit":
            return
        if question == "clear":
            chat.clear()
            output.echo(_("context cleared"))
        elif question:
            try:
                asyncio.run(chat.ask(question, show=True))
            except KeyboardInterrupt:
                output.echo()
