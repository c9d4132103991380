"""Step time and peak memory of every method beside plain SGD, in one run, as ratios.

    python benchmarks/training.py [--json FILE] [--device cpu] [--quick]

Goals for S-SGD: step time at most 2.1 × SGD's, peak memory at most 1.02 × SGD's. The time
ratio is measured in rounds that alternate between the methods, so that a busy machine slows
all of them alike. Peak memory is the highest sum of tensors alive during a step: on a GPU by
torch's own counter, on the CPU by the allocations that torch's profiler reports.

The row "torch SGD" is a bare loop in plain torch, the peer: what the package's loop costs.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from ssgd_analysis.methods import METHODS, SSGD, Task
from ssgd_analysis.models import load_loss, load_model

# name, model, input shape, batch size, steps of a round
NETS = [
    ("mlp on digits", "mlp", (1, 8, 8), 32, 50),
    ("cnn on digits", "cnn", (1, 8, 8), 128, 10),
    ("resnet20 on CIFAR", "resnet20", (3, 32, 32), 128, 1),
    ("vgg16_bn on CIFAR", "vgg16_bn", (3, 32, 32), 128, 1),
]
Step = Callable[[], object]


def make_step(name: str, model_name: str, shape: tuple[int, ...], batch: int, device: str) -> Step:
    """One training step of a method on fixed random data, SGD with momentum below."""
    torch.manual_seed(0)
    model = load_model(model_name, shape, 10).to(device).train()
    inputs = torch.randn(batch, *shape, device=device)
    targets = torch.randint(10, (batch,), device=device)
    loss = load_loss("cross_entropy")
    options: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}
    if name == "SSGD optimizer":
        optimizer: torch.optim.Optimizer = SSGD(model.parameters(), model=model, **options)
    else:
        optimizer = torch.optim.SGD(model.parameters(), **options)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(model(inputs), targets)
        value.backward()
        return value

    if name in ("torch SGD", "SSGD optimizer"):
        return lambda: optimizer.step(closure)  # type: ignore[arg-type]
    method_class = METHODS[name]
    method = method_class(Task(model, loss, optimizer, batch_size=batch), method_class.Settings())
    return lambda: method.step(inputs, targets, 0.0)


def seconds(steps: dict[str, Step], repeats: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step, for each method and round."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            for _ in range(repeats):
                step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append((time.perf_counter() - began) / repeats)
    return times


def peak_bytes(step: Step, device: str) -> int:
    """Highest total of tensors allocated during one step, above what was alive before it."""
    step()
    if device != "cpu":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    sizes = [
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    total = peak = 0
    for _, size in sorted(sizes):
        total += size
        peak = max(peak, total)
    return peak


def standing_bytes(model_name: str, shape: tuple[int, ...]) -> int:
    """Weights and momentum, alive through every step (gradients are freed at its start)."""
    model = load_model(model_name, shape, 10)
    return 2 * sum(parameter.numel() * 4 for parameter in model.parameters())


def measure(net: tuple[str, str, tuple[int, ...], int, int], device: str, rounds: int) -> list[Any]:
    """One row for each method: step time and memory, and their ratios to the package's SGD."""
    title, model_name, shape, batch, repeats = net
    names = ["sgd", "torch SGD", *[name for name in METHODS if name != "sgd"], "SSGD optimizer"]
    steps = {name: make_step(name, model_name, shape, batch, device) for name in names}
    times = seconds(steps, repeats, rounds)
    standing = standing_bytes(model_name, shape)
    memory = {name: standing + peak_bytes(step, device) for name, step in steps.items()}
    rows = []
    for name in names:
        ratios = [t / base for t, base in zip(times[name], times["sgd"], strict=True)]
        rows.append(
            {
                "net": f"{title}, batch {batch}",
                "method": name,
                "ms": 1e3 * statistics.median(times[name]),
                "time_ratio": statistics.median(ratios),
                "MiB": memory[name] / 2**20,
                "memory_ratio": memory[name] / memory["sgd"],
            }
        )
    return rows


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="the digits networks only, few rounds")
    options = parser.parse_args()
    rows = []
    for net in NETS[:2] if options.quick else NETS:
        rows += measure(net, options.device, 3 if options.quick else 9)
    threads = torch.get_num_threads()
    table = Table(title=f"training step, {options.device}, {threads} threads, {torch.__version__}")
    for column in ("net", "method", "ms / step", "× SGD", "peak MiB", "× SGD"):
        table.add_column(column, justify="left" if column in ("net", "method") else "right")
    for row in rows:
        table.add_row(
            row["net"],
            row["method"],
            f"{row['ms']:.2f}",
            f"{row['time_ratio']:.2f}",
            f"{row['MiB']:.1f}",
            f"{row['memory_ratio']:.3f}",
        )
    Console(width=110).print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
