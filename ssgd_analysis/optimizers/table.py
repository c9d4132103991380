"""The base optimizers by name: torch's, ours, and those of the package pytorch-optimizer."""

import ast
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError, first_line, unknown
from ssgd_analysis.optimizers.layerwise import LAMB, LARS
from ssgd_analysis.optimizers.muon import Muon, muon_groups
from ssgd_analysis.settings import is_kind

PREFIX = "pytorch-optimizer:"
ELSEWHERE = ("lr", "momentum", "nesterov", "weight_decay")  # options of their own


@dataclass(frozen=True)
class OptimizerEntry:
    """One line of the table.

    Args:
        make: the class.
        lr: default learning rate.
        momentum: default momentum, or ``None`` where the optimizer has none.
        fused: torch has an implementation of it in one kernel.
        groups: makes parameter groups from a model and a few examples, where the optimizer does
            not treat all parameters alike.
    """

    make: Callable[..., torch.optim.Optimizer]
    lr: float
    momentum: float | None = None
    fused: bool = False
    groups: Callable[[nn.Module, Any], list[dict[str, Any]]] | None = None

    @functools.cached_property
    def options(self) -> dict[str, Any]:
        """Names and defaults of what the class may be given."""
        found = inspect.signature(self.make).parameters.values()
        return {p.name: p.default for p in found if p.default is not inspect.Parameter.empty}

    @property
    def summary(self) -> str:
        """Where it is from, and its default learning rate."""
        module, name = self.make.__module__, self.make.__name__
        whose = "torch's" if module.startswith("torch.") else "ours:"
        return f"{whose} {name}, default lr {self.lr:g}"


OPTIMIZERS = {
    "sgd": OptimizerEntry(torch.optim.SGD, 0.1, 0.9, fused=True),
    "adam": OptimizerEntry(torch.optim.Adam, 1e-3, fused=True),
    "adamw": OptimizerEntry(torch.optim.AdamW, 1e-3, fused=True),
    "rmsprop": OptimizerEntry(torch.optim.RMSprop, 1e-3, 0.0),
    "nadam": OptimizerEntry(torch.optim.NAdam, 2e-3),
    "radam": OptimizerEntry(torch.optim.RAdam, 1e-3),
    "adagrad": OptimizerEntry(torch.optim.Adagrad, 1e-2),
    "adadelta": OptimizerEntry(torch.optim.Adadelta, 1.0),
    "adamax": OptimizerEntry(torch.optim.Adamax, 2e-3),
    "asgd": OptimizerEntry(torch.optim.ASGD, 1e-2),
    "rprop": OptimizerEntry(torch.optim.Rprop, 1e-2),
    "muon": OptimizerEntry(Muon, 0.02, 0.95, groups=muon_groups),
    "lars": OptimizerEntry(LARS, 2.0, 0.9),
    "lamb": OptimizerEntry(LAMB, 1e-2),
}


@functools.cache
def find_optimizer(name: str) -> OptimizerEntry:
    """A base optimizer by name: one of :data:`OPTIMIZERS`, or ``pytorch-optimizer:NAME``.

    Raises:
        InputError: unknown, not installed, or one that needs more than a gradient at a step.
    """
    if not name.startswith(PREFIX):
        if name not in OPTIMIZERS:
            raise unknown("optimizer", name, [*OPTIMIZERS, f"{PREFIX}NAME"])
        return OPTIMIZERS[name]
    try:
        import pytorch_optimizer
    except ImportError:
        remedy = "pip install 'ssgd-analysis[optimizers]'"
        raise InputError(f"optimizer '{name}' needs pytorch-optimizer: {remedy}") from None
    short, supported = name.removeprefix(PREFIX), pytorch_optimizer.get_supported_optimizers()
    if short not in supported:
        raise unknown("optimizer of pytorch-optimizer", short, supported)
    try:
        make = pytorch_optimizer.load_optimizer(short)
        options = OptimizerEntry(make, 1e-3).options
        rate, momentum = options.get("lr", 1e-3), options.get("momentum")
        entry = OptimizerEntry(make, 1e-3 if rate is None else float(rate), momentum)
        _try_out(entry)
    except Exception as error:  # any class may be given by name: it may raise anything
        raise InputError(
            f"optimizer '{name}' cannot be a base optimizer here: {first_line(error)}"
        ) from error
    return entry


def make_optimizer(
    name: str,
    model: nn.Module,
    *,
    lr: float,
    momentum: float | None,
    nesterov: bool,
    weight_decay: float,
    settings: Mapping[str, Any] | None = None,
    inputs: Any = None,
) -> torch.optim.Optimizer:
    """A base optimizer by name, over a model's parameters that require gradients.

    torch's fused implementation is taken where there is one: the same numbers up to rounding.

    Args:
        name: see :func:`find_optimizer`.
        model: its parameters are stepped with.
        lr: learning rate.
        momentum: left out where the optimizer has none.
        nesterov: likewise.
        weight_decay: the optimizer's own.
        settings: its other options; see :func:`read_settings`.
        inputs: a few examples, for an optimizer with ``groups``; by them ``muon`` finds the output
            layer, see :func:`~ssgd_analysis.optimizers.muon.muon_groups`.

    Raises:
        InputError: an option that it does not have, or does not take.
    """
    entry = find_optimizer(name)
    options: dict[str, Any] = {"lr": lr, **({"fused": True} if entry.fused else {})}
    if weight_decay or "weight_decay" in entry.options:
        options["weight_decay"] = weight_decay
    if entry.momentum is not None:
        options["momentum"] = momentum
    if nesterov or name == "sgd":
        options["nesterov"] = nesterov
    for key, value in (settings or {}).items():
        options[key] = tuple(value) if isinstance(value, list) else value
    if (settings or {}).get("foreach") and "fused" not in (settings or {}):
        options.pop("fused", None)  # torch takes one of the two
    parameters: Any = [p for p in model.parameters() if p.requires_grad]
    if entry.groups is not None:
        parameters = entry.groups(model, inputs)
    try:
        return entry.make(parameters, **options)
    except Exception as error:  # any class may be given by name: it may raise anything
        raise InputError(f"optimizer '{name}': {first_line(error)}") from error


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take up a saved state, its tensors in the memory format of their parameters.

    torch keeps the format that they were saved in, and its fused optimizers walk through memory:
    they would mix up the entries of a filter in another format.
    """
    optimizer.load_state_dict(state)
    for parameter, held in optimizer.state.items():
        for name, value in held.items():
            same = isinstance(value, Tensor) and value.shape == parameter.shape
            if same and value.stride() != parameter.stride():
                held[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def read_settings(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's own options, typed by its defaults; pairs as lists, as JSON has them.

    Args:
        name: of the optimizer.
        values: by name; texts are read as Python values.

    Raises:
        InputError: an unknown name, one with an option of its own, or another type.
    """
    options = find_optimizer(name).options
    supported = [key for key in options if key not in ELSEWHERE]
    read = {}
    for key, value in values.items():
        if key in ELSEWHERE:
            raise InputError(f"--optimizer-set {key}: use --{key.replace('_', '-')}")
        if key not in supported:
            raise unknown(f"setting of the optimizer {name}", key, supported)
        read[key] = _typed(key, value, options[key])
    return read


def _typed(key: str, value: Any, default: Any) -> Any:
    if isinstance(value, str) and not isinstance(default, str):
        words = {"true": True, "false": False, "none": None}
        try:
            value = words[value.lower()] if value.lower() in words else ast.literal_eval(value)
        except (ValueError, SyntaxError):
            if default is not None:
                raise _wrong(key, value, default) from None
    if isinstance(default, tuple):
        fits = isinstance(value, tuple | list) and len(value) == len(default)
        fits = fits and all(is_kind(float, entry) for entry in value)
        value = list(value) if fits else value
    else:
        # a default of 0 or 1 may stand for a real number, as the dampening of torch's SGD
        fits = default is None or is_kind(_number(default), value)
    if not fits:
        raise _wrong(key, value, default)
    return value


def _number(default: Any) -> type:
    return float if is_kind(int, default) else type(default)


def _wrong(key: str, value: Any, default: Any) -> InputError:
    kind = _number(default).__name__
    words = {"float": "a number", "bool": "true or false"}.get(kind, f"a {kind}")
    if isinstance(default, tuple):
        words = f"a tuple of {len(default)} numbers"
    return InputError(f"--optimizer-set {key}={value}: the value should be {words}")


def _try_out(entry: OptimizerEntry) -> None:
    """Three steps on a small layer, and the third again from a saved state: the same bits.

    Raises:
        ValueError: it needs more than a gradient, or its state is not all in ``state_dict()``.
    """
    with torch.random.fork_rng(devices=[]):
        first, state = _stepped(entry, 3)
        if any(hasattr(entry.make, name) for name in ("train", "eval")):
            raise ValueError("it needs calls of train() and eval()")
        again, _ = _stepped(entry, 1, state)
    if not all(torch.equal(a, b) for a, b in zip(first, again, strict=True)):
        raise ValueError("it does not continue identically from its saved state")


def _stepped(
    entry: OptimizerEntry, steps: int, state: Any = None
) -> tuple[list[Tensor], dict[str, Any]]:
    """Weights after the steps, and weights and optimizer before the last."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    optimizer = entry.make(list(layer.parameters()), lr=entry.lr)
    if state is not None:
        layer.load_state_dict(state["layer"])
        optimizer.load_state_dict(state["optimizer"])
    before_last: dict[str, Any] = {}
    for step in range(steps):
        if step == steps - 1:
            layer_state = {name: value.clone() for name, value in layer.state_dict().items()}
            before_last = {"layer": layer_state, "optimizer": _copied(optimizer.state_dict())}
        number = 2 if state is not None else step
        for parameter in layer.parameters():
            noise = torch.Generator().manual_seed(number)
            parameter.grad = torch.randn(parameter.shape, generator=noise)
        torch.manual_seed(number)  # the run's own generators are restored for a resumed run
        optimizer.step()
    return [parameter.detach() for parameter in layer.parameters()], before_last


def _copied(value: Any) -> Any:
    """Tensors, dicts, lists and plain values, as a run folder can hold them."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(entry) for entry in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"its state holds a {type(value).__name__}, which a run cannot save")
