"""The image data sets that torchvision reads: MNIST and kin, CIFAR, SVHN."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.data.augment import Augment, crop, crop_and_flip
from ssgd_analysis.data.dataset import Dataset, Split
from ssgd_analysis.errors import InputError


@dataclass(frozen=True)
class Images:
    """One torchvision data set: call it with a folder to get the examples.

    Pixels are scaled to [0, 1], then each channel to mean 0 and variance 1 over train.

    Args:
        name: registered name.
        source: the name of torchvision's class.
        files: where its files belong, below the data folder.
        augment: the usual augmentation for training.
        by_split: the class takes ``split="train"`` instead of ``train=True``.
    """

    name: str
    source: str
    files: str
    augment: Augment | None = None
    by_split: bool = False

    def __call__(self, folder: Path) -> Dataset:
        """Read the files, after downloading them if they are not there.

        Args:
            folder: the data folder.

        Raises:
            InputError: the files are neither there nor to be had.
        """
        train, train_labels = self._part(folder, train=True)
        test, test_labels = self._part(folder, train=False)
        mean = train.mean(dim=(0, 2, 3), keepdim=True)
        deviation = train.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-8)
        return Dataset(
            self.name,
            Split((train - mean) / deviation, train_labels),
            Split((test - mean) / deviation, test_labels),
            augment=self.augment,
        )

    def _part(self, folder: Path, *, train: bool) -> tuple[Tensor, Tensor]:
        from torchvision import datasets  # takes 1.5 s to import

        source = getattr(datasets, self.source)
        which = {"split": "train" if train else "test"} if self.by_split else {"train": train}
        try:
            found = source(str(folder), **which, download=False)
        except Exception as unread:  # torchvision's RuntimeError, or whatever a bad file causes
            if "not found" not in str(unread):
                raise InputError(
                    f"{self.name} in {folder} cannot be read"
                    f" ({type(unread).__name__}: {unread}): put the published files there"
                ) from unread
            try:
                folder.mkdir(parents=True, exist_ok=True)
                found = source(str(folder), **which, download=True)
            except Exception as error:
                raise InputError(
                    f"{self.name} is not in {folder}, or damaged, and could not be downloaded"
                    f" ({type(error).__name__}): put {self.files} below {folder},"
                    " or name another folder with --data-dir"
                ) from error
        labels = found.labels if self.by_split else found.targets
        return _channels_first(found.data), torch.as_tensor(np.asarray(labels), dtype=torch.int64)


def _channels_first(data: Tensor | np.ndarray) -> Tensor:
    """Images as floats in [0, 1], shape (N, channels, height, width)."""
    pixels = torch.as_tensor(np.asarray(data))
    if pixels.ndim == 3:  # grey
        pixels = pixels[:, None]
    elif pixels.shape[-1] == 3:  # CIFAR keeps channels last, SVHN first
        pixels = pixels.permute(0, 3, 1, 2)
    return pixels.float() / 255


IMAGES = [
    Images("mnist", "MNIST", "MNIST/raw/*-ubyte"),
    Images("fashion_mnist", "FashionMNIST", "FashionMNIST/raw/*-ubyte"),
    Images("kmnist", "KMNIST", "KMNIST/raw/*-ubyte"),
    Images("cifar10", "CIFAR10", "cifar-10-batches-py/", crop_and_flip),
    Images("cifar100", "CIFAR100", "cifar-100-python/", crop_and_flip),
    Images("svhn", "SVHN", "train_32x32.mat and test_32x32.mat", crop, by_split=True),
]
