"""GGUF models: llama.cpp generates and embeds, likelihoods are computed in torch from the same file, dequantized."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, aclosing, contextmanager, suppress
from functools import cache, cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import RunFailed
from engine.core.i18n import _
from engine.inference.cancellable import iterate
from engine.inference.language_model import (
    ANSWER_TOKENS,
    MAX_BYTES,
    NLL,
    CountedText,
    Finish,
    Generated,
    NLLAndEntropy,
    OnTokens,
    Prompt,
    RenderedPrompt,
    Sampling,
    ScoredText,
    TokenLogProb,
    require_question,
    seed_of,
)
from engine.inference.llama.parameters import LlamaMemory
from engine.inference.llama.server import LlamaMissing, LlamaServer
from engine.inference.prompts import fitted, rendered, with_tools
from engine.models.base_models import BaseModel
from engine.models.card import GGUF_ADAPTER
from engine.models.chatml import MaskedTokens
from engine.models.hf import load_chat_template
from engine.models.history import FittedPrompt
from engine.models.message_turns import with_turns
from engine.models.template_text import FIXED

if TYPE_CHECKING:
    from engine.inference.backends.hf import HFModel

_FORCE = 1000.0
"""A logit bias that decides."""
_SEEDS = (1 << 32) - 1
"""llama.cpp takes seeds below; this one means a random seed there."""


class LlamaCppModel:
    """A `LanguageModel` over a GGUF file with its adapters, all of which have a copy for llama.cpp."""

    def __init__(
        self,
        base: BaseModel,
        memory: LlamaMemory,
        *,
        threads: int,
        scorer: HFModel | None = None,
    ) -> None:
        """Loads nothing yet: llama.cpp starts for the first answer, torch for the first likelihood.

        Args:
            scorer: the same model in torch; None: it is loaded from the same file for the first likelihood.
        """
        self.name = base.adapter.name if base.adapter is not None else base.name
        self.chat = load_chat_template(base)
        self.context = memory.context
        self._base, self._memory, self._threads = base, memory, threads
        if scorer is not None:
            self._scorer = scorer
        self._keeps_prompts = True
        self._servers: dict[bool, LlamaServer] = {}
        """By whether it embeds."""

    def start(self) -> None:
        """Starts llama.cpp ahead of the first answer. Raises BadInput when it rejects the file."""
        with suppress(LlamaMissing):
            self._server()

    @property
    def memory_mb(self) -> float:
        torch_mb = self._scorer.memory_mb if "_scorer" in self.__dict__ else 0.0
        return torch_mb + sum(server.memory_mb for server in self._servers.values())

    @cached_property
    def _scorer(self) -> HFModel:
        from engine.inference.backends.hf import HFModel

        return HFModel.load(self._base, name=self.name)

    @property
    def eval_context(self) -> int:
        return self._scorer.eval_context

    def windows(self, messages: Sequence[ChatMessage], context: int) -> list[MaskedTokens]:
        return self.chat.windows(messages, context)

    def count_tokens(self, text: str | Sequence[ChatMessage]) -> int:
        return len(self.chat.encode(text) if isinstance(text, str) else self.chat.prompt(text))

    def nll(self, windows: Sequence[MaskedTokens], *, on_tokens: OnTokens | None = None) -> list[NLL]:
        return self._scorer.nll(windows, on_tokens=on_tokens)

    def rolling_nll(
        self, texts: Sequence[bytes], *, window_bytes: int | None = None, on_tokens: OnTokens | None = None
    ) -> list[NLL]:
        return self._scorer.rolling_nll(texts, window_bytes=window_bytes, on_tokens=on_tokens)

    def nll_and_entropy(self, text: str) -> NLLAndEntropy:
        return self._scorer.nll_and_entropy(text)

    def next_token_log_probs(self, prefix: Sequence[int]) -> Sequence[float]:
        return self._scorer.next_token_log_probs(prefix)

    def reproducible(self) -> AbstractContextManager[None]:
        """Inside the block each prompt is read from its beginning: what an earlier one left changes the rounding."""
        return self._without_kept_prompts()

    @contextmanager
    def _without_kept_prompts(self) -> Iterator[None]:
        before, self._keeps_prompts = self._keeps_prompts, False
        try:
            yield
        finally:
            self._keeps_prompts = before

    def generate(
        self, messages: Prompt, sampling: Sampling, cancelled: threading.Event | None = None
    ) -> Iterator[str | Generated]:
        """Raises BadInput for an empty conversation, ServiceUnreachable when llama.cpp ends within the answer."""
        stream = self.open_stream(messages, sampling)
        if stream is None:
            yield from self._scorer.generate(messages, sampling, cancelled)
        else:
            yield from iterate(stream, cancelled)

    def open_stream(
        self, messages: Prompt, sampling: Sampling
    ) -> AsyncGenerator[str | Generated, None] | None:
        require_question(messages)
        try:
            server = self._server()
        except LlamaMissing:
            return None
        return self._stream(server, messages, self._fitted(messages, sampling), sampling)

    def _server(self, *, embedding: bool = False) -> LlamaServer:
        """The running process; another one where it has ended. Raises RunFailed for weights that give no numbers."""
        server = self._servers.get(embedding)
        if server is None or not server.alive:
            base = self._base
            copies = [base.lora, base.adapter / GGUF_ADAPTER if base.adapter is not None else None]
            server = LlamaServer(
                base.path,
                adapters=[file for file in copies if file is not None],
                context=self.context,
                threads=self._threads,
                cache_mb=0 if embedding else self._memory.cache_mb,
                embedding=embedding,
            )
            if not embedding:
                self._check_weights(server)
            self._servers[embedding] = server
        return server

    def _check_weights(self, server: LlamaServer) -> None:
        """Computes one token, which also brings the weights into memory.

        llama.cpp samples from NaN too; only its probabilities show it, and those of every token would cost a tenth of
        the speed.
        """
        prompt = self.chat.encode("a")[:8] or [min(self.chat.stop_tokens, default=0)]
        body = {"prompt": prompt, "n_predict": 1, "n_probs": 1, "temperature": 0.0, "cache_prompt": False}
        (reply,) = iterate(_posted(server, "/completion", body), None)
        _check_numbers(reply)

    async def _stream(
        self, server: LlamaServer, messages: Prompt, prompt: FittedPrompt, sampling: Sampling
    ) -> AsyncGenerator[str | Generated, None]:
        started = time.perf_counter()
        seed = seed_of(sampling)
        max_bytes = MAX_BYTES if sampling.max_bytes is None else sampling.max_bytes
        room = sampling.room(self.context)
        most = min(sampling.tokens_wanted(MAX_BYTES), room - len(prompt.ids))
        body = _completion(prompt.ids, sampling, seed, most)
        answer = _EventText(self.chat.stop_tokens, self.chat.answer_lead, max_bytes, sampling.logprobs)
        first_token_s = 0.0
        async with aclosing(
            server.stream("/completion", body | {"cache_prompt": self._keeps_prompts})
        ) as events:
            async for event in events:
                first_token_s = first_token_s or time.perf_counter() - started
                text = answer.text_of(event)
                if text or isinstance(text, ScoredText):
                    yield text
                if answer.ended:
                    break
        yield Generated(
            finish=answer.finish,
            bytes=answer.size,
            seconds=time.perf_counter() - started,
            dropped_turns=prompt.dropped,
            cut_question=prompt.cuts_question_of(messages),
            seed=seed,
            prompt_tokens=len(prompt.ids),
            tokens=answer.tokens,
            context=room,
            first_token_s=first_token_s,
        )

    def _fitted(self, messages: Prompt, sampling: Sampling) -> FittedPrompt:
        answer = min(sampling.tokens_wanted(MAX_BYTES), ANSWER_TOKENS)
        return fitted(self.chat, messages, sampling, self.context, answer)

    def tool_prompt(self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> RenderedPrompt:
        return with_tools(self.chat, turns, tools, self.context)

    def render_prompt(self, messages: Prompt, sampling: Sampling) -> RenderedPrompt:
        prompt = self._fitted(messages, sampling)
        return rendered(self.chat, messages, prompt, sampling, self.context)

    def prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        return self.chat.prompt(messages)

    def served_prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        text = self._rendered(messages)
        reply = self._ask("/tokenize", {"content": text, "add_special": True, "parse_special": True})
        return [int(number) for number in reply["tokens"]]

    def same_text(self, messages: Sequence[ChatMessage]) -> bool:
        # The BOS that a template writes is cut there and put before all text by the tokenizer.
        bos = self.chat.tokenizer.bos_token or ""
        return self._rendered(messages).removeprefix(bos) == self.chat.text(messages).removeprefix(bos)

    def _rendered(self, messages: Sequence[ChatMessage]) -> str:
        """The prompt as llama.cpp renders it with the template in the file."""
        turns = [
            {"role": message.role, "content": message.content}
            for message in with_turns(self._base.messages, messages)
        ]
        if self._base.system and not (turns and turns[0]["role"] == "system"):
            turns.insert(0, {"role": "system", "content": self._base.system})
        return str(self._ask("/apply-template", {"messages": turns, "chat_template_kwargs": FIXED})["prompt"])

    def served_log_probs(self, prefix: Sequence[int], most: int) -> dict[int, float]:
        body = {
            "prompt": list(prefix),
            "n_predict": 1,
            "n_probs": most,
            "temperature": 0.0,
            # A token that is a whole character, or llama.cpp reports none. The bias is not in what it reports.
            "logit_bias": [[self.chat.encode("a")[0], _FORCE]],
            "cache_prompt": self._keeps_prompts,
        }
        reply = self._ask("/completion", body)
        _check_numbers(reply)
        return {one["id"]: one["logprob"] for one in reply["completion_probabilities"][0]["top_logprobs"]}

    def stop_token_ends(self) -> bool:
        stop = self.chat.answer(ChatMessage(role="assistant", content="b")).ids[-1]
        body = {"prompt": [stop], "n_predict": 2, "temperature": 0.0, "logit_bias": [[stop, _FORCE]]}
        return str(self._ask("/completion", body)["stop_type"]) == "eos"

    @property
    def quantized(self) -> bool:
        from engine.models.gguf.header import read_summary

        return read_summary(self._base.path).quantization not in ("F32", "F16", "BF16")

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        (reply,) = iterate(_posted(self._server(), path, body), None)
        return reply

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """As `LanguageModel.embed`. Raises ServiceUnreachable when llama.cpp ends."""
        filler = min(self.chat.stop_tokens, default=0)
        ids = [self.chat.encode(text)[: self.context] or [filler] for text in texts]
        try:
            server = self._server(embedding=True)
        except LlamaMissing:
            return self._scorer.embed(texts)
        return list(iterate(_embeddings(server, ids), None))


class _EventText:
    """An answer as its events come: its text so far, and how it ends."""

    def __init__(self, stop_tokens: Set[int], lead: str, max_bytes: int, logprobs: int | None) -> None:
        """`lead` is what the prompt says already and an answer repeats; `logprobs` as in `Sampling`."""
        self._stop_tokens, self._lead, self._max_bytes, self._logprobs = (
            stop_tokens,
            lead,
            max_bytes,
            logprobs,
        )
        self.tokens = self.size = 0
        """Sampled tokens; bytes of the text."""
        self.finish = Finish.LENGTH
        self.ended = False

    def text_of(self, event: dict[str, Any]) -> str:
        """The text of the next event. Raises RunFailed for NaN."""
        _check_numbers(event)
        ids = event.get("tokens") or ()
        self.tokens += len(ids)
        if not self._stop_tokens.isdisjoint(ids):
            self.finish, self.ended = Finish.STOP, True
            return ""
        text = str(event.get("content", ""))
        if text and self._lead:
            text, self._lead = text.removeprefix(self._lead), ""
        data = text.encode("utf-8", "replace")
        truncated = self.size + len(data) > self._max_bytes
        text = data[: self._max_bytes - self.size].decode("utf-8", "ignore")
        self.size += len(text.encode())
        if event.get("stop"):
            self.finish = _finish(event)
            # Tokens that end within a character come in no event of their own.
            self.tokens = int(event.get("tokens_predicted") or self.tokens)
        self.ended = truncated or self.size >= self._max_bytes or bool(event.get("stop"))
        if self._logprobs is None:
            return CountedText(text, self.tokens)
        return ScoredText(text, self.tokens, _log_probs(event, self._logprobs))


@cache
def is_installed() -> bool:
    """Whether llama.cpp is installed here. It has no wheels for some platforms; torch answers there."""
    return find_spec("xllamacpp") is not None


def can_serve(base: BaseModel) -> bool:
    """Whether llama.cpp can generate with this base and its adapter."""
    adapter = base.adapter
    return base.is_gguf and (adapter is None or (adapter / GGUF_ADAPTER).is_file()) and is_installed()


async def _posted(
    server: LlamaServer, path: str, body: dict[str, Any]
) -> AsyncGenerator[dict[str, Any], None]:
    yield await server.post(path, body)


async def _embeddings(server: LlamaServer, prompts: Sequence[list[int]]) -> AsyncGenerator[list[float], None]:
    for ids in prompts:
        rows = await server.post("/embeddings", {"content": ids, "embd_normalize": -1})
        for vector in rows[0]["embedding"]:
            yield [float(value) for value in vector]


def _completion(ids: Sequence[int], sampling: Sampling, seed: int, tokens: int) -> dict[str, Any]:
    """The body of a completion that samples as `TokenSampler` does, and in no other way."""
    chain = {
        "penalties": sampling.penalises,
        "temperature": True,
        "top_k": sampling.top_k > 0,
        "top_p": True,
        "min_p": sampling.min_p > 0,
    }
    more: dict[str, Any] = {}
    if sampling.json_schema:
        more["json_schema"] = msgspec.json.decode(sampling.json_schema)
    if sampling.penalises:
        more |= {
            "repeat_penalty": sampling.repeat_penalty,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "repeat_last_n": sampling.repeat_last_n,
        }
    return {
        "prompt": list(ids),
        # A token has at least one byte, so the bytes end the answer.
        "n_predict": tokens,
        "temperature": max(sampling.temperature, 0.0),
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "samplers": [name for name, used in chain.items() if used],
        "seed": seed % _SEEDS,
        "stop": [stop.encode("utf-8", "replace").decode() for stop in sampling.stop if stop],
        "return_tokens": True,
        "n_probs": 0 if sampling.logprobs is None else max(1, sampling.logprobs),
        **more,
    }


def _log_probs(event: dict[str, Any], most: int) -> list[TokenLogProb]:
    def read(entry: dict[str, Any], top: Sequence[TokenLogProb] = ()) -> TokenLogProb:
        return TokenLogProb(
            text=str(entry["token"]), bytes=list(entry["bytes"]), logprob=entry["logprob"], top=list(top)
        )

    return [
        read(entry, [read(one) for one in entry.get("top_logprobs", ())[:most]])
        for entry in event.get("completion_probabilities") or ()
    ]


def _check_numbers(event: dict[str, Any]) -> None:
    for token in event.get("completion_probabilities") or ():
        if token.get("logprob", 0.0) is None:
            raise RunFailed(_("the model gives no numbers (NaN)"), hint="h2q-tui rollback")


def _finish(event: dict[str, Any]) -> Finish:
    return {"eos": Finish.STOP, "word": Finish.STOP_STRING}.get(str(event.get("stop_type")), Finish.LENGTH)
