import random

import numpy as np
import pytest
import torch

from ssgd_analysis import random_state
from ssgd_analysis.runs.tensors import read_tree, save_tree


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


class _GPUs:
    """As many pretended GPUs, whose generators' states are single numbers."""

    def __init__(self, monkeypatch, count: int) -> None:
        self.states = [torch.tensor([number]) for number in range(count)]
        fakes = {
            "is_initialized": lambda: count > 0,
            "device_count": lambda: count,
            "get_rng_state_all": lambda: [state.clone() for state in self.states],
            "set_rng_state": self._set,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    def _set(self, state: torch.Tensor, device: int) -> None:
        self.states[device] = state.clone()


@pytest.mark.parametrize(
    ("saved", "here", "device", "remedy"),
    [
        (1, 1, "cuda", None),
        (2, 2, "cuda:1", None),
        (2, 1, "cuda", "make 2 visible (CUDA_VISIBLE_DEVICES)"),
        (1, 2, "cuda:1", "make 1 visible (CUDA_VISIBLE_DEVICES)"),
        (0, 1, "cuda", "use --device cpu"),
        (0, 1, "cpu", None),
        (2, 0, "cpu", None),
    ],
)
def test_another_number_of_gpus_gives_a_warning(
    monkeypatch, caplog, tmp_path, saved, here, device, remedy
):
    there = _GPUs(monkeypatch, saved)
    there.states = [state + 10 for state in there.states]
    save_tree(tmp_path / "s.safetensors", random_state.capture())
    gpus = _GPUs(monkeypatch, here)
    random_state.resume(read_tree(tmp_path / "s.safetensors"), device)
    common = min(saved, here)
    expected = [10 + number if number < common else number for number in range(here)]
    assert [int(state) for state in gpus.states] == expected
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == (remedy is not None)
    if remedy:
        assert f"{saved} GPUs and this machine shows {here}" in warnings[0]
        assert warnings[0].endswith(remedy)
        assert "\n" not in warnings[0]
