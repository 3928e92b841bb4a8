"""Muon for the matrices of the layers and AdamW for the other parameters, with the whole state as named
tensors.

Muon (K. Jordan et al., 2024) steps along the orthogonalised momentum. torch.optim.Muon updates one matrix at
a time; here matrices of one shape are orthogonalised in one batched product, which takes about half the time
on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from engine.training.recipe import Recipe

Coefficients = tuple[tuple[float, float, float], ...]

POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""Coefficients of the Newton-Schulz iterations (Polar Express, arXiv 2505.16932)."""
POLAR_STEPS = 3
"""Iterations used: the final loss is that of all five, and a step costs less."""
GRAM_ASPECT_RATIO = 3
"""Aspect ratio from which a matrix is orthogonalised through its small Gram matrix, with half the products."""


def orthogonalise(matrices: Tensor, *, bf16: bool = False, steps: int = POLAR_STEPS) -> Tensor:
    """Approximates the nearest semi-orthogonal matrix of each of `(count, rows, columns)`; float32 in and
    out.

    After three iterations the largest singular values are up to 1.9 and small ones still rise; after five all
    are near 1.

    `bf16` computes in bfloat16, which the method tolerates and some CPUs do twice as fast.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    # The coefficients assume spectral norms up to 1; the Frobenius norm bounds it, with 2 % for rounding.
    x = x / (x.norm(dim=(1, 2), keepdim=True) * 1.02 + 1e-7)
    x = x.bfloat16() if bf16 else x
    # In bfloat16 the powers of the Gram matrix lose the small singular values.
    wide = x.shape[2] >= GRAM_ASPECT_RATIO * x.shape[1] and not bf16
    coefficients = POLAR_EXPRESS[:steps]
    x = _newton_schulz_gram(x, coefficients) if wide else _newton_schulz(x, coefficients)
    return (x.transpose(1, 2) if tall else x).float()


def _newton_schulz(x: Tensor, coefficients: Coefficients) -> Tensor:
    for a, b, c in coefficients:
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _newton_schulz_gram(x: Tensor, coefficients: Coefficients) -> Tensor:
    """The same iterations on `x x'` alone: all factors are polynomials of it and commute, so `x` is
    multiplied once."""
    gram = x @ x.transpose(1, 2)
    factors = None
    for number, (a, b, c) in enumerate(coefficients, start=1):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        factors = factor if factors is None else factors @ factor
        if number < len(coefficients):
            gram = factor @ (gram @ factor)
    assert factors is not None
    return factors @ x


class _MatrixStack:
    """Matrices of one shape (up to transposition), with their momentum in one tensor."""

    def __init__(self, members: list[tuple[str, nn.Parameter]]) -> None:
        self.members = members
        parameter = members[0][1]
        rows, columns = sorted(parameter.shape)
        self.buffer = torch.zeros(len(members), rows, columns, device=parameter.device)
        self.bound = torch.zeros((), device=parameter.device)
        """Moving average of the gradients' norms: an upper bound on the norm of any momentum that steps can
        produce."""
        self.scales = [max(1.0, p.shape[0] / p.shape[1]) ** 0.5 for _name, p in members]

    def prepare(self, momentum: float, *, bf16: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Momentum, its bound and the orthogonalised update of the next step; changes nothing."""
        gradients = torch.stack([_as_wide(_gradient(p)) for _name, p in self.members])
        buffer = self.buffer.lerp(gradients, 1 - momentum)
        bound = self.bound.lerp(torch.linalg.vector_norm(gradients), 1 - momentum)
        return buffer, bound, orthogonalise(gradients.lerp_(buffer, momentum), bf16=bf16)

    def apply(self, prepared: tuple[Tensor, Tensor, Tensor], lr: float, weight_decay: float) -> None:
        """Applies a prepared step in place: it allocates nothing, so it cannot fail half-way."""
        self.buffer, self.bound, update = prepared
        for (_name, parameter), change, scale in zip(self.members, update, self.scales, strict=True):
            if weight_decay:
                parameter.mul_(1 - lr * weight_decay)
            parameter.add_(change if parameter.shape == change.shape else change.T, alpha=-lr * scale)

    def is_plausible(self) -> bool:
        length = torch.linalg.vector_norm(self.buffer)
        return bool(length <= 1.01 * self.bound + 1e-12)  # false for NaN


def _as_wide(matrix: Tensor) -> Tensor:
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def _gradient(parameter: nn.Parameter) -> Tensor:
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)


class Optimizer:
    """The optimizer of a recipe. `step(factor, …)` takes the factor on the peak learning rates."""

    def __init__(self, model: nn.Module, recipe: Recipe, *, bf16: bool = False) -> None:
        self.recipe = recipe
        self.bf16 = bf16
        self.peak = recipe.lr
        """Current peak learning rate; the user may change it during a run, and all groups follow in
        proportion."""
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.parameters = [parameter for _name, parameter in named]
        self._names = {id(parameter): name for name, parameter in named}
        shapes: dict[tuple[int, ...], list[tuple[str, nn.Parameter]]] = {}
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in named:
            if recipe.optimizer == "muon" and parameter.ndim == 2 and ".layers." in name:
                shapes.setdefault(tuple(sorted(parameter.shape)), []).append((name, parameter))
            else:
                groups.setdefault(self._peak_lr(name, parameter), []).append(parameter)
        self._stacks = [_MatrixStack(members) for members in shapes.values()]
        self._peak_lrs = list(groups)
        self._adamw = torch.optim.AdamW(
            [{"params": members, "lr": rate} for rate, members in groups.items()],
            betas=recipe.betas,
            eps=recipe.eps,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def _peak_lr(self, name: str, parameter: nn.Parameter) -> float:
        if self.recipe.optimizer != "muon":
            return self.recipe.lr
        if parameter.ndim < 2:
            return self.recipe.norm_lr
        return self.recipe.head_lr if name.startswith("lm_head") else self.recipe.embed_lr

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def grad_norm(self, clip: float) -> Tensor:
        """Global gradient norm; the gradients are scaled down to `clip` where it is above 0."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if clip > 0:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, clip, norm)
        return norm

    @torch.no_grad()
    def limit_gradients(self, norm: float) -> None:
        """Scales the gradients down to a global norm of at most `norm`, in place."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        length = float(torch.nn.utils.get_total_norm(gradients))
        if length > norm:
            torch._foreach_mul_(gradients, norm / length)

    @torch.no_grad()
    def step(self, factor: float, momentum: float) -> float:
        """One step at `factor` times the peak rates; returns the main learning rate used.

        All memory is allocated before anything changes: a step that runs out of memory has not been taken.
        """
        scale = factor * self.peak / self.recipe.lr
        prepared = [stack.prepare(momentum, bf16=self.bf16) for stack in self._stacks]
        self._allocate_moments()
        for stack, one in zip(self._stacks, prepared, strict=True):
            stack.apply(one, self.recipe.lr * scale, self.recipe.weight_decay)
        for group, rate in zip(self._adamw.param_groups, self._peak_lrs, strict=True):
            group["lr"] = rate * scale
        self._adamw.step()
        return self.recipe.lr * scale

    def _allocate_moments(self) -> None:
        """AdamW would allocate them group by group, between the updates of the groups."""
        for parameter in self._adamw_parameters():
            if parameter.grad is not None and not self._adamw.state.get(parameter):
                self._adamw.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                }

    @torch.no_grad()
    def state_is_plausible(self) -> bool:
        """Whether steps can have produced this state: momentum and moments are finite and within their
        bounds.

        By the triangle inequality a momentum is no longer than the moving average of the gradients' norms. By
        Cauchy-Schwarz m² ≤ v · (1 - b1)² / ((1 - b2) (1 - b1² / b2)) for the moving averages m and v of any
        gradients and their squares.
        """
        first, second = self.recipe.betas
        bound = 1.05 * (1 - first) ** 2 / ((1 - second) * (1 - first**2 / second))
        for state in self._adamw.state.values():
            mean, square = state["exp_avg"], state["exp_avg_sq"]
            if not bool((mean.square() <= bound * square + 1e-30).all()):
                return False
        return all(stack.is_plausible() for stack in self._stacks)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on, by parameter name."""
        tensors = {
            f"momentum/{name}": buffer
            for stack in self._stacks
            for (name, _parameter), buffer in zip(stack.members, stack.buffer, strict=True)
        }
        tensors |= {f"bound/{stack.members[0][0]}": stack.bound for stack in self._stacks}
        for parameter, state in self._adamw.state.items():
            tensors |= {f"{key}/{self._names[id(parameter)]}": value for key, value in state.items()}
        return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restores a state. Raises KeyError when it belongs to another model or recipe."""
        for stack in self._stacks:
            for (name, _parameter), buffer in zip(stack.members, stack.buffer, strict=True):
                buffer.copy_(tensors[f"momentum/{name}"])
            bound = tensors.get(f"bound/{stack.members[0][0]}")
            stack.bound.copy_(torch.linalg.vector_norm(stack.buffer) if bound is None else bound)
        for parameter in self._adamw_parameters():
            name = self._names[id(parameter)]
            if f"exp_avg/{name}" not in tensors:
                self._adamw.state.pop(parameter, None)  # saved before the parameter's first step
                continue
            self._adamw.state[parameter] = {
                key: tensors[f"{key}/{name}"].to(
                    "cpu" if key == "step" and parameter.device.type == "cpu" else parameter.device, copy=True
                )
                for key in ("step", "exp_avg", "exp_avg_sq")
            }

    def _adamw_parameters(self) -> Iterable[nn.Parameter]:
        return (parameter for group in self._adamw.param_groups for parameter in group["params"])
