"""The same network with its outputs in other units: at a given train loss, or normalised."""

import math

import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem

BISECTIONS = 60  # of bisection: the width of a double
HOTTEST = 1e6  # beyond, the outputs tell the classes apart by rounding only


class Scaled(nn.Module):
    """A model whose outputs are divided by a temperature.

    Args:
        model: keeps its parameters.
        temperature: positive.
    """

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs of the same shape."""
        return self.model(inputs) / self.temperature


class Normalized(nn.Module):
    """A model whose outputs have mean zero and standard deviation one over the classes.

    Example by example, so that a batch's loss stays the mean of its examples', and the scale of
    the logits, which a network can change without changing a decision, has no effect. Not for two
    classes, whose logits would then all be ±1.

    Args:
        model: keeps its parameters; outputs (B, C, …).

    Reference:
        Andriushchenko et al. 2023 (arXiv 2302.07011), section 2, logit normalisation.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs of the same shape."""
        outputs = self.model(inputs)
        centred = outputs - outputs.mean(dim=1, keepdim=True)
        return centred / centred.square().mean(dim=1, keepdim=True).sqrt()


def normalize_logits(problem: Problem) -> Normalized:
    """The problem's model with normalised logits.

    Raises:
        InputError: outputs without a class axis, or of fewer than three classes.
    """
    with problem.evaluating(), torch.no_grad():
        shape = tuple(problem.outputs(problem.batches[0][0]).shape)
    if len(shape) < 2 or shape[1] < 3:
        raise InputError(
            f"logits of shape {shape} can't be normalised, which needs three classes or more: match"
            " the train loss by a temperature instead"
        )
    return Normalized(problem.model)


def temperature(problem: Problem, target: float) -> float | None:
    """The T nearest to 1 by which outputs must be divided for a mean cross-entropy of ``target``.

    Cross-entropy is convex in 1/T, so there is one at most on either side of 1 for a loss above the
    present one; the nearest lies where the loss rises at once. That is T > 1 for a network that is
    less sure than it could be on these examples, the usual case late in training, and T < 1 for
    one that is too sure: its loss would fall first on the other side, and a T far from 1 be needed
    for the smallest difference of losses.

    Args:
        problem: of the train split, with cross-entropy as loss.
        target: nats; a loss that is reached already gives 1.

    Returns:
        ``None``: no temperature between 10⁻⁶ and 10⁶ reaches the target. With T > 1 the loss can
        rise to log C only.
    """
    outputs, targets = _outputs(problem)

    def loss(inverse: Tensor | float) -> Tensor:
        return nn.functional.cross_entropy(outputs * inverse, targets)

    one = torch.ones((), dtype=outputs.dtype, device=outputs.device, requires_grad=True)
    with torch.enable_grad():
        present = loss(one)
        slope = torch.autograd.grad(present, one)[0]
    if target <= float(present.detach()):
        return 1.0
    inside, outside = 1.0, 1 / HOTTEST if slope < 0 else HOTTEST
    if float(loss(outside)) <= target:
        return None
    for _ in range(BISECTIONS):  # in the logarithm: the bracket spans six decades
        middle = math.sqrt(inside * outside)
        if float(loss(middle)) > target:
            outside = middle
        else:
            inside = middle
    return 1 / inside


def check_cross_entropy(loss: str, what: str) -> None:
    """Refuse a loss that does not read outputs as logits.

    Raises:
        InputError: any other loss than ``cross_entropy``.
    """
    if loss != "cross_entropy":
        raise InputError(
            f"{what} needs the loss cross_entropy: outputs of a run with '{loss}' are not logits"
        )


def _outputs(problem: Problem) -> tuple[Tensor, Tensor]:
    """All outputs in float64, and their targets."""
    with problem.evaluating(), torch.no_grad():
        pairs = [(problem.outputs(batch[0]).double(), batch[1]) for batch in problem.batches]
    outputs = torch.cat([output for output, _ in pairs])
    if not math.isfinite(float(outputs.abs().max())):
        raise InputError("the outputs are not finite: no temperature fits them")
    return outputs, torch.cat([target for _, target in pairs])
