"""Training beside plain PyTorch loops: an epoch's time, a step's time, a step's peak memory.

    python benchmarks/training.py [--json FILE] [--device cpu] [--quick] [--methods NAME,NAME]

Goals on the mlp: an epoch of `sgd` at most 0.7 × that of a hand-written loop in torch's default
settings, of `s-sgd` at most 1.6 ×, of `sam` at most 0.75 × that of the usual one-file optimizer;
memory likewise, `s-sgd` at most 1.02 × SGD's. Times are measured in rounds that alternate
between the competitors, so that a busy machine slows all of them alike; ratios are medians over
rounds. Peak memory is the highest sum of tensors alive during a step: on a GPU by torch's own
counter, on the CPU by the allocations that torch's profiler reports.

The epochs are the package's own loop with all it does at a step (schedule, counting, check of
the loss, progress), beside: a loop over resident tensors, `torch loop`; a loop over a
`DataLoader`, `torch DataLoader`; and the former with `TwoStepSAM`. All ask for the loss at
every step. "CPU ×" is the same ratio in the process's CPU seconds, in rounds of their own: it tells
the same on a machine that is busy.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, TensorDataset

from ssgd_analysis.data import Dataset, Split, load_data
from ssgd_analysis.methods import SSGD, Passes, find_method
from ssgd_analysis.methods.when import START
from ssgd_analysis.models import load_loss, load_model
from ssgd_analysis.progress import SILENT
from ssgd_analysis.runs import Run, TrainConfig
from ssgd_analysis.training.loop import _Training

# name, model, input shape, batch size, steps of a round
NETS = [
    ("mlp on digits", "mlp", (1, 8, 8), 32, 50),
    ("cnn on digits", "cnn", (1, 8, 8), 128, 10),
    ("resnet20 on CIFAR", "resnet20", (3, 32, 32), 128, 1),
    ("vgg16_bn on CIFAR", "vgg16_bn", (3, 32, 32), 128, 1),
]
# model, data, batch size of an epoch
EPOCHS = [
    ("mlp", "digits", 32),
    ("mlp", "digits", 128),
    ("cnn", "digits", 128),
    ("resnet20", f"{__file__}:pictures", 128),
]
Step = Callable[[], object]
SGD: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}


def pictures(folder: Path | None = None) -> Dataset:
    """A stand-in for CIFAR-10: 512 images of noise."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        labels = torch.arange(count) % 10
        return Split(torch.randn(count, 3, 32, 32, generator=generator), labels)

    return Dataset("pictures", split(512), split(128))


class TwoStepSAM(torch.optim.Optimizer):
    """SAM as its popular one-file optimizers do it: first_step climbs, second_step steps."""

    def __init__(self, params: Iterable[Tensor], base: type, rho: float, **options: Any) -> None:
        super().__init__(params, {"rho": rho, **options})
        self.base = base(self.param_groups, **options)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        """To w + ρ g/‖g‖; w is stored."""
        grads = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
        norm = torch.stack([grad.norm(2) for grad in grads]).norm(2)
        for group in self.param_groups:
            length = group["rho"] / (norm + 1e-12)
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p]["w"] = p.data.clone()
                    p.add_(p.grad * length.to(p))
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        """Back to w; the base optimizer steps."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data = self.state[p]["w"]
        self.base.step()
        self.zero_grad()


def plain_step(model: torch.nn.Module, kind: str) -> Callable[[Tensor, Tensor], float]:
    """A hand-written step in torch's default settings: of SGD, or of :class:`TwoStepSAM`."""
    if kind == "one-file SAM":
        sam = TwoStepSAM(model.parameters(), torch.optim.SGD, 0.05, **SGD)

        def both(inputs: Tensor, targets: Tensor) -> float:
            loss = cross_entropy(model(inputs), targets)
            loss.backward()
            sam.first_step()
            cross_entropy(model(inputs), targets).backward()
            sam.second_step()
            return loss.item()

        return both
    optimizer = torch.optim.SGD(model.parameters(), **SGD)

    def one(inputs: Tensor, targets: Tensor) -> float:
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return one


def resident(split: Split, batch: int, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Minibatches of tensors that lie on the device."""
    assert split.targets is not None
    for index in torch.randperm(len(split)).to(device).split(batch)[: len(split) // batch]:
        yield split.inputs[index], split.targets[index]


def make_epoch(name: str, net: tuple[str, str, int], device: str, folder: Path) -> Step:
    """One epoch of a method through the package's loop, or of a hand-written loop."""
    model_name, data, batch = net
    if "torch" not in name and "one-file" not in name:
        fields: dict[str, Any] = {"model": model_name, "data": data, "batch_size": batch, **SGD}
        config = TrainConfig(method=name, epochs=10**6, device=device, augment=False, **fields)
        training = _Training(config, Run(folder), SILENT)
        return lambda: training._epoch(1)
    found = pictures() if ":" in data else load_data(data)
    dataset = found.to(device, torch.float32)
    train = dataset.train
    assert isinstance(train, Split)
    assert train.targets is not None
    model = load_model(model_name, dataset.input_shape, 10).to(device).train()
    step = plain_step(model, name)
    tensors = TensorDataset(train.inputs, train.targets)
    loader = DataLoader(tensors, batch, shuffle=True, drop_last=True)

    def epoch() -> None:
        batches = loader if "Loader" in name else resident(train, batch, device)
        for inputs, targets in batches:
            step(inputs, targets)

    return epoch


EPOCH_RIVALS = ("torch loop", "torch DataLoader", "sgd", "s-sgd", "one-file SAM", "sam")


def measure_epochs(net: tuple[str, str, int], device: str, rounds: int) -> list[dict[str, Any]]:
    """One row for each competitor: seconds an epoch, as a multiple of the hand-written loop's."""
    with tempfile.TemporaryDirectory() as folder:
        epochs = {name: make_epoch(name, net, device, Path(folder)) for name in EPOCH_RIVALS}
        times = seconds(epochs, 1, rounds)
        cpu = seconds(epochs, 1, rounds, time.process_time)
    rows = []
    for name in EPOCH_RIVALS:
        base = "one-file SAM" if name == "sam" else "torch loop"
        ratios = [t / b for t, b in zip(times[name], times[base], strict=True)]
        rows.append(
            {
                "net": f"{net[0]}, batch {net[2]}",
                "method": name,
                "ms": 1e3 * statistics.median(times[name]),
                "beside": base,
                "ratio": statistics.median(ratios),
                "low": min(ratios),
                "high": max(ratios),
                "cpu": statistics.median(t / b for t, b in zip(cpu[name], cpu[base], strict=True)),
            }
        )
    return rows


def make_step(name: str, model_name: str, shape: tuple[int, ...], batch: int, device: str) -> Step:
    """One training step of a method on fixed random data, SGD with momentum below."""
    torch.manual_seed(0)
    model = load_model(model_name, shape, 10).to(device).train()
    inputs = torch.randn(batch, *shape, device=device)
    targets = torch.randint(10, (batch,), device=device)
    loss = load_loss("cross_entropy")
    if name in ("torch loop", "one-file SAM"):
        plain = plain_step(model, name)
        return lambda: plain(inputs, targets)
    if name == "SSGD optimizer":
        optimizer: torch.optim.Optimizer = SSGD(model.parameters(), model=model, **SGD)
    else:
        optimizer = torch.optim.SGD(model.parameters(), **SGD, fused=True)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(model(inputs), targets)
        value.backward()
        return value

    if name == "SSGD optimizer":
        return lambda: optimizer.step(closure)  # type: ignore[arg-type]
    method_class = find_method(name)
    passes = Passes(model, loss, optimizer, batch_size=batch)
    method = method_class(passes, method_class.Settings())
    return lambda: method.step((inputs, targets), START)


def seconds(
    steps: dict[str, Step],
    repeats: int,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of a step, for each method and round."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            began = clock()
            for _ in range(repeats):
                step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append((clock() - began) / repeats)
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


def measure(
    net: tuple[str, str, tuple[int, ...], int, int], names: list[str], device: str, rounds: int
) -> list[Any]:
    """One row for each method: step time and memory, and their ratios to the package's SGD."""
    title, model_name, shape, batch, repeats = net
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
    parser.add_argument("--methods", default="s-sgd,wni,wni-2,sam", help="of the table of steps")
    options = parser.parse_args()
    rounds, fewer_rounds = (5, 3) if options.quick else (15, 9)
    epochs, steps = [], []
    for epoch in EPOCHS[:3] if options.quick else EPOCHS:
        epochs += measure_epochs(epoch, options.device, rounds)
    names = ["sgd", "torch loop", *options.methods.split(","), "one-file SAM", "SSGD optimizer"]
    for net in NETS[:2] if options.quick else NETS:
        steps += measure(net, names, options.device, fewer_rounds)
    where = f"{options.device}, {torch.get_num_threads()} threads, {torch.__version__}"
    columns: tuple[str, ...] = (
        "net",
        "method",
        "ms / epoch",
        "beside",
        "×",
        "lowest",
        "highest",
        "CPU ×",
    )
    keys: tuple[str, ...] = ("net", "method", "ms", "beside", "ratio", "low", "high", "cpu")
    show(f"an epoch, {where}", columns, keys, epochs)
    columns = ("net", "method", "ms / step", "× SGD", "peak MiB", "× SGD memory")
    keys = ("net", "method", "ms", "time_ratio", "MiB", "memory_ratio")
    show(f"a step, {where}", columns, keys, steps)
    if options.json:
        content = {"epochs": epochs, "steps": steps}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def show(title: str, columns: tuple[str, ...], keys: tuple[str, ...], rows: list[Any]) -> None:
    """Print a table; numbers to the right."""
    table = Table(title=title)
    for column in columns:
        words = column in ("net", "method", "beside")
        table.add_column(column, justify="left" if words else "right")
    for row in rows:
        cells = [row[key] for key in keys]
        table.add_row(*[c if isinstance(c, str) else f"{c:.3f}" for c in cells])
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
