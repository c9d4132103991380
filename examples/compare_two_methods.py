"""Compare SGD with S-SGD over three seeds at equal cost, and draw a landscape of one pair.

Run it with ``python examples/compare_two_methods.py``; it takes some seconds on one core and writes
into a new folder here. The commands are those of the command line.
"""

import tempfile
from pathlib import Path

from ssgd_analysis.cli.main import cli

from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.training import train

folder = Path(tempfile.mkdtemp(prefix="comparison-", dir="."))
SEEDS = range(3)
# S-SGD makes two passes a step, so it gets half the epochs; checkpoints let us match train losses.
METHODS = {"sgd": ({}, 20), "s-sgd": ({"noise_scale": 0.3}, 10)}

for method, (settings, epochs) in METHODS.items():
    for seed in SEEDS:
        config = TrainConfig(
            method=method,
            settings=settings,
            data="digits",
            model="mlp",
            epochs=epochs,
            save_every=1,
            seed=seed,
        )
        final = train(config, folder / "runs" / f"{method}-{seed}")["final"]
        print(f"{method:6} seed {seed}: test accuracy {final['test_accuracy']:.1%}")


def analyze(*arguments: str) -> None:
    """Run one command of ``ssgd-analyze`` in this process."""
    cli.main(list(arguments), standalone_mode=False)


runs = folder / "runs"
# `expected` does not move when weights are rescaled, so it can decide. --match-loss goes back to
# checkpoints of equal train loss: at different losses flatness says nothing about the methods.
analyze(
    "compare", str(runs), "--metric", "expected", "--metric", "test_accuracy", "--match-loss",
    "--out", str(folder / "report"),
)  # fmt: skip
# Both networks along the same five random directions, on one scale.
analyze(
    "landscape", str(runs / "sgd-0"), str(runs / "s-sgd-0"), "--repeats", "5", "--points", "11",
    "--out", str(folder / "pictures"),
)  # fmt: skip
