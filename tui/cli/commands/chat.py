"""`h2q-tui chat`: talk to a model on the terminal."""

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
    """Adds `chat`."""

    @app.command(help=_("Talk to a model. In the conversation: clear forgets what was said, exit leaves."))
    def chat(
        model: str | None = typer.Option(
            None, "--model", help=_("Name, directory or ollama:TAG; without it, the model in use.")
        ),
        adapter: str | None = typer.Option(
            None, "--adapter", help=_("Name or directory of an adapter; --model then says on which base.")
        ),
        system: str | None = typer.Option(None, "--system", help=_("What the model is told first.")),
        temperature: float = typer.Option(
            0.7, "--temperature", min=0.0, max=5.0, help=_("0: the likeliest every time.")
        ),
        top_p: float = typer.Option(0.9, "--top-p", min=0.0, max=1.0, help=_("Share of likely bytes.")),
        max_bytes: int = typer.Option(
            512, "--max-bytes", min=1, help=_("Length of an answer (a Chinese character is three).")
        ),
        seed: int | None = typer.Option(None, "--seed", help=_("The same seed gives the same answer.")),
        prompt: str | None = typer.Option(
            None, "--prompt", help=_("Ask one question, print the answer, leave.")
        ),
        demo: bool = typer.Option(False, "--demo", help=_("Ask a few sample questions.")),
    ) -> None:
        import asyncio

        from engine.inference.client import InferenceClient
        from engine.inference.language_model import Sampling

        ws = session.workspace(create=False)
        talk = Talk(
            InferenceClient(ws),
            _with_adapter(ws, adapter, model) if adapter is not None else _chosen(ws, model),
            Sampling(temperature=temperature, top_p=top_p, max_bytes=max_bytes, seed=seed),
            system,
        )
        if prompt is not None or demo:
            asked = [prompt] if prompt is not None else [_(text) for text in DEMO_PROMPTS]
            asyncio.run(_ask_each(talk, asked, keep=False))
        elif sys.stdin.isatty():
            _converse(talk)
        else:
            asyncio.run(_ask_each(talk, [line.rstrip("\n") for line in sys.stdin], keep=True))


class Talk:
    """One conversation: what was said so far, and what answers."""

    def __init__(self, client: InferenceClient, model: str, sampling: Sampling, system: str | None) -> None:
        self.client = client
        self.model = model
        self._sampling = sampling
        self._system = system
        self.messages: list[ChatMessage] = []
        self.clear()

    def clear(self) -> None:
        """Forgets everything but the system turn."""
        from engine.core.chat import ChatMessage

        self.messages = [ChatMessage(role="system", content=self._system)] if self._system else []

    async def ask(self, question: str, *, show: bool) -> str:
        """The answer, printed as it comes when `show`; it becomes part of the conversation."""
        from contextlib import aclosing

        from engine.core.chat import ChatMessage
        from tui.app.text import plain

        self.messages.append(ChatMessage(role="user", content=question))
        pieces: list[str] = []
        try:
            async with aclosing(self.client.generate(self.model, self.messages, self._sampling)) as stream:
                async for piece in stream:
                    pieces.append(piece)
                    if show:
                        sys.stdout.write(plain(piece))
                        sys.stdout.flush()
        except BaseException:
            # Half an answer is not remembered, and neither is its question.
            self.messages.pop()
            raise
        if show:
            sys.stdout.write("\n")
            sys.stdout.flush()
        self.messages.append(ChatMessage(role="assistant", content="".join(pieces)))
        return "".join(pieces)


def _chosen(ws: object, model: str | None) -> str:
    """The model to talk to. Raises BadInput when there is none."""
    from engine.core.errors import BadInput
    from engine.core.paths import Workspace
    from engine.models.registry import in_use
    from engine.models.resolve import resolve_model

    assert isinstance(ws, Workspace)
    if model is not None and model.startswith("ollama:"):
        return model
    name = (str(session.resolve(model)) if "/" in model else model) if model else in_use(ws)
    if name is None:
        raise BadInput(_("there is no model in use yet"), hint="h2q-tui demo")
    resolve_model(ws, name)
    return name


def _with_adapter(ws: object, adapter: str, base: str | None) -> str:
    """An adapter to talk to, on its own base or on the one named. Raises BadInput when it is none."""
    from pathlib import Path

    from engine.core.paths import Workspace
    from engine.models.resolve import adapter_on, find_adapter

    assert isinstance(ws, Workspace)
    folder = str(find_adapter(ws, str(session.resolve(adapter)) if "/" in adapter else adapter))
    if base is None:
        return folder
    return adapter_on(folder, str(session.resolve(base)) if "/" in base or Path(base).is_dir() else base)


async def _ask_each(talk: Talk, questions: list[str], *, keep: bool) -> None:
    """Asks one after the other; with `keep` each knows those before."""
    answers = []
    for question in questions:
        if not keep:
            talk.clear()
        word = question.strip() if keep else ""
        if word == "exit":
            break
        if word == "clear":
            talk.clear()
        if keep and word in ("clear", ""):
            continue
        if len(questions) > 1:
            output.echo(f"> {question}")
        answer = await talk.ask(question, show=not session.options.json)
        answers.append(_entry(talk.model, question, answer, talk.client.last))
    if session.options.json:
        output.echo_json(answers[0] if len(questions) == 1 and answers else {"answers": answers})


def _entry(model: str, question: str, answer: str, how: Generated | None) -> dict[str, object]:
    return {
        "model": model,
        "prompt": question,
        "answer": answer,
        "finish": None if how is None else str(how.finish),
        "bytes": None if how is None else how.bytes,
        "seconds": None if how is None else round(how.seconds, 3),
        "bytes_per_s": None if how is None else round(how.bytes_per_s, 1),
        "seed": None if how is None else how.seed,
    }


def _converse(talk: Talk) -> None:
    """Question after question until `exit` or the end of the input. Ctrl+C ends an answer, not the talk."""
    import asyncio
    import contextlib

    with contextlib.suppress(ImportError):
        pass
    output.echo(_("talking to {model}: clear forgets, exit leaves").format(model=talk.model))
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            return
        if question == "exit":
            return
        if question == "clear":
            talk.clear()
            output.echo(_("forgotten"))
        elif question:
            try:
                asyncio.run(talk.ask(question, show=True))
            except KeyboardInterrupt:
                output.echo()
