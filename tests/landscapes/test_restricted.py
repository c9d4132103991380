"""A problem over some of the parameters (``layers``): its landscape moves and sees only these."""

import copy
import itertools

import nets
import numpy as np
import pytest
import reference
import torch
from torch import Tensor

from ssgd_analysis.connections import line, train_curve
from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes import LandscapeSettings, NamedProblem, landscape
from ssgd_analysis.landscapes.directions import eigen_directions, gradient_directions
from ssgd_analysis.problem import Problem

LAYERS = ["0.*", "5.weight"]  # of the mlp: the first layer, and the last one's matrix


def restricted(case: nets.Case) -> Problem:
    return Problem(*case.problem, layers=LAYERS)


def own(case: nets.Case) -> Tensor:
    """Which of all P entries belong to the restricted problem."""
    chosen = restricted(case).parameters
    marks = [torch.full((p.numel(),), name in chosen) for name, p in case.model.named_parameters()]
    return torch.cat(marks)


def flat(direction: list[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in direction])


def drawn(*problems: Problem, **options):
    named = [NamedProblem(f"run {i}", problem) for i, problem in enumerate(problems)]
    return landscape(named, LandscapeSettings(**options))


def test_eigen_directions_are_those_of_the_block():
    case = nets.mlp()
    among = own(case)
    values, vectors = torch.linalg.eigh(reference.hessian(case)[among][:, among])
    (found,), (pair,) = eigen_directions(restricted(case), 1, seed=0)
    assert pair.value == pytest.approx(float(values[-1]), rel=1e-3)
    assert abs(float(flat(found) @ vectors[:, -1])) == pytest.approx(1, abs=1e-3)


def test_gradient_directions_are_those_of_the_block():
    case = nets.mlp()
    among = own(case)
    g, turned = (flat(d) for d in gradient_directions(restricted(case), 2))
    truth = reference.gradient(case)[among]
    torch.testing.assert_close(g, truth, rtol=1e-10, atol=1e-14)
    image = reference.hessian(case)[among][:, among] @ (truth / truth.norm())
    torch.testing.assert_close(turned, image, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("directions", ["random", "eigen", "gradient"])
def test_curvatures_and_share_are_those_of_the_block(directions):
    case = nets.mlp()
    found = drawn(
        restricted(case), dims=2, points=3, directions=directions, normalize="none"
    ).grids[0]
    among = own(case)
    values = torch.linalg.eigvalsh(reference.hessian(case)[among][:, among])
    # the search's own tolerance, 1e-2 (eigen: 1e-3), bounds its error
    assert found["lambda_max"]["value"] == pytest.approx(float(values[-1]), rel=1e-2)
    if directions == "eigen":
        assert found["share"] == pytest.approx(1, abs=1e-6)
        assert found["curvatures"] == pytest.approx(values.flip(0)[:2].tolist(), rel=1e-3)
    if directions == "gradient":
        g = reference.gradient(case)[among]
        along = g @ reference.hessian(case)[among][:, among] @ g / (g @ g)
        assert found["curvatures"][0] == pytest.approx(float(along), rel=1e-8)


def moved(case: nets.Case) -> nets.Case:
    """Other weights everywhere."""
    model = copy.deepcopy(case.model)
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.add_(0.3 * nets.randn(*parameter.shape, seed=seed))
    return nets.Case(model, case.loss, case.inputs, case.targets)


def test_a_line_between_checkpoints_ends_at_both():
    case = nets.mlp()
    other = moved(case)
    found = drawn(restricted(case), restricted(other), directions="between", points=5)
    alpha, loss = found.arrays["alpha"], found.arrays["loss"]
    for place, problem in ((0, restricted(case)), (1, restricted(other))):
        (index,) = np.flatnonzero(alpha == place)
        assert loss[index] == pytest.approx(problem.mean_loss(), rel=1e-10)


def test_checkpoints_restricted_to_different_layers_are_refused():
    case = nets.mlp()
    with pytest.raises(InputError, match="restricted to different parameters"):
        drawn(restricted(case), Problem(*moved(case).problem), directions="between")


@pytest.mark.parametrize("bezier", [True, False])
def test_a_curve_bends_only_these(bezier):
    case = nets.mlp()
    straight = line(case.model, moved(case).model)
    path, _ = train_curve(straight, restricted(case), bends=2, bezier=bezier, epochs=3, lr=0.1)
    there, direct = path.at(0.4), straight.at(0.4)
    for name in straight.moving:
        bent = not torch.allclose(there[name], direct[name], rtol=1e-9)
        assert bent == (name in restricted(case).parameters)
    places = [path.at(t) for t in np.linspace(0, 1, 3001)]
    steps = [
        sum(float((b[name] - a[name]).square().sum()) for name in straight.moving) ** 0.5
        for a, b in itertools.pairwise(places)
    ]
    assert path.length() == pytest.approx(sum(steps), rel=1e-4)  # chords, 3000 to a curve
