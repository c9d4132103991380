"""Real handwritten digits that ship with scikit-learn: 1,797 images of 8×8 pixels."""

import functools
from pathlib import Path

import torch
from torch import Tensor

from ssgd_analysis.data.dataset import Dataset, Split


def digits(folder: Path) -> Dataset:
    """The digits, 1,297 train and 500 test, split once and for all, stratified by class.

    Pixels are scaled to [0, 1]. Source: UCI "Optical Recognition of Handwritten Digits",
    test part, as shipped by scikit-learn.

    Args:
        folder: not needed.
    """
    made = _made()  # copies: what a run does to its examples is not another's
    train, test = (Split(x.clone(), y.clone()) for x, y in made)
    return Dataset("digits", train, test)


@functools.cache
def _made() -> list[tuple[Tensor, Tensor]]:
    """Inputs and targets of both splits; reading the package's text file takes 8 ms."""
    from sklearn.datasets import load_digits  # takes 1.4 s to import
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=500, random_state=0, stratify=labels)
    inputs = [
        torch.tensor(part / 16, dtype=torch.float32).reshape(-1, 1, 8, 8) for part in parts[:2]
    ]
    targets = [torch.tensor(part, dtype=torch.int64) for part in parts[2:]]
    return list(zip(inputs, targets, strict=True))
