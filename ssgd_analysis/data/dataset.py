"""A data set is a few splits, each a pair of tensors."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ssgd_analysis.data.augment import Augment
from ssgd_analysis.errors import InputError


@dataclass(frozen=True)
class Split:
    """Examples as tensors.

    Args:
        inputs: shape (N, …).
        targets: shape (N, …); integers are class labels, floats are values to regress.

    Raises:
        InputError: no examples, or as many inputs as targets there are not.
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if self.inputs.ndim == 0 or self.targets.ndim == 0 or len(self.inputs) == 0:
            raise InputError("the data is empty: no examples in a split")
        if len(self.inputs) != len(self.targets):
            raise InputError(
                f"the data has {len(self.inputs)} inputs but {len(self.targets)} targets"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    def first(self, samples: int | None) -> "Split":
        """The first ``samples`` examples (``None``: all).

        Raises:
            InputError: there are not that many.
        """
        if samples is None:
            return self
        if samples > len(self):
            raise InputError(f"--samples {samples} is more than the {len(self)} examples there are")
        return Split(self.inputs[:samples], self.targets[:samples])

    def take(self, index: Tensor) -> "Split":
        """The examples at these positions, shape (n,), int64."""
        return Split(self.inputs[index], self.targets[index])

    def batches(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """The examples in order, in batches of ``size``; the last one may be shorter."""
        return list(zip(self.inputs.split(size), self.targets.split(size), strict=True))

    def minibatches(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One shuffled epoch of minibatches, all of exactly ``size`` examples.

        What is left over is dropped for this epoch (another remainder each time): a tiny last
        batch would carry a larger gradient noise than the batch size under study.

        Args:
            size: examples of a minibatch, at most ``len(self)``.
            generator: on the CPU, so that the order is the same on every device.
        """
        order = torch.randperm(len(self), generator=generator).to(self.inputs.device)
        for index in order.split(size)[: len(self) // size]:
            yield self.inputs[index], self.targets[index]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Split":
        """On a device; ``dtype`` applies to floating-point tensors only."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype if tensor.is_floating_point() else None)

        return Split(move(self.inputs), move(self.targets))


@dataclass(frozen=True)
class Dataset:
    """Train and test examples, and how training may vary them.

    Args:
        name: registered name or reference.
        train: training examples.
        test: test examples.
        augment: what training does to a minibatch of inputs, or ``None``.
        val: examples held out of train for choosing hyper-parameters, or ``None``.
    """

    name: str
    train: Split
    test: Split
    augment: Augment | None = None
    val: Split | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def classification(self) -> bool:
        """Whether the targets are class labels."""
        return not self.train.targets.is_floating_point()

    @property
    def num_outputs(self) -> int:
        """Classes, or values to regress for each example."""
        if self.classification:
            splits = [split for split in (self.train, self.test, self.val) if split is not None]
            return max(int(split.targets.max()) for split in splits) + 1
        return self.train.targets.shape[1] if self.train.targets.ndim > 1 else 1

    def split(self, name: str) -> Split:
        """``train``, ``val`` or ``test``.

        Raises:
            InputError: no such split, or none was held out.
        """
        found = {"train": self.train, "val": self.val, "test": self.test}.get(name)
        if found is None:
            raise InputError(f"there is no split '{name}' (train, test; val with --val)")
        return found

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Dataset":
        """Every split on a device."""
        return dataclasses.replace(
            self,
            train=self.train.to(device, dtype),
            test=self.test.to(device, dtype),
            val=None if self.val is None else self.val.to(device, dtype),
        )

    def with_validation(self, share: float, generator: torch.Generator) -> "Dataset":
        """Hold out a stratified share of train, for choosing hyper-parameters.

        Args:
            share: in [0, 1).
            generator: on the CPU; picks the examples.

        Raises:
            InputError: a share outside [0, 1), or one that leaves a side empty.
        """
        if not 0 <= share < 1:
            raise InputError(f"--val {share} should be in [0, 1)")
        if share == 0:
            return self
        held = _stratified(self.train.targets, share, generator)
        if not 0 < len(held) < len(self.train):
            raise InputError(f"--val {share} of {len(self.train)} examples leaves a side empty")
        kept = torch.ones(len(self.train), dtype=torch.bool)
        kept[held] = False
        return dataclasses.replace(
            self, train=self.train.take(kept.nonzero()[:, 0]), val=self.train.take(held)
        )

    def with_label_noise(self, share: float, generator: torch.Generator) -> "Dataset":
        """Give a share of the training labels another class, uniformly; test is never touched.

        Exactly ``round(share · N)`` labels change, each to a class that it was not.

        Args:
            share: in [0, 1].
            generator: on the CPU; picks examples and classes.

        Raises:
            InputError: a share outside [0, 1], or targets that are not class labels.
        """
        if not 0 <= share <= 1:
            raise InputError(f"--label-noise {share} should be in [0, 1]")
        if share == 0:
            return self
        if not self.classification or self.train.targets.ndim != 1 or self.num_outputs < 2:
            raise InputError("--label-noise needs one class label for each example")
        labels = self.train.targets.clone()
        flipped = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
        shift = torch.randint(1, self.num_outputs, (len(flipped),), generator=generator)
        labels[flipped] = (labels[flipped] + shift) % self.num_outputs
        return dataclasses.replace(self, train=Split(self.train.inputs, labels))


def _stratified(targets: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Positions, sorted, of a share of the examples, the same share of every class."""
    order = torch.randperm(len(targets), generator=generator)
    if targets.is_floating_point() or targets.ndim != 1:
        return order[: round(share * len(targets))].sort().values
    # Within each class, every example gets a rank in (0, 1]; the lowest ranks are held out.
    # Ranks of all classes are compared at once, so the total is right to one example.
    rank = torch.empty(len(targets), dtype=torch.float64)
    for label in targets.unique():
        members = order[targets[order] == label]
        rank[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return rank.argsort(stable=True)[: round(share * len(targets))].sort().values
