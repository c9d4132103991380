"""Changes of one linear layer, convolution or BatchNorm, in place, without gradients."""

import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def channels(layer: nn.Module, side: int) -> int:
    """How many channels enter a layer (side 0) or leave it (side 1)."""
    if isinstance(layer, nn.Linear):
        return (layer.in_features, layer.out_features)[side]
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return (layer.in_channels, layer.out_channels)[side]
    assert isinstance(layer, NORMS)
    return layer.num_features


def spread(before: nn.Module, after: nn.Module, values: Tensor) -> Tensor:
    """One value a channel as one value for each feature that enters the next layer.

    Flattened images have the places of a channel side by side, flattened sequences the channels
    of a place.
    """
    places = channels(after, 0) // len(values)
    if isinstance(before, nn.Linear):
        return values.repeat(places)
    return values.repeat_interleave(places)


def reordered(before: nn.Module, after: nn.Module, order: Tensor) -> Tensor:
    """An order of channels as the order of the features that enter the next layer."""
    features = torch.arange(channels(after, 0))
    if isinstance(before, nn.Linear):
        return features.reshape(-1, len(order))[:, order].flatten()
    return features.reshape(len(order), -1)[order].flatten()


def scale_outputs(layer: nn.Module, factors: Tensor) -> None:
    """Multiply the weights and bias of every output channel, in place.

    Raises:
        InputError: a layer without weights of its own.
    """
    _weight(layer).mul_(_along(factors, _weight(layer)))
    if layer._parameters.get("bias") is not None:
        layer.get_parameter("bias").mul_(factors.to(layer.get_parameter("bias")))


def scale_inputs(layer: nn.Module, factors: Tensor) -> None:
    """Multiply the weights of every input channel, in place.

    Raises:
        InputError: a layer without weights of its own.
    """
    weight, groups = _weight(layer), getattr(layer, "groups", 1)
    # each group of a convolution sees its own share of the channels
    grouped = weight.view(groups, weight.shape[0] // groups, weight.shape[1], -1)
    grouped.mul_(factors.to(weight).reshape(groups, 1, -1, 1))


def fold(model: nn.Module, first: str, second: str) -> None:
    """Put a BatchNorm in evaluation mode into the layer before it, an identity in its place.

    The new bias is learned if the layer's or the BatchNorm's own was.

    Raises:
        InputError: a layer without weights of its own, or no running statistics.
    """
    layer, norm = model.get_submodule(first), model.get_submodule(second)
    mean, variance, eps = statistics(norm)
    weight, bias = _weight(layer), layer._parameters["bias"]
    gain, shift = norm._parameters["weight"], norm._parameters["bias"]
    scale = (variance + eps).rsqrt() * (1 if gain is None else gain)
    moved = (0 if bias is None else bias) - mean
    added = moved * scale + (0 if shift is None else shift)
    weight.mul_(_along(scale, weight))
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


def _along(factors: Tensor, weight: Tensor) -> Tensor:
    """Factors of the first axis, shaped to multiply a weight."""
    return factors.to(weight).reshape(-1, *[1] * (weight.ndim - 1))
