"""Permuting one network's hidden units so that they match another's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ssgd_analysis.batch import Batch, mapped, pair, tensors
from ssgd_analysis.connections.path import State, dot, line, put, state
from ssgd_analysis.devices import is_out_of_memory
from ssgd_analysis.errors import first_line
from ssgd_analysis.problem import Problem
from ssgd_analysis.seeds import generator
from ssgd_analysis.symmetries import UnitGroup, copied, permutable, permuted, relative_change
from ssgd_analysis.symmetries.permutable import first_names

# Relative change of outputs that is rounding: of float64 about 1e-13, of a model that turns to
# float32 inside 1e-6; another function is far above.
TOLERANCE, SINGLE = 1e-9, 1e-4
SWEEPS = 100


@dataclass(frozen=True)
class Matching:
    """A network with permuted hidden units.

    Args:
        end: all its tensors by name; as a function the network is the same.
        permutations: for each group of units, the old unit at each new index, shape (units,).
        groups: the groups.
        left: why tensors were not permuted, one line a reason.
        check: max |Δoutput| / max |output| in float64.
        forwards: passes over a batch that it took.
    """

    end: State
    permutations: list[Tensor]
    groups: list[UnitGroup]
    left: list[str]
    check: float
    forwards: int

    @property
    def share(self) -> float:
        """The share of the units that can be permuted that were."""
        moved = sum(int((p != torch.arange(len(p))).sum()) for p in self.permutations)
        return moved / max(1, sum(group.size for group in self.groups))


def weight_matching(problem: Problem, other: nn.Module, *, seed: int = 0) -> Matching:
    """Permute the other network's hidden units so that its weights come close to the problem's.

    Each group of units in turn is assigned optimally, the others held, until nothing changes:
    a local optimum of Σ⟨w_A, P w_B⟩, that is of ‖w_A − P w_B‖², over the parameters. Which units
    can be permuted is found by watching one pass, and checked on the outputs.

    Args:
        problem: the network to match, with examples to watch and check with (the first batch).
        other: of the same architecture; left as it is.
        seed: of the orders of groups that are tried after the order of the pass.

    Returns:
        The permuted network; :attr:`Matching.left` says what could not be permuted.

    Raises:
        InputError: two architectures.

    Reference:
        Ainsworth, Hayase and Srinivasa 2023, arXiv 2209.04836, section 3.2 and algorithm 1.
    """
    both = line(problem.model, other)
    groups, left = permutable(problem)
    check = _Check(problem, both.end)
    if check.fault is not None:
        return Matching(both.end, [], [], [check.fault], 0.0, 1)
    groups, changed = _symmetries(groups, check, seed)
    if changed:
        left.append(f"not permuted: {first_names(changed)} (the outputs change)")
    names = {name for name, _ in problem.model.named_parameters()}
    start = {name: tensor.double() for name, tensor in both.start.items() if name in names}
    end = {name: tensor.double() for name, tensor in both.end.items() if name in names}
    found = _matched(start, end, groups, seed)
    end_permuted = permuted(both.end, groups, found)
    change = check.change(end_permuted)
    if change > check.tolerance:  # each alone was a symmetry: a function of chance?
        fault = "not permuted: the outputs of the whole change"
        return Matching(both.end, [], [], [fault], change, 1 + check.forwards)
    return Matching(end_permuted, found, groups, left, change, 1 + check.forwards)


class _Check:
    """Whether weights are the same function as those given, on real inputs in float64."""

    def __init__(self, problem: Problem, weights: State) -> None:
        self.fault: str | None = None
        self.forwards = 0
        try:
            self._model = copied(problem.model).double()
            batch = problem.batches[0]
            moved = [t.double() if t.is_floating_point() else t for t in tensors(batch)]
            self._problem = Problem(
                self._model, problem.loss, [mapped(batch, moved)], count=problem.count
            )
            self._before = self._outputs(weights)
            self.tolerance = TOLERANCE if self._before.dtype == torch.float64 else SINGLE
        except Exception as error:  # a user's model may raise anything
            if is_out_of_memory(error):
                raise
            self.fault = (
                f"not permuted: the model can't be checked in float64 ({first_line(error)})"
            )

    def _outputs(self, weights: State) -> Tensor:
        self.forwards += 1
        put(self._model, weights)
        batch: Batch = self._problem.batches[0]
        with self._problem.evaluating(), torch.no_grad():
            if self._problem.takes_model:
                return self._problem.batch_loss(batch)
            return self._problem.outputs(pair(batch)[0])

    def change(self, weights: State) -> float:
        """Max |Δoutput| / max |output|; infinite where it is not finite."""
        return relative_change([self._before], [self._outputs(weights)])

    def holds(self, weights: State) -> bool:
        """Whether it is the same function but for rounding."""
        return self.change(weights) <= self.tolerance


def _symmetries(
    groups: list[UnitGroup], check: _Check, seed: int
) -> tuple[list[UnitGroup], list[str]]:
    """The groups of which a random permutation leaves the outputs; tensors of the others."""
    weights, random = state(check._model), generator(seed, "symmetries")
    tried = [torch.randperm(group.size, generator=random) for group in groups]
    if check.holds(permuted(weights, groups, tried)):
        return groups, []
    confirmed, changed = [], []
    for group, permutation in zip(groups, tried, strict=True):
        if check.holds(permuted(weights, [group], [permutation])):
            confirmed.append(group)
        else:
            changed += [name for name, _, _ in group.axes]
    return confirmed, changed


def _matched(start: State, end: State, groups: Sequence[UnitGroup], seed: int) -> list[Tensor]:
    """One assignment for each group: the best of a few descents."""
    random = generator(seed, "weight matching")
    orders = [list(range(len(groups)))]
    orders += [torch.randperm(len(groups), generator=random).tolist() for _ in range(2)]
    best, found = -np.inf, [torch.arange(group.size) for group in groups]
    for order in orders:
        permutations, value = _descent(start, end, groups, order)
        if value > best:
            best, found = value, permutations
    return found


def _descent(
    start: State, end: State, groups: Sequence[UnitGroup], order: list[int]
) -> tuple[list[Tensor], float]:
    present = dict(end)
    permutations = [torch.arange(group.size) for group in groups]
    for _ in range(SWEEPS):
        changed = False
        for number in order:
            group = replace(
                groups[number], axes=[axis for axis in groups[number].axes if axis[0] in start]
            )
            gains = _gains(start, present, group).cpu().numpy()
            step = torch.from_numpy(linear_sum_assignment(gains, maximize=True)[1])
            moved = permuted(present, [group], [step])
            names = {name for name, _, _ in group.axes}
            # units on two axes of one tensor: an assignment of one axis may lose on the other
            before, after = (sum(dot(start[n], w[n]) for n in names) for w in (present, moved))
            if after > before + 1e-12 * abs(before):
                present, changed = moved, True
                permutations[number] = permutations[number][step]
        if not changed:
            break
    return permutations, sum(dot(start[name], present[name]) for name in start)


def _gains(start: State, end: State, group: UnitGroup) -> Tensor:
    """⟨unit i of the start, unit j of the end⟩ over all that the group's units carry."""
    total = torch.zeros(1)
    for name, axis, positions in group.axes:
        one, two = (_units(weights[name], axis, positions) for weights in (start, end))
        total = total.to(one) + one @ two.T
    return total


def _units(tensor: Tensor, axis: int, positions: Tensor) -> Tensor:
    """One row a unit, shape (units, entries of each)."""
    picked = tensor.index_select(axis, positions.flatten().to(tensor.device))
    return picked.movedim(axis, 0).reshape(len(positions), -1)
