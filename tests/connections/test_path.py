import copy
import itertools

import nets
import numpy as np
import pytest
import torch
from torch import nn

from ssgd_analysis.connections import WeightPath, line
from ssgd_analysis.errors import InputError
from ssgd_analysis.weights import borrowed_state


def two(make=nets.conv_batchnorm):
    """Two checkpoints of one architecture: other weights, other statistics."""
    one = make().model
    other = copy.deepcopy(one)
    with torch.no_grad():
        for seed, tensor in enumerate([*other.parameters(), *other.buffers()]):
            if tensor.is_floating_point():
                tensor.add_(nets.randn(*tensor.shape, seed=seed).abs())
            else:
                tensor.add_(5)
    return one, other


def bent(bends: int, bezier: bool) -> WeightPath:
    straight = line(*two())
    knots = tuple(
        {
            name: nets.randn(*straight.start[name].shape, seed=10 * k + i)
            for i, name in enumerate(straight.moving)
        }
        for k in range(bends)
    )
    return WeightPath(straight.model, straight.start, straight.end, knots, bezier)


PATHS = [(0, False), (1, True), (1, False), (3, False), (2, True)]


@pytest.mark.parametrize(("bends", "bezier"), PATHS)
def test_the_ends_are_the_checkpoints_to_the_last_bit(bends, bezier):
    path = bent(bends, bezier)
    for t, end in ((0.0, path.start), (1.0, path.end)):
        for name, tensor in path.at(t).items():
            assert nets.bits(tensor) == nets.bits(end[name]), name


@pytest.mark.parametrize(("bends", "bezier"), PATHS)
def test_weights_follow_the_formula(bends, bezier):
    path = bent(bends, bezier)
    name = path.moving[0]
    knots = [path.start[name], *(bend[name] for bend in path.bends), path.end[name]]
    for t in (0.1, 0.5, 0.77):
        if bezier and bends == 1:
            a, b, c = knots
            expected = (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
        elif bezier:
            a, b, c, d = knots
            s = 1 - t
            expected = s**3 * a + 3 * s**2 * t * b + 3 * s * t**2 * c + t**3 * d
        else:
            stacked = torch.stack(knots).flatten(1).numpy()
            grid = np.linspace(0, 1, len(knots))
            expected = torch.tensor([np.interp(t, grid, column) for column in stacked.T])
            expected = expected.reshape(knots[0].shape)
        # rounding of a few sums of numbers of size one
        torch.testing.assert_close(path.at(t)[name], expected, rtol=0, atol=1e-14)


def test_statistics_go_straight_and_counters_jump():
    path = bent(1, True)
    middle = path.at(0.25)
    expected = 0.75 * path.start["1.running_var"] + 0.25 * path.end["1.running_var"]
    torch.testing.assert_close(middle["1.running_var"], expected)
    counter = "1.num_batches_tracked"
    assert torch.equal(middle[counter], path.start[counter])
    assert not torch.equal(path.start[counter], path.end[counter])


@pytest.mark.parametrize(("bends", "bezier"), PATHS[1:])
def test_shares_are_the_derivative_by_the_bends(bends, bezier):
    path = bent(bends, bezier)
    name = path.moving[0]
    for t, k in itertools.product((0.0, 0.3, 0.5, 0.9, 1.0), range(bends)):
        moved = [dict(bend) for bend in path.bends]
        moved[k][name] = moved[k][name] + 1
        other = WeightPath(path.model, path.start, path.end, tuple(moved), bezier)
        step = other.at(t)[name] - path.at(t)[name]
        expected = torch.full_like(step, path.shares(t)[k])
        torch.testing.assert_close(step, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("bends", "bezier"), PATHS)
def test_length_is_that_of_many_small_steps(bends, bezier):
    path = bent(bends, bezier)
    flat = [
        torch.cat([path.at(t)[name].flatten() for name in path.moving])
        for t in np.linspace(0, 1, 241)  # 240 steps: corners of 2, 3 and 4 pieces are met
    ]
    steps = sum(float((b - a).norm()) for a, b in itertools.pairwise(flat))
    # chords are short of a smooth curve by the square of their number
    assert path.length() == pytest.approx(steps, rel=1e-4)


def test_equal_ends_stay_equal_to_the_last_bit():
    one, _ = two()
    path = line(one, copy.deepcopy(one))
    for t in np.linspace(0, 1, 7):
        assert all(nets.bits(v) == nets.bits(path.start[n]) for n, v in path.at(t).items())
    assert path.length() == 0


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)), "'1.weight' has shape (3, 6)"),
        (nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 3)), "'0.bias'"),
        (nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(3, 3)), "'2.weight'"),
    ],
)
def test_two_architectures_are_named_by_their_first_difference(other, named):
    one = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    with pytest.raises(InputError) as error:
        line(one, other)
    assert named in str(error.value)


def test_a_lent_model_comes_back():
    one, other = two()
    before = nets.state(one)
    path = line(one, other)

    def fails():
        with borrowed_state(one):
            path.move_to(0.5)
            assert nets.state(one) != before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert nets.state(one) == before
