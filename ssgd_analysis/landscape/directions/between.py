"""The line through two checkpoints, or the plane through three."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscape.directions.direction import Direction, inner, like
from ssgd_analysis.problem import Problem

Place = tuple[float, ...]


def between_directions(
    names: Sequence[str], problems: Sequence[Problem]
) -> tuple[list[Direction], list[Place]]:
    """Axes through checkpoints: the first is the origin, the second at (1, 0).

    The second axis is orthogonal to the first and as long, so that the picture is not skewed
    (Garipov et al. 2018, arXiv 1802.10026, appendix A.1).

    Args:
        names: of the checkpoints, for messages.
        problems: two or three, each at its weights.

    Returns:
        One direction or two, and the place of each checkpoint.

    Raises:
        InputError: checkpoints of different models, or three on one line.
    """
    for name, problem in zip(names[1:], problems[1:], strict=True):
        same_model((names[0], problems[0]), (name, problem))
    first, second, *third = [
        [p.detach().double() for p in problem.parameters.values()] for problem in problems
    ]
    along = [b - a for a, b in zip(first, second, strict=True)]
    places: list[Place] = [(0.0,), (1.0,)]
    if not third:
        return like(problems[0], [along]), places
    length = inner(along, along)
    if length == 0:
        raise InputError(f"{names[0]} and {names[1]} have the same weights: no plane through them")
    step = [c - a for a, c in zip(first, third[0], strict=True)]
    share = inner(step, along) / length
    across = [s - share * a for s, a in zip(step, along, strict=True)]
    height = inner(across, across) ** 0.5
    if height <= 1e-7 * length**0.5:
        raise InputError("the three checkpoints lie on one line: no plane through them")
    across = [part * (length**0.5 / height) for part in across]
    third_place = (share, height / length**0.5)
    places = [(0.0, 0.0), (1.0, 0.0), third_place]
    return like(problems[0], [along, across]), places


def same_model(first: tuple[str, Problem], second: tuple[str, Problem]) -> None:
    """Refuse checkpoints of different models; the error names the first tensor that differs.

    Args:
        first: name and problem of one checkpoint.
        second: of the other.

    Raises:
        InputError: parameters or buffers of other names or shapes, or others that require
            gradients.
    """
    (one, a), (other, b) = first, second
    mine, theirs = a.model.state_dict(keep_vars=True), b.model.state_dict(keep_vars=True)

    def told(tensors: dict[str, Tensor], name: str) -> str:
        if name not in tensors:
            return "not there"
        shape = tuple(tensors[name].shape)
        return f"{shape}" + ("" if tensors[name].requires_grad else ", fixed")

    for name in [*mine, *(n for n in theirs if n not in mine)]:
        found, wanted = told(theirs, name), told(mine, name)
        if found != wanted:
            raise InputError(
                f"{one} and {other} are not of the same model: '{name}' is {wanted} in the first"
                f" and {found} in the second"
            )


class MoveRest:
    """Moves BatchNorm statistics and frozen parameters with the weights, between checkpoints.

    They are mixed as the weights are, by barycentric coordinates. Outside of the checkpoints
    these are brought back to the nearest mixture without negative parts: a variance that is
    extrapolated turns negative.

    Args:
        problems: the first one's model is moved.
        places: of the checkpoints.
    """

    def __init__(self, problems: Sequence[Problem], places: Sequence[Place]) -> None:
        model = problems[0].model
        own = [*model.buffers(), *model.parameters()]
        columns = [[*p.model.buffers(), *p.model.parameters()] for p in problems]
        moving = [i for i, t in enumerate(own) if t.is_floating_point() and not t.requires_grad]
        self.tensors = [own[i] for i in moving]
        self.ends = [[column[i].detach().clone() for i in moving] for column in columns]
        corners = torch.tensor(places, dtype=torch.float64)
        self.origin, self.edges = corners[0], (corners[1:] - corners[0]).T

    def __call__(self, place: Sequence[float]) -> None:
        """Set them as they are at a place."""
        at = torch.tensor([float(a) for a in place], dtype=torch.float64) - self.origin
        parts = torch.linalg.solve(self.edges, at)
        shares = torch.cat([1 - parts.sum(dim=0, keepdim=True), parts]).clamp(0, 1)
        amounts = (shares / shares.sum()).tolist()
        for index, tensor in enumerate(self.tensors):
            mixed = sum(s * end[index] for s, end in zip(amounts, self.ends, strict=True) if s)
            tensor.copy_(mixed)
