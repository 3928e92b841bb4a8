"""`h2q-tui chat`: chat with a model on the terminal."""

from __future__ import annotations

import sys

import typer

from engine.core.i18n import N_, _
from tui.cli import session

DEMO_PROMPTS = (
    N_("Hello, what can you help me with?"),
    N_("Recommend a place to eat in Beijing."),
    N_("Tell me a short story."),
)


def register(app: typer.Typer) -> None:
    """Add `chat`."""

    @app.command(
        help=_(
            "Chat with a model. In the chat: clear empties the context, exit leaves. Text that is piped in is the"
            " material of --prompt; without --prompt each of its lines is a question."
        )
    )
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
        max_tokens: int | None = typer.Option(
            None, "--max-tokens", min=1, help=_("Largest length of an answer in the model's tokens.")
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

        from engine.chats.store import ChatStore
        from engine.core.seeds import usable_seed
        from engine.inference.client import InferenceClient
        from engine.inference.language_model import Sampling
        from tui.cli.chat_input import material, question_with
        from tui.cli.terminal_chat import TerminalChat, ask_each, chat_loop

        ws = session.workspace(create=False)
        chat = TerminalChat(
            InferenceClient(ws),
            _with_adapter(ws, adapter, model) if adapter is not None else _choose_model(ws, model),
            Sampling(
                temperature=temperature,
                top_p=top_p,
                max_bytes=max_bytes,
                max_tokens=max_tokens,
                seed=None if seed is None else usable_seed(seed),
            ),
            system,
        )
        if prompt is not None:
            question = question_with(prompt, material())
            asyncio.run(ask_each(chat, [question], keep=False))
        elif demo:
            asyncio.run(ask_each(chat, [_(text) for text in DEMO_PROMPTS], keep=False))
        elif sys.stdin.isatty():
            if ws.root.is_dir():
                chat.history = ChatStore(ws)
            chat_loop(chat)
        else:
            asyncio.run(ask_each(chat, [line.rstrip("\r\n") for line in sys.stdin], keep=True))


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
