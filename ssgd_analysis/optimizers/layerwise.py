"""LARS and LAMB: base optimizers that give each layer its own learning rate.

The package pytorch-optimizer has both, but its steps are not those of the papers, which are held
side by side in ``tests/optimizers``:

- its LARS multiplies by the learning rate outside the velocity, the paper inside. At a constant
  rate both are equal; under a schedule they are not;
- its Lamb does not correct the moments for their start at zero, which it leaves to the learning
  rate; it cuts the norm of the weights at ten and adds ε to the norm of the update, and no option
  turns these two off;
- neither lets the user choose whether biases and normalisation are scaled.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT


def _ratio(weight_norm: Tensor, update_norm: Tensor, factor: float) -> Tensor:
    """Factor · ‖w‖/‖u‖; one where either norm is zero."""
    ratio = factor * weight_norm / update_norm
    return torch.where((weight_norm > 0) & (update_norm > 0), ratio, torch.ones_like(ratio))


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling.

    λ = η ‖w‖ / (‖g‖ + β‖w‖) for each tensor; v ← m v + γ λ (g + β w); w ← w − v, with γ the
    learning rate and β the weight decay. Tensors of one axis (biases, normalisation) get plain
    momentum steps without decay, as is usual in large-batch training (our default; the paper does
    not say).

    Args:
        params: parameters or groups.
        lr: γ; the default is our choice.
        momentum: m.
        weight_decay: β.
        trust: η, "how much we trust the layer to change its weights".
        scale_1d: scale and decay tensors of one axis too.

    Reference:
        You, Gitman and Ginsburg 2017 (arXiv 1708.03888), algorithm 1.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 2.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
        scale_1d: bool = False,
    ) -> None:
        own = {"momentum": momentum, "trust": trust, "scale_1d": scale_1d}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **own})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update with what is in ``.grad``."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        grad = weight.grad
        assert grad is not None
        rate: float | Tensor = group["lr"]
        if weight.ndim > 1 or group["scale_1d"]:
            decay, length = group["weight_decay"], weight.norm()
            rate = rate * _ratio(length, grad.norm() + decay * length, group["trust"])
            grad = grad + decay * weight
        state = self.state[weight]
        if not state:
            state["velocity"] = torch.zeros_like(weight)
        weight.sub_(state["velocity"].mul_(group["momentum"]).add_(grad * rate))


class LAMB(torch.optim.Optimizer):
    """Layer-wise adaptive moments.

    r = m̂/(√v̂ + ε) as in Adam; u = r + λ w; w ← w − γ ‖w‖/‖u‖ u for each tensor. Tensors of one
    axis (biases, normalisation) get Adam's steps without decay (our default, as in LARS).

    Args:
        params: parameters or groups.
        lr: γ; the default is our choice.
        betas: of the two moments.
        eps: ε.
        weight_decay: λ.
        bias_correction: m̂ and v̂ rather than m and v.
        scale_1d: scale and decay tensors of one axis too.

    Reference:
        You et al. 2020 (arXiv 1904.00962), algorithm 2, with φ the identity.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        bias_correction: bool = True,
        scale_1d: bool = False,
    ) -> None:
        own = {"bias_correction": bias_correction, "scale_1d": scale_1d}
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, **own}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update with what is in ``.grad``."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        update, rate = self._direction(weight, group), group["lr"]
        if weight.ndim > 1 or group["scale_1d"]:
            update = update + group["weight_decay"] * weight
            rate = rate * _ratio(weight.norm(), update.norm(), 1.0)
        weight.sub_(update * rate)

    def _direction(self, weight: Tensor, group: dict[str, Any]) -> Tensor:
        """Adam's m̂/(√v̂ + ε)."""
        state, grad = self.state[weight], weight.grad
        assert grad is not None
        if not state:
            state.update(step=0, first=torch.zeros_like(weight), second=torch.zeros_like(weight))
        state["step"] += 1
        for name, beta, value in zip(
            ("first", "second"), group["betas"], (grad, grad * grad), strict=True
        ):
            state[name].mul_(beta).add_(value, alpha=1 - beta)
        whole = [
            1 - beta ** state["step"] if group["bias_correction"] else 1.0
            for beta in group["betas"]
        ]
        return (state["first"] / whole[0]) / ((state["second"] / whole[1]).sqrt() + group["eps"])
