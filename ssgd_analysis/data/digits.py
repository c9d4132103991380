"""Real handwritten digits that ship with scikit-learn: 1,797 images of 8×8 pixels."""

import functools
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.data.dataset import Dataset, Split
from ssgd_analysis.errors import InputError

TEST = 500  # images of the test split


def digits(folder: Path) -> Dataset:
    """The digits, 1,297 train and 500 test, split once and for all, stratified by class.

    Pixels are scaled to [0, 1]. Source: UCI "Optical Recognition of Handwritten Digits",
    test part, as shipped by scikit-learn.

    Args:
        folder: not needed.

    Raises:
        InputError: scikit-learn is not installed.
    """
    made = _made()  # copies: what a run does to its examples is not another's
    train, test = (Split(x.clone(), y.clone()) for x, y in made)
    return Dataset("digits", train, test)


@functools.cache
def _made() -> list[tuple[Tensor, Tensor]]:
    """Inputs and targets of both splits, read from the file alone: its package loads in 1.4 s."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise InputError("data 'digits' ships with scikit-learn: pip install scikit-learn")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(path, delimiter=",")
    inputs = torch.tensor(table[:, :-1] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    targets = torch.tensor(table[:, -1], dtype=torch.int64)
    return [(inputs[rows], targets[rows]) for rows in map(torch.from_numpy, _split(table[:, -1]))]


def _split(labels: np.ndarray) -> list[np.ndarray]:
    """The rows of both splits: those of scikit-learn's ``train_test_split`` with seed 0."""
    generator = np.random.RandomState(0)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    counts = np.array([len(rows) for rows in classes])
    trained = _shares(counts, len(labels) - TEST, generator)
    _shares(counts - trained, TEST, generator)  # all that are left; it may draw
    shuffled = [rows[generator.permutation(len(rows))] for rows in classes]
    train = [rows[:count] for rows, count in zip(shuffled, trained, strict=True)]
    test = [rows[count:] for rows, count in zip(shuffled, trained, strict=True)]
    return [generator.permutation(np.concatenate(part)) for part in (train, test)]


def _shares(counts: np.ndarray, total: int, generator: np.random.RandomState) -> np.ndarray:
    """How many of each class make ``total``: whole shares, then the largest remainders."""
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    remainders = exact - shares
    for value in np.sort(np.unique(remainders))[::-1]:
        missing = int(total - shares.sum())
        if missing == 0:
            break
        (tied,) = np.where(remainders == value)
        shares[generator.choice(tied, min(len(tied), missing), replace=False)] += 1
    return shares.astype(int)
