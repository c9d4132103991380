"""Changes of a network that its function does not show, and confounders that it does."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

import torch
from torch import Tensor, nn

from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem
from ssgd_analysis.symmetries.draft import Draft
from ssgd_analysis.symmetries.layer_edits import (
    channels,
    fold,
    is_norm,
    is_source,
    is_weighted,
    reorder_inputs,
    reorder_outputs,
    reordered,
    scale_inputs,
    scale_outputs,
    spread,
    statistics,
)
from ssgd_analysis.symmetries.same_function import copied, relative_change, runs, same

PRESERVING, CONFOUNDER = "function-preserving", "confounder"


@dataclass(frozen=True)
class Changed:
    """A problem with a changed copy of the model.

    Args:
        problem: same examples; the same loss but for ``decay``.
        done: what was changed, one line each; empty: nothing was found that could be.
        output_change: max |Δoutput| / max |output|, of the batch where it is largest.
    """

    problem: Problem
    done: tuple[str, ...]
    output_change: float


Make = Callable[[Problem, float, torch.Generator], Changed]
Change = Callable[[Draft, float, torch.Generator], None]


@dataclass(frozen=True)
class Transformation:
    """One line of the table.

    Args:
        make: ``(problem, factor, generator) -> Changed``.
        summary: one line; a is the factor.
        kind: ``"function-preserving"`` or ``"confounder"``.
        scales: whether it depends on the factor.
    """

    make: Make
    summary: str
    kind: str = PRESERVING
    scales: bool = True

    def __call__(
        self, problem: Problem, factor: float = 5.0, generator: torch.Generator | None = None
    ) -> Changed:
        """The problem with a copy of its model that is changed wherever it can be.

        Layers are found by watching a pass. A change is made only where the outputs on all batches
        stay within :func:`ssgd_analysis.symmetries.same_function.tolerance`.

        Args:
            problem: is left alone.
            factor: positive.
            generator: of random factors and orders, on the CPU; default: one seeded with 0.

        Raises:
            InputError: a factor that is not positive and finite, or a model that can't be copied.
        """
        _check(factor)
        return self.make(problem, factor, generator or torch.Generator().manual_seed(0))


def rescaled(model: nn.Module, inputs: Tensor, factor: float = 5.0) -> nn.Module:
    """A copy of a model with every pair of layers that is found rescaled; see ``layer``.

    Args:
        model: is left alone.
        inputs: a batch to find the layers with.
        factor: positive.

    Raises:
        InputError: nothing was found to rescale, or as :class:`Transformation`.
    """
    batch = (inputs, inputs)
    changed = TRANSFORMATIONS["layer"](Problem(model, _unused, [batch]), factor)
    if not changed.done:
        raise InputError(
            "no two layers were found that can be rescaled without changing the outputs"
        )
    return changed.problem.model


def _unused(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss where only outputs matter."""
    return outputs.sum()


def _check(factor: float) -> None:
    if not 0 < factor < math.inf:
        raise InputError(f"factor {factor} should be > 0 and finite")


def _drafted(change: Change, problem: Problem, factor: float, random: torch.Generator) -> Changed:
    # all batches only where the first one tells too little: an activation that it does not reach
    for batches in (problem.batches[:1], problem.batches):
        draft = Draft(_copy(problem), runs(problem, batches))
        change(draft, factor, random)
        outputs = (
            (run(problem.model), run(draft.model))
            for run in (runs(problem, [batch]) for batch in problem.batches)
        )
        found = [(same(*pair), relative_change(*pair)) for pair in outputs]
        if change is _logit or all(is_same for is_same, _ in found):
            break
    changed = Problem(draft.model, problem.loss, problem.batches, count=problem.count)
    return Changed(changed, tuple(draft.done), max(moved for _, moved in found))


def _copy(problem: Problem) -> nn.Module:
    """A copy of the model in which only the problem's parameters require gradients."""
    model = copied(problem.model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in problem.parameters)
    return model


# --- one change each ---


def _layer(draft: Draft, factor: float, random: torch.Generator) -> None:
    """Pairs without a common layer: each layer's weights are then changed by the whole factor."""
    used: set[str] = set()
    for first, *_, second in draft.pairs(_scales, is_weighted):
        if used & {first, second}:
            continue
        factors = _all(draft.layer(first), factor)
        if _rescale(draft, first, second, factors, f"{first} × {factor:g}, {second} ÷ {factor:g}"):
            used |= {first, second}


def _neuron(draft: Draft, factor: float, random: torch.Generator) -> None:
    """Factors between 1/a and a, uniform in their logarithm."""
    firsts, seconds = set[str](), set[str]()
    for first, *_, second in draft.pairs(_scales, is_weighted):
        count = channels(draft.layer(first), 1)
        if first in firsts or second in seconds:
            continue
        powers = 2 * torch.rand(count, generator=random, dtype=torch.float64) - 1
        what = f"{count} neurons between {first} and {second}"
        if _rescale(draft, first, second, factor**powers, what):
            firsts.add(first)
            seconds.add(second)


def _rescale(draft: Draft, first: str, second: str, factors: Tensor, what: str) -> bool:
    def change(model: nn.Module) -> None:
        before, after = model.get_submodule(first), model.get_submodule(second)
        scale_outputs(before, factors)
        scale_inputs(after, spread(before, after, 1 / factors))

    return draft.attempt(change, what, at=second)


def _batchnorm(draft: Draft, factor: float, random: torch.Generator) -> None:
    """The variance is set so that v′ + ε = a²(v + ε): exact with BatchNorm's ε as it is."""
    used: set[str] = set()
    for first, *_, second in draft.pairs(is_source, is_norm):
        if used & {first, second}:
            continue

        def change(model: nn.Module, first: str = first, second: str = second) -> None:
            layer = model.get_submodule(first)
            mean, variance, eps = statistics(model.get_submodule(second))
            scale_outputs(layer, _all(layer, factor))
            mean.mul_(factor)
            variance.add_(eps).mul_(factor**2).sub_(eps)

        if draft.attempt(change, f"{first} × {factor:g} before {second}", at=second):
            used |= {first, second}


def _permutation(draft: Draft, factor: float, random: torch.Generator) -> None:
    """What runs between two layers (BatchNorm, say) goes along."""
    firsts, seconds = set[str](), set[str]()
    for names in draft.pairs(is_source, is_weighted):
        first, second = names[0], names[-1]
        count = channels(draft.layer(first), 1)
        if first in firsts or second in seconds or count < 2:
            continue
        order = torch.randperm(count, generator=random)
        if torch.equal(order, torch.arange(count)):
            order = order.flip(0)

        def change(model: nn.Module, names: list[str] = names, order: Tensor = order) -> None:
            before, *between, after = (model.get_submodule(name) for name in names)
            for module in (before, *between):
                reorder_outputs(module, order)
            reorder_inputs(after, reordered(before, after, order))

        if draft.attempt(change, f"{count} neurons between {first} and {second}", at=second):
            firsts.add(first)
            seconds.add(second)


def _folding(draft: Draft, factor: float, random: torch.Generator) -> None:
    """Only into the very layer before: an untrained BatchNorm is close to no change anywhere."""
    for first, *_, second in draft.pairs(is_weighted, is_norm):
        if (first, second) not in draft.direct:
            continue
        change = partial(fold, first=first, second=second)
        draft.attempt(change, f"{second} into {first}", at=second)


def _logit(draft: Draft, factor: float, random: torch.Generator) -> None:
    """The last layer, if it scales the outputs: it does not where a softmax follows."""
    last = [name for name in draft.order if is_weighted(draft.layer(name))][-1:]
    for name in last:

        def change(model: nn.Module, name: str = name) -> None:
            layer = model.get_submodule(name)
            scale_outputs(layer, _all(layer, factor))

        draft.attempt(change, f"{name} × {factor:g}", scale=factor)


def _decay(problem: Problem, factor: float, random: torch.Generator) -> Changed:
    """A loss of (model, batch), as the weights are then part of every derivative."""
    names = list(problem.parameters)

    def decayed(model: nn.Module, batch: Batch) -> Tensor:
        if problem.takes_model:
            loss = problem.loss(model, batch)
        else:
            loss = problem.loss(model(batch[0]), batch[1])
        # by attribute: a pure function of the weights puts tensors in the parameters' places
        squares = [attrgetter(name)(model).square().sum() for name in names]
        return loss + factor / 2 * torch.stack(squares).sum()

    changed = Problem(_copy(problem), decayed, problem.batches, count=problem.count)
    return Changed(changed, (f"λ/2 ‖w‖² added, λ = {factor:g}",), 0.0)


def _scales(layer: nn.Module) -> bool:
    """Whether its outputs are linear in its weights and bias."""
    return is_source(layer) or is_norm(layer)


def _all(layer: nn.Module, factor: float) -> Tensor:
    """One factor for every channel that leaves a layer."""
    return torch.full((channels(layer, 1),), factor, dtype=torch.float64)


TRANSFORMATIONS = {
    "layer": Transformation(
        partial(_drafted, _layer), "a layer's weights and bias by a, the next one's weights by 1/a"
    ),
    "neuron": Transformation(
        partial(_drafted, _neuron),
        "each neuron's weights and bias by a random factor, undone in the next layer",
    ),
    "batchnorm": Transformation(
        partial(_drafted, _batchnorm),
        "weights and bias before a BatchNorm by a, and its running statistics",
    ),
    "permutation": Transformation(
        partial(_drafted, _permutation),
        "the neurons or channels of a layer in another order",
        scales=False,
    ),
    "folding": Transformation(
        partial(_drafted, _folding), "each BatchNorm folded into the layer before it", scales=False
    ),
    "logit": Transformation(
        partial(_drafted, _logit), "the last layer, and so the outputs, by a", CONFOUNDER
    ),
    "decay": Transformation(_decay, "a/2 ‖w‖² added to the loss", CONFOUNDER),
}
