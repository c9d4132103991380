"""Which units of a network can be permuted, as one pass shows them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ssgd_analysis.batch import pair
from ssgd_analysis.problem import Problem
from ssgd_analysis.symmetries.axes import Mismatch, Space
from ssgd_analysis.symmetries.rules import FIXED, pin
from ssgd_analysis.symmetries.watch import AxisWatch


@dataclass(frozen=True)
class UnitGroup:
    """Units that can be permuted together, and every axis that they stand on.

    Args:
        size: how many units.
        axes: tensor's name, its axis, and the indices of the units on the axis, shape
            (units, indices of each).
    """

    size: int
    axes: list[tuple[str, int, Tensor]]


def permutable(problem: Problem) -> tuple[list[UnitGroup], list[str]]:
    """The groups of hidden units that can be permuted, as one pass over the first batch shows.

    Each operation of the pass ties axes of its arguments and results that hold the same units.
    Operations without a rule leave their units fixed, and so do inputs, outputs and constants.

    Args:
        problem: a model, its loss and examples; the first batch is used.

    Returns:
        The groups in the order of the pass, and what is left out, one line a reason.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> batch = torch.randn(16, 4), torch.arange(16) % 2
        >>> (group,), _ = permutable(Problem(model, nn.functional.cross_entropy, [batch]))
        >>> group.size, [(name, axis) for name, axis, _ in group.axes]
        (8, [('0.weight', 0), ('0.bias', 0), ('2.weight', 1)])
    """
    model = problem.model
    saved = set(model.state_dict())
    named = [*model.named_parameters(), *model.named_buffers()]
    watch = AxisWatch({name: tensor for name, tensor in named if name in saved})
    batch = problem.batches[0]
    with problem.evaluating(), torch.no_grad(), _operations_one_by_one(), watch:
        if problem.takes_model:
            problem.batch_loss(batch)
        else:
            outputs = problem.outputs(pair(batch)[0])
            pin(watch.axes(outputs))
    groups: dict[Space, list[tuple[str, int, Tensor]]] = {}
    reasons: dict[str, list[str]] = {}
    for name, axes in watch.named_axes.items():
        for axis, space in enumerate(axes):
            for leaf in space.leaves:
                try:
                    positions = space.positions(leaf)
                except Mismatch as error:
                    leaf.pin(str(error))
                    continue
                assert positions is not None  # a leaf of this axis
                groups.setdefault(leaf, []).append((name, axis, positions))
    for leaf, found in groups.items():
        if leaf.why not in (None, FIXED) and leaf.size > 1:
            reasons.setdefault(str(leaf.why), []).extend(name for name, _, _ in found)
    left = [f"not permuted: {first_names(names)} ({why})" for why, names in reasons.items()]
    return [UnitGroup(s.size, a) for s, a in groups.items() if s.why is None and s.size > 1], left


@contextmanager
def _operations_one_by_one() -> Iterator[None]:
    """Transformer layers do without their fused kernels, which would hide their parts."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def first_names(names: Sequence[str]) -> str:
    """The first three of some names, and how many more there are."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def permuted(
    tensors: Mapping[str, Tensor], groups: Sequence[UnitGroup], permutations: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Tensors by name with the units of some groups in another order.

    Args:
        tensors: parameters and buffers; those of a group that are not there are left out.
        groups: of units.
        permutations: for each group, the old unit at each new index, shape (units,).
    """
    found = dict(tensors)
    for group, permutation in zip(groups, permutations, strict=True):
        for name, axis, positions in group.axes:
            if name not in found:
                continue
            tensor = found[name]
            index = torch.arange(tensor.shape[axis])
            index[positions] = positions[permutation]
            found[name] = tensor.index_select(axis, index.to(tensor.device))
    return found
