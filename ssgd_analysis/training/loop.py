"""The training loop: the same code for every method."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from ssgd_analysis import random_state, seeds
from ssgd_analysis.batch import pair
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.methods import Method, When
from ssgd_analysis.optimizers.schedule import learning_rate
from ssgd_analysis.optimizers.table import load_state
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.ranks import SINGLE, Ranks
from ssgd_analysis.runs.config import TrainConfig
from ssgd_analysis.runs.folder import Run, SilentRun, is_done
from ssgd_analysis.training.early_stop import EarlyStop
from ssgd_analysis.training.setup import prepare
from ssgd_analysis.training.track import Tracker, summary
from ssgd_analysis.weights import borrowed_state

# Of a run's own time at most so much is lost by a kill: state and history are on disk four fsyncs
# later, which on a small network last as long as an epoch.
SAVE_SECONDS = 1.0


def train(
    config: TrainConfig,
    folder: Path,
    *,
    resume: bool = False,
    progress: Progress = SILENT,
    ranks: Ranks = SINGLE,
) -> dict[str, Any]:
    """Train one model and leave a run folder.

    Args:
        config: what to train.
        folder: where the run goes; refused if it holds one, unless ``resume``.
        resume: continue the run in the folder where it stopped; on the CPU the result has the
            same bits as that of an uninterrupted run. A finished run is left alone.
        progress: is advanced at every step.
        ranks: the processes that share every pass; the first alone writes and evaluates.

    Returns:
        ``{"run", "method", "config", "final": last history record}``, and with ``track``
        ``"tracking"``: the measurements' number, time, share of the time, and last record.

    Raises:
        InputError: bad settings or data, a folder that holds a run, or another run than this.
        WorkError: the loss became non-finite (the last finite weights are saved), or a full disk.

    Example:
        >>> config = TrainConfig(method="s-sgd", data="digits", model="mlp", epochs=1)
        >>> result = train(config, Path("runs/s-sgd"))
        >>> result["final"]["epoch"], result["final"]["gradients"]  # two passes a step
        (1, 20)
    """
    run = Run(folder)
    if not ranks.once(lambda: is_done(run, config, resume)):
        with random_state.seeded(config.seed):
            mine = run if ranks.first else SilentRun(folder)
            _Training(config, mine, progress, ranks).run_to_end()
    return ranks.once(lambda: _result(run, config))


def _result(run: Run, config: TrainConfig) -> dict[str, Any]:
    result: dict[str, Any] = {
        "run": str(run.folder),
        "method": config.method,
        "config": run.record(),
        "final": run.history()[-1],
    }
    if config.track:
        result["tracking"] = summary(run.tracked(), result["final"]["seconds"])
    return result


class _Training:
    """The state of one training, from its parts to its end."""

    def __init__(
        self, config: TrainConfig, run: Run, progress: Progress, ranks: Ranks = SINGLE
    ) -> None:
        self.config, self.run, self.progress = config, run, progress
        self.ranks, self.early = ranks, EarlyStop(config.early_stop, config.epochs)
        parts = prepare(config, ranks)
        self.data, self.model, self.passes = parts.data, parts.model, parts.passes
        self.method, self.splits = parts.method, parts.splits
        # Of every step's cost on a small network, these are worth working out once.
        self.step_size, self.steps_per_epoch = parts.step_size, parts.steps_per_epoch
        self.step = 0  # updates made so far
        self.total_steps = config.epochs * self.steps_per_epoch
        self.peak_lr, self.warmup = config.peak_lr, round(config.warmup * self.steps_per_epoch)
        if self.steps_per_epoch == 0:
            raise InputError(
                f"--batch-size {config.batch_size} is too large: a step of {config.method} takes"
                f" {self.step_size} examples, and there are {len(self.data.train)} for training"
            )
        self.tracker = Tracker(
            config.track,
            config.track_samples,
            self.data.train,
            self.splits["train"],
            self.passes,
            self.method.settings,
        )
        self.order = seeds.generator(config.seed, "order")
        self.augmentation = seeds.generator(config.seed, "augmentation")
        self.history: list[dict[str, Any]] = []
        self.seconds, self.saved = 0.0, -math.inf  # the latter: when the state was last written
        self.good: tuple[int, dict[str, Tensor]] | None = None  # weights newer than that state

    def run_to_end(self) -> None:
        """All epochs that are not done, then the final weights."""
        self.run.sweep()
        state = self.ranks.once(lambda: self.run.load_state() if self.run.exists else None)
        if state is None:
            self._track(0, self._rate())
            self.run.begin(self.config)
            self._save_checkpoint(0)
            self._save(0)
        else:
            self._load(state)
        done = len(self.history)
        self.progress.start("training", self.total_steps)
        self.progress.advance(self.step, f"epoch {done}/{self.config.epochs}")
        for epoch in range(done + 1, self.config.epochs + 1):
            if self.early.over:
                break
            began = time.monotonic()
            random_state.part(self.config.seed, self.ranks.rank, epoch)
            rate = self._epoch(epoch)
            with self._final_weights(last=epoch == self.config.epochs):
                record = self.early.update(self._evaluated(epoch, rate), self.model)
                self.seconds += time.monotonic() - began
                self.history.append({**record, "seconds": round(self.seconds, 3)})
                self._track(epoch, rate, record["train_loss"])
                self._save_checkpoint(epoch)
            self._save(epoch)
        self.early.restore_best(self.model)
        self.run.save_final(self.step, self.model.state_dict())

    def _epoch(self, epoch: int) -> float:
        """One epoch of steps; returns the last learning rate."""
        config, groups = self.config, self.passes.optimizer.param_groups
        named = f"epoch {epoch}/{config.epochs}"
        self.model.train()
        rate = 0.0
        for batch in self.data.train.minibatches(self.step_size, self.order):
            if config.augment and self.data.augment is not None:
                inputs, targets = pair(batch)
                batch = self.data.augment(inputs, self.augmentation), targets
            rate = self.method.learning_rate(self._rate(), self.step / self.total_steps)
            for group in groups:
                group["lr"] = rate
            loss = self.method.attempt(batch, self._when())
            self.step += 1
            if not math.isfinite(loss):
                self._diverged(epoch, loss)
            self.progress.advance(1, f"{named} loss {loss:.3f}")
        return rate

    def _when(self) -> When:
        """The moment of the next step, at the learning rate that the optimizer has now."""
        step = self.step
        return When(
            step=step,
            fraction_done=step / self.total_steps,
            lr_share=self.passes.optimizer.param_groups[0]["lr"] / self.peak_lr,
            ends_epoch=(step + 1) % self.steps_per_epoch == 0,
        )

    def _rate(self) -> float:
        """The schedule's learning rate of the next step."""
        schedule, step = self.config.schedule, self.step
        return learning_rate(self.peak_lr, schedule, step, self.total_steps, self.warmup)

    @contextmanager
    def _final_weights(self, *, last: bool) -> Iterator[None]:
        """The model holds the weights that the method gives out: for good at the last epoch."""
        if type(self.method).finish is Method.finish:  # it gives out the weights that it trains
            yield
            return
        batches = self.splits["train"].batches
        if last:
            self.method.finish(batches)
            yield
            return
        count = self.passes.state_dict()
        with borrowed_state(self.model):
            self.method.finish(batches)
            self.passes.load_state_dict(count)  # evaluating the average is no part of the training
            yield

    def _track(self, epoch: int, rate: float, loss: float | None = None) -> None:
        """Measure the curvature, where the config wants it now."""
        if self.ranks.first and self._tracks(epoch):
            self.progress.advance(0, f"epoch {epoch}/{self.config.epochs} measuring")
            self.tracker.measure(epoch, rate, self._when(), loss)

    def _tracks(self, epoch: int) -> bool:
        """Whether the curvature is to be measured now."""
        due = epoch % self.config.track_every == 0 or self._last(epoch)
        return bool(self.config.track) and due

    def _last(self, epoch: int) -> bool:
        return epoch == self.config.epochs or self.early.over

    def _evaluated(self, epoch: int, rate: float) -> dict[str, Any]:
        return self.ranks.once(lambda: self._evaluate(epoch, rate))

    def _evaluate(self, epoch: int, rate: float) -> dict[str, Any]:
        record: dict[str, Any] = {"epoch": epoch, "step": self.step}
        for name, problem in self.splits.items():
            loss, accuracy = problem.evaluate()
            record[f"{name}_loss"], record[f"{name}_accuracy"] = loss, accuracy
        if not math.isfinite(record["train_loss"]):
            self._diverged(epoch, record["train_loss"])
        return {
            **record,
            "lr": rate,
            "gradients": self.passes.gradients,
            "weight_norm": self.splits["train"].weight_norm(),
        }

    def _diverged(self, epoch: int, loss: float) -> None:
        """Save the last good weights as a checkpoint, and stop."""
        self.run.save_history(self.history, self.tracker.records)
        if self.good is None:
            state = self.run.load_state()
            assert state is not None  # one is written before the first step
            self.good = state["step"], state["model"]
        path = self.run.save_checkpoint(*self.good)
        raise WorkError(
            f"training diverged: the loss became {loss} at step {self.step} (epoch {epoch});"
            f" the last good weights are {path}. Try a smaller --lr or a longer --warmup"
        )

    def _save_checkpoint(self, epoch: int) -> None:
        """Save a checkpoint, where the config wants one now."""
        if self._saves_checkpoint(epoch):
            self.run.save_checkpoint(self.step, self.model.state_dict())

    def _saves_checkpoint(self, epoch: int) -> bool:
        every = self.config.save_every
        return every > 0 and epoch % every == 0

    def _due(self, epoch: int) -> bool:
        """Whether history and state are written now: once in ``SAVE_SECONDS`` of the run's time.

        And whenever something else of this epoch is saved. Nothing depends on what was written
        when: a resumed run makes the epochs since then again, to the same bits.
        """
        elapsed = time.monotonic() - self.saved
        due = elapsed >= SAVE_SECONDS or self._last(epoch)
        return due or self._saves_checkpoint(epoch) or self._tracks(epoch)

    def _save(self, epoch: int) -> None:
        if not self._due(epoch):
            weights = self.model.state_dict().items()
            self.good = self.step, {name: value.clone() for name, value in weights}
            return
        state = {
            "epoch": epoch,
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "buffers": dict(self.model.named_buffers()),  # those outside state_dict too
            "optimizer": self.passes.optimizer.state_dict(),
            "method": self.method.state_dict(),
            "tracker": self.tracker.state_dict(),
            "passes": self.passes.state_dict(),
            "early": self.early.state_dict(),
            "order": self.order.get_state(),
            "augmentation": self.augmentation.get_state(),
            "random": random_state.capture(),
        }
        self.run.save_epoch(self.history, state, self.tracker.records)
        self.good, self.saved = None, time.monotonic()

    def _load(self, state: dict[str, Any]) -> None:
        self.step, self.seconds = state["step"], state["seconds"]
        self.model.load_state_dict(state["model"])
        for name, buffer in self.model.named_buffers():
            buffer.copy_(state["buffers"][name])
        load_state(self.passes.optimizer, state["optimizer"])
        self.method.load_state_dict(state["method"])
        self.passes.load_state_dict(state["passes"])
        self.early.load_state_dict(state["early"])
        if self.config.track:
            found, count = self.run.tracked(), state["tracker"]["records"]
            records = _counted(self.run.folder / "tracking.jsonl", found, count, "measurements")
            self.tracker.load_state_dict(state["tracker"], records)
        self.order.set_state(state["order"])
        self.augmentation.set_state(state["augmentation"])
        random_state.resume(state["random"], self.config.device)
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
