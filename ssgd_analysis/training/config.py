"""Everything that fixes a training run."""

import dataclasses
import math
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import torch

from ssgd_analysis import references
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.methods import (
    Method,
    MethodSettings,
    find_method,
    make_settings,
    parse_settings,
)
from ssgd_analysis.methods.base import is_kind
from ssgd_analysis.training.optimizers import OPTIMIZERS
from ssgd_analysis.training.schedule import SCHEDULES
from ssgd_analysis.training.track import spelled_out

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of one run; names as on the command line.

    Args:
        method: a name of ``METHODS``, or several joined by ``+``; see ``find_method``.
        data: registered name or reference.
        model: registered name, ``torchvision:NAME`` or reference.
        loss: registered name or reference.
        settings: the method's own hyper-parameters that differ from their defaults.
        optimizer: base optimizer that steps at the clean weights.
        lr: peak learning rate; ``None``: the optimizer's default.
        momentum: for optimizers that have one; ``None``: the optimizer's default.
        nesterov: Nesterov momentum (sgd only).
        weight_decay: the base optimizer's, applied at w, never at noisy weights.
        schedule: ``constant``; ``step`` (×0.1 at 1/2 and 3/4); ``cosine`` (to zero).
        warmup: epochs of linear warm-up from zero.
        batch_size: examples of a minibatch; what is left over in an epoch is dropped.
        epochs: passes over the training examples.
        label_noise: share of training labels that are wrong.
        val: share of the training examples held out.
        augment: use the data set's usual augmentation, if it has one.
        precision: ``fp32``, or ``bf16`` for the forward pass (weights stay float32).
        save_every: epochs between kept checkpoints (step 0 too); 0: none but the final one.
        seed: of initial weights, order of examples, label noise, weight noise.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        data_dir: folder for data files; ``None``: the cache.
        label: name in comparisons; empty: the method's.
        track: what to measure through training, ``KIND`` or ``KIND:N``; see ``track.KINDS``.
        track_every: epochs between these measurements; the start and the end are always measured.
        track_samples: first training examples that they use, at most.

    Raises:
        InputError: anything out of range or unknown, when made.
    """

    method: str
    data: str
    model: str
    loss: str = "cross_entropy"
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: str = "sgd"
    lr: float | None = None
    momentum: float | None = None
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.0
    batch_size: int = 128
    epochs: int = 30
    label_noise: float = 0.0
    val: float = 0.0
    augment: bool = True
    precision: str = "fp32"
    save_every: int = 0
    seed: int = 0
    device: str = "cpu"
    data_dir: str | None = None
    label: str = ""
    track: list[str] = dataclasses.field(default_factory=list)
    track_every: int = 1
    track_samples: int = 2048

    def __post_init__(self) -> None:
        self._check_types()
        find_method(self.method)
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        entry = OPTIMIZERS[self.optimizer]
        if self.momentum is not None and entry.momentum is None:
            raise InputError(f"--momentum is not a setting of the optimizer '{self.optimizer}'")
        if self.nesterov and self.optimizer != "sgd":
            raise InputError(f"--nesterov is not a setting of the optimizer '{self.optimizer}'")
        for name, default in (("lr", entry.lr), ("momentum", entry.momentum)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        for name in ("model", "data", "loss"):
            object.__setattr__(self, name, references.absolute(getattr(self, name)))
        self._check_numbers()
        object.__setattr__(self, "track", spelled_out(self.track))
        # every setting spelled out, so that a later default cannot change an old run
        spelled = dataclasses.asdict(self.method_settings())
        object.__setattr__(self, "settings", spelled)

    def _check_types(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value, kinds = getattr(self, name), get_args(hint) or (hint,)
            if name in ("settings", "track"):
                kinds = (get_origin(hint),)
            if not any(is_kind(kind, value) for kind in kinds):
                raise InputError(f"{_option(name)} {value!r} has the wrong type")

    def _check_numbers(self) -> None:
        for name in ("lr", "momentum", "weight_decay", "warmup", "label_noise", "val"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{_option(name)} {value} should be a finite number ≥ 0")
        least = {"save_every": 0, "seed": 0}
        for name in ("batch_size", "epochs", "track_every", "track_samples", *least):
            low = least.get(name, 1)
            if getattr(self, name) < low:
                raise InputError(f"{_option(name)} {getattr(self, name)} should be at least {low}")
        if self.lr == 0:
            raise InputError("--lr 0 would train nothing")
        if self.momentum is not None and self.momentum >= 1:
            raise InputError(f"--momentum {self.momentum} should be below 1")
        if self.nesterov and not self.momentum:
            raise InputError("--nesterov needs a momentum above 0")
        if self.label_noise > 1:
            raise InputError(f"--label-noise {self.label_noise} should be in [0, 1]")
        if self.val >= 1:
            raise InputError(f"--val {self.val} should be in [0, 1)")
        if self.warmup > self.epochs:
            raise InputError(f"--warmup {self.warmup} is longer than the {self.epochs} epochs")

    @property
    def method_class(self) -> type[Method]:
        """The class that the method's name stands for."""
        return find_method(self.method)

    def method_settings(self) -> MethodSettings:
        """The method's settings as its own type."""
        return make_settings(self.method, self.method_class, self.settings)

    @staticmethod
    def parsed_settings(method: str, assignments: list[str]) -> dict[str, Any]:
        """The ``settings`` of a config from ``NAME=VALUE`` texts."""
        return dataclasses.asdict(parse_settings(method, find_method(method), assignments))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TrainConfig":
        """The config that a run folder holds.

        Raises:
            InputError: a field is missing or out of range. Other keys are left alone.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        try:
            return cls(**{key: entry for key, entry in value.items() if key in names})
        except TypeError as error:
            raise InputError(f"the config is damaged: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """All fields, and the versions that made the run."""
        made_with = {
            "ssgd-analysis": version("ssgd-analysis"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
        }
        return {**dataclasses.asdict(self), "versions": made_with}

    @property
    def data_folder(self) -> Path | None:
        """Where data files are looked for."""
        return None if self.data_dir is None else Path(self.data_dir)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
