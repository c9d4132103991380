"""Throughput of `train --batch-seeds` beside the same runs one by one, on digits.

    python benchmarks/batch_seeds.py [--quick] [--json FILE] [--model mlp] [--epochs 30]

Whole runs are timed, reading the data, evaluation after every epoch and resumable state (at most
once a second) included, with as many threads both ways: one (per core) and two. In each round
some of the seeds are trained one by one and all of them together; the ratio is that of the
seconds a run, its median over rounds. CPU seconds of the process are given too: they tell the
same on a busy machine. A short round before the first, which loads the tracer, is not counted;
making a set's own trace is, once for each batch size and number of seeds.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.training import train, train_together

ALONE = 3  # runs that are made one by one in a round


def jobs(
    folder: str, count: int, method: str, batch: int, options: argparse.Namespace
) -> list[tuple[TrainConfig, Path]]:
    """The same run for several seeds."""
    fields: dict[str, Any] = {"method": method, "data": "digits", "model": options.model}
    fields |= {"batch_size": batch, "epochs": options.epochs, "lr": 0.05}
    return [(TrainConfig(**fields, seed=s), Path(folder) / str(s)) for s in range(count)]


def seconds(work: Callable[[], object], runs: int) -> tuple[float, float]:
    """Wall and CPU seconds of each run."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - wall) / runs, (time.process_time() - cpu) / runs


def measure(
    method: str, batch: int, count: int, threads: int, options: argparse.Namespace
) -> dict[str, Any]:
    """One row: seconds of a run both ways."""
    torch.set_num_threads(threads)
    alone, together = [], []

    def both() -> None:
        with tempfile.TemporaryDirectory() as folder:
            few = jobs(folder, ALONE, method, batch, options)
            alone.append(seconds(lambda: [train(*job) for job in few], ALONE))
        with tempfile.TemporaryDirectory() as folder:
            all_ = jobs(folder, count, method, batch, options)
            together.append(seconds(lambda: check(train_together(all_)), count))

    for _ in range(options.rounds):
        both()
    ratios = [
        [a / b for a, b in zip(one, many, strict=True)]
        for one, many in zip(alone, together, strict=True)
    ]
    return {
        "method": method,
        "batch": batch,
        "seeds": count,
        "threads": threads,
        "alone": statistics.median(wall for wall, _ in alone),
        "together": statistics.median(wall for wall, _ in together),
        "ratio": statistics.median(wall for wall, _ in ratios),
        "cpu_ratio": statistics.median(cpu for _, cpu in ratios),
    }


def check(results: list[dict[str, Any] | Exception]) -> None:
    """A run that failed would be fast."""
    for result in results:
        if isinstance(result, Exception):
            raise result


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="16 seeds, batch 32 and 128, sgd")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        train_together(jobs(folder, 2, "sgd", 32, options))
    table = Table(title=f"{options.model} on digits, {options.epochs} epochs, {torch.__version__}")
    columns = ("method", "batch", "seeds", "threads", "s / run alone", "together", "×", "CPU ×")
    for column in columns:
        table.add_column(column, justify="left" if column == "method" else "right")
    rows = []
    for method in ("sgd",) if options.quick else ("sgd", "s-sgd"):
        for batch in (32, 128) if options.quick else (32, 128, 256):
            for count in (16,) if options.quick else (8, 16, 32):
                for threads in (1, 2):
                    row = measure(method, batch, count, threads, options)
                    rows.append(row)
                    numbers = [f"{row[k]:.3f}" for k in ("alone", "together")]
                    numbers += [f"{row[k]:.2f}" for k in ("ratio", "cpu_ratio")]
                    table.add_row(method, str(batch), str(count), str(threads), *numbers)
    Console(width=100).print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
