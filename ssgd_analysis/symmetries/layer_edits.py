"""Changes of one layer with weights, or BatchNorm, in place, without gradients."""

import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.weights import filters_of
from ssgd_analysis.weights.filters import EMBEDDINGS, is_conv1d

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def is_weighted(layer: nn.Module) -> bool:
    """Whether it is a linear layer or a convolution, transposed or not."""
    return isinstance(layer, (nn.Linear, *CONVOLUTIONS)) or is_conv1d(layer)


def is_source(layer: nn.Module) -> bool:
    """Whether its outputs are linear in its weights: as above, or an embedding."""
    return is_weighted(layer) or isinstance(layer, EMBEDDINGS)


def is_norm(layer: nn.Module) -> bool:
    """Whether it is a BatchNorm."""
    return isinstance(layer, NORMS)


def channels(layer: nn.Module, side: int) -> int:
    """How many channels enter a layer (side 0) or leave it (side 1)."""
    if isinstance(layer, nn.Linear):
        return (layer.in_features, layer.out_features)[side]
    if isinstance(layer, CONVOLUTIONS):
        return (layer.in_channels, layer.out_channels)[side]
    if isinstance(layer, NORMS):
        return layer.num_features
    return _weight(layer).shape[side]  # Conv1D: (in, out); an embedding: (tokens, out)


def spread(before: nn.Module, after: nn.Module, values: Tensor) -> Tensor:
    """One value a channel as one value for each feature that enters the next layer.

    Flattened images have the positions of a channel side by side, flattened sequences the channels
    of a position.
    """
    positions = channels(after, 0) // len(values)
    if isinstance(before, (*CONVOLUTIONS, *NORMS)):
        return values.repeat_interleave(positions)
    return values.repeat(positions)


def reordered(before: nn.Module, after: nn.Module, order: Tensor) -> Tensor:
    """An order of channels as the order of the features that enter the next layer."""
    features = torch.arange(channels(after, 0))
    if isinstance(before, (*CONVOLUTIONS, *NORMS)):
        return features.reshape(len(order), -1)[order].flatten()
    return features.reshape(-1, len(order))[:, order].flatten()


def scale_outputs(layer: nn.Module, factors: Tensor) -> None:
    """Multiply the weights and bias of every output channel, in place.

    Raises:
        InputError: a layer without weights of its own.
    """
    _scale(layer, factors)
    if layer._parameters.get("bias") is not None:
        layer.get_parameter("bias").mul_(factors.to(layer.get_parameter("bias")))


def scale_inputs(layer: nn.Module, factors: Tensor) -> None:
    """Multiply the weights of every input channel, in place.

    Raises:
        InputError: a layer without weights of its own.
    """
    weight, groups = _weight(layer), getattr(layer, "groups", 1)
    if _input_axis(layer) == 0:
        weight.mul_(factors.to(weight).reshape(-1, *[1] * (weight.ndim - 1)))
        return
    # each group of a convolution sees its own share of the channels
    grouped = weight.view(groups, weight.shape[0] // groups, weight.shape[1], -1)
    grouped.mul_(factors.to(weight).reshape(groups, 1, -1, 1))


def reorder_outputs(layer: nn.Module, order: Tensor) -> None:
    """Put the channels that leave a layer in another order, in place; others' tensors stay."""
    tensors = [*layer.parameters(), *layer.buffers()]
    for tensor, filters in zip(tensors, filters_of(layer, tensors), strict=True):
        if tensor.ndim > filters.axis and tensor.shape[filters.axis] == len(order):
            tensor.copy_(tensor.index_select(filters.axis, order.to(tensor.device)))


def reorder_inputs(layer: nn.Module, order: Tensor) -> None:
    """Put the channels that enter a layer in another order, in place."""
    weight = _weight(layer)
    weight.copy_(weight.index_select(_input_axis(layer), order.to(weight.device)))


def fold(model: nn.Module, first: str, second: str) -> None:
    """Put a BatchNorm in evaluation mode into the layer before it, an identity in its place.

    The new bias is learned if the layer's or the BatchNorm's own was.

    Raises:
        InputError: a layer without weights of its own, or no running statistics.
    """
    layer, norm = model.get_submodule(first), model.get_submodule(second)
    mean, variance, eps = statistics(norm)
    bias = layer._parameters["bias"]
    gain, shift = norm._parameters["weight"], norm._parameters["bias"]
    scale = (variance + eps).rsqrt() * (1 if gain is None else gain)
    moved = (0 if bias is None else bias) - mean
    added = moved * scale + (0 if shift is None else shift)
    _scale(layer, scale)
    learned = any(t.requires_grad for t in (bias, shift) if t is not None)
    layer.bias = nn.Parameter(added, requires_grad=learned)
    parent, _, name = second.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Identity())


def statistics(norm: nn.Module) -> tuple[Tensor, Tensor, float]:
    """Running mean and variance of a BatchNorm, and its ε.

    Raises:
        InputError: there are none.
    """
    if not isinstance(norm, NORMS) or norm.running_mean is None or norm.running_var is None:
        raise InputError("a normalisation without running statistics")
    return norm.running_mean, norm.running_var, norm.eps


def _weight(layer: nn.Module) -> Tensor:
    weight = layer._parameters.get("weight")
    if weight is None:
        raise InputError("a layer without weights of its own")
    return weight


def _scale(layer: nn.Module, factors: Tensor) -> None:
    """Multiply the weights of every output channel."""
    weight = _weight(layer)
    (filters,) = filters_of(layer, [weight])
    weight.mul_(filters.spread(factors.to(weight), weight))


def _input_axis(layer: nn.Module) -> int:
    (filters,) = filters_of(layer, [_weight(layer)])
    return 1 - filters.axis
