"""BatchNorm's running statistics, estimated anew where weights have moved."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from ssgd_analysis.batch import Batch, tensors
from ssgd_analysis.errors import InputError
from ssgd_analysis.weights.borrowed import evaluation_mode

# Entries of the widest BatchNorm input that are computed at once: half a GiB in float32.
AT_ONCE = 2**27


def has_statistics(model: nn.Module) -> bool:
    """Whether there is a BatchNorm layer with running statistics."""
    return any(layer.running_mean is not None for layer in _batchnorms(model))


def recalibrated_layers(model: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers whose running statistics are to follow the weights.

    Not those without any, nor those that their owner froze: ``track_running_stats`` was turned
    off, or the layer is in evaluation mode while its model is in training mode.
    """
    return [
        layer
        for layer in _batchnorms(model)
        if layer.running_mean is not None
        and layer.track_running_stats
        and (layer.training or not model.training)
    ]


def recalibrate_batchnorm(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    forward: Callable[[Batch], Any] | None = None,
    layers: Sequence[_BatchNorm] | None = None,
) -> None:
    """Estimate BatchNorm's running statistics anew, over all examples of these batches.

    Each layer gets the mean and the unbiased variance of all values that reach it, pooled exactly:
    the variance is the mean of the batches' variances plus the variance of their means, each
    weighted by its number of values (Chan, Golub and LeVeque 1979). All layers are done in one
    pass, in evaluation mode but for them: what a layer hands on is normalised by its batch's own
    statistics, as in training.

    So that neither the order nor the size of the batches counts, (inputs, targets) pairs of
    tensors are cut anew: into one batch of all examples, whose statistics these are then, or,
    where a layer's input would exceed :data:`AT_ONCE` entries, into a few large ones in a random
    but fixed order. Other batches are taken as they are: layers behind the first then depend on
    how examples are batched, in proportion to one over the batch size if they are mixed well.

    Args:
        model: its BatchNorm buffers are changed, nothing else; unchanged after an error.
        batches: of inputs and targets; only the inputs are used.
        forward: passes a batch of any other kind through the model; the result is not looked at.
        layers: of :func:`recalibrated_layers`, which is the default.

    Raises:
        InputError: there are statistics, but batches that are no pairs and no ``forward``; a
            layer that sees one value in all; or a lazy one that no batch went through yet.
    """
    layers = recalibrated_layers(model) if layers is None else layers
    if not layers:
        return
    names = {module: name for name, module in model.named_modules()}
    for layer in layers:
        if layer.running_mean is not None and is_lazy(layer.running_mean):
            raise InputError(
                f"the model's '{names[layer]}' does not know its channels yet: pass a batch through"
                " the model first"
            )
    moments = {layer: _Moments() for layer in layers}
    with evaluation_mode(model), torch.no_grad(), _eager(model):
        given = batches if forward is not None else _recut(model, layers, batches)
        # Training mode would do the same, but refuses a single example, and SyncBatchNorm a CPU.
        with _watched(layers, lambda layer, values: _set(layer, *moments[layer].add(values))):
            for batch in given:
                (forward or model)(batch)
    if alone := [names[layer] for layer in layers if moments[layer].count == 1]:
        raise InputError(
            f"BatchNorm '{alone[0]}' sees a single value in all, which has no variance: take more"
            " examples"
        )
    with torch.no_grad():
        for layer in layers:
            found = moments[layer]
            if found.count:  # else it is no part of the function
                _set(layer, found.mean, found.squares / (found.count - 1))
                if layer.num_batches_tracked is not None:
                    layer.num_batches_tracked.fill_(len(batches))


class _Moments:
    """Number, mean and sum of squared deviations of all values of each channel, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0

    def add(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take up values of shape (B, C, …); returns their own mean and (biased) variance."""
        values = values if values.dtype == torch.float64 else values.float()
        axes = [axis for axis in range(values.ndim) if axis != 1]
        variance, mean = (v.double() for v in torch.var_mean(values, axes, correction=0))
        number = values.numel() // max(values.shape[1], 1)
        if number:
            shift, total = mean - self.mean, self.count + number
            self.squares = (
                self.squares + number * variance + shift**2 * (self.count * number / total)
            )
            self.mean = self.mean + shift * (number / total)
            self.count = total
        return mean, variance


def _set(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    for buffer, value in ((layer.running_mean, mean), (layer.running_var, variance)):
        if buffer is not None:
            buffer.copy_(value)


def _recut(
    model: nn.Module, layers: Sequence[_BatchNorm], batches: Sequence[Batch]
) -> Iterable[Any]:
    """The inputs in one batch, or in few large ones of examples drawn from all batches.

    Only where the model takes examples one by one along the first axis, which is tried.
    """
    if not all(isinstance(batch, tuple | list) and len(batch) == 2 for batch in batches):
        raise InputError(
            "BatchNorm's statistics are recalibrated on (inputs, targets) pairs, which these"
            " batches are not: --bn frozen"
        )
    inputs = [given for given, _ in batches]
    if len(inputs) < 2 or not all(isinstance(given, Tensor) and given.ndim for given in inputs):
        return inputs
    if len({(given.shape[1:], given.dtype, given.device) for given in inputs}) > 1:
        return inputs
    total = sum(map(len, inputs))
    two = torch.cat([given[:2] for given in inputs[:2]])[:2]
    widest: list[int] = [1]
    with _watched(layers, lambda _, values: widest.append(values.numel())):
        if not _each_alone(model, two):
            return inputs
    size = max(2 * AT_ONCE // max(widest), *map(len, inputs))
    if size >= total:
        return [torch.cat(inputs)]
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    return _gathered(inputs, order.tensor_split(-(-total // size)))


def _each_alone(model: nn.Module, two: Tensor) -> bool:
    """Whether the outputs of two examples are those of each one alone, but for rounding."""
    try:
        whole, *each = [tensors(model(given)) for given in (two, *two.split(1))]
        alone = [torch.cat(parts) for parts in zip(*each, strict=True)]
        return 0 < len(whole) == len(alone) and all(
            a.shape == b.shape
            and torch.allclose(a, b, rtol=1e-2, atol=1e-3 * float(a.abs().max()), equal_nan=True)
            for a, b in zip(whole, alone, strict=True)
        )
    except Exception:  # a stranger's model may raise anything on one example
        return False


def _gathered(inputs: Sequence[Tensor], groups: Iterable[Tensor]) -> Iterator[Tensor]:
    """Examples by their indices among all, one batch for each group."""
    edges = torch.tensor([0, *map(len, inputs)]).cumsum(0).tolist()
    for group in groups:
        chosen = []
        for given, start, stop in zip(inputs, edges, edges[1:], strict=False):
            inside = group[(group >= start) & (group < stop)] - start
            chosen.append(given[inside.to(given.device)])
        yield torch.cat(chosen)


@contextmanager
def _watched(
    layers: Sequence[_BatchNorm], see: Callable[[_BatchNorm, Tensor], Any]
) -> Iterator[None]:
    """Inside, ``see`` is called with each input of each layer before the layer is."""

    def hook(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        see(layer, (args[0] if args else kwargs["input"]).detach())

    with ExitStack() as stack:
        for layer in layers:
            handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _eager(model: nn.Module) -> AbstractContextManager[Any]:
    """Compiled modules run as written inside: their graphs would not know of new hooks."""
    compiled = any(
        hasattr(module, "_orig_mod") or module._compiled_call_impl is not None
        for module in model.modules()
    )
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _batchnorms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]
