"""S-SGD as a plain ``torch.optim.Optimizer``, for a user's own loop."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from ssgd_analysis import seeds
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.methods.batchnorm import POLICIES, bn_statistics
from ssgd_analysis.methods.gradient_sum import GradientSum
from ssgd_analysis.methods.weight_noise import is_spared, noisy_weights
from ssgd_analysis.weights import Noise


class SSGD(torch.optim.Optimizer):
    """S-SGD around any base optimizer.

    ``step(closure)`` calls the closure at w + n and at w − n, restores the exact bits of w,
    and lets the base optimizer step with the mean of the two gradients. The closure zeroes the
    gradients, computes the loss, calls ``backward()`` (and clips, if it likes: each gradient
    by itself) and returns the loss. Works with LR schedulers, parameter groups (each may have
    its own ``noise_scale``) and ``state_dict``. Not for sparse gradients, nor around a base
    optimizer that needs a closure itself (LBFGS).

    Args:
        params: parameters, parameter groups, or named parameters.
        base_optimizer: class of the optimizer that steps at w.
        noise_scale: c, relative to what ``noise_relative_to`` names.
        noise_law: ``binary``, ``gaussian``, ``sphere`` or ``uniform``.
        noise_relative_to: ``filter``, ``layer``, ``weight`` or ``none``.
        spare: parameters without noise: ``1d`` (biases, normalisation), ``none``, or
            comma-separated name patterns (for named parameters).
        seed: of the noise; with the step count, which ``state_dict`` keeps, it fixes it.
        model: give it so that BatchNorm's statistics follow ``bn_stats``; without it both
            passes update them, as the optimizer cannot see them.
        bn_stats: ``first``, ``both`` or ``frozen``.
        **base_options: for the base optimizer, e.g. ``lr``, ``momentum``, ``weight_decay``.

    Raises:
        InputError: a negative noise scale, an unknown law, scale or policy.

    Example:
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = SSGD(model.parameters(), torch.optim.SGD, noise_scale=0.1, lr=0.1)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = model(torch.ones(2, 3)).square().mean()
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(closure)

    Reference:
        Sung et al. 2020 (arXiv 2009.02479); see :class:`~ssgd_analysis.methods.s_sgd` for
        which choices are ours.
    """

    def __init__(
        self,
        params: ParamsT,
        base_optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
        *,
        noise_scale: float = 0.1,
        noise_law: str = "binary",
        noise_relative_to: str = "filter",
        spare: str = "1d",
        seed: int = 0,
        model: nn.Module | None = None,
        bn_stats: str = "first",
        **base_options: Any,
    ) -> None:
        if bn_stats not in POLICIES or bn_stats == "clean":
            raise unknown("BatchNorm policy", bn_stats, [p for p in POLICIES if p != "clean"])
        self.noise = Noise(law=noise_law, scale=noise_relative_to)
        self.spare, self.seed, self.model, self.bn_stats = spare, seed, model, bn_stats
        if bn_stats == "frozen" and model is None:
            raise InputError("bn_stats='frozen' needs the model: SSGD(..., model=model)")
        super().__init__(params, {"noise_scale": noise_scale, "noise_step": 0})
        self._check_groups()
        self.base_optimizer = base_optimizer(self.param_groups, **base_options)
        self.defaults = {**self.base_optimizer.defaults, **self.defaults}
        self.param_groups = self.base_optimizer.param_groups
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor:  # type: ignore[override]
        """One update.

        Args:
            closure: see the class; it is called twice.

        Returns:
            The mean of the two losses.

        Raises:
            InputError: no closure.
        """
        if closure is None:
            raise InputError("SSGD.step needs a closure: it evaluates the loss at two points")
        group = self.param_groups[0]
        seed = seeds.derive(self.seed, "weight noise", group["noise_step"], 0)
        losses = []
        for parameter in self._parameters():
            parameter.grad = None  # what was there before is no part of this step
        gradients = GradientSum(self._parameters())
        for index, sign in enumerate((1, -1)):
            gradients.take()
            with (
                self._statistics(index),
                noisy_weights(self._noisy(), self.noise, sign=sign, seed=seed),
                torch.enable_grad(),
            ):
                losses.append(torch.as_tensor(closure()).detach())
        gradients.give_back()
        for parameter in self._parameters():
            if parameter.grad is not None:  # at one point only: the other gradient is zero
                parameter.grad.div_(2)
        self.base_optimizer.step()
        group["noise_step"] += 1
        return (losses[0] + losses[1]) / 2

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; a group may have its own ``noise_scale``."""
        super().add_param_group(param_group)
        if hasattr(self, "base_optimizer"):
            group = self.param_groups[-1]
            for key, value in self.base_optimizer.defaults.items():
                group.setdefault(key, value)
            self._check_groups()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state of ``state_dict()``, the base optimizer's and the noise's."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Groups and state are one object for both, so that schedulers reach the base."""
        self.base_optimizer.param_groups = self.param_groups
        self.base_optimizer.state = self.state

    def _parameters(self) -> Iterator[nn.Parameter]:
        for group in self.param_groups:
            yield from group["params"]

    def _noisy(self) -> list[tuple[Tensor, float]]:
        return [
            (parameter, float(group["noise_scale"]))
            for group in self.param_groups
            for name, parameter in zip(
                group.get("param_names", [""] * len(group["params"])), group["params"], strict=True
            )
            if parameter.requires_grad and not is_spared(self.spare, name, parameter)
        ]

    def _statistics(self, pass_index: int) -> AbstractContextManager[None]:
        if self.model is None:
            return nullcontext()
        return bn_statistics(self.model, self.bn_stats, pass_index)

    def __getstate__(self) -> dict[str, Any]:
        """Everything: torch's own keeps groups and state only, too little for a copy."""
        # A scheduler wraps step() of the one optimizer that it was given.
        return {key: value for key, value in self.__dict__.items() if key != "step"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`__getstate__` gave, or torch's part of it."""
        super().__setstate__(state)
        if hasattr(self, "base_optimizer"):
            self._share()

    def _check_groups(self) -> None:
        by_name = self.spare not in ("1d", "none")
        for group in self.param_groups:
            if by_name and "param_names" not in group:
                raise InputError(
                    f"spare='{self.spare}' needs names: SSGD(model.named_parameters(), ...)"
                )
            if not 0 <= float(group["noise_scale"]) < float("inf"):
                raise InputError(f"noise_scale {group['noise_scale']} should be ≥ 0 and finite")
