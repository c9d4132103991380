"""S-SGD as a plain ``torch.optim.Optimizer``, for a user's own loop."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim.optimizer import ParamsT

from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.methods.batchnorm import POLICIES, bn_statistics
from ssgd_analysis.methods.gradient_sum import match_strides
from ssgd_analysis.methods.moving import NOISE_PER, WeightMover
from ssgd_analysis.methods.per_sample import perturbable
from ssgd_analysis.methods.points import (
    MoveTo,
    Point,
    moving_to_points,
    noise_seed,
    sum_over_points,
)
from ssgd_analysis.methods.weight_noise import NOISE_ACROSS_RANKS
from ssgd_analysis.weights import Filters, Noise, filters_of, included


class SSGD(torch.optim.Optimizer):
    """S-SGD around any base optimizer.

    ``step(closure)`` calls the closure at w + n and at w − n, restores the exact bits of w,
    and lets the base optimizer step with the mean of the gradients. The closure zeroes the
    gradients, computes the loss, calls ``backward()`` (and clips, if it likes: each gradient
    by itself) and returns the loss. It may go through several micro-batches, and autocast. Works
    with LR schedulers, parameter groups (each may have its own ``noise_scale``; where all are 0,
    the closure is called once), compiled models and ``state_dict``. Not for sparse gradients,
    nor around a base optimizer that needs a closure itself (LBFGS).

    In float16 the closure scales the loss, ``scaler.scale(loss).backward()``, and the step is
    ``optimizer.step(closure, scaler=scaler)``, then ``scaler.update()``: the mean of the scaled
    gradients is unscaled once, and an infinity at any point skips the base optimizer's step.

    Under ``DistributedDataParallel`` each pass averages the gradients of all ranks. With
    ``noise_across_ranks="same"`` all draw the same noise: the step is that of one process with
    the whole batch. With ``"different"`` each rank evaluates its own examples at its own points:
    as many draws as ranks are averaged, over fewer examples each. The weights stay equal.

    Args:
        params: parameters, parameter groups, or named parameters.
        base_optimizer: class of the optimizer that steps at w.
        noise_scale: c, relative to what ``noise_relative_to`` names.
        noise_law: ``binary``, ``gaussian``, ``sphere``, ``uniform`` or ``laplace``.
        noise_relative_to: ``filter``, ``layer``, ``weight`` or ``none``.
        noise_per: ``step``; ``layer``, one random layer each time (named parameters of one
            module; without names each parameter is one); ``sample``, needs the model.
        pairs: independent pairs w ± n of a step; two calls of the closure each.
        exclude: parameters without noise: ``none``, or separated by commas ``1d`` (biases,
            normalisation), ``type:CLASS`` (needs the model), and patterns of names.
        noise_across_ranks: ``same`` or ``different``, see above.
        seed: of the noise; it fixes the noise together with the number of the step, which is
            part of ``state_dict``.
        model: needed so that BatchNorm's statistics follow ``bn_stats``; without it all passes
            update them, as the optimizer cannot see them. The model also names the parameters,
            and shows where filters lie and which rows of an embedding are padding; without it
            every filter is a slice along axis 0, wrong for transposed convolutions and
            embeddings, and padding rows get noise.
        bn_stats: ``first``, ``both`` (all passes) or ``frozen``.
        **base_options: for the base optimizer, e.g. ``lr``, ``momentum``, ``weight_decay``.

    Raises:
        InputError: a negative noise scale, an unknown law, scale or policy, a part of ``exclude``
            that fits no parameter, an option that needs the model without a model, or a base
            optimizer that needs a closure.

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
        noise_per: str = "step",
        pairs: int = 1,
        exclude: str = "1d",
        noise_across_ranks: str = "same",
        seed: int = 0,
        model: nn.Module | None = None,
        bn_stats: str = "first",
        **base_options: Any,
    ) -> None:
        for what, value, choices in (
            ("BatchNorm policy", bn_stats, [policy for policy in POLICIES if policy != "clean"]),
            ("noise_per", noise_per, NOISE_PER),
            ("noise_across_ranks", noise_across_ranks, NOISE_ACROSS_RANKS),
        ):
            if value not in choices:
                raise unknown(what, value, choices)
        if pairs < 1:
            raise InputError(f"pairs={pairs} should be at least 1")
        for option, value in (("bn_stats", bn_stats), ("noise_per", noise_per)):
            if value in ("frozen", "sample") and model is None:
                raise InputError(f"{option}='{value}' needs the model: SSGD(..., model=model)")
        self.noise = Noise(law=noise_law, scale=noise_relative_to)
        self.noise_per, self.pairs, self.noise_across_ranks = noise_per, pairs, noise_across_ranks
        self.exclude, self.seed, self.model, self.bn_stats = exclude, seed, model, bn_stats
        super().__init__(params, {"noise_scale": noise_scale, "noise_step": 0})
        self._check_groups()
        self.base_optimizer = base_optimizer(self.param_groups, **base_options)
        asked = inspect.signature(self.base_optimizer.step).parameters.get("closure")
        if asked is not None and asked.default is inspect.Parameter.empty:
            name = type(self.base_optimizer).__name__
            raise InputError(f"{name} needs a closure itself: it cannot be SSGD's base optimizer")
        self.defaults = {**self.base_optimizer.defaults, **self.defaults}
        self.param_groups = self.base_optimizer.param_groups
        self._share()

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: Callable[[], Tensor] | None = None,
        *,
        scaler: torch.amp.GradScaler | None = None,
    ) -> Tensor:
        """One update.

        Args:
            closure: see the class; it is called twice for each pair.
            scaler: that scaled the closure's loss before ``backward()``.

        Returns:
            The mean of the losses.

        Raises:
            InputError: no closure.
        """
        if closure is None:
            raise InputError("SSGD.step needs a closure: it evaluates the loss at two points")
        noisy = self._noisy()
        points = [Point(draw=draw, sign=sign) for draw in range(self.pairs) for sign in (1, -1)]
        if not any(noisy.values()):
            points = [Point()]
        for parameter in self._parameters():
            parameter.grad = None  # gradients from before are no part of this step

        def run_pass(point: Point) -> Tensor:
            with torch.enable_grad():
                return torch.as_tensor(closure()).detach()

        losses = sum_over_points(
            points,
            parameters=self._parameters(),
            moving=self._moving(noisy),
            statistics=self._statistics,
            run_pass=run_pass,
        )
        self._update(len(points), scaler)
        return torch.stack(losses).mean()

    def _update(self, points: int, scaler: torch.amp.GradScaler | None) -> None:
        """Let the base optimizer step with the mean of the gradients at the points."""
        # a parameter that has a gradient at some points only: at the others it is zero
        found = [p.grad for p in self._parameters() if p.grad is not None]
        if found and points > 1:
            torch._foreach_div_(found, points)
        match_strides(self._parameters())
        if scaler is None:
            self.base_optimizer.step()
        else:
            scaler.step(self.base_optimizer)
        self.param_groups[0]["noise_step"] += 1

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; a group may have its own ``noise_scale``."""
        super().add_param_group(param_group)
        if hasattr(self, "base_optimizer"):
            group = self.param_groups[-1]
            for key, value in self.base_optimizer.defaults.items():
                group.setdefault(key, value)
            try:
                self._check_groups()
            except InputError:
                self.param_groups.pop()  # a refused group is not trained
                raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state of ``state_dict()``, of the base optimizer and of the noise."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Groups and state are one object for both, so that schedulers reach the base."""
        self.base_optimizer.param_groups = self.param_groups
        self.base_optimizer.state = self.state

    def _parameters(self) -> Iterator[nn.Parameter]:
        for group in self.param_groups:
            yield from group["params"]

    def _named(self) -> dict[str, nn.Parameter]:
        """Parameters by name: the model's or the groups' own; others get a number."""
        given: dict[Tensor, str] = {}
        for group in self.param_groups:
            given.update(zip(group["params"], group.get("param_names", ()), strict=False))
        if self.model is not None:
            given.update((parameter, name) for name, parameter in self.model.named_parameters())
        return {
            _bare(given.get(parameter, f"{number}.parameter")): parameter
            for number, parameter in enumerate(self._parameters())
        }

    def _noisy(self) -> dict[nn.Parameter, float]:
        """Each parameter that may get noise, with the noise scale of its group."""
        moved = set(self.moved)
        return {
            parameter: float(group["noise_scale"])
            for group in self.param_groups
            for parameter in group["params"]
            if parameter in moved and parameter.requires_grad
        }

    def _moving(self, noisy: dict[nn.Parameter, float]) -> AbstractContextManager[MoveTo]:
        """Lend the weights, or the products of their layers, to be moved to the points."""
        per = self.noise_per if any(noisy.values()) else "step"
        names: dict[Tensor, str] = {}
        if per == "layer":
            names = {parameter: name for name, parameter in self._named().items()}
        mover = WeightMover(
            list(noisy),
            self.noise,
            [self.filters[parameter] for parameter in noisy],
            per=per,
            names=[names[parameter] for parameter in noisy if names],
            model=self.model,
        )
        own = _rank() if self.noise_across_ranks == "different" else 0
        step = self.param_groups[0]["noise_step"]
        return moving_to_points(
            mover.moving(list(noisy.values()), _rank()),
            lambda draw: noise_seed(self.seed, step, draw, own),
        )

    def _statistics(self, pass_index: int) -> AbstractContextManager[None]:
        if self.model is None:
            return nullcontext()
        return bn_statistics(self.model, self.bn_stats, pass_index)

    def __getstate__(self) -> dict[str, Any]:
        """Everything: torch's own keeps groups and state only, too little for a copy."""
        # A scheduler wraps step() of the one optimizer that it was given.
        return {key: value for key, value in self.__dict__.items() if key != "step"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`__getstate__`, or from torch's part of it."""
        super().__setstate__(state)
        if hasattr(self, "base_optimizer"):
            self._share()

    def _check_groups(self) -> None:
        parts = {part.strip() for part in self.exclude.split(",")} - {"1d", "none"}
        by_name = [part for part in parts if not part.startswith("type:")]
        for group in self.param_groups:
            if by_name and self.model is None and "param_names" not in group:
                raise InputError(
                    f"exclude='{self.exclude}' needs names: SSGD(model.named_parameters(), ...)"
                )
            if not 0 <= float(group["noise_scale"]) < float("inf"):
                raise InputError(f"noise_scale {group['noise_scale']} should be ≥ 0 and finite")
        self.moved = list(included(self._named(), self.exclude, self.model).values())
        filters = filters_of(self.model, self.moved)
        self.filters = dict[Tensor, Filters](zip(self.moved, filters, strict=True))
        if self.noise_per == "sample":
            assert self.model is not None
            perturbable(self.model, self.moved)


def _rank() -> int:
    """Of this process among those that train together."""
    running = distributed.is_available() and distributed.is_initialized()
    return distributed.get_rank() if running else 0


def _bare(name: str) -> str:
    """A parameter's name without what compiling and distributing put in front."""
    return name.replace("_orig_mod.", "").removeprefix("module.")
