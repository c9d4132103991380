import random

import numpy as np
import pytest
import torch

from ssgd_analysis.training import random_state
from ssgd_analysis.training.state import read_tree, save_tree


def _draw() -> list[float]:
    """Some of everything; numpy's Gaussian keeps a spare, so an odd number of them."""
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),  # noqa: NPY002
        *(float(x) for x in np.random.randn(3)),  # noqa: NPY002
        *torch.randn(3).tolist(),
        float(torch.rand(())),
    ]


@pytest.fixture(autouse=True)
def given_back():
    before = random_state.capture()
    yield
    random_state.restore(before)


@pytest.mark.parametrize("used", [0, 1, 7])
def test_restore_repeats_the_draws(used):
    for _ in range(used):
        _draw()
    state = random_state.capture()
    first = _draw()
    assert _draw() != first
    random_state.restore(state)
    assert _draw() == first


def test_a_captured_state_does_not_move_on():
    state = random_state.capture()
    first = _draw()
    _draw()
    random_state.restore(state)
    assert _draw() == first
    random_state.restore(state)
    assert _draw() == first


def test_survives_a_file(tmp_path):
    _draw()
    save_tree(tmp_path / "s.safetensors", random_state.capture())
    first = _draw()
    random_state.restore(read_tree(tmp_path / "s.safetensors"))
    assert _draw() == first


def test_seeded_repeats_and_gives_the_global_generators_back():
    outside = random_state.capture()
    expected = _draw()
    random_state.restore(outside)
    with random_state.seeded(3):
        first = _draw()
    assert _draw() == expected
    with random_state.seeded(3):
        assert _draw() == first
    with random_state.seeded(4):
        assert _draw() != first


def test_seeded_gives_back_after_an_error():
    outside = random_state.capture()
    expected = _draw()
    random_state.restore(outside)
    with pytest.raises(KeyError), random_state.seeded(3):
        raise KeyError
    assert _draw() == expected
