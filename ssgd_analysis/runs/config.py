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
from ssgd_analysis.optimizers import table as optimizers
from ssgd_analysis.optimizers.schedule import LR_SCALINGS, SCHEDULES, scaled_rate
from ssgd_analysis.runs.tracked import spelled_out
from ssgd_analysis.settings import is_kind

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # of the forward pass
CHANNELS_LAST = ("auto", "on", "off")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of one run; names as on the command line.

    Args:
        method: a name of ``METHODS``, or several joined by ``+``; see ``find_method``.
        data: registered name or reference.
        model: registered name, ``torchvision:NAME`` or reference.
        loss: registered name or reference.
        settings: the method's own hyper-parameters that differ from their defaults.
        optimizer: base optimizer that steps at the clean weights; see ``find_optimizer``.
            ``None``: the one that belongs to the method, else ``sgd``.
        optimizer_settings: the optimizer's own options.
        lr: peak learning rate; ``None``: the optimizer's default.
        lr_scaling: ``none``; ``linear`` or ``sqrt``: the rate is for ``base_batch`` and grows with
            the batch, or its square root.
        base_batch: see ``lr_scaling``.
        momentum: for optimizers that have one; ``None``: the optimizer's default.
        nesterov: Nesterov momentum (sgd only).
        weight_decay: the base optimizer's, applied at w, never at noisy weights.
        schedule: ``constant``; ``step`` (×0.1 at 1/2 and 3/4); ``cosine`` (to zero).
        warmup: epochs of linear warm-up from zero.
        batch_size: examples of a minibatch; what is left over in an epoch is dropped.
        epochs: passes over the training examples.
        accumulate: micro-batches that each pass is made in.
        clip: largest norm of the gradient that the base optimizer steps with; ``None``: any.
        label_smoothing: of the training loss; what is reported stays plain.
        early_stop: epochs without a better ``val_loss`` after which training ends; the best
            epoch's weights are given out. 0: all epochs, and the last weights.
        train_samples: training examples that are used, a stratified draw by ``seed``; 0: all.
        label_noise: share of training labels that are wrong.
        val: share of the training examples held out.
        augment: use the data set's usual augmentation, if it has one.
        precision: ``fp32``, or ``bf16`` or ``fp16`` for the forward pass (weights stay float32).
        compile: run the forward pass through ``torch.compile``.
        channels_last: memory format of images and filters: ``on``, ``off``, or ``auto``: on where
            the model has two-dimensional convolutions.
        save_every: epochs between kept checkpoints (step 0 too); 0: none but the final one.
        seed: of initial weights, order of examples, label noise, weight noise.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        data_dir: folder for data files; ``None``: the cache.
        label: name in comparisons; empty: the method's.
        track: what to measure through training, ``KIND`` or ``KIND:N``; see ``track.KINDS``.
        track_every: epochs between these measurements; the start and the end are always measured.
        track_samples: first training examples that they use, at most.
        count: reference of a function of a batch that counts its examples, by which evaluation
            weighs batches; ``None``: as the tensors tell.

    Raises:
        InputError: anything out of range or unknown, when made.
    """

    method: str
    data: str
    model: str
    loss: str = "cross_entropy"
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: str | None = None
    optimizer_settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    lr: float | None = None
    lr_scaling: str = "none"
    base_batch: int = 128
    momentum: float | None = None
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.0
    batch_size: int = 128
    epochs: int = 30
    accumulate: int = 1
    clip: float | None = None
    label_smoothing: float = 0.0
    early_stop: int = 0
    train_samples: int = 0
    label_noise: float = 0.0
    val: float = 0.0
    augment: bool = True
    precision: str = "fp32"
    compile: bool = False
    channels_last: str = "auto"
    save_every: int = 0
    seed: int = 0
    device: str = "cpu"
    data_dir: str | None = None
    label: str = ""
    track: list[str] = dataclasses.field(default_factory=list)
    track_every: int = 1
    track_samples: int = 2048
    count: str | None = None

    def __post_init__(self) -> None:
        self._check_types()
        find_method(self.method)
        self._check_names()
        self._choose_optimizer()
        for name in ("model", "data", "loss"):
            object.__setattr__(self, name, references.absolute(getattr(self, name)))
        if self.count is not None:
            object.__setattr__(self, "count", references.absolute(self.count))
        self._check_numbers()
        object.__setattr__(self, "track", spelled_out(self.track))
        # every setting spelled out, so that a later default cannot change an old run
        spelled = dataclasses.asdict(self.method_settings())
        object.__setattr__(self, "settings", spelled)

    def _check_names(self) -> None:
        for name, known in (
            ("schedule", SCHEDULES),
            ("precision", tuple(PRECISIONS)),
            ("lr_scaling", LR_SCALINGS),
            ("channels_last", CHANNELS_LAST),
        ):
            if getattr(self, name) not in known:
                raise unknown(name.replace("_", "-"), getattr(self, name), known)

    def _choose_optimizer(self) -> None:
        """The base optimizer and what it is given, spelled out."""
        own = self.method_class.OPTIMIZER
        if own and self.optimizer not in (None, own):
            raise InputError(
                f"--optimizer {self.optimizer}: the method '{self.method}' is the optimizer {own}"
            )
        name = self.optimizer or own or "sgd"
        object.__setattr__(self, "optimizer", name)
        entry = optimizers.find_optimizer(name)
        if self.momentum is not None and entry.momentum is None:
            raise InputError(f"--momentum is not a setting of the optimizer '{name}'")
        if self.nesterov and "nesterov" not in entry.options:
            raise InputError(f"--nesterov is not a setting of the optimizer '{name}'")
        if self.weight_decay and "weight_decay" not in entry.options:
            raise InputError(f"--weight-decay is not a setting of the optimizer '{name}'")
        for field, default in (("lr", entry.lr), ("momentum", entry.momentum)):
            if getattr(self, field) is None:
                object.__setattr__(self, field, default)
        read = optimizers.read_settings(name, self.optimizer_settings)
        object.__setattr__(self, "optimizer_settings", read)

    def _check_types(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value, kinds = getattr(self, name), get_args(hint) or (hint,)
            if name in ("settings", "optimizer_settings", "track"):
                kinds = (get_origin(hint),)
            if not any(is_kind(kind, value) for kind in kinds):
                raise InputError(f"{_option(name)} {value!r} has the wrong type")

    def _check_numbers(self) -> None:
        amounts = ("lr", "momentum", "weight_decay", "warmup", "label_noise", "val", "clip")
        for name in (*amounts, "label_smoothing"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{_option(name)} {value} should be a finite number ≥ 0")
        least = {"save_every": 0, "seed": 0, "early_stop": 0, "train_samples": 0}
        counts = ("batch_size", "base_batch", "epochs", "accumulate", "track_every")
        for name in (*counts, "track_samples", *least):
            low = least.get(name, 1)
            if getattr(self, name) < low:
                raise InputError(f"{_option(name)} {getattr(self, name)} should be at least {low}")
        for name in ("lr", "clip"):
            if getattr(self, name) == 0:
                raise InputError(f"{_option(name)} 0 would train nothing")
        if self.momentum is not None and self.momentum >= 1:
            raise InputError(f"--momentum {self.momentum} should be below 1")
        if self.nesterov and not self.momentum and self.optimizer == "sgd":
            raise InputError("--nesterov needs a momentum above 0")
        if self.label_noise > 1:
            raise InputError(f"--label-noise {self.label_noise} should be in [0, 1]")
        if self.val >= 1:
            raise InputError(f"--val {self.val} should be in [0, 1)")
        if self.warmup > self.epochs:
            raise InputError(f"--warmup {self.warmup} is longer than the {self.epochs} epochs")

        if self.label_smoothing and self.loss != "cross_entropy":
            raise InputError(f"--label-smoothing is for cross_entropy, not for {self.loss}")
        if self.label_smoothing > 1:
            raise InputError(f"--label-smoothing {self.label_smoothing} should be at most 1")
        if self.early_stop and not self.val:
            raise InputError("--early-stop goes by the loss on held-out examples: it needs --val")

    @property
    def peak_lr(self) -> float:
        """The highest learning rate, scaled to the batch size."""
        return scaled_rate(self.lr or 0.0, self.lr_scaling, self.batch_size, self.base_batch)

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
