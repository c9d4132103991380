"""The line through two checkpoints, or the plane through three."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes.directions.direction import Direction, inner_product, like
from ssgd_analysis.problem import Problem

Position = tuple[float, ...]  # coordinates along the directions
COUNTER = "num_batches_tracked"  # BatchNorm's, which evaluation does not read


def between_directions(
    names: Sequence[str], problems: Sequence[Problem]
) -> tuple[list[Direction], list[Position]]:
    """Axes through checkpoints: the first is the origin, the second at (1, 0).

    The second axis is orthogonal to the first and as long, so that the picture is not skewed
    (Garipov et al. 2018, arXiv 1802.10026, appendix A.1).

    Args:
        names: of the checkpoints, for messages.
        problems: two or three, each at its weights.

    Returns:
        One direction or two, and the position of each checkpoint.

    Raises:
        InputError: checkpoints of different models, or three on one line.
    """
    for name, problem in zip(names[1:], problems[1:], strict=True):
        same_model((names[0], problems[0]), (name, problem))
    first, second, *third = [
        [p.detach().double() for p in problem.parameters.values()] for problem in problems
    ]
    along = [b - a for a, b in zip(first, second, strict=True)]
    positions: list[Position] = [(0.0,), (1.0,)]
    length = inner_product(along, along)
    if length == 0:
        raise InputError(
            f"{names[0]} and {names[1]} have the same weights, so there is no line between them"
        )
    if not third:
        return like(problems[0], [along]), positions
    step = [c - a for a, c in zip(first, third[0], strict=True)]
    share = inner_product(step, along) / length
    across = [s - share * a for s, a in zip(step, along, strict=True)]
    height = inner_product(across, across) ** 0.5
    if height <= 1e-7 * length**0.5:
        raise InputError("the three checkpoints lie on one line: use two of them with --dims 1")
    across = [part * (length**0.5 / height) for part in across]
    positions = [(0.0, 0.0), (1.0, 0.0), (share, height / length**0.5)]
    return like(problems[0], [along, across]), positions


def same_model(first: tuple[str, Problem], second: tuple[str, Problem]) -> None:
    """Refuse checkpoints of different models; the error names the first tensor that differs.

    Args:
        first: name and problem of one checkpoint.
        second: of the other.

    Raises:
        InputError: parameters or buffers of other names or shapes, others that require
            gradients, or problems restricted to different ones.
    """
    (one, a), (other, b) = first, second
    first_state, second_state = (p.model.state_dict(keep_vars=True) for p in (a, b))

    def described(tensors: dict[str, Tensor], name: str) -> str:
        if name not in tensors:
            return "not there"
        shape = tuple(tensors[name].shape)
        return f"{shape}" + ("" if tensors[name].requires_grad else ", fixed")

    for name in [*first_state, *(n for n in second_state if n not in first_state)]:
        found, wanted = described(second_state, name), described(first_state, name)
        if found != wanted:
            raise InputError(
                f"{one} and {other} are not of the same model: '{name}' is {wanted} in the first"
                f" and {found} in the second"
            )
    if list(a.parameters) != list(b.parameters):
        raise InputError(f"{one} and {other} are restricted to different parameters by layers=")


class MoveRest:
    """Moves all tensors that the directions leave alone, between checkpoints.

    That is BatchNorm statistics, frozen parameters and those that the problem leaves out.

    They are mixed as the weights are, by barycentric coordinates. Outside of the checkpoints
    negative parts are left out: a variance that is extrapolated turns negative.

    Args:
        problems: the first one's model is moved.
        positions: of the checkpoints.

    Raises:
        InputError: buffers that differ and can't be interpolated, as masks.
    """

    def __init__(self, problems: Sequence[Problem], positions: Sequence[Position]) -> None:
        models = [problem.model for problem in problems]
        columns = [[*model.named_buffers(), *model.named_parameters()] for model in models]
        self.tensors: list[Tensor] = []
        self.ends: list[list[Tensor]] = [[] for _ in models]
        for (name, own), *others in zip(*columns, strict=True):
            if name in problems[0].parameters:
                continue
            if own.is_floating_point() or own.is_complex():
                self.tensors.append(own)
                for end, tensor in zip(self.ends, [own, *(t for _, t in others)], strict=True):
                    end.append(tensor.detach().clone())
            elif not all(torch.equal(own, t) for _, t in others) and not name.endswith(COUNTER):
                raise InputError(
                    f"the buffer '{name}' differs between the checkpoints, and {own.dtype} can't be"
                    " interpolated"
                )
        corners = torch.tensor(positions, dtype=torch.float64)
        self.origin, self.edges = corners[0], (corners[1:] - corners[0]).T

    @torch.no_grad()
    def __call__(self, position: Sequence[float]) -> None:
        """Set them to their mixture at a position."""
        at = torch.tensor([float(a) for a in position], dtype=torch.float64) - self.origin
        parts = torch.linalg.solve(self.edges, at)
        shares = torch.cat([1 - parts.sum(dim=0, keepdim=True), parts]).clamp(0, 1)
        amounts = (shares / shares.sum()).tolist()
        for index, tensor in enumerate(self.tensors):
            mixed = sum(s * end[index] for s, end in zip(amounts, self.ends, strict=True) if s)
            tensor.copy_(mixed)
