"""Worst cases beside the published procedure's, and what all metrics of the table cost.

``ascent``: the rise of the loss that ours and the procedure of Andriushchenko et al. 2023 find in
the same balls, batch by batch of 128, and the passes that each takes. ``metrics``: every metric of
the table at its defaults on one context, on networks trained on all digits and on ResNet-20
with 2,048 images (hours on a CPU: ``--examples 64`` takes about as many passes). ``starts`` and
``samples``: see ``starts.py``. Prints tables;
``--json FILE`` writes the numbers.
"""

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import starts
import torch
import torch.nn.functional as F
from networks import NETS, Net
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness import METRICS
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.problem import Problem

BATCH, STEPS = 128, 20
OUR_STEPS = (5, 10, 20)
# the radii of the published study for ResNets: (norm, relative) -> radii
GRIDS = {
    ("l2", False): (0.25, 0.5, 1.0, 2.0),
    ("linf", False): (0.0005, 0.001, 0.002, 0.004),
    ("l2", True): (0.25, 0.5, 1.0, 2.0),
    ("linf", True): (0.001, 0.002, 0.004, 0.008),
}
EXAMPLES = {"mlp": 1297, "cnn": 1297, "resnet20": 2048}  # of the costs: all digits for training
FITS = {"mlp": 600, "cnn": 600, "resnet20": 60}  # SGD steps before


@dataclasses.dataclass
class Published:
    """The procedure of arXiv 2302.07011's released evaluation, step by step.

    It is APGD with these differences, all repeated here: the momentum term averages with the point
    before the last, so the surface is neared, not reached; a relative L2 step goes along the plain
    gradient and comes back to the ellipsoid by the nearest point in weight units, so that it
    settles where u ∝ w² ∘ slope and not at the maximum's u ∝ |w| ∘ slope; a step back to the best
    weights keeps the present perturbation, so the next slope is that of another point;
    and every step takes a pass for its slope and another for its loss. Weights of exactly zero,
    where its relative norm is 0/0, count as fixed.

    Args:
        loss: of one batch, a function of the weights: a differentiable scalar.
        clean: the weights.
        rho: radius.
        norm: ``l2`` or ``linf``.
        relative: whether entries count relative to their weight.
    """

    loss: Callable[[Sequence[Tensor]], Tensor]
    clean: list[Tensor]
    rho: float
    norm: str
    relative: bool
    gradients: int = 0
    forwards: int = 0

    def rise(self, steps: int = STEPS) -> float:
        """The largest rise of the loss that it sees."""
        reviews = _reviews(steps)
        start = best = self._value(self.clean)
        moves = [torch.zeros_like(w) for w in self.clean]
        before, here = moves, self.clean
        best_weights = self.clean
        length = last_length = 2 * self.rho
        last_best, last_review, updates = start, 0, 0
        for step in range(steps):
            grads = self._slopes(here)
            stepped = self._project(self._step(moves, grads, length))
            mixed = [0.75 * new + 0.25 * old for new, old in zip(stepped, before, strict=True)]
            before, moves = moves, mixed
            here = [w + move for w, move in zip(self.clean, moves, strict=True)]
            value = self._value(here)
            if value > best:
                best, best_weights = value, here
                updates += 1
            if step in reviews:
                rarely_better = updates < 0.75 * (step - last_review)
                stuck = last_length == length and last_best == best
                last_length, last_best, last_review, updates = length, best, step, 0
                if rarely_better or stuck:
                    length /= 2
                    here = best_weights
        return best - start

    def _value(self, weights: Sequence[Tensor]) -> float:
        self.forwards += 1
        with torch.no_grad():
            return float(self.loss(weights))

    def _slopes(self, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        self.gradients += 1
        lent = [w.detach().requires_grad_() for w in weights]
        return torch.autograd.grad(self.loss(lent), lent)

    def _sizes(self) -> list[Tensor]:
        return [w.abs() if self.relative else torch.ones_like(w) for w in self.clean]

    def _step(
        self, moves: Sequence[Tensor], grads: Sequence[Tensor], length: float
    ) -> list[Tensor]:
        if self.norm == "linf":
            directions = [grad.sign() for grad in grads]
        else:
            norm = float(torch.stack([grad.norm() for grad in grads]).norm()) + 1e-12
            directions = [grad / norm for grad in grads]
        return [
            move + length * size * direction
            for move, size, direction in zip(moves, self._sizes(), directions, strict=True)
        ]

    def _project(self, moves: list[Tensor]) -> list[Tensor]:
        sizes = self._sizes()
        if self.norm == "linf":
            return [
                torch.clamp(move, -self.rho * size, self.rho * size)
                for move, size in zip(moves, sizes, strict=True)
            ]

        def shrunk(multiplier: float) -> tuple[list[Tensor], float]:
            """Each entry over 1 + multiplier / size², and its norm in units of the sizes."""
            found = [
                torch.where(size > 0, move * size**2 / (size**2 + multiplier), 0.0)
                for move, size in zip(moves, sizes, strict=True)
            ]
            parts = [
                torch.where(size > 0, move / size, 0.0).norm()
                for move, size in zip(found, sizes, strict=True)
            ]
            return found, float(torch.stack(parts).norm())

        found, norm = shrunk(0.0)
        if norm <= self.rho:
            return found
        low, high = 0.0, 1.0
        while shrunk(high)[1] > self.rho:
            high *= 2
        while abs(norm - self.rho) > 1e-5:
            middle = (low + high) / 2
            found, norm = shrunk(middle)
            low, high = (middle, high) if norm > self.rho else (low, middle)
            if high - low <= 1e-12 * high:  # float32 holds no more
                break
        return found


def _reviews(steps: int) -> list[int]:
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return [math.ceil(share * steps) for share in shares[1:]]


def published(problem: Problem, rho: float, norm: str, relative: bool) -> dict[str, float]:
    """The mean over batches of the published procedure's rise, and its passes over all data."""
    clean = [p.detach() for p in problem.parameters.values()]
    found = {"rise": 0.0, "gradients": 0.0, "forwards": 0.0}
    with problem.evaluating():
        for share, batch in zip(problem.shares, problem.batches, strict=True):

            def loss(weights: Sequence[Tensor], batch: Any = batch) -> Tensor:
                return problem.loss_at(weights, batch)

            run = Published(loss, clean, rho, norm, relative)
            found["rise"] += share * run.rise()
            found["gradients"] += share * run.gradients
            found["forwards"] += share * run.forwards
    return found


def ours(problem: Problem, rho: float, norm: str, relative: bool, steps: int) -> dict[str, float]:
    """The same by this package's metrics."""
    context = MetricContext(problem)
    name = "adaptive_worst" if relative else "m_sharpness"
    measure: Callable[..., Any] = METRICS[name].on
    found = measure(context, rho=rho, norm=norm, steps=steps, m=BATCH, starts=1)
    return {
        "rise": found.value,
        "gradients": found.cost.gradients,
        "forwards": found.cost.forwards,
    }


def trained(net: Net, device: str, batch: int) -> tuple[nn.Module, Problem]:
    """A net of the benchmarks after more steps, and its problem in batches."""
    net = dataclasses.replace(net, steps=FITS[net.name])
    model, ((inputs, targets),) = net.make(device)
    batches = list(zip(inputs.split(batch), targets.split(batch), strict=True))
    return model, Problem(model, F.cross_entropy, batches)


def ascents(net: Net, device: str, count: int) -> list[dict[str, Any]]:
    """Ours beside the published procedure, at the first published radii."""
    _, problem = trained(net, device, BATCH)
    rows: list[dict[str, Any]] = []
    for (norm, relative), radii in GRIDS.items():
        for rho in radii[:count]:
            row: dict[str, Any] = {
                "net": net.name,
                "examples": problem.n_samples,
                "loss": problem.mean_loss(),
                "norm": norm,
                "relative": relative,
                "rho": rho,
                "published": published(problem, rho, norm, relative),
                "ours": {n: ours(problem, rho, norm, relative, n) for n in OUR_STEPS},
            }
            rows.append(row)
    return rows


def costs(net: Net, device: str) -> dict[str, Any]:
    """Every metric of the table at its defaults, in turn on one context."""
    _, problem = trained(net, device, 512)
    context = MetricContext(problem)
    rows: list[dict[str, Any]] = []
    began = time.perf_counter()
    for name, entry in METRICS.items():
        start = time.perf_counter()
        measure: Callable[..., Any] = entry.on
        try:
            found = measure(context)
        except InputError as error:
            rows.append({"metric": name, "error": str(error)})
            continue
        rows.append(
            {
                "metric": name,
                "value": found.value,
                "stderr": found.stderr,
                **dataclasses.asdict(found.cost),
                "seconds": time.perf_counter() - start,
            }
        )
    return {
        "net": net.name,
        "examples": problem.n_samples,
        "parameters": problem.n_parameters,
        "metrics": rows,
        "cost": dataclasses.asdict(context.cost),
        "seconds": time.perf_counter() - began,
    }


def show_ascents(rows: list[dict[str, Any]]) -> None:
    """Rises and passes, one row a ball."""
    table = Table(title=f"largest rise in a ball, batches of {BATCH}; passes: gradients + forwards")
    columns = ["net, N", "loss", "ball", "ρ", f"published, {STEPS} steps", "passes",
               f"ours, {STEPS} steps", "passes"]  # fmt: skip
    columns += [f"/ published, {steps} steps" for steps in OUR_STEPS]
    for column in columns:
        table.add_column(column, justify="left" if column in ("net, N", "ball") else "right")
    for row in rows:
        cells = []
        for found in (row["published"], row["ours"][STEPS]):
            passes = f"{found['gradients']:.3g} + {found['forwards']:.3g}"
            cells += [f"{found['rise']:.5g}", passes]
        published = row["published"]["rise"]
        table.add_row(
            f"{row['net']}, {row['examples']}",
            f"{row['loss']:.3g}",
            ("relative " if row["relative"] else "") + row["norm"],
            f"{row['rho']:g}",
            *cells,
            *(f"{row['ours'][steps]['rise'] / published:.3f}" for steps in OUR_STEPS),
        )
    Console(width=150).print(table)


def show_costs(found: dict[str, Any]) -> None:
    """Passes over all data and seconds, one row a metric."""
    table = Table(
        title=f"all metrics at their defaults, one context: {found['net']},"
        f" {found['examples']} examples, {found['parameters']} parameters"
    )
    kinds = ("forwards", "gradients", "products")
    for column in ("metric", "value", "± stderr", *kinds, "seconds"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for row in found["metrics"]:
        if "error" in row:
            table.add_row(row["metric"], "–", row["error"])
            continue
        error = "–" if row["stderr"] is None else f"{row['stderr']:.2g}"
        spent = [f"{row[kind]:.4g}" for kind in kinds]
        table.add_row(row["metric"], f"{row['value']:.5g}", error, *spent, f"{row['seconds']:.3f}")
    spent = [f"{found['cost'][kind]:.4g}" for kind in kinds]
    table.add_row("all", "", "", *spent, f"{found['seconds']:.2f}", style="bold")
    Console(width=140).print(table)


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--nets", nargs="*", default=list(FITS), choices=list(FITS))
    parser.add_argument("--parts", nargs="*", default=["ascent", "metrics"])
    parser.add_argument("--radii", type=int, default=4, help="radii of each published grid")
    parser.add_argument(
        "--examples", type=int, help="of the costs; default: 1297 digits, 2048 images"
    )
    options = parser.parse_args()
    nets = [net for net in NETS if net.name in options.nets]
    answer: dict[str, Any] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if options.device != "cpu" else "cpu",
    }
    if "ascent" in options.parts:
        answer["ascent"] = [
            row for net in nets for row in ascents(net, options.device, options.radii)
        ]
        show_ascents(answer["ascent"])
    if "metrics" in options.parts:
        answer["metrics"] = []
        for net in nets:
            many = dataclasses.replace(net, examples=options.examples or EXAMPLES[net.name])
            answer["metrics"].append(costs(many, options.device))
            show_costs(answer["metrics"][-1])
    if "starts" in options.parts:
        answer["starts"] = starts.starts()
        show = "plain projected ascent, six starts of 200 steps; ours and one start over it"
        starts.show(answer["starts"], show)
    if "samples" in options.parts:
        answer["samples"] = starts.samples()
        starts.show(answer["samples"], "samples of the training digits")
    if options.json:
        options.json.write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
