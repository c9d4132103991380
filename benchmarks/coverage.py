"""How often the intervals of a survey hold what a dense float64 Hessian says.

Forty small networks, of ten kinds, at initialisation and trained, two seeds each; every one is
surveyed several times at the defaults of ``sharpness`` in float32, with other probes. The truth is
a matrix of double backward passes in float64, row by row, by no code of the package. Prints how
many surveys' 95% intervals hold the truth, and the median length of the intervals (of the trace
relative to it); ``--json FILE`` writes the numbers. About five minutes on one core.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ssgd_analysis.curvature import HessianOperator, survey
from ssgd_analysis.problem import Problem

EXAMPLES, CLASSES = 96, 4
NAMES = ("negative", "near_zero", "trace")


def mlp(activation: type[nn.Module]) -> nn.Module:
    """Two hidden layers, 8 inputs."""
    return nn.Sequential(
        nn.Linear(8, 16), activation(), nn.Linear(16, 12), activation(), nn.Linear(12, CLASSES)
    )


def convolutional() -> nn.Module:
    """Two convolutions with BatchNorm, for 6 × 6 images."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 6, 6)),
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, CLASSES),
    )


class Recurrent(nn.Module):
    """The last state of a recurrent layer is read; 4 steps of 2 inputs."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layer, self.read = kind(2, 8, batch_first=True), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, CLASSES) for (B, 8)."""
        return self.read(self.layer(x.unflatten(1, (4, 2)))[0][:, -1])


class Language(nn.Module):
    """A transformer layer with LayerNorm over tokens; tied: the embedding reads the output, too."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.first, self.second = nn.LayerNorm(8), nn.LayerNorm(8)
        self.widen, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)
        self.read = nn.Linear(8, 12, bias=False)
        if tied:
            self.read.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, 12, T) for tokens (B, T)."""
        x = self.embed(tokens)
        y = self.first(x)
        x = x + self.attention(y, y, y, need_weights=True)[0]
        x = x + self.narrow(F.gelu(self.widen(self.second(x))))
        return self.read(x).transpose(1, 2)


KINDS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "mlp, tanh": (lambda: mlp(nn.Tanh), 8),
    "mlp, relu": (lambda: mlp(nn.ReLU), 8),
    "mlp, gelu": (lambda: mlp(nn.GELU), 8),
    "mlp, sigmoid": (lambda: mlp(nn.Sigmoid), 8),
    "mlp, softplus": (lambda: mlp(nn.Softplus), 8),
    "conv, BatchNorm": (convolutional, 36),
    "transformer, LayerNorm": (lambda: Language(tied=False), 0),
    "transformer, tied": (lambda: Language(tied=True), 0),
    "GRU": (lambda: Recurrent(nn.GRU), 8),
    "LSTM": (lambda: Recurrent(nn.LSTM), 8),
}


def network(kind: str, seed: int, steps: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A model of a kind after so many steps of Adam, and its examples; 0 inputs: tokens."""
    torch.manual_seed(seed)
    make, width = KINDS[kind]
    model = make()
    if width:
        inputs = torch.randn(EXAMPLES, width)
        targets = (inputs[:, :CLASSES] + 0.7 * torch.randn(EXAMPLES, CLASSES)).argmax(1)
    else:
        inputs = torch.randint(12, (EXAMPLES, 6))
        targets = (inputs + inputs.roll(1, 1)) % 12
    model(inputs)  # BatchNorm's statistics
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model.eval(), inputs, targets


def dense(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The Hessian in float64, shape (P, P), one double backward pass a row."""
    model.double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    weights = list(model.parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = F.cross_entropy(model(inputs), targets)
        grads = torch.autograd.grad(loss, weights, create_graph=True)
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    rows = [
        torch.cat(
            [
                row.reshape(-1)
                for row in torch.autograd.grad(
                    entry, weights, retain_graph=True, materialize_grads=True
                )
            ]
        )
        for entry in flat
    ]
    model.float()
    matrix = torch.stack(rows)
    return (matrix + matrix.T) / 2


def measured(kind: str, seed: int, steps: int, surveys: int) -> list[dict[str, list[float]]]:
    """For each survey of one network, (low, high, truth, deviation) by number."""
    model, inputs, targets = network(kind, seed, steps)
    values = torch.linalg.eigvalsh(dense(model, inputs, targets)).numpy()
    operator = HessianOperator(Problem(model, F.cross_entropy, [(inputs, targets)]))
    rows = []
    for index in range(surveys):
        found = survey(operator, 5, seed=1000 * seed + index)
        density, trace = found.density, found.trace
        truths = {
            "negative": float((values < -density.threshold).mean()),
            "near_zero": float((np.abs(values) <= density.threshold).mean()),
            "trace": float(values.sum()),
        }
        rows.append(
            {
                name: [part.low, part.high, truths[name], (part.value - truths[name]) / part.stderr]
                for name, part in (
                    ("negative", density.negative),
                    ("near_zero", density.near_zero),
                    ("trace", trace),
                )
            }
        )
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--surveys", type=int, default=5, help="of each network")
    parser.add_argument("--seeds", type=int, default=2, help="networks of each kind and state")
    parser.add_argument("--kind", action="append", choices=KINDS, help="default: all")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    columns = [f"{name}: {what}" for name in NAMES for what in ("held", "length", "truth")]
    table = Table("network", "state", *columns)
    everything: dict[str, list[dict[str, list[float]]]] = {}
    for kind in options.kind or KINDS:
        for state, steps in (("initial", 0), ("trained", 150)):
            rows = [
                row
                for seed in range(options.seeds)
                for row in measured(kind, seed, steps, options.surveys)
            ]
            everything[f"{kind}, {state}"] = rows
            table.add_row(kind, state, *_cells(rows))
    table.add_row("all", "", *_cells([row for rows in everything.values() for row in rows]))
    Console(width=180).print(table)
    if options.json:
        options.json.write_text(json.dumps(everything))


def _cells(rows: list[dict[str, list[float]]]) -> list[str]:
    cells = []
    for name in NAMES:
        low, high, truth, _ = np.array([row[name] for row in rows]).T
        held = int(((low <= truth) & (truth <= high)).sum())
        unit = np.abs(truth) if name == "trace" else np.ones(len(rows))
        cells += [f"{held}/{len(rows)}", f"{np.median((high - low) / unit):.2f}"]
        cells.append(f"{np.median(truth):.3g}")
    return cells


if __name__ == "__main__":
    main()
