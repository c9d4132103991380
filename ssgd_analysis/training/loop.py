"""The training loop: the same code for every method."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssgd_analysis import seeds
from ssgd_analysis.data import Dataset, Split, load_data
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.methods import Task
from ssgd_analysis.models import load_loss, load_model
from ssgd_analysis.problem import Problem
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.training import random_state
from ssgd_analysis.training.config import TrainConfig
from ssgd_analysis.training.optimizers import make_optimizer
from ssgd_analysis.training.run import Run
from ssgd_analysis.training.schedule import learning_rate
from ssgd_analysis.training.track import Tracker, summary
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


def train(
    config: TrainConfig, folder: Path, *, resume: bool = False, progress: Progress = SILENT
) -> dict[str, Any]:
    """Train one model and leave a run folder.

    Args:
        config: what to train.
        folder: where the run goes; refused if it holds one, unless ``resume``.
        resume: go on where the run in the folder was stopped; bit-identical on the CPU to a
            run that was not. A finished run is left alone.
        progress: told of every step.

    Returns:
        ``{"run", "method", "config", "final": last history record}``, and with ``track``
        ``"tracking"``: the measurements' number, time, share of the time, and last record.

    Raises:
        InputError: bad settings or data, a folder that holds a run, or another run than this.
        WorkError: the loss became non-finite (the last good weights are kept), or a full disk.
    """
    run = Run(folder)
    if run.exists and not resume:
        raise InputError(f"{folder} already holds a run: --resume it, or name another folder")
    if run.exists and run.config() != config:
        raise InputError(f"{folder} holds a run with other settings: {_difference(run, config)}")
    if not run.finished:
        with random_state.seeded(config.seed):
            _Training(config, run, progress).run_to_end()
    result: dict[str, Any] = {
        "run": str(folder),
        "method": config.method,
        "config": run.record(),
        "final": run.history()[-1],
    }
    if config.track:
        result["tracking"] = summary(run.tracked(), result["final"]["seconds"])
    return result


class _Training:
    """The state of one training, from its parts to its end."""

    def __init__(self, config: TrainConfig, run: Run, progress: Progress) -> None:
        self.config, self.run, self.progress = config, run, progress
        data = prepare_data(config).to(config.device, torch.float32)
        if config.batch_size > len(data.train):
            raise InputError(
                f"--batch-size {config.batch_size} is larger than the {len(data.train)} training"
                f" examples: use at most {len(data.train)}"
            )
        self.data = data
        loss = load_loss(config.loss)
        self.model = load_model(config.model, data.input_shape, data.num_outputs)
        self.model.to(config.device, torch.float32)
        for name, value in self.model.state_dict().items():
            if not isinstance(value, Tensor):
                raise InputError(
                    f"the model's state '{name}' is a {type(value).__name__}: only"
                    " tensors can be kept in a run"
                )
        optimizer = make_optimizer(
            config.optimizer,
            [p for p in self.model.parameters() if p.requires_grad],
            lr=config.lr or 0.0,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )
        self.task = Task(
            self.model,
            loss,
            optimizer,
            batch_size=config.batch_size,
            seed=config.seed,
            autocast=torch.bfloat16 if config.precision == "bf16" else None,
        )
        self.method = config.method_class(self.task, config.method_settings())
        self.splits = {"train": self._problem(data.train), "test": self._problem(data.test)}
        if data.val is not None:
            self.splits["val"] = self._problem(data.val)
        for problem in self.splits.values():
            problem.check(deterministic=False)
        self._check_batchnorm()
        self.tracker = Tracker(
            config.track,
            config.track_samples,
            data.train,
            self.splits["train"],
            self.task,
            self.method.settings,
        )
        self.order = seeds.generator(config.seed, "order")
        self.augmentation = seeds.generator(config.seed, "augmentation")
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0

    def _check_batchnorm(self) -> None:
        """Refuse passes over one example where BatchNorm has no variance to divide by."""
        settings, model = self.method.settings, self.model
        halves = getattr(settings, "minibatch", "same") == "halves"
        frozen = getattr(settings, "bn_stats", "") == "frozen"
        if self.config.batch_size > 1 + 2 * halves or frozen:
            return
        if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
            return
        before = random_state.capture()
        try:
            with borrowed_modes(model), borrowed_buffers(model), torch.no_grad():
                model.train()
                self.task.forward(self.data.train.inputs[:1])
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"the model's BatchNorm cannot train on one example at once: --batch-size"
                f" {self.config.batch_size} should be at least {4 if halves else 2}"
            ) from error
        finally:
            random_state.restore(before)

    def run_to_end(self) -> None:
        """All epochs that are not done, then the final weights."""
        self.run.sweep()
        state = self.run.load_state() if self.run.exists else None
        if state is None:
            self._track(0, self._rate())
            self.run.begin(self.config)
            self._save(0)
        else:
            self._load(state)
        done = len(self.history)
        self.progress.start("training", self.total_steps)
        self.progress.advance(self.task.step, f"epoch {done}/{self.config.epochs}")
        for epoch in range(done + 1, self.config.epochs + 1):
            began = time.monotonic()
            rate = self._epoch(epoch)
            record = self._evaluate(epoch, rate)
            self.seconds += time.monotonic() - began
            self.history.append({**record, "seconds": round(self.seconds, 3)})
            self._track(epoch, rate, record["train_loss"])
            self._save(epoch)
        self.method.finish()
        self.run.save_final(self.task.step, self.model.state_dict())

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data.train) // self.config.batch_size

    @property
    def total_steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch

    def _epoch(self, epoch: int) -> float:
        """One epoch of steps; returns the last learning rate."""
        config, task = self.config, self.task
        self.model.train()
        rate = 0.0
        for inputs, targets in self.data.train.minibatches(config.batch_size, self.order):
            if config.augment and self.data.augment is not None:
                inputs = self.data.augment(inputs, self.augmentation)
            rate = self._rate()
            for group in task.optimizer.param_groups:
                group["lr"] = rate
            loss = self.method.step(inputs, targets, task.step / self.total_steps)
            task.step += 1
            if not math.isfinite(loss):
                self._diverged(epoch, loss)
            self.progress.advance(1, f"epoch {epoch}/{config.epochs} loss {loss:.3f}")
        return rate

    def _rate(self) -> float:
        """The learning rate of the next step."""
        config = self.config
        warmup = round(config.warmup * self.steps_per_epoch)
        return learning_rate(
            config.lr or 0.0, config.schedule, self.task.step, self.total_steps, warmup
        )

    def _track(self, epoch: int, rate: float, loss: float | None = None) -> None:
        """Measure the curvature, where the config wants it now."""
        config = self.config
        if config.track and (epoch % config.track_every == 0 or epoch == config.epochs):
            self.progress.advance(0, f"epoch {epoch}/{config.epochs} measuring")
            self.tracker.measure(epoch, rate, self.task.step / self.total_steps, loss)

    def _evaluate(self, epoch: int, rate: float) -> dict[str, Any]:
        record: dict[str, Any] = {"epoch": epoch, "step": self.task.step}
        for name, problem in self.splits.items():
            record[f"{name}_loss"], record[f"{name}_accuracy"] = problem.evaluate()
        if not math.isfinite(record["train_loss"]):
            self._diverged(epoch, record["train_loss"])
        return {
            **record,
            "lr": rate,
            "gradients": self.task.gradients,
            "weight_norm": self.splits["train"].weight_norm(),
        }

    def _diverged(self, epoch: int, loss: float) -> None:
        """Keep the last good weights under a name of their own, and stop."""
        state = self.run.load_state()
        assert state is not None  # one is written before the first step
        path = self.run.save_checkpoint(state["step"], state["model"])
        raise WorkError(
            f"training diverged: the loss became {loss} at step {self.task.step} (epoch {epoch});"
            f" the last good weights are {path}. Try a smaller --lr or a longer --warmup"
        )

    def _problem(self, split: Split) -> Problem:
        size = max(self.config.batch_size, EVALUATION_BATCH)
        return Problem(self.model, self.task.loss, split.batches(size))

    def _save(self, epoch: int) -> None:
        every = self.config.save_every
        if every and epoch % every == 0:
            self.run.save_checkpoint(self.task.step, self.model.state_dict())
        state = {
            "epoch": epoch,
            "step": self.task.step,
            "examples": self.task.examples,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "buffers": dict(self.model.named_buffers()),  # those outside state_dict too
            "optimizer": self.task.optimizer.state_dict(),
            "method": self.method.state_dict(),
            "tracker": self.tracker.state_dict(),
            "order": self.order.get_state(),
            "augmentation": self.augmentation.get_state(),
            "random": random_state.capture(),
        }
        self.run.save_epoch(self.history, state, self.tracker.records)

    def _load(self, state: dict[str, Any]) -> None:
        self.task.step, self.task.examples = state["step"], state["examples"]
        self.seconds = state["seconds"]
        self.model.load_state_dict(state["model"])
        for name, buffer in self.model.named_buffers():
            buffer.copy_(state["buffers"][name])
        self.task.optimizer.load_state_dict(state["optimizer"])
        self.method.load_state_dict(state["method"])
        if self.config.track:  # states of earlier versions have nothing of it
            found, count = self.run.tracked(), state["tracker"]["records"]
            kept = _counted(self.run.folder / "tracking.jsonl", found, count, "measurements")
            self.tracker.load_state_dict(state["tracker"], kept)
        self.order.set_state(state["order"])
        self.augmentation.set_state(state["augmentation"])
        random_state.restore(state["random"])
        path = self.run.folder / "history.jsonl"
        self.history = _counted(path, self.run.history(), state["epoch"], "epochs")


def _counted(
    path: Path, records: list[dict[str, Any]], count: int, what: str
) -> list[dict[str, Any]]:
    """The records that the state counts; a kill between both writes leaves one too many."""
    if len(records) < count:
        raise InputError(
            f"{path} is damaged: it has {len(records)} of the {count} {what} that are done"
        )
    return records[:count]


def _difference(run: Run, config: TrainConfig) -> str:
    """The first setting in which a run and a config differ, in words."""
    old, new = run.config().to_json(), config.to_json()
    for name, value in new.items():
        if old[name] != value:
            return f"{name} is {old[name]} there, {value} here"
    return "versions"
