"""Everything that fixes a training run."""

import dataclasses
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ssgd_analysis import references
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods import (
    Method,
    MethodSettings,
    find_method,
    make_settings,
    parse_settings,
)
from ssgd_analysis.optimizers import table as optimizers
from ssgd_analysis.optimizers.schedule import scaled_rate
from ssgd_analysis.runs.tracked import spelled_out
from ssgd_analysis.settings.training import TrainSettings

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # by precision


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainSettings):
    """Everything that fixes one run; the fields are those of :class:`TrainSettings`.

    Raises:
        InputError: a value that is out of range, unknown, or does not go with another one.

    Example:
        >>> config = TrainConfig(method="s-sgd", data="digits", model="mlp", epochs=5)
        >>> config.optimizer, config.lr
        ('sgd', 0.1)
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("settings", "optimizer_settings"):
            if not isinstance(getattr(self, name), dict):
                raise InputError(f"--{name} {getattr(self, name)!r} has the wrong type")
        find_method(self.method)
        self._choose_optimizer()
        for name in ("model", "data", "loss"):
            object.__setattr__(self, name, references.absolute(getattr(self, name)))
        if self.count is not None:
            object.__setattr__(self, "count", references.absolute(self.count))
        self._check_together()
        object.__setattr__(self, "track", spelled_out(self.track))
        # every setting spelled out, so that a later default cannot change an old run
        spelled = dataclasses.asdict(self.method_settings())
        object.__setattr__(self, "settings", spelled)

    def _choose_optimizer(self) -> None:
        """The base optimizer and what it is given, spelled out."""
        own = self.method_class.OPTIMIZER
        if own and self.optimizer not in (None, own):
            raise InputError(
                f"--optimizer {self.optimizer}: the method {self.method} always uses {own}"
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

    def _check_together(self) -> None:
        if self.nesterov and not self.momentum and self.optimizer == "sgd":
            raise InputError("--nesterov needs a --momentum above 0")
        if self.warmup > self.epochs:
            raise InputError(f"--warmup {self.warmup} is longer than the {self.epochs} epochs")
        if self.label_smoothing and self.loss != "cross_entropy":
            raise InputError(f"--label-smoothing needs --loss cross_entropy, not {self.loss}")
        if self.early_stop and not self.val:
            raise InputError("--early-stop needs held-out examples: add --val")

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
