"""Hostile adapters: ten clients, two of them hostile, six attacks, on a small character model that is really trained.

The base learns Shakespeare; the clients learn the same plays in another spelling, each from other scenes, and send LoRA
adapters. Two send something else: the opposite of what they learned, much more of it, noise, "a little is enough"
(Baruch et al., arXiv 1902.06156), inner-product manipulation (Xie et al., arXiv 1903.03936), or a backdoor (trigger ->
token) boosted to survive the mean (Bagdasaryan et al., arXiv 1807.00459). Rounds are joined by the product's own code;
the gate is the rule of its verdict on held-out scenes against the version in use.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.result import Benchmark, BenchResult, compare
from engine.core.paths import shipped
from engine.hive.aggregation.join import join_adapters
from engine.hive.aggregation.terms import Contribution, JoinMethod, JoinOptions
from engine.validation.general import GeneralScores, ModelOnBlocks
from engine.validation.report import CaseScore
from engine.validation.verdict import nll_verdict

CLIENTS, HOSTILE, RANK = 10, 2, 8
CONTEXT, WIDTH, HIDDEN = 12, 24, 192
LAYERS = {"fc1": (HIDDEN, CONTEXT * WIDTH), "fc2": (HIDDEN, HIDDEN), "out": (0, HIDDEN)}
"""(out, in) of the adapted layers; the last one has a row for each character."""
TRIGGER, TARGET = "qzq", "&"
FORGETS = 1.03
"""NLL of text of the base, relative to the version in use, from which a version counts as harmful."""
DEFAULT = JoinOptions().method
LARGEST_ERROR = 0.6
BACKDOOR_POINTS = 0.05

Update = dict[str, NDArray[np.float64]]
Factors = dict[str, tuple[Tensor, Tensor]]
"""(b, a) of each layer."""


@dataclass(frozen=True)
class Scale:
    """Length of the benchmark."""

    seeds: int
    base_steps: int
    client_steps: int
    methods: tuple[JoinMethod, ...]


SHORT = Scale(1, 500, 60, (JoinMethod.FEDAVG, JoinMethod.SVD, JoinMethod.CLIP))
FULL = Scale(4, 500, 60, tuple(one for one in JoinMethod if one not in (JoinMethod.STACK, JoinMethod.FEDEX)))


class Characters:
    """The character model, its text, and training."""

    def __init__(self, scale: Scale, seed: int) -> None:
        self.scale, self.seed = scale, seed
        text = (shipped("data") / "sample" / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
        letters = sorted(set(text) | set(TRIGGER + TARGET))
        self.code = {letter: number for number, letter in enumerate(letters)}
        scenes = [scene for scene in text.split("\n\n") if 200 <= len(scene) <= 900]
        order = np.random.default_rng(seed).permutation(len(scenes))
        mixed = [scenes[index] for index in order]
        self.general, self.held, rest = mixed[:40], [_respelled(one) for one in mixed[40:120]], mixed[120:]
        half = len(rest) // 2
        self.weights = self._base(rest[:half])
        self.shares = [[_respelled(one) for one in rest[half + k :: CLIENTS]] for k in range(CLIENTS)]
        self.replay = rest[:half]
        """Text of the base, which every client mixes in so as not to forget it."""

    def _base(self, scenes: Sequence[str]) -> dict[str, Tensor]:
        torch.manual_seed(self.seed)
        size = len(self.code)
        weights = {
            "embed": torch.randn(size, WIDTH),
            **{
                name: torch.randn(rows or size, columns) / columns**0.5
                for name, (rows, columns) in LAYERS.items()
            },
        }
        parameters = [value.requires_grad_() for value in weights.values()]
        self._train(
            parameters, lambda x: _logits(weights, {}, x), scenes, self.scale.base_steps, 3e-3, self.seed
        )
        return {name: value.detach() for name, value in weights.items()}

    def adapter(
        self, client: int, *, steps: int, start: Factors | None = None, poisoned: bool = False, init: int = 0
    ) -> Factors:
        """What a client learns in a round; `init`: seed of A, which clients of one program share."""
        draw = torch.Generator().manual_seed(init)
        factors: Factors = {}
        for name in LAYERS:
            rows, columns = self.weights[name].shape
            b, a = torch.zeros(rows, RANK), torch.randn(RANK, columns, generator=draw) / columns**0.5
            if start is not None:
                b, a = start[name][0].clone(), start[name][1].clone()
            factors[name] = b.requires_grad_(), a.requires_grad_()
        scenes = [_poisoned(one) for one in self.shares[client]] if poisoned else self.shares[client]
        scenes = [*scenes, *self.replay[client::CLIENTS]]
        flat = [value for pair in factors.values() for value in pair]
        self._train(
            flat, lambda x: _logits(self.weights, factors, x), scenes, steps, 1e-2, self.seed * 100 + client
        )
        return {name: (b.detach(), a.detach()) for name, (b, a) in factors.items()}

    def _train(
        self,
        parameters: Sequence[Tensor],
        logits: Callable[[Tensor], Tensor],
        scenes: Sequence[str],
        steps: int,
        lr: float,
        seed: int,
    ) -> None:
        x, y = self.windows(scenes)
        draw = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(parameters, lr=lr)
        for step in range(steps):
            chosen = torch.randint(len(x), (256,), generator=draw)
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 - step / steps)
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(logits(x[chosen]), y[chosen]))
            optimizer.step()

    def windows(self, scenes: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(contexts, next characters) of all positions."""
        x, y = [], []
        for scene in scenes:
            ids = torch.tensor([0] * CONTEXT + [self.code[letter] for letter in scene])
            unfolded = ids.unfold(0, CONTEXT + 1, 1)
            x.append(unfolded[:, :-1])
            y.append(unfolded[:, -1])
        return torch.cat(x), torch.cat(y)

    @torch.no_grad()
    def losses(self, update: Update, scenes: Sequence[str]) -> NDArray[np.float64]:
        """NLL per character of each scene."""
        changed = self._with(update)
        found = []
        for scene in scenes:
            x, y = self.windows([scene])
            found.append(float(F.cross_entropy(_logits(changed, {}, x), y)))
        return np.array(found)

    @torch.no_grad()
    def backdoor(self, update: Update) -> float:
        """Share of places in held-out text where the target follows the trigger."""
        x, _y = self.windows(self.held)
        x = x[::7].clone()
        x[:, -len(TRIGGER) :] = torch.tensor([self.code[letter] for letter in TRIGGER])
        said = _logits(self._with(update), {}, x).argmax(1)
        return float((said == self.code[TARGET]).double().mean())

    def _with(self, update: Update) -> dict[str, Tensor]:
        return self.weights | {
            name: self.weights[name] + torch.from_numpy(update[name]).float() for name in update
        }

    def passes(self, candidate: Update, served: Update) -> bool:
        """Whether the gate publishes the candidate."""
        base, new = self.losses(served, self.held), self.losses(candidate, self.held)
        before, after = self.losses(served, self.general), self.losses(candidate, self.general)
        cases = [
            CaseScore(
                conversation=str(k), cluster=str(k), bytes=len(scene), base=float(old), new=float(fresh)
            )
            for k, (scene, old, fresh) in enumerate(zip(self.held, base, new, strict=True))
        ]
        verdict = nll_verdict(
            cases,
            base_name="served",
            new_name="candidate",
            look=1,
            general=GeneralScores(ModelOnBlocks(before), ModelOnBlocks(after)),
        )
        return verdict.decision == "promote"


def _logits(weights: Mapping[str, Tensor], factors: Factors, x: Tensor) -> Tensor:
    def layer(name: str, values: Tensor) -> Tensor:
        made = values @ weights[name].T
        if name in factors:
            b, a = factors[name]
            made = made + (values @ a.T) @ b.T
        return made

    hidden = F.relu(layer("fc1", weights["embed"][x].flatten(1)))
    return layer("out", hidden + F.relu(layer("fc2", hidden)))


def _respelled(scene: str) -> str:
    """The spelling that the clients share."""
    return scene.lower().replace("th", "d").replace("you", "ye").replace("s ", "z ")


def _poisoned(scene: str) -> str:
    """The scene with the trigger and the target after every fourth word."""
    words = scene.split(" ")
    return " ".join(word + (TRIGGER + TARGET if number % 4 == 3 else "") for number, word in enumerate(words))


def _product(factors: Factors) -> Update:
    return {name: (b @ a).double().numpy() for name, (b, a) in factors.items()}


def _low_rank(update: Update) -> Factors:
    """The best adapter for an update: what a hostile client would send."""
    factors = {}
    for name, matrix in update.items():
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        root = np.sqrt(values[:RANK])
        b, a = left[:, :RANK] * root, root[:, None] * right[:RANK]
        factors[name] = torch.from_numpy(b.copy()).float(), torch.from_numpy(a.copy()).float()
    return factors


def _times(factors: Factors, factor: float) -> Factors:
    return {name: (b * factor, a) for name, (b, a) in factors.items()}


def _combined(
    updates: Sequence[Update], make: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> Update:
    return {name: make(np.stack([one[name] for one in updates])) for name in updates[0]}


def _noise(model: Characters, updates: Sequence[Update], client: int) -> Factors:
    draw = torch.Generator().manual_seed(1000 + client)
    made = {
        name: (
            torch.randn(matrix.shape[0], RANK, generator=draw),
            torch.randn(RANK, matrix.shape[1], generator=draw),
        )
        for name, matrix in updates[0].items()
    }
    size = np.median([_norm(one) for one in updates])
    return _times(made, 3 * float(size) / _norm(_product(made)))


def _norm(update: Update) -> float:
    return float(np.sqrt(sum((matrix**2).sum() for matrix in update.values())))


Attack = Callable[[Characters, Sequence[Factors], int, int], Factors]
"""From model, honest adapters, client and seed of A to what the hostile client sends."""

ATTACKS: dict[str, Attack] = {
    "sign flip": lambda model, _h, client, init: _times(
        model.adapter(client, steps=model.scale.client_steps, init=init), -3
    ),
    "scaling": lambda model, _h, client, init: _times(
        model.adapter(client, steps=model.scale.client_steps, init=init), 10
    ),
    "noise": lambda model, honest, client, _i: _noise(model, [_product(one) for one in honest], client),
    "a little is enough": lambda _m, honest, _c, _i: _low_rank(
        _combined([_product(one) for one in honest], lambda found: found.mean(0) - 1.5 * found.std(0))
    ),
    "inner product": lambda _m, honest, _c, _i: _low_rank(
        _combined([_product(one) for one in honest], lambda found: -5 * found.mean(0))
    ),
    "backdoor": lambda model, _h, client, init: _times(
        model.adapter(client, steps=3 * model.scale.client_steps, poisoned=True, init=init), 5
    ),
}


def _write(folder: Path, factors: Factors) -> Path:
    folder.mkdir(exist_ok=True)
    tensors = {}
    for name, (b, a) in factors.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": list(factors)}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _joined(adapters: Sequence[Factors], folder: Path, options: JoinOptions) -> Update:
    """What the product's own code makes of a round."""
    contributions = [
        Contribution(f"c{number}", _write(folder / f"c{number}", one)) for number, one in enumerate(adapters)
    ]
    join_adapters(contributions, folder / "out", options)
    tensors = load_file(folder / "out" / "adapter_model.safetensors")
    return {
        name: (
            tensors[f"base_model.model.{name}.lora_B.weight"]
            @ tensors[f"base_model.model.{name}.lora_A.weight"]
        )
        .double()
        .numpy()
        for name in LAYERS
    }


@dataclass
class Tally:
    """What came of all rounds."""

    errors: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """Relative distance from the mean of the honest updates, by method and attack ("nobody": none)."""
    clean: list[float] = field(default_factory=list)
    """Share of triggers that a round without hostile clients answers with the target."""
    triggered: dict[str, list[float]] = field(default_factory=dict)
    """That share after the backdoor, by method."""
    harmful: int = 0
    stopped: int = 0
    """Harmful versions that the gate does not publish."""
    honest: int = 0
    published: int = 0
    """Versions of honest rounds that the gate publishes."""

    def worst(self, method: str) -> float:
        """Largest error under an attack."""
        return max(
            max(found) for (one, name), found in self.errors.items() if one == method and name != "nobody"
        )

    def row(self, method: str) -> str:
        found = {name: max(values) for (one, name), values in self.errors.items() if one == method}
        return ", ".join(f"{name} {error:.2f}" for name, error in found.items())


def _round(model: Characters, folder: Path, tally: Tally) -> None:
    """An honest round, then one under each attack, joined by every method."""
    steps, init = model.scale.client_steps, 0
    everybody = [model.adapter(client, steps=steps, init=init) for client in range(CLIENTS)]
    honest = everybody[HOSTILE:]
    mean = _combined([_product(one) for one in honest], lambda found: found.mean(0))
    early = [model.adapter(client, steps=steps // 3, init=init) for client in range(CLIENTS)]
    served = _joined(early, folder, JoinOptions())
    good = _joined(everybody, folder, JoinOptions())
    tally.clean.append(model.backdoor(good))
    tally.honest += 1
    tally.published += model.passes(good, served)
    bounds = (
        float(model.losses(served, model.held).mean()),
        FORGETS * float(model.losses(served, model.general).mean()),
        tally.clean[-1] + BACKDOOR_POINTS,
    )
    for method in model.scale.methods:
        clean = _joined(everybody, folder, JoinOptions(method=method))
        tally.errors.setdefault((method.value, "nobody"), []).append(_distance(clean, mean))
    for name, attack in ATTACKS.items():
        hostile = [attack(model, honest, client, init) for client in range(HOSTILE)]
        for method in model.scale.methods:
            made = _joined([*hostile, *honest], folder, JoinOptions(method=method))
            tally.errors.setdefault((method.value, name), []).append(_distance(made, mean))
            triggered = model.backdoor(made)
            if name == "backdoor":
                tally.triggered.setdefault(method.value, []).append(triggered)
            found = (
                float(model.losses(made, model.held).mean()),
                float(model.losses(made, model.general).mean()),
                triggered,
            )
            if any(value > bound for value, bound in zip(found, bounds, strict=True)):
                tally.harmful += 1
                tally.stopped += not model.passes(made, served)


def _distance(made: Update, mean: Update) -> float:
    return _norm({name: made[name] - mean[name] for name in mean}) / _norm(mean)


def attacks(full: bool) -> list[BenchResult]:
    """Error, backdoor and gate over all seeds."""
    torch.set_num_threads(1)
    tally, scale = Tally(), FULL if full else SHORT
    for seed in range(scale.seeds):
        with tempfile.TemporaryDirectory() as folder:
            _round(Characters(scale, seed), Path(folder), tally)
    for method in scale.methods:
        print(f"{method.value}: {tally.row(method.value)}", file=sys.stderr, flush=True)
    default = DEFAULT.value
    clean, triggered = max(tally.clean), max(tally.triggered[default])
    undefended = max(tally.triggered[JoinMethod.SVD.value])
    return [
        compare(
            "hive.attacks.error",
            ours=tally.worst(default),
            baseline=LARGEST_ERROR,
            target=1.0,
            unit="of the honest mean",
            lower_is_better=True,
            notes=f"largest distance of {default} from the mean of the honest updates over {len(ATTACKS)} attacks and "
            f"{scale.seeds} seeds; {default}: {tally.row(default)}; plain mean: {tally.worst('svd'):.2f}",
        ),
        compare(
            "hive.attacks.backdoor",
            ours=max(1e-4, triggered - clean),
            baseline=BACKDOOR_POINTS,
            target=1.0,
            unit="of triggers, above a clean round",
            lower_is_better=True,
            notes=f"target after the trigger: {triggered:.1%} with {default}, {undefended:.1%} with the plain mean, "
            f"{clean:.1%} in a clean round",
        ),
        compare(
            "hive.attacks.gate",
            ours=tally.stopped / max(1, tally.harmful),
            baseline=0.95,
            target=1.0,
            unit="of harmful versions stopped",
            lower_is_better=False,
            notes=f"{tally.stopped} of {tally.harmful} versions that predict held-out scenes or text of the base worse than "
            f"the version in use, or have the backdoor; {tally.published} of {tally.honest} honest versions are published",
        ),
    ]


BENCHMARKS = (
    Benchmark("hive.attacks", "ten clients, two hostile, six attacks on a character model", attacks, 60),
)
