"""Nothing borrowed comes back changed: weights, buffers and modes are restored bit for bit."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import compress

import torch
from torch import Tensor, nn


@contextmanager
def borrowed_weights(weights: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Lend tensors out to be moved in place; their exact bits come back, even after an error.

    Subtracting the noise again would not do: floating-point addition loses bits. So the price
    is one copy of the weights while they are lent.

    Args:
        weights: the tensors that will be changed in place.

    Yields:
        The clean values, one tensor for each of ``weights``.
    """
    lent = list(weights)
    with torch.no_grad():
        clean = [weight.clone() for weight in lent]
    try:
        yield clean
    finally:
        _put_back(lent, clean)


@contextmanager
def borrowed_buffers(model: nn.Module) -> Iterator[None]:
    """Undo what happens inside to the model's buffers (BatchNorm's running statistics).

    A buffer that was changed in place or replaced by another tensor comes back either way.
    """
    slots = [(m, name, b) for m in model.modules() for name, b in m._buffers.items()]
    lent = [buffer for _, _, buffer in slots if buffer is not None]
    clean = [buffer.clone() for buffer in lent]
    try:
        yield
    finally:
        for module, name, buffer in slots:
            module._buffers[name] = buffer
        # An untouched buffer is not written: that would invalidate autograd graphs that hold it.
        # (Its version tells nothing: BatchNorm changes its statistics without a new one.)
        touched = [not torch.equal(b, value) for b, value in zip(lent, clean, strict=True)]
        _put_back(list(compress(lent, touched)), list(compress(clean, touched)))


@contextmanager
def borrowed_state(model: nn.Module) -> Iterator[None]:
    """Inside, the model may be moved; every parameter and buffer comes back bit for bit."""
    with borrowed_weights(model.parameters()), borrowed_buffers(model):
        yield


@contextmanager
def borrowed_modes(model: nn.Module) -> Iterator[None]:
    """Each module's own training or evaluation mode comes back after."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; each module's own mode and every buffer come back after.

    Only flags are set. Overrides of ``train`` and ``eval`` are not called: some merge an adapter
    into the weights, which takes its derivatives away and moves the weights by rounding.

    cuDNN's recurrent nets have no backward in evaluation mode, so plain kernels stand in; and
    attention's fused path, which torch takes without gradients only, is off, so that losses and
    derivatives are of one function.
    """
    cudnn, attention = torch.backends.cudnn, torch.backends.mha
    fused = attention.get_fastpath_enabled()
    plain = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with (
        borrowed_modes(model),
        borrowed_buffers(model),
        cudnn.flags(
            enabled=cudnn.enabled and not plain,
            benchmark=cudnn.benchmark,
            deterministic=cudnn.deterministic,
            allow_tf32=cudnn.allow_tf32,
        ),
    ):
        try:
            attention.set_fastpath_enabled(False)
            set_training(model, False)
            yield
        finally:
            attention.set_fastpath_enabled(fused)


def set_training(model: nn.Module, training: bool) -> None:
    """Set every module's flag ``training``, without calling overrides of ``train``."""
    for module in model.modules():
        module.training = training


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape hold the same bits (NaN equals itself)."""
    flat = [tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return torch.equal(*flat)


def _put_back(lent: list[Tensor], clean: list[Tensor]) -> None:
    if lent:
        with torch.no_grad():
            torch._foreach_copy_(lent, clean)
