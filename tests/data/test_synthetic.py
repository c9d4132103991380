import random

import numpy as np
import pytest
import torch

from ssgd_analysis.data import load_data


@pytest.fixture(scope="module")
def mnist1d():
    """Made in two seconds."""
    return load_data("mnist1d")


def test_mnist1d_shapes(mnist1d):
    data = mnist1d
    assert data.train.inputs.shape == (4000, 40)
    assert data.test.inputs.shape == (1000, 40)
    assert data.train.inputs.dtype == torch.float32
    assert data.train.targets.dtype == torch.int64
    assert data.train.targets.unique().tolist() == list(range(10))
    assert data.train.inputs.isfinite().all()


def test_mnist1d_is_the_same_each_time_and_leaves_the_global_generators_alone(mnist1d):
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    first = load_data("mnist1d")
    assert random.getstate() == states[0]
    after = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(after[1], states[1][1])
    assert after[2:] == states[1][2:]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert torch.equal(mnist1d.train.inputs, first.train.inputs)  # made from other global states


def test_two_moons():
    data = load_data("two_moons")
    assert data.train.inputs.shape == data.test.inputs.shape == (500, 2)
    assert data.train.targets.bincount().tolist() == [250, 250]
    assert data.num_outputs == 2
    assert not torch.equal(data.train.inputs, data.test.inputs)
    assert torch.equal(data.train.inputs, load_data("two_moons").train.inputs)


def test_two_moons_lie_on_their_half_circles():
    """Upper moon: unit circle around 0; lower: around (1, ½). Noise of 0.15 moves the radius."""
    data = load_data("two_moons")
    centres = torch.tensor([[0.0, 0.0], [1.0, 0.5]])[data.train.targets]
    offset = data.train.inputs - centres
    radius = torch.linalg.vector_norm(offset, dim=1)
    assert abs(float(radius.std()) - 0.15) < 0.03  # 500 draws: ±0.005 standard error, six of them
    upper = data.train.targets == 0
    assert offset[upper, 1].mean() > 0.5  # the mean height of a half circle is 2/π
    assert offset[~upper, 1].mean() < -0.5
