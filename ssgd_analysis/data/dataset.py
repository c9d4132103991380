"""A data set is a few splits, each a pair of tensors, or tensors in any other structure."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch
from ssgd_analysis.data.augment import Augment
from ssgd_analysis.data.batched import BatchedSplit
from ssgd_analysis.errors import InputError

# Entries of inputs that are gathered at once: fewer, larger operations, and little memory.
GATHERED = 2**20


@dataclass(frozen=True)
class Split:
    """Examples as tensors.

    Args:
        inputs: shape (N, …); without ``targets`` whatever a loss of (model, batch) takes: tensors
            in dictionaries and tuples, each of shape (N, …).
        targets: shape (N, …); integers are class labels, floats are values to regress.

    Raises:
        InputError: no examples, or another number of targets than of inputs.
    """

    inputs: Batch
    targets: Tensor | None = None
    alike: ClassVar[bool] = True  # all examples have one shape

    def __post_init__(self) -> None:
        if self.targets is None:
            lengths = [len(t) if t.ndim else None for t in batching.tensors(self.inputs)]
            if not lengths or 0 in lengths:
                raise InputError("the data is empty: no examples in a split")
            if None in lengths or len(set(lengths)) > 1:
                shapes = [tuple(tensor.shape) for tensor in batching.tensors(self.inputs)]
                raise InputError(
                    "every tensor should have one entry for each example along its first axis:"
                    f" shapes {', '.join(map(str, shapes))}"
                )
            return
        if self.inputs.ndim == 0 or self.targets.ndim == 0 or len(self.inputs) == 0:
            raise InputError("the data is empty: no examples in a split")
        if len(self.inputs) != len(self.targets):
            raise InputError(
                f"the data has {len(self.inputs)} inputs but {len(self.targets)} targets"
            )

    def __len__(self) -> int:
        return batching.examples(self.inputs)

    @property
    def classes(self) -> int | None:
        """The number of classes; ``None`` where targets are no class labels."""
        if self.targets is None or self.targets.is_floating_point():
            return None
        return int(self.targets.max()) + 1

    def steps(self, size: int) -> int:
        """Minibatches of ``size`` examples in an epoch."""
        return len(self) // size

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Split":
        """The same structure of other tensors."""
        inputs = batching.mapped(self.inputs, [change(t) for t in batching.tensors(self.inputs)])
        return Split(inputs, None if self.targets is None else change(self.targets))

    def first(self, samples: int | None) -> "Split":
        """The first ``samples`` examples (``None``: all).

        Raises:
            InputError: there are not that many.
        """
        if samples is None:
            return self
        if samples > len(self):
            raise InputError(f"--samples {samples} is more than the {len(self)} examples there are")
        return self._each(lambda tensor: tensor[:samples])

    def take(self, index: Tensor) -> "Split":
        """The examples at these positions, shape (n,), int64."""
        return self._each(lambda tensor: tensor[index])

    def batches(self, size: int) -> list[Batch]:
        """The examples in order, in batches of ``size``; the last one may be shorter.

        Batches are (inputs, targets) pairs, or have the structure of ``inputs`` alone.
        """
        if self.targets is None:
            return batching.pieces(self.inputs, size)
        return list(zip(self.inputs.split(size), self.targets.split(size), strict=True))

    def minibatches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """One shuffled epoch of minibatches, all of exactly ``size`` examples.

        What is left over is dropped for this epoch (another remainder each time): a tiny last
        batch would carry a larger gradient noise than the batch size under study.

        Args:
            size: examples of a minibatch, at most ``len(self)``.
            generator: on the CPU, so that the order is the same on every device.
        """
        steps = len(self) // size
        given = batching.tensors(self.inputs)
        entries = max(sum(tensor[0].numel() for tensor in given), 1)
        many = max(GATHERED // (size * entries), 1)  # minibatches that are gathered at once
        order = torch.randperm(len(self), generator=generator).to(
            batching.tensors(self.inputs)[0].device
        )
        for index in order[: steps * size].split(many * size) if steps else ():
            yield from self.take(index).batches(size)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Split":
        """On a device; ``dtype`` applies to floating-point tensors only."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype if tensor.is_floating_point() else None)

        return self._each(move)


@dataclass(frozen=True)
class Dataset:
    """Train and test examples, and the augmentation for training.

    Args:
        name: registered name or reference.
        train: training examples.
        test: test examples, or ``None``: they can be measured nowhere.
        augment: what training does to a minibatch of inputs, or ``None``.
        val: examples held out of train for choosing hyper-parameters, or ``None``.
    """

    name: str
    train: Split | BatchedSplit
    test: Split | BatchedSplit | None = None
    augment: Augment | None = None
    val: Split | BatchedSplit | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input (of an example's first tensor), without the batch axis."""
        return tuple(batching.tensors(self.train.inputs)[0].shape[1:])

    @property
    def classification(self) -> bool:
        """Whether the targets are class labels."""
        return self.train.targets is not None and not self.train.targets.is_floating_point()

    @property
    def num_outputs(self) -> int | None:
        """Classes, or values to regress for each example; ``None`` without targets."""
        if self.train.targets is None:
            return None
        if self.classification:
            splits = [split for split in (self.train, self.test, self.val) if split is not None]
            return max(split.classes or 0 for split in splits)
        return self.train.targets.shape[1] if self.train.targets.ndim > 1 else 1

    def split(self, name: str) -> Split | BatchedSplit:
        """``train``, ``val`` or ``test``.

        Raises:
            InputError: no such split, or none was held out.
        """
        found = {"train": self.train, "val": self.val, "test": self.test}.get(name)
        if found is None and name == "test":
            raise InputError(
                f"data '{self.name}' has no test examples: return (train, test), or use --split"
                " train"
            )
        if found is None:
            raise InputError(
                f"there is no split '{name}': choose train or test, or val after train --val"
            )
        return found

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Dataset":
        """Every split on a device."""
        return dataclasses.replace(
            self,
            train=self.train.to(device, dtype),
            test=None if self.test is None else self.test.to(device, dtype),
            val=None if self.val is None else self.val.to(device, dtype),
        )

    def _held(self, option: str) -> Split:
        """The training examples, where they are held one by one.

        Raises:
            InputError: they come in batches.
        """
        if isinstance(self.train, BatchedSplit):
            raise InputError(
                f"{option} draws single examples, but {self.train.name} comes in batches that are"
                " not joined in memory: leave it out, or return examples of one shape without"
                " --stream"
            )
        return self.train

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
        kinds = self._held("--val").targets
        if kinds is None:  # nothing to stratify by
            kinds = torch.zeros(len(self.train))
        held = _stratified(kinds, share, generator)
        if not 0 < len(held) < len(self.train):
            raise InputError(f"--val {share} of {len(self.train)} examples leaves one part empty")
        trained = torch.ones(len(self.train), dtype=torch.bool)
        trained[held] = False
        return dataclasses.replace(
            self, train=self.train.take(trained.nonzero()[:, 0]), val=self.train.take(held)
        )

    def with_train_samples(self, count: int, generator: torch.Generator) -> "Dataset":
        """Train on a stratified subset, in the order of the whole.

        Args:
            count: the number of examples; 0: all.
            generator: on the CPU; picks the examples.

        Raises:
            InputError: there are not so many.
        """
        total = len(self.train)
        if count == 0:
            return self
        if count > total:
            raise InputError(f"--train-samples {count} is more than the {total} training examples")
        kinds = self._held("--train-samples").targets
        kinds = torch.zeros(total) if kinds is None else kinds
        index = _stratified(kinds, count / total, generator)
        return dataclasses.replace(self, train=self.train.take(index))

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
        targets = self._held("--label-noise").targets
        classes = (self.num_outputs or 0) if self.classification else 0
        one_each = targets is not None and targets.ndim == 1 and int(targets.min()) >= 0
        if targets is None or not one_each or classes < 2:
            raise InputError("--label-noise needs one class label for each example")
        labels = targets.clone()
        flipped = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
        shift = torch.randint(1, classes, (len(flipped),), generator=generator)
        labels[flipped] = (labels[flipped] + shift) % classes
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
