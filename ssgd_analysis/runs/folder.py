"""The run folder: the only handover between commands."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ssgd_analysis.errors import InputError
from ssgd_analysis.files import (
    is_temporary,
    jsonable,
    make_folder,
    read_json,
    write_json,
    write_text,
)
from ssgd_analysis.runs.config import TrainConfig
from ssgd_analysis.runs.tensors import read_tensors, read_tree, save_tree
from ssgd_analysis.settings import is_kind
from ssgd_analysis.weights.tensor_file import save_tensors

ALWAYS = ("epoch", "step", "train_loss")  # in every record of the history, and finite
RECORDED = {
    *ALWAYS,
    *("train_accuracy", "test_loss", "test_accuracy", "val_loss", "val_accuracy"),
    *("lr", "gradients", "seconds", "weight_norm"),
}

TRACKED = {"epoch", "step", "lr", "stability_limit", "train_loss", "products", "seconds"}


@dataclass(frozen=True)
class Run:
    """A folder with ``config.json``, ``history.jsonl``, ``state.safetensors`` (for resume),
    ``checkpoints/step-N.safetensors`` and, once finished, ``final.safetensors``.

    Args:
        folder: its path.

    Example:
        >>> from ssgd_analysis import train
        >>> config = TrainConfig(method="sgd", data="digits", model="mlp", epochs=1)
        >>> result = train(config, Path("runs/sgd"))
        >>> run = Run(Path("runs/sgd"))
        >>> run.finished, run.history()[-1]["epoch"], list(run.checkpoints())
        (True, 1, [10])
    """  # noqa: D205

    folder: Path

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run, finished or not."""
        return self._config.is_file()

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return self.final.is_file()

    @property
    def final(self) -> Path:
        """The final weights."""
        return self.folder / "final.safetensors"

    @property
    def _config(self) -> Path:
        return self.folder / "config.json"

    @property
    def _history(self) -> Path:
        return self.folder / "history.jsonl"

    @property
    def _tracked(self) -> Path:
        return self.folder / "tracking.jsonl"

    @property
    def _state(self) -> Path:
        return self.folder / "state.safetensors"

    def record(self) -> dict[str, Any]:
        """The content of ``config.json``: settings, and the versions that made the run.

        Raises:
            InputError: there is no run, or its config is damaged.
        """
        if not self.exists:
            raise InputError(f"{self.folder} is not a run: it has no config.json")
        value = read_json(self._config)
        if not isinstance(value, dict):
            raise InputError(f"{self._config} is damaged: it is not an object")
        return value

    def config(self) -> TrainConfig:
        """What the run was made with.

        Raises:
            InputError: there is no run, or its config is damaged.
        """
        try:
            return TrainConfig.from_json(self.record())
        except InputError as error:
            named = str(self.folder) in str(error)
            raise error if named else InputError(f"{self._config}: {error}") from error

    def history(self) -> list[dict[str, Any]]:
        """One record for each epoch that is done; a finished run has at least one.

        Raises:
            InputError: the file is damaged; it and the line are named.
        """
        records = [self._epoch(*placed) for placed in _lines(self._history)]
        if self.finished and not records:
            raise InputError(f"{self._history} is missing or empty, but the run is finished")
        return records

    def epochs_done(self) -> int:
        """The number of epochs that are written down so far; cheap, and checks nothing."""
        return self._history.read_bytes().count(b"\n") if self._history.is_file() else 0

    def _epoch(self, damaged: str, record: dict[str, Any]) -> dict[str, Any]:
        """One record of the history, checked; values that were not finite are ``None``."""
        for key in ALWAYS:
            if record.get(key) is None:
                raise InputError(f"{damaged}: it has no '{key}'")
        for key in RECORDED & record.keys():
            value = record[key]
            fits = is_kind(int if key in ("epoch", "step") else float, value)
            if value is not None and not (fits and math.isfinite(value)):
                raise InputError(f"{damaged}: '{key}' is {value!r}")
        return record

    def recorded(self, name: str) -> list[float | None]:
        """One value of the history, epoch by epoch; ``None`` where it was not finite.

        Raises:
            InputError: a record lacks it (but for ``val_…``: not every run holds examples out).
        """
        history = self.history()
        for number, record in enumerate(history, start=1):
            if name not in record and not name.startswith("val_"):
                raise InputError(f"{self._history}, line {number}, is damaged: it has no '{name}'")
        return [record.get(name) for record in history]

    def begin(self, config: TrainConfig) -> None:
        """Make the folder and write the config."""
        make_folder(self.folder)
        write_json(self._config, config.to_json())

    def sweep(self) -> None:
        """Remove the temporary files that a kill left behind: this run's own, nothing else."""
        for folder in (self.folder, self.folder / "checkpoints", self.folder / "measurements"):
            for left in folder.glob(".*.ssgd-tmp*") if self.exists else ():
                if is_temporary(left):
                    left.unlink(missing_ok=True)

    def save_epoch(
        self,
        history: list[dict[str, Any]],
        state: dict[str, Any],
        tracked: list[dict[str, Any]],
    ) -> None:
        """Write both records, then state: on resume the state says how much of them counts.

        Args:
            history: a record for each epoch.
            state: what resume needs.
            tracked: a record for each measurement; no file is made for none.
        """
        self.save_history(history, tracked)
        save_tree(self._state, state)

    def save_history(self, history: list[dict[str, Any]], tracked: list[dict[str, Any]]) -> None:
        """Write both records; arguments as of :meth:`save_epoch`."""
        files = {self._history: history} | ({self._tracked: tracked} if tracked else {})
        for path, records in files.items():
            lines = [json.dumps(jsonable(record)) + "\n" for record in records]
            write_text(path, "".join(lines))

    def tracked(self) -> list[dict[str, Any]]:
        """One record for each measurement of ``--track``; none if nothing was tracked.

        Raises:
            InputError: the file is damaged; it and the line are named.
        """
        records = []
        for damaged, record in _lines(self._tracked):
            if not record.keys() >= TRACKED:
                raise InputError(f"{damaged}: it has no '{min(TRACKED - record.keys())}'")
            records.append(record)
        return records

    def load_state(self) -> dict[str, Any] | None:
        """The latest resumable state, or ``None`` before the first was written."""
        return read_tree(self._state) if self._state.is_file() else None

    def save_checkpoint(self, step: int, weights: dict[str, Tensor]) -> Path:
        """Save the weights of one step."""
        path = make_folder(self.folder / "checkpoints") / f"step-{step:08d}.safetensors"
        save_tensors(path, weights, {"step": str(step)})
        return path

    def save_final(self, step: int, weights: dict[str, Tensor]) -> None:
        """Write the final weights, which ends the run."""
        save_tensors(self.final, weights, {"step": str(step)})

    def checkpoints(self) -> dict[int, Path]:
        """Weight files by step, ascending; the final weights stand for the last step."""
        saved = {
            int(path.stem.removeprefix("step-")): path
            for path in sorted((self.folder / "checkpoints").glob("step-*.safetensors"))
        }
        history = self.history()
        if self.finished and history:
            saved[history[-1]["step"]] = self.final
        return dict(sorted(saved.items()))

    def weights(self, step: int | None = None) -> tuple[Path, dict[str, Tensor]]:
        """The weights of a step, or the final ones.

        Raises:
            InputError: the run is not finished, or saved no weights at that step.
        """
        if step is None:
            if not self.finished:
                raise InputError(
                    f"the run {self.folder} is not finished: continue it with train --resume, or"
                    f" name a saved step as {self.folder}@STEP (saved: {self._steps()})"
                )
            path = self.final
        else:
            saved = self.checkpoints()
            if step not in saved:
                raise InputError(
                    f"the run {self.folder} has not saved step {step} (saved: {self._steps()})"
                )
            path = saved[step]
        return path, read_tensors(path)[0]

    def _steps(self) -> str:
        return ", ".join(map(str, self.checkpoints())) or "none"


class SilentRun(Run):
    """A run folder that another process writes: this one only reads."""

    def begin(self, config: TrainConfig) -> None:
        """Nothing."""

    def sweep(self) -> None:
        """Nothing."""

    def save_epoch(self, *parts: Any) -> None:
        """Nothing."""

    def save_history(self, *parts: Any) -> None:
        """Nothing."""

    def save_checkpoint(self, step: int, weights: dict[str, Tensor]) -> Path:
        """Where the checkpoint is."""
        return self.folder / "checkpoints" / f"step-{step:08d}.safetensors"

    def save_final(self, step: int, weights: dict[str, Tensor]) -> None:
        """Nothing."""


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file with one on each line, none if it is not there.

    Yields:
        The beginning of an error about this line, and the object.

    Raises:
        InputError: the file is damaged; it and the line are named.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        damaged = f"{path}, line {number}, is damaged"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{damaged}: {error}") from error
        if not isinstance(record, dict):
            raise InputError(f"{damaged}: it is not an object")
        yield damaged, record


def is_done(run: Run, config: TrainConfig, resume: bool) -> bool:
    """Whether there is nothing left to do in a folder.

    Raises:
        InputError: it holds a run and is not to be resumed, or another run than this.
    """
    if run.exists and not resume:
        raise InputError(
            f"{run.folder} already holds a run: add --resume to continue it, or name another folder"
        )
    if run.exists and run.config() != config:
        difference = _difference(run, config)
        raise InputError(f"{run.folder} holds a run with other settings: {difference}")
    return run.finished


def _difference(run: Run, config: TrainConfig) -> str:
    """The first setting in which a run and a config differ, in words."""
    old, new = run.config().to_json(), config.to_json()
    for name, value in new.items():
        if old[name] != value:
            return f"{name} is {old[name]} there, {value} here"
    return "versions"
