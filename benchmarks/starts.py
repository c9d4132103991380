"""Worst cases from several starts beside a long plain ascent, and what a sample does to gradients.

``starts``: small networks trained on digits; the default search, and the first of its ascents
alone, over the best of six plain projected gradient ascents of 200 steps. ``samples``: the norm of
the gradient and SAM's rise on samples of the training digits beside those of all of them.
"""

import math
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ssgd_analysis.data import load_data
from ssgd_analysis.flatness import METRICS
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.problem import Problem

EXAMPLES, STEPS = 256, 300  # trained on, and Adam steps
REFERENCE_STARTS, REFERENCE_STEPS = 6, 200
BALLS = (("worst_case", 0.05), ("worst_case", 0.5), ("adaptive_worst", 0.5), ("adaptive_worst", 2))
SAMPLES = (64, 256)


class Rows(nn.Module):
    """An LSTM over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.read = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the last state."""
        return self.read(self.lstm(x.reshape(-1, 8, 8))[0][:, -1])


class Attends(nn.Module):
    """A transformer layer over the rows of an image."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed, self.read = nn.Linear(8, width), nn.Linear(width, 10)
        self.position = nn.Parameter(0.02 * torch.randn(8, width))
        self.layer = nn.TransformerEncoderLayer(
            width, 2, 2 * width, dropout=0.0, batch_first=True, activation="gelu"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the mean over rows."""
        return self.read(self.layer(self.embed(x.reshape(-1, 8, 8)) + self.position).mean(1))


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


def _conv(norm: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        norm(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        norm(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


NETS: dict[str, Callable[[], nn.Module]] = {
    "mlp": _mlp,
    "cnn, GroupNorm": lambda: _conv(lambda width: nn.GroupNorm(4, width)),
    "cnn, BatchNorm": lambda: _conv(nn.BatchNorm2d),
    "lstm": Rows,
    "transformer": Attends,
}


def trained(name: str, seed: int, count: int = EXAMPLES) -> Problem:
    """A net after some steps of Adam, and the problem of what it was trained on."""
    torch.manual_seed(seed)
    inputs, targets = load_data("digits").train.batches(count)[0]
    model = NETS[name]()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(STEPS):
        chosen = torch.randint(len(targets), (64,))
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[chosen]), targets[chosen]).backward()
        optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        for _ in range(30):  # BatchNorm's statistics at these weights
            model(inputs)
    return Problem(model.eval(), F.cross_entropy, [(inputs, targets)])


def plain_ascent(problem: Problem, relative: bool, rho: float, seed: int) -> float:
    """The best rise of six plain ascents in an L2 ball, with steps that fall along a cosine.

    From the clean weights and from five random points of the sphere.
    """
    weights = list(problem.parameters.values())
    clean = torch.cat([w.detach().flatten() for w in weights])
    scale = clean.abs() if relative else torch.ones_like(clean)
    random = torch.Generator().manual_seed(seed)

    def put(u: Tensor) -> None:
        with torch.no_grad():
            for weight, part in zip(weights, problem.split(clean + scale * u), strict=True):
                weight.copy_(part)

    low, best = problem.mean_loss(), 0.0
    for start in range(REFERENCE_STARTS):
        u = torch.zeros_like(clean)
        if start:
            u = torch.randn(clean.shape, generator=random)
            u *= rho / u.norm()
        for step in range(REFERENCE_STEPS):
            put(u)
            slope = scale * torch.cat([part.flatten() for part in problem.gradient()])
            length = rho * (1 + math.cos(math.pi * step / REFERENCE_STEPS)) / 4
            u = u + length * slope / slope.norm().clamp_min(1e-30)
            u = u * min(1.0, rho / float(u.norm()))
        put(u)
        best = max(best, problem.mean_loss() - low)
    put(torch.zeros_like(clean))
    return best


def starts(seed: int = 0) -> list[dict[str, Any]]:
    """Every net and ball: the default search and its first ascent over the plain ascents' best."""
    rows = []
    for net in NETS:
        problem = trained(net, seed)
        for name, rho in BALLS:
            measure: Callable[..., Any] = METRICS[name].on
            found = measure(MetricContext(problem), rho=rho)
            plain = plain_ascent(problem, name == "adaptive_worst", rho, seed + 9)
            rows.append(
                {
                    "net": net,
                    "metric": name,
                    "rho": rho,
                    "plain": plain,
                    "ours": found.value / plain,
                    "one start": found.details["from_clean"] / plain,
                    "gradients": found.cost.gradients,
                    "forwards": found.cost.forwards,
                }
            )
    return rows


def samples(net: str = "cnn, GroupNorm", draws: int = 20) -> list[dict[str, Any]]:
    """Means over samples of the training digits, and the value of all of them."""
    whole = trained(net, 0, 1297)
    ((inputs, targets),) = whole.batches
    random = torch.Generator().manual_seed(0)
    rows = []
    for count in (*SAMPLES, len(targets)):
        found = []
        for _ in range(draws if count < len(targets) else 1):
            chosen = torch.randperm(len(targets), generator=random)[:count]
            part = [(inputs[chosen], targets[chosen])]
            context = MetricContext(Problem(whole.model, F.cross_entropy, part))
            norm: Callable[..., Any] = METRICS["gradient_norm"].on
            rise: Callable[..., Any] = METRICS["sam"].on
            gradient = norm(context)
            found.append(
                (gradient.value, gradient.details["corrected_square"], rise(context).value)
            )
        norms, squares, rises = zip(*found, strict=True)
        rows.append(
            {
                "net": net,
                "samples": count,
                "draws": len(found),
                "gradient_norm": statistics.mean(norms),
                "square": statistics.mean(norm**2 for norm in norms),
                "corrected_square": statistics.mean(squares),
                "negative": sum(square < 0 for square in squares),
                "sam": statistics.mean(rises),
            }
        )
    return rows


def show(rows: list[dict[str, Any]], title: str) -> None:
    """A table with a column for each key."""
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=150).print(table)
