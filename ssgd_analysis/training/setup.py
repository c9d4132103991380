"""From a run's config to its parts: examples, model, optimizer, method."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ssgd_analysis import seeds
from ssgd_analysis.data import Dataset, Split, load_data
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods import Method, Task
from ssgd_analysis.models import load_loss, load_model
from ssgd_analysis.problem import Problem
from ssgd_analysis.training import random_state
from ssgd_analysis.training.config import TrainConfig
from ssgd_analysis.training.optimizers import make_optimizer
from ssgd_analysis.weights import borrowed_buffers, borrowed_modes

EVALUATION_BATCH = 512


def prepare_data(config: TrainConfig, folder: Path | None = None) -> Dataset:
    """A run's examples: loaded, held out, with its label noise; on the CPU, floats as given.

    Args:
        config: of the run.
        folder: for data files, instead of the config's.
    """
    data = load_data(config.data, folder or config.data_folder)
    data = data.with_validation(config.val, seeds.generator(config.seed, "validation"))
    return data.with_label_noise(config.label_noise, seeds.generator(config.seed, "label noise"))


@dataclass(frozen=True)
class Bench:
    """What a training works with.

    Args:
        config: of the run.
        data: on the run's device.
        model: on the run's device, initial weights.
        task: model, loss and base optimizer, as the method sees them.
        method: what makes the steps.
        splits: the loss over ``train``, ``test`` and, if examples are held out, ``val``.
    """

    config: TrainConfig
    data: Dataset
    model: nn.Module
    task: Task
    method: Method
    splits: dict[str, Problem]


def prepare(config: TrainConfig) -> Bench:
    """Everything that a run needs; initial weights come from torch's global generator.

    Raises:
        InputError: parts that do not fit together.
    """
    data = prepare_data(config).to(config.device, torch.float32)
    if config.batch_size > len(data.train):
        raise InputError(
            f"--batch-size {config.batch_size} is larger than the {len(data.train)} training"
            f" examples: use at most {len(data.train)}"
        )
    loss = load_loss(config.loss)
    model = load_model(config.model, data.input_shape, data.num_outputs)
    model.to(config.device, torch.float32)
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"the model's state '{name}' is a {type(value).__name__}: only"
                " tensors can be kept in a run"
            )
    optimizer = make_optimizer(
        config.optimizer,
        [p for p in model.parameters() if p.requires_grad],
        lr=config.lr or 0.0,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )
    task = Task(
        model,
        loss,
        optimizer,
        batch_size=config.batch_size,
        seed=config.seed,
        autocast=torch.bfloat16 if config.precision == "bf16" else None,
    )
    method = config.method_class(task, config.method_settings())

    def problem(split: Split) -> Problem:
        size = max(config.batch_size, EVALUATION_BATCH)
        return Problem(model, loss, split.batches(size))

    splits = {"train": problem(data.train), "test": problem(data.test)}
    if data.val is not None:
        splits["val"] = problem(data.val)
    for each in splits.values():
        each.check(deterministic=False)
    bench = Bench(config, data, model, task, method, splits)
    _check_batchnorm(bench)
    return bench


def _check_batchnorm(bench: Bench) -> None:
    """Refuse passes over one example where BatchNorm has no variance to divide by."""
    config, settings, model = bench.config, bench.method.settings, bench.model
    halves = getattr(settings, "minibatch", "same") == "halves"
    frozen = getattr(settings, "bn_stats", "") == "frozen"
    if config.batch_size > 1 + 2 * halves or frozen:
        return
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        return
    before = random_state.capture()
    try:
        with borrowed_modes(model), borrowed_buffers(model), torch.no_grad():
            model.train()
            bench.task.forward(bench.data.train.inputs[:1])
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"the model's BatchNorm cannot train on one example at once: --batch-size"
            f" {config.batch_size} should be at least {4 if halves else 2}"
        ) from error
    finally:
        random_state.restore(before)
