"""From a run's config to its parts: examples, model, optimizer, method."""

import dataclasses
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssgd_analysis import random_state
from ssgd_analysis.batch import Batch
from ssgd_analysis.data import BatchedSplit, Dataset, Split
from ssgd_analysis.errors import InputError
from ssgd_analysis.methods import Method, Passes
from ssgd_analysis.models import Loss, load_count, load_model, placed_loss
from ssgd_analysis.models.losses import cross_entropy
from ssgd_analysis.optimizers.table import make_optimizer
from ssgd_analysis.problem import Problem
from ssgd_analysis.ranks import SINGLE, Ranks
from ssgd_analysis.runs.config import AUTOCAST, TrainConfig
from ssgd_analysis.runs.data import prepare_data
from ssgd_analysis.training.chain import chain_of
from ssgd_analysis.weights import borrowed_buffers, borrowed_modes, set_training

EVALUATION_BATCH = 512


@dataclass(frozen=True)
class TrainingParts:
    """What a training works with.

    Args:
        config: of the run.
        data: on the run's device.
        model: on the run's device, initial weights.
        passes: makes the passes; it holds model, loss and base optimizer.
        method: what makes the steps.
        splits: the loss over ``train``, ``test`` and, if examples are held out, ``val``.
    """

    config: TrainConfig
    data: Dataset
    model: nn.Module
    passes: Passes
    method: Method
    splits: dict[str, Problem]

    @property
    def step_size(self) -> int:
        """Examples that a step is given."""
        return self.config.batch_size * self.method.minibatches(self.method.settings)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch; what is left over is dropped."""
        return self.data.train.steps(self.step_size)


def prepare(config: TrainConfig, ranks: Ranks = SINGLE) -> TrainingParts:
    """Everything that a run needs; initial weights come from torch's global generator.

    Args:
        config: of the run.
        ranks: the processes that share its passes.

    Raises:
        InputError: parts that do not fit together.
    """
    data = prepare_data(config).to(config.device, torch.float32)
    if config.batch_size > len(data.train):
        raise InputError(
            f"--batch-size {config.batch_size} is larger than the {len(data.train)} training"
            f" examples: use at most {len(data.train)}"
        )
    loss = placed_loss(config.loss, config.device, torch.float32)
    count = load_count(config.count)
    model = load_model(config.model, data.input_shape, data.num_outputs)
    model.to(config.device, torch.float32)
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"the model's state '{name}' is a {type(value).__name__}: a run"
                " can only save tensors"
            )
    last = config.channels_last == "on" or (config.channels_last == "auto" and _convolves(model))
    if last:
        model.to(memory_format=torch.channels_last)
    with _tried(model):
        optimizer = make_optimizer(
            config.optimizer or "",
            model,
            lr=config.peak_lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            settings=config.optimizer_settings,
            inputs=data.train.first(min(2, len(data.train))).inputs,
        )
    training_loss = _smoothed(loss, config.label_smoothing)
    passes = Passes(
        model,
        training_loss,
        optimizer,
        batch_size=config.batch_size,
        count=count,
        seed=config.seed,
        autocast=AUTOCAST[config.precision],
        accumulate=config.accumulate,
        clip=config.clip,
        ranks=ranks,
        compiled=config.compile,
        channels_last=last,
        quick=chain_of(model, training_loss, (cross_entropy, F.cross_entropy)),
    )
    method = config.method_class(passes, config.method_settings())

    def problem(split: Split | BatchedSplit) -> Problem:
        size = max(config.batch_size, EVALUATION_BATCH)
        return Problem(model, loss, split.batches(size), count=count)

    splits = {"train": problem(data.train), "test": problem(data.split("test"))}
    if data.val is not None:
        splits["val"] = problem(data.val)
    for each in splits.values():
        each.check(deterministic=False)
    _check_gradient(splits["train"], data.train, config.loss)
    parts = TrainingParts(config, data, model, passes, method, splits)
    _check_batchnorm(parts)
    return parts


def _smoothed(loss: Loss, amount: float) -> Loss:
    """The training loss; its targets are (1 − amount) · label + amount · uniform."""
    return functools.partial(F.cross_entropy, label_smoothing=amount) if amount else loss


def _check_gradient(problem: Problem, examples: Split | BatchedSplit, name: str) -> None:
    """Refuse a loss that does not depend on the weights, as one of the detached outputs."""
    with _tried(problem.model), torch.enable_grad():
        set_training(problem.model, False)
        value = problem.batch_loss(_few(examples, 2))
    if not value.requires_grad:
        raise InputError(
            f"the loss {name} has no gradient: it should be computed from the model's outputs,"
            " not detached from them"
        )


def _few(examples: Split | BatchedSplit, count: int) -> Batch:
    """The first examples, at most so many, as a batch."""
    return examples.first(min(count, len(examples))).batches(count)[0]


def _convolves(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def _check_batchnorm(parts: TrainingParts) -> None:
    """Refuse passes over one example where BatchNorm has no variance to divide by."""
    config, method, model = parts.config, parts.method, parts.model

    def smallest(size: int) -> int:
        return (
            method.smallest_pass(method.settings, size) // parts.passes.world // config.accumulate
        )

    frozen = method.freezes_batchnorm(method.settings)
    if frozen or smallest(config.batch_size) >= 2:
        return
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        return
    try:
        with _tried(model), torch.no_grad():
            model.train()
            parts.splits["train"].batch_loss(_few(parts.data.train, 1))
    except InputError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        most = len(parts.data.train) // method.minibatches(method.settings)
        fits = (size for size in range(config.batch_size, most + 1) if smallest(size) >= 2)
        if size := next(fits, 0):
            remedy = f"--batch-size {config.batch_size} should be at least {size}"
        else:
            usual = dataclasses.asdict(method.Settings())
            cuts = [
                f"{key}={value}" for key, value in config.settings.items() if value != usual[key]
            ]
            cuts += [f"--accumulate {config.accumulate}"] * (config.accumulate > 1)
            cuts += [f"{parts.passes.world} processes"] * (parts.passes.world > 1)
            count = config.batch_size // max(smallest(config.batch_size), 1)
            change = f"change {', '.join(cuts)}, which makes {count} parts of a minibatch"
            change = change if cuts else "use more training examples"
            remedy = f"no --batch-size up to {most} is large enough: {change}"
        raise InputError(
            f"the model's BatchNorm cannot train on one example at a time: {remedy}"
        ) from error


@contextmanager
def _tried(model: nn.Module) -> Iterator[None]:
    """Modes, buffers and the global random generators are as before, after a pass to try."""
    before = random_state.capture()
    try:
        with borrowed_modes(model), borrowed_buffers(model):
            yield
    finally:
        random_state.restore(before)
