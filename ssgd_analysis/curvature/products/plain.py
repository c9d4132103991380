"""Plain operations in place of kernels whose higher derivatives are wrong or missing."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class PlainOperations(TorchFunctionMode):
    """Inside, some operations are made of plain ones: normalisations and bags of embeddings.

    torch's own kernels take saved means and norms for constants when they are differentiated
    again, and do not say so: from the third derivative on for layer normalisation (pytorch
    issue 175754), from the second on for weight normalisation on the CPU (torch 2.14). Bags of
    embeddings have no second derivative in torch at all.

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
    if dim != -1:  # one norm for all
        dim %= v.ndim
    axes = [axis for axis in range(v.ndim) if axis != dim]
    return v * (g / v.square().sum(axes, keepdim=True).sqrt())


def _embedding_bag(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    tokens = input.reshape(-1)
    if offsets is None:  # (bags, tokens of each)
        bags, length = input.shape
        bag = torch.arange(bags, device=input.device).repeat_interleave(length)
    else:
        bags = len(offsets) - include_last_offset
        positions = torch.arange(len(tokens), device=input.device)
        bag = torch.searchsorted(offsets[:bags].contiguous(), positions, right=True) - 1
    rows = F.embedding(tokens, weight, scale_grad_by_freq=scale_grad_by_freq)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(-1, 1)
    if padding_idx is not None:
        counts = tokens != padding_idx % len(weight)
        rows, bag = rows[counts], bag[counts]
    if mode == "max":
        parts = [rows[bag == index] for index in range(bags)]
        empty = rows.new_zeros(rows.shape[1])
        return torch.stack([part.amax(dim=0) if len(part) else empty for part in parts])
    total = rows.new_zeros(bags, rows.shape[1]).index_add(0, bag, rows)
    if mode == "sum":
        return total
    sizes = torch.bincount(bag, minlength=bags).clamp(min=1)
    return total / sizes[:, None].to(total.dtype)


# The first order of derivative that is wrong or missing, and what to use instead.
_PLAIN: dict[Any, tuple[int, Callable[..., Tensor]]] = {
    F.layer_norm: (3, _layer_norm),
    torch.layer_norm: (3, _layer_norm),
    torch._weight_norm: (2, _weight_norm),
    F.embedding_bag: (2, _embedding_bag),
}
