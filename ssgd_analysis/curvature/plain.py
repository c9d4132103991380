"""Normalisations whose higher derivatives are right."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class PlainOperations(TorchFunctionMode):
    """Inside, layer and weight normalisation are made of plain operations.

    torch's own kernels take saved means and norms for constants when they are differentiated
    again, and do not say so: from the third derivative on for layer normalisation (pytorch
    issue 175754), from the second on for weight normalisation on the CPU (torch 2.14).

    Args:
        order: of the derivatives wanted; what is right up to there is left alone.
    """

    def __init__(self, order: int) -> None:
        super().__init__()
        self.plain = {
            function: plain for function, (wrong, plain) in _PLAIN.items() if order >= wrong
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the plain counterpart, where there is one."""
        return self.plain.get(func, func)(*args, **(kwargs or {}))


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    axes = tuple(range(-len(normalized_shape), 0))
    centred = x - x.mean(axes, keepdim=True)
    normal = centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    scaled = normal if weight is None else normal * weight
    return scaled if bias is None else scaled + bias


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    axes = [axis for axis in range(v.ndim) if axis != dim]  # dim -1: one norm for all
    return v * (g / v.square().sum(axes, keepdim=True).sqrt())


# The first order of derivative that is wrong, and what to use instead.
_PLAIN: dict[Any, tuple[int, Callable[..., Tensor]]] = {
    F.layer_norm: (3, _layer_norm),
    torch.layer_norm: (3, _layer_norm),
    torch._weight_norm: (2, _weight_norm),
}
