"""Generated images instead of real ones: small, with classes that can be learned."""

from functools import partial
from pathlib import Path

import torch

from ssgd_analysis.data.augment import crop
from ssgd_analysis.data.dataset import Dataset, Split

NOISE = 1.0  # standard deviation of a pixel around its class's pattern, whose own is 1


def stand_in(
    name: str,
    *,
    classes: int,
    size: int = 8,
    train: int = 1280,
    test: int = 128,
) -> Dataset:
    """Images of smooth random patterns, one a class, in noise: it proves a file, not a method.

    Each channel of a class's pattern is a random image of 4×4, enlarged and of mean 0 and
    deviation 1. The same on every machine: fixed seeds.

    Args:
        name: registered name.
        classes: the number of classes; every class has its share of the examples.
        size: pixels of a side.
        train: training examples.
        test: test examples.
    """
    generator = torch.Generator().manual_seed(classes)
    coarse = torch.randn(classes, 3, 4, 4, generator=generator)
    patterns = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    patterns = (patterns - patterns.mean(dim=(2, 3), keepdim=True)) / patterns.std(
        dim=(2, 3), keepdim=True
    )

    def split(count: int) -> Split:
        labels = torch.arange(count) % classes
        noise = torch.randn(count, 3, size, size, generator=generator)
        return Split(patterns[labels] + NOISE * noise, labels)

    return Dataset(name, split(train), split(test), augment=partial(crop, padding=size // 8))


def standin_cifar10(folder: Path) -> Dataset:
    """Ten classes instead of CIFAR-10; see :func:`stand_in`.

    Args:
        folder: not needed.
    """
    return stand_in("standin-cifar10", classes=10)


def standin_cifar100(folder: Path) -> Dataset:
    """A hundred classes instead of CIFAR-100, 32×32; see :func:`stand_in`.

    Args:
        folder: not needed.
    """
    return stand_in("standin-cifar100", classes=100, size=32, train=200, test=100)
