"""Landscapes made by hand: the record and the arrays, as the command writes them."""

from typing import Any

import numpy as np

POINTS = 21
AXIS = np.linspace(-1, 1, POINTS)


def _record(grids: list[dict[str, Any]], *, dims: int, split: str) -> dict[str, Any]:
    unit = "fraction of each filter's norm"
    return {
        "settings": {"dims": dims, "directions": "random", "normalize": "filter", "seed": 0},
        "checkpoints": list(dict.fromkeys(grid["checkpoint"] for grid in grids)),
        "split": split,
        "n_samples": 1437,
        "units": {"alpha": unit, "beta": unit} if dims == 2 else {"alpha": unit},
        "grids": grids,
        "command": "ssgd-analyze landscape runs/a runs/b --out pictures",
        "versions": {"ssgd-analysis": "0.1.0"},
    }


def _stacked(losses: list[np.ndarray], lead: tuple[int, int], split: str) -> dict[str, np.ndarray]:
    shape = tuple(count for count in lead if count > 1) + losses[0].shape
    loss = np.reshape(losses, shape)
    arrays = {"loss": loss, "accuracy": np.exp(-loss)}
    if split == "both":
        arrays |= {"test_loss": 1.5 * loss + 0.1, "test_accuracy": 0.9 * np.exp(-loss)}
    return arrays


def planes(
    names: tuple[str, ...] = ("runs/a", "runs/b"),
    *,
    repeats: int = 1,
    split: str = "train",
    path: bool = False,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Bowls, steeper from name to name, without a symmetry between alpha and beta."""
    alpha, beta = AXIS, np.linspace(-0.5, 1, POINTS - 4)
    grids, losses = [], []
    for number, name in enumerate(names, start=1):
        for repeat in range(repeats):
            steep = number * (1 + 0.3 * repeat)
            bowl = alpha[:, None] ** 2 + 3 * beta**2 + alpha[:, None] * beta
            losses.append(0.05 * number + steep * bowl)
            grids.append(
                {
                    "checkpoint": name,
                    "repeat": repeat,
                    "slopes": [0.0, 0.0],
                    "curvatures": [2 * steep, 6 * steep],
                    "mixed": steep,
                    "lambda_max": {"value": 100.0 * number, "residual": 1e-5},
                    "share": 0.03 * number,
                    "share_note": None,
                    "marks": [
                        {"label": "centre", "alpha": 0.0, "beta": 0.0, "loss": 0.05 * number,
                         "accuracy": 0.98}
                    ],
                    "holes": 0,
                    "error": None,
                }
            )  # fmt: skip
            if path:
                grids[-1] |= _path(0.05 * number, steep)
    arrays = {"alpha": alpha, "beta": beta, **_stacked(losses, (len(names), repeats), split)}
    return _record(grids, dims=2, split=split), arrays


def _path(lowest: float, steep: float, steps: int = 12) -> dict[str, Any]:
    rest = np.linspace(1, 0, steps)
    alpha, beta = -0.9 * rest**2, 0.8 * rest + 0.05 * np.sin(9 * rest)
    loss = lowest + steep * (alpha**2 + 3 * beta**2 + alpha * beta) + 0.1 * rest
    end = {"label": "end", "alpha": alpha[-1], "beta": beta[-1], "loss": loss[-1], "accuracy": None}
    path = {"steps": list(range(0, 90 * steps, 90)), "alpha": alpha.tolist(),
            "beta": beta.tolist(), "outside": (0.2 * rest).tolist(),
            "loss": loss.tolist()}  # fmt: skip
    return {"path": path, "marks": [end], "explained_variance": [0.81, 0.12]}


def lines(
    names: tuple[str, ...] = ("runs/a", "runs/b"), *, repeats: int = 1, split: str = "train"
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Parabolas, steeper from name to name and from draw to draw."""
    grids, losses = [], []
    for number, name in enumerate(names, start=1):
        for repeat in range(repeats):
            steep = number * (1 + 0.3 * repeat)
            losses.append(0.05 * number + steep * AXIS**2)
            grids.append(
                {
                    "checkpoint": name,
                    "repeat": repeat,
                    "slopes": [0.0],
                    "curvatures": [2 * steep],
                    "share": None,
                    "share_note": "told for planes only",
                    "marks": [
                        {"label": "centre", "alpha": 0.0, "loss": 0.05 * number, "accuracy": None}
                    ],
                    "holes": 0,
                    "error": None,
                }
            )
    arrays = {"alpha": AXIS, **_stacked(losses, (len(names), repeats), split)}
    return _record(grids, dims=1, split=split), arrays
