"""Landscapes beside plain forward passes: seconds a point, and how far the losses are apart.

All ways take turns in one run: a row of the grid each, then the next row. ``loss-landscapes``
counts where it is installed. Prints a table; ``--json FILE`` writes the numbers.
"""

import argparse
import copy
import dataclasses
import importlib.util
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from networks import NETS, Net
from timing import Peak
from torch import Tensor, nn

from ssgd_analysis.landscapes import normalized_directions, random_directions
from ssgd_analysis.landscapes.evaluation import Evaluator, measured_plan
from ssgd_analysis.models import LOSSES
from ssgd_analysis.problem import Problem

Row = Callable[[np.ndarray], tuple[np.ndarray, float]]  # points to losses, and the accuracies' sum
GOALS = {"cnn": 0.4, "mlp": 0.7, "resnet20": 0.6}
POINTS = {"mlp": 51, "cnn": 51}  # an axis; 25 for the others


def plain_row(problem: Problem, directions: list[list[Tensor]], *, accuracy: bool) -> Row:
    """Set the weights, one forward pass over all data, the loss: what one writes by hand."""
    model = problem.model.eval()
    ((inputs, targets),) = problem.batches
    parameters = list(problem.parameters.values())
    clean = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def row(points_of_row: np.ndarray) -> tuple[np.ndarray, float]:
        losses, right = [], 0.0
        for point in points_of_row.tolist():
            for parameter, weight, *moves in zip(parameters, clean, *directions, strict=True):
                parameter.copy_(weight)
                for amount, move in zip(point, moves, strict=True):
                    parameter.add_(move, alpha=amount)
            outputs = model(inputs)
            losses.append(float(F.cross_entropy(outputs, targets)))
            if accuracy:
                right += float((outputs.argmax(1) == targets).double().mean())
        for parameter, weight in zip(parameters, clean, strict=True):
            parameter.copy_(weight)
        return np.array(losses), right

    return row


def peer_row(problem: Problem, directions: list[list[Tensor]], points: int) -> Row:
    """A row by ``loss-landscapes``: a line of as many points, timed only."""
    from loss_landscapes import linear_interpolation  # type: ignore[import-not-found]
    from loss_landscapes.metrics import Loss  # type: ignore[import-not-found]

    model = copy.deepcopy(problem.model).eval()
    end: nn.Module = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, move in zip(end.parameters(), directions[0], strict=True):
            parameter.add_(move)
    metric = Loss(F.cross_entropy, *problem.batches[0])

    def row(points_of_row: np.ndarray) -> tuple[np.ndarray, float]:
        with torch.no_grad():
            linear_interpolation(model, end, metric, points)
        return np.full(len(points_of_row), np.nan), 0.0

    return row


def measure(net: Net, points: int, rows: int, tune: bool) -> dict[str, Any]:
    """Median ratio of our rows to the plain rows beside them, over rows spread over a grid."""
    model, batches = net.make("cpu")
    problem = Problem(model, LOSSES["cross_entropy"], batches)
    directions = normalized_directions(problem, random_directions(problem, 2, seed=0), "filter")
    began = time.perf_counter()
    ours = Evaluator(problem, directions)
    chosen = time.perf_counter() - began

    def by(evaluator: Evaluator) -> Row:
        def row(points_of_row: np.ndarray) -> tuple[np.ndarray, float]:
            losses, accuracies = evaluator.evaluate(points_of_row)
            return losses, float(accuracies.sum())

        return row

    work = {
        "plain": plain_row(problem, directions, accuracy=False),
        "plain, accuracy": plain_row(problem, directions, accuracy=True),
        "ours": by(ours),
        "bf16": by(Evaluator(problem, directions, precision="bf16")),
    }
    if tune:
        plan = measured_plan(problem, directions)
        work["tuned"] = by(Evaluator(problem, directions, plan=plan))
    if importlib.util.find_spec("loss_landscapes"):
        work["loss-landscapes"] = peer_row(problem, directions, points)
    axis = np.linspace(-1, 1, points)
    chosen_rows = axis[np.linspace(0, points - 1, rows).round().astype(int)]
    seconds: dict[str, list[float]] = {name: [] for name in work}
    gap, right = 0.0, 0.0
    for number, alpha in enumerate([0.0, *chosen_rows]):  # the first one warms up
        points_of_row = np.stack([np.full(points, alpha), axis], axis=1)
        found = {}
        for name, row in work.items():
            began = time.perf_counter()
            found[name] = row(points_of_row)
            if number:
                seconds[name].append((time.perf_counter() - began) / points)
        truth = found["plain"][0]
        gap = max(gap, float(np.max(np.abs(found["ours"][0] - truth) / np.abs(truth))))
        right = max(right, abs(found["ours"][1] - found["plain, accuracy"][1]) / points)
    ratios = {
        name: [a / b for a, b in zip(times, seconds["plain"], strict=True)]
        for name, times in seconds.items()
    }
    memory = {}
    for name in ("plain, accuracy", "ours"):
        with Peak("cpu") as peak:
            work[name](points_of_row)
        memory[name] = peak.bytes
    return {
        "net": net.name,
        "examples": problem.n_samples,
        "points": points,
        "plan": dataclasses.asdict(ours.plan),
        "tuned": dataclasses.asdict(plan) if tune else None,
        "choosing": chosen,
        "seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "ratios": {name: statistics.median(values) for name, values in ratios.items()},
        "spread": [min(ratios["ours"]), max(ratios["ours"])],
        "gap": gap,
        "accuracy_gap": right,
        "memory": memory,
        "goal": GOALS.get(net.name),
    }


def show(rows: list[dict[str, Any]]) -> None:
    """A markdown table."""
    others = [n for n in rows[0]["ratios"] if n not in ("plain", "ours")]
    heads = ["net, N, grid", "plain ms", "ours ms", "× plain", "goal", *(f"{n} ×" for n in others),
             "gap in loss", "plan"]  # fmt: skip
    print("| " + " | ".join(heads) + " |")
    print("|---|" + "--:|" * (len(heads) - 2) + "---|")
    for row in rows:
        seconds, ratios, plan = row["seconds"], row["ratios"], row["plan"]
        low, high = row["spread"]
        cells = [
            f"{row['net']}, {row['examples']}, {row['points']} × {row['points']}",
            f"{1e3 * seconds['plain']:.3g}",
            f"{1e3 * seconds['ours']:.3g}",
            f"{ratios['ours']:.2f} ({low:.2f}–{high:.2f})",
            f"{row['goal'] or '–'}",
            *(f"{ratios[n]:.2f}" for n in others),
            f"{row['gap']:.0e}",
            f"{plan['way']}, {plan['chunk']} at once",
        ]
        print("| " + " | ".join(cells) + " |")
    for row in rows:
        mib = {name: value / 2**20 for name, value in row["memory"].items()}
        print(
            f"{row['net']}: choosing {row['choosing']:.2f} s; accuracies differ by at most"
            f" {row['accuracy_gap']:.1e}; memory above the start: plain"
            f" {mib['plain, accuracy']:.1f} MiB, ours {mib['ours']:.1f} MiB. {row['plan']['why']}"
        )


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--nets", nargs="*", default=["mlp", "cnn", "resnet20"])
    parser.add_argument("--points", type=int, help="an axis; default 51, 25 for larger nets")
    parser.add_argument("--rows", type=int, help="rows of the grid; default all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tune", action="store_true", help="a measured plan, too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for net in NETS:
        if net.name in options.nets:
            points = options.points or POINTS.get(net.name, 25)
            rows.append(measure(net, points, options.rows or points, options.tune))
    print(f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}\n")
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
