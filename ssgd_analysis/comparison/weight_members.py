"""Weights that anyone trained, as members of a group: files, and models in memory."""

import abc
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ssgd_analysis.batch import regrouped
from ssgd_analysis.code_hash import code_hash
from ssgd_analysis.comparison.members import Opened, content_hash
from ssgd_analysis.comparison.networks import Network, network_of_tensors
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem
from ssgd_analysis.runs.checkpoint import Checkpoint, load_checkpoint
from ssgd_analysis.settings.comparison import MeasurementSettings
from ssgd_analysis.store import KeyedStore, digest

TRAINING_ONLY = ("gradients", "val_accuracy", "val_loss")


@dataclass(frozen=True)
class WeightMember(abc.ABC):
    """Weights without a history: losses, accuracies and the norm are measured, once.

    Args:
        name: for sentences.
        place: for records.
        seed: is added to the seed of measurements: the place in the group.
    """

    name: str
    place: str
    seed: int

    @property
    @abc.abstractmethod
    def loss(self) -> str:
        """Name or reference of the loss."""

    @abc.abstractmethod
    def open(self, settings: MeasurementSettings, step: int | None = None) -> Opened:
        """The network with these weights; there are no steps."""

    @abc.abstractmethod
    def key(self, step: int | None = None) -> dict[str, Any]:
        """All that measurements depend on."""

    @property
    @abc.abstractmethod
    def store(self) -> KeyedStore | None:
        """Where measurements are stored; ``None``: nowhere."""

    @abc.abstractmethod
    def evaluated(self) -> "Evaluated":
        """The losses, accuracies and the network of these weights."""

    def step(self, step: int | None = None) -> int:
        """Zero: nothing else is saved."""
        return 0

    def saved_steps(self) -> list[int]:
        """Nothing is saved.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{self.name} has no saved checkpoints, which --match-loss chooses among: add"
            " --match-by temperature"
        )

    def outcome(self, metric: str, step: int | None = None) -> float | None:
        """Measured in evaluation mode over the whole split; ``None``: only a training has it."""
        return self.evaluation.outcomes.get(metric)

    def why_missing(self, metric: str) -> str:
        """Why there is no value of a metric."""
        if metric in TRAINING_ONLY:
            return "weights do not say: only the history of a run has it"
        return "there are no examples or no labels to measure it on, or it is not finite"

    def network(self) -> Network:
        """Names and shapes of the weights."""
        return self.evaluation.network

    @functools.cached_property
    def evaluation(self) -> "Evaluated":
        """What one pass over the splits says of these weights.

        Raises:
            InputError: weights that do not fit the model, or at which the loss is not finite.
        """
        found = self.evaluated()
        loss = found.outcomes["train_loss"]
        if loss is None or not math.isfinite(loss):
            raise InputError(
                f"{self.place}: the train loss is {loss}, so there is nothing to compare: leave it"
                " out, or check that weights, model, data and loss belong together"
            )
        return found


@dataclass(frozen=True)
class Evaluated:
    """What the splits say of some weights.

    Args:
        outcomes: losses in nats, accuracies, and the L2 norm of the weights, by name.
        network: names and shapes.
        notes: what was assumed when the weights were read.
    """

    outcomes: dict[str, float | None]
    network: Network
    notes: tuple[str, ...] = ()


def evaluate(train: Problem, test: Problem | None, notes: tuple[str, ...] = ()) -> Evaluated:
    """Losses and accuracies on both splits, as the history of a run records them."""
    outcomes: dict[str, float | None] = {}
    for split, problem in {"train": train, "test": test}.items():
        found = (None, None) if problem is None else problem.evaluate()
        outcomes[f"{split}_loss"], outcomes[f"{split}_accuracy"] = found
    outcomes["weight_norm"] = train.weight_norm()
    return Evaluated(outcomes, network_of_tensors(train.model.state_dict()), notes)


@dataclass(frozen=True, kw_only=True)
class WeightReferences:
    """What weight files belong to: names or references, as of :func:`load_checkpoint`.

    Args:
        model: of all files.
        data: the same.
        loss: the same.
        count: the same.
        weights: key of the weights in files that hold several sets.
        stream: read the data at every pass, instead of holding it.
        settings: device and folder of data files.
        loaded: data that is in memory, so that all files share it.
    """

    model: str
    data: str
    loss: str = "cross_entropy"
    count: str | None = None
    weights: str | None = None
    stream: bool | None = None
    settings: MeasurementSettings = field(default_factory=MeasurementSettings)
    loaded: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def open(self, path: str) -> Checkpoint:
        """A file in its model."""
        return load_checkpoint(
            path,
            model=self.model,
            data=self.data,
            loss=self.loss,
            count=self.count,
            weights=self.weights,
            stream=self.stream,
            device=self.settings.device,
            data_dir=self.settings.data_dir,
            loaded=self.loaded,
        )


@dataclass(frozen=True)
class FileMember(WeightMember):
    """A weight file of any origin, or another checkpoint.

    Args:
        belongs: its model, data and loss.
        folder: where measurements are stored; ``None``: nowhere.
    """

    belongs: WeightReferences
    folder: Path | None = None

    @property
    def loss(self) -> str:
        """The reference that was given."""
        return self.belongs.loss

    def open(self, settings: MeasurementSettings, step: int | None = None) -> Checkpoint:
        """The file in its model."""
        return self.belongs.open(self.place)

    def evaluated(self) -> Evaluated:
        """Both splits at the weights of the file."""
        opened = self.belongs.open(self.place)
        return evaluate(opened.problem("train"), opened.problem("test"), opened.notes)

    def key(self, step: int | None = None) -> dict[str, Any]:
        """The file's content, the code of what it belongs to, and its place in the group."""
        names = (self.belongs.model, self.belongs.data, self.belongs.loss)
        return {
            "problem": [code_hash(name) for name in names],
            "count": self.belongs.count,
            "key": self.belongs.weights,
            "stream": self.belongs.stream,
            "weights": content_hash(Path(self.place)),
            "seed": self.seed,
        }

    @property
    def store(self) -> KeyedStore | None:
        """In a folder of its own below the given one."""
        if self.folder is None:
            return None
        own = digest({"file": str(Path(self.place).resolve())})[:8]
        return KeyedStore(self.folder / "measurements" / f"{Path(self.place).stem}-{own}")


@dataclass(frozen=True)
class ModelMember(WeightMember):
    """A model in memory, measured on the loss and the examples of a given problem.

    Args:
        model: gives the model.
        train: a problem on the training examples.
        test: a problem on the test examples.
    """

    model: Callable[[], nn.Module]
    train: Problem
    test: Problem | None = None

    @property
    def loss(self) -> str:
        """The name of the function or class; ``cross_entropy`` of torch's without options."""
        return loss_name(self.train.loss)

    def open(self, settings: MeasurementSettings, step: int | None = None) -> Opened:
        """The model with the splits of the problem."""
        return _InMemory(self.model(), self.train, self.test)

    def evaluated(self) -> Evaluated:
        """Both splits at the weights of the model."""
        opened = _InMemory(self.model(), self.train, self.test)
        return evaluate(opened.problem("train"), opened.problem("test") if self.test else None)

    def key(self, step: int | None = None) -> dict[str, Any]:
        """Nothing: measurements of models in memory are not stored."""
        return {}

    @property
    def store(self) -> None:
        """Nowhere."""


@dataclass(frozen=True)
class _InMemory:
    """A model, and the problems whose loss and examples it is measured on."""

    model: nn.Module
    train: Problem
    test: Problem | None

    def problem(self, split: str = "train", *, samples: int | None = None) -> Problem:
        """See :class:`Opened`."""
        given = {"train": self.train, "test": self.test}.get(split)
        if given is None:
            raise InputError(f"there are no {split} examples: give {split}=Problem(...)")
        batches = given.batches
        if samples is not None:
            if samples > given.n_samples:
                raise InputError(f"there are {given.n_samples} {split} examples, not {samples}")
            batches = regrouped(batches, samples, map(given.examples, batches))[0]
        own = Problem(self.model, given.loss, batches, count=given.count)
        # a problem of some layers only
        part = len(given.parameters) < sum(p.requires_grad for p in given.model.parameters())
        return own.restricted(given.parameters) if part else own


def loss_name(loss: Any) -> str:
    """The name of a function or class; ``cross_entropy`` of torch's own without options."""
    if isinstance(loss, nn.CrossEntropyLoss):
        plain = loss.weight is None and not loss.label_smoothing and loss.ignore_index == -100
        return "cross_entropy" if plain else "CrossEntropyLoss with options"
    name = str(getattr(loss, "__name__", type(loss).__name__))
    own = str(getattr(loss, "__module__", "")).partition(".")[0]
    ours = own in ("torch", "ssgd_analysis")
    return f"{own}:{name}" if name == "cross_entropy" and not ours else name
