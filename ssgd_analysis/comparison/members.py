"""What is compared: groups, and their members, which can be opened and measured."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ssgd_analysis.code_hash import code_hash
from ssgd_analysis.comparison.circular import Training
from ssgd_analysis.comparison.networks import Network, network_of
from ssgd_analysis.problem import Problem
from ssgd_analysis.runs import Run
from ssgd_analysis.runs.checkpoint import load_checkpoint
from ssgd_analysis.settings.comparison import MeasurementSettings
from ssgd_analysis.store import KeyedStore


class Opened(Protocol):
    """A network with the splits that it can be measured on, such as a checkpoint."""

    def problem(self, split: str = "train", *, samples: int | None = None) -> Problem:
        """The loss over a split, or over its first examples.

        Raises:
            InputError: no such split, or not so many examples.
        """


class Member(Protocol):
    """One repeat of a training: a finished run, a weight file, or a model in memory.

    Every method that takes a ``step`` means a saved checkpoint; ``None`` means the final weights.
    """

    @property
    def name(self) -> str:
        """A short name, for sentences."""

    @property
    def place(self) -> str:
        """Where it is, for records; no two members of a comparison share it."""

    @property
    def seed(self) -> int:
        """Is added to the seed of measurements."""

    @property
    def loss(self) -> str:
        """Name or reference of the loss."""

    def step(self, step: int | None = None) -> int:
        """The number of a checkpoint's step: of ``None`` that of the final weights."""

    def open(self, settings: MeasurementSettings, step: int | None = None) -> Opened:
        """The network on the device of the settings.

        Raises:
            InputError: weights that are not there, or do not fit the model.
        """

    def outcome(self, metric: str, step: int | None = None) -> float | None:
        """A loss, an accuracy or another metric of the history; ``None``: there is no value.

        Raises:
            InputError: a damaged file.
        """

    def why_missing(self, metric: str) -> str:
        """Why there may be no value of a metric."""

    def network(self) -> Network:
        """Names and shapes of the final weights.

        Raises:
            InputError: a damaged file.
        """

    def saved_steps(self) -> list[int]:
        """The steps of the saved checkpoints, in order.

        Raises:
            InputError: it has none by its nature.
        """

    def key(self, step: int | None = None) -> dict[str, Any]:
        """All that its measurements depend on, as plain values."""

    @property
    def store(self) -> KeyedStore | None:
        """Where its measurements are stored; ``None``: nowhere."""


class MemberGroup(Protocol):
    """Repeats of one training, compared with those of another one."""

    @property
    def name(self) -> str:
        """For tables; no two groups of a comparison share it."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the group alone is called: its name, and maybe a label."""

    @property
    def method(self) -> str:
        """The name of the method, which other groups may share; empty: it is not known."""

    @property
    def members(self) -> Mapping[int, Member]:
        """By seed where the group is seeded, otherwise by their place in its order."""

    @property
    def seeded(self) -> bool:
        """Whether members of two seeded groups under the same number share a seed."""

    @property
    def condition(self) -> str:
        """The baseline is sought among groups of the same condition."""

    @property
    def training(self) -> Training | None:
        """What the members were trained with; ``None``: it is not known."""

    @property
    def problem(self) -> Mapping[str, Any]:
        """What fixes the loss as a function of the weights; equal ones can be compared."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings that are known; the baseline is the group that shares most of them."""

    @property
    def remarks(self) -> list[str]:
        """What a reader has to know of the group, one sentence each."""


@dataclass(frozen=True)
class RunMember:
    """A finished run as a member of a group.

    Args:
        run: the run.

    Example:
        >>> RunMember(Run(Path("runs/sgd/seed-0"))).name
        'seed-0'
    """

    run: Run

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.run.folder.name

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.run.folder)

    @property
    def seed(self) -> int:
        """The seed that the run was trained with."""
        return self.run.config().seed

    @property
    def loss(self) -> str:
        """Name or reference of the loss."""
        return self.run.config().loss

    def step(self, step: int | None = None) -> int:
        """A step itself, or that of the final weights."""
        return int(self.run.history()[-1]["step"]) if step is None else step

    def open(self, settings: MeasurementSettings, step: int | None = None) -> Opened:
        """The checkpoint of a step."""
        return load_checkpoint(
            f"{self.run.folder}@{self.step(step)}",
            device=settings.device,
            data_dir=settings.data_dir,
        )

    def outcome(self, metric: str, step: int | None = None) -> float | None:
        """The value that the history recorded, in evaluation mode and over the whole split."""
        recorded = zip(self.run.history(), self.run.recorded(metric), strict=True)
        values = [value for record, value in recorded if step in (None, record["step"])]
        return values[-1] if values else None

    def why_missing(self, metric: str) -> str:
        """The history lacks it."""
        return "it was not recorded, or is not finite"

    def network(self) -> Network:
        """Of the file of the final weights."""
        return network_of(self.run.final)

    def saved_steps(self) -> list[int]:
        """Every step that has a file."""
        saved = self.run.checkpoints()
        return [record["step"] for record in self.run.history() if record["step"] in saved]

    def key(self, step: int | None = None) -> dict[str, Any]:
        """The problem, the examples and the weights."""
        config = self.run.config()
        path = self.run.checkpoints().get(self.step(step))
        return {
            "problem": {n: code_hash(getattr(config, n)) for n in ("model", "data", "loss")},
            "data": [config.label_noise, config.val, config.seed],
            "weights": content_hash(path) if path else hashlib.blake2b(digest_size=8).hexdigest(),
        }

    @property
    def store(self) -> KeyedStore:
        """In the folder of the run."""
        return KeyedStore(self.run.folder / "measurements")


def content_hash(path: Path) -> str:
    """A hash of a file's bytes, or of all files in a folder."""
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()
