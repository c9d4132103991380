"""Checkpoints: a run, a step of it, one of its files, or a weight file of any other origin."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ssgd_analysis.data import Dataset, load_data
from ssgd_analysis.errors import InputError
from ssgd_analysis.models import Loss, load_count, load_model, placed_loss
from ssgd_analysis.problem import Problem
from ssgd_analysis.random_state import seeded
from ssgd_analysis.references import absolute
from ssgd_analysis.runs.config import TrainConfig
from ssgd_analysis.runs.data import prepare_data
from ssgd_analysis.runs.fitting import load_weights
from ssgd_analysis.runs.folder import Run
from ssgd_analysis.runs.weight_files import has_weights, read_weight_file
from ssgd_analysis.weights import set_training

MEASURE_BATCH = 256


@dataclass(frozen=True)
class Checkpoint:
    """Weights in a model, and the data and loss they belong to.

    Args:
        name: as the user gave it.
        model: on its device, in evaluation mode.
        data: on the same device.
        loss: the loss.
        references: names or references of ``model``, ``data`` and ``loss``.
        run: the run it comes from, or ``None``.
        count: the examples of a batch; ``None``: the length of its tensors.
        notes: which other weights or tensors of the file were ignored.
    """

    name: str
    model: nn.Module
    data: Dataset
    loss: Loss
    references: dict[str, str]
    run: Run | None = None
    count: Callable[..., int] | None = None
    notes: tuple[str, ...] = ()

    def problem(
        self,
        split: str = "train",
        *,
        samples: int | None = None,
        batch_size: int | None = None,
        layers: Sequence[str] = (),
    ) -> Problem:
        """The loss over a split, or its first examples, as a problem.

        Args:
            split: ``train``, ``test`` or ``val``.
            samples: the number of examples, the first of the split; default all.
            batch_size: default: at most 256, and small enough for eight batches, so that
                sampling errors can be estimated.
            layers: patterns of parameter names that count; default all.

        Raises:
            InputError: no such split, or not so many examples.
        """
        examples = self.data.split(split).first(samples)
        size = batch_size or max(1, min(MEASURE_BATCH, len(examples) // 8))
        batches = examples.batches(size)
        return Problem(
            self.model, self.loss, batches, count=self.count, layers=layers, notes=self.notes
        )


def load_checkpoint(
    name: str,
    *,
    model: str | None = None,
    data: str | None = None,
    loss: str | None = None,
    count: str | None = None,
    weights: str | None = None,
    data_dir: Path | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    loaded: dict[str, Dataset] | None = None,
) -> Checkpoint:
    """Open a checkpoint.

    Args:
        name: a run folder (its final weights), ``RUN@STEP``, a weight file inside a run, or a
            foreign weight file, or folder with one, with ``model`` and ``data``: see
            :func:`~ssgd_analysis.runs.weight_files.read_weight_file` and
            :func:`~ssgd_analysis.runs.fitting.load_weights`.
        model: overrides the run's model.
        data: overrides the run's data (then without its label noise).
        loss: overrides the run's loss; default cross-entropy for a foreign file.
        count: reference of a function of a batch that counts its examples; default the run's.
        weights: key of the weights in a file that holds several sets, e.g. ``state_dict_ema``; a
            run folder has one set only and ignores it.
        data_dir: where data files are looked for.
        device: where to put all.
        dtype: of weights and data.
        loaded: data of checkpoints opened before on the same device; new data is added, so that
            checkpoints of the same data share its memory.

    Raises:
        InputError: nothing there, a damaged file, a pickle that is not weights-only, tensors
            that do not fit, or a foreign file without ``model`` and ``data``.
    """
    run, weights_of = _find(name, foreign=model is not None and data is not None)
    if run is None and (model is None or data is None):
        raise InputError(f"{name} is not part of a run: add --model and --data")
    config = None if run is None else run.config()
    source, content = weights_of
    key = weights if content is None else None
    if content is None:
        content = read_weight_file(source)
    names = {
        "model": model or _field(config, "model"),
        "data": data or _field(config, "data"),
        "loss": loss or (config.loss if config else "cross_entropy"),
    }
    # As in training: a user's data may draw from the global generators, which are restored.
    with seeded(config.seed if config else 0):
        held = {} if loaded is None else loaded
        kind = f"{data} {data_dir}"
        if data is None and config is not None:
            changes = f"{config.label_noise} {config.val} {config.train_samples} {config.seed}"
            kind = f"{config.data} {changes} {data_dir}"
        if kind not in held:
            held[kind] = _data(config, data, data_dir).to(device, dtype)
        examples = held[kind]
        network = load_model(names["model"], examples.input_shape, examples.num_outputs)
    notes = load_weights(network, content, source, weights=key)
    set_training(network, False)
    return Checkpoint(
        name=name,
        model=network.to(device, dtype),
        data=examples,
        loss=placed_loss(names["loss"], device, dtype),
        references={kind: absolute(name) for kind, name in names.items()},
        run=run,
        count=load_count(count or (config.count if config else None)),
        notes=tuple(notes),
    )


def _find(name: str, foreign: bool) -> tuple[Run | None, tuple[Path, dict[str, Tensor] | None]]:
    """The run a checkpoint belongs to, and its weights (``None``: still to be read).

    Args:
        name: as the user gave it.
        foreign: model and data are given, so that a weight file needs no run; a config.json
            beside it may be another tool's.
    """
    path = Path(name)
    folder, at, step = name.rpartition("@")
    if not path.exists() and at and step.isdigit():
        run = Run(Path(folder))
        run.config()  # says so if it is no run
        return run, run.weights(int(step))
    if path.is_dir() and not (has_weights(path) or (foreign and not Run(path).exists)):
        run = Run(path)
        run.config()
        return run, run.weights()
    if not path.exists():
        raise InputError(f"there is no checkpoint {name}")
    for parent in list(path.resolve().parents)[:2]:
        if Run(parent).exists and not foreign:
            return Run(parent), (path, None)
    return None, (path, None)


def _data(config: TrainConfig | None, data: str | None, data_dir: Path | None) -> Dataset:
    if data is not None or config is None:
        assert data is not None  # checked by load_checkpoint
        return load_data(data, data_dir)
    return prepare_data(config, data_dir)


def _field(config: TrainConfig | None, name: str) -> str:
    assert config is not None  # checked by load_checkpoint
    return getattr(config, name)
