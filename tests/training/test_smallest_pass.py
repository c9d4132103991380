"""BatchNorm never sees one example: every method that cuts minibatches says so beforehand."""

import pytest
import torch
from readings.base import make_method, minibatch
from torch import nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.methods import METHODS
from ssgd_analysis.methods.when import When
from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.training import train
from ssgd_analysis.training.setup import prepare

CUTS = [
    *[(name, {}, 7) for name in METHODS],
    *[("sgd", {"ghost_batch": 3}, size) for size in (2, 5, 6, 7, 9, 11)],
    *[("sam", {"m": m}, size) for m, size in ((1, 5), (2, 5), (2, 6), (3, 7), (4, 9), (9, 7))],
    ("asam", {"m": 2}, 7),
    *[
        ("esam", {"gamma": share}, size)
        for share, size in ((0.5, 7), (0.3, 10), (0.1, 8), (1.0, 5))
    ],
    ("s-sgd", {"minibatch": "halves"}, 7),
    ("s-sgd", {"minibatch": "halves", "pairs": 2}, 11),
    ("s-sgd", {"pairs": 2}, 5),
    ("s-sgd", {"noise_per": "sample"}, 5),
    ("s-sgd+ema", {"minibatch": "halves"}, 9),
    ("smoothout", {"ghost_batches": 3}, 8),
    ("lpf-sgd", {"ghost_batches": 3}, 8),
]


@pytest.mark.parametrize(("name", "settings", "size"), CUTS)
def test_the_smallest_pass_of_a_step(name, settings, size):
    """Watched: how many examples go forward and come back at a time."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    seen = []
    model.register_forward_hook(
        lambda _, args, outputs: seen.append(len(args[0])) if outputs.requires_grad else None
    )
    method = make_method(name, model, batch_size=size, **settings)
    for number in range(2):
        seen.clear()
        batch = minibatch(number, size * method.minibatches(method.settings))
        method.step(batch, When(step=number, fraction_done=0.5))
        assert min(seen) == method.smallest_pass(method.settings, size)


def _config(method: str, settings: dict, strangers, **fields) -> TrainConfig:
    return TrainConfig(
        method=method, settings=settings, data="digits", model=f"{strangers}:batchnorm",
        epochs=1, train_samples=64, device="cpu", **fields,
    )  # fmt: skip


REFUSED = [
    ("sgd", {}, 3, 2, 4),
    ("sgd", {"ghost_batch": 3}, 7, 2, 8),
    ("esam", {}, 5, 2, 8),
    ("esam+swa", {}, 5, 2, 8),
    ("sam", {"m": 2}, 5, 1, 6),
    ("sam", {"m": 4}, 6, 2, 8),
    ("smoothout", {"ghost_batches": 2}, 3, 1, 4),
    ("lpf-sgd", {"ghost_batches": 2}, 3, 1, 4),
    ("entropy-sgd", {"inner_steps": 2}, 1, 1, 2),
    ("rwp", {}, 1, 1, 2),
    ("s-sgd", {"minibatch": "halves", "pairs": 2}, 7, 1, 8),
]


@pytest.mark.parametrize(("name", "settings", "size", "accumulate", "least"), REFUSED)
def test_one_example_is_refused_with_a_size_that_does(
    tmp_path, strangers, name, settings, size, accumulate, least
):
    config = _config(name, settings, strangers, batch_size=size, accumulate=accumulate)
    with pytest.raises(InputError, match=f"--batch-size {size} should be at least {least}$"):
        prepare(config)
    config = _config(name, settings, strangers, batch_size=least, accumulate=accumulate)
    train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "settings", "accumulate", "blame"),
    [
        ("sam", {"m": 1}, 1, "change m=1, which makes 16 parts"),
        (
            "sgd",
            {"ghost_batch": 2},
            2,
            "change ghost_batch=2, --accumulate 2, which makes 16 parts",
        ),
    ],
)
def test_where_no_size_does_the_cut_is_named(strangers, name, settings, accumulate, blame):
    with pytest.raises(InputError, match=f"--batch-size up to 64 is large enough: {blame}"):
        prepare(_config(name, settings, strangers, batch_size=16, accumulate=accumulate))


def test_frozen_statistics_need_no_second_example(tmp_path, strangers):
    settings = {"m": 1, "bn_stats": "frozen"}
    train(_config("sam", settings, strangers, batch_size=16), tmp_path / "run")
