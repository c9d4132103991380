"""Small generated data sets: MNIST-1D and two moons."""

import random
from pathlib import Path

import numpy as np
import torch

from ssgd_analysis.data.dataset import Dataset, Split


def mnist1d(folder: Path) -> Dataset:
    """MNIST-1D (Greydanus and Kobak, arXiv 2011.14439), generated: 4,000 train, 1,000 test.

    Ten classes, inputs of 40 values, the package's own default settings and seed.

    Args:
        folder: not needed.
    """
    from mnist1d.data import get_dataset_args, make_dataset  # takes most of a second to load

    # The package seeds Python's and numpy's global generators; both are given back.
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        made = make_dataset(get_dataset_args())
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002

    def split(inputs: str, targets: str) -> Split:
        return Split(
            torch.tensor(made[inputs], dtype=torch.float32),
            torch.tensor(made[targets], dtype=torch.int64),
        )

    return Dataset("mnist1d", split("x", "y"), split("x_test", "y_test"))


def two_moons(folder: Path) -> Dataset:
    """Two interleaved half circles in the plane with Gaussian noise of 0.15: 500 train, 500 test.

    Args:
        folder: not needed.
    """
    from sklearn.datasets import make_moons  # takes 1.4 s to import

    def split(seed: int) -> Split:
        points, labels = make_moons(500, noise=0.15, random_state=seed)
        return Split(
            torch.tensor(points, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64)
        )

    return Dataset("two_moons", split(0), split(1))
