"""Records and arrays of landscapes of every kind, as the command writes them; no network."""

import numpy as np

from ssgd_analysis.landscapes import LandscapeSettings

SLOPE, CURVATURE, MIXED, CENTRE = (0.1, -0.05), (12.0, 3.0), 0.5, 0.2
ASYMMETRY = [{"at": at, "distance": 0.5, "inward": 1.0, "outward": 2.3} for at in (0.0, 1.0)]


def quadratic(alpha, beta=0.0):
    """The loss that slopes and curvatures of these records predict."""
    first = CENTRE + SLOPE[0] * alpha + CURVATURE[0] * alpha**2 / 2
    second = SLOPE[1] * beta + CURVATURE[1] * beta**2 / 2
    return first + second + MIXED * alpha * beta


def landscape(
    directions="random",
    *,
    dims=1,
    names=("sgd",),
    repeats=1,
    points=21,
    split="train",
    scale=1.0,
    classes=True,
    adaptive=False,
    normalize=None,
    beta=None,
):
    """A record and its arrays: losses are the quadratic and a fourth power (hills for ``between``).

    Args:
        directions: as in the settings.
        dims: 1 or 2.
        names: of checkpoints.
        repeats: draws.
        points: for each axis.
        split: ``both`` gives test losses too.
        scale: factor of all losses.
        classes: whether there are accuracies.
        adaptive: only a part is measured.
        normalize: default: that of the command.
        beta: the second axis, for tests that must not take it for the first one.
    """
    rng = np.random.default_rng(0)
    normalize = normalize or ("filter" if directions == "random" else "none")
    between = directions == "between"
    axes = [np.linspace(-1, 1, points) if not between else np.linspace(-0.5, 1.5, points)] * dims
    if beta is not None:
        axes[1] = beta
    count = 1 if between else len(names)
    mesh = np.meshgrid(*axes, indexing="ij")
    grids, losses = [], []
    for index in range(count):
        for draw in range(repeats):
            factor = scale * (1 + index + 0.3 * draw)
            steeper = 4 * sum(part**4 for part in mesh)  # than the parabola
            loss = factor * (_hill(*mesh) if between else quadratic(*mesh) + steeper)
            losses.append(loss)
            grids.append(_grid(directions, dims, names, index, draw, factor, scale, split))
    lead = [n for n in (count, repeats) if n > 1]
    shape = (*lead, *(len(axis) for axis in axes))
    loss = np.stack(losses).reshape(shape)
    arrays = dict(zip(("alpha", "beta"), axes, strict=False)) | {"loss": loss}
    arrays["accuracy"] = np.exp(-loss / scale / 3) if classes else np.full(shape, np.nan)
    if split == "both":
        arrays["test_loss"] = 1.3 * loss + 0.1 * scale
        arrays["test_accuracy"] = 0.9 * arrays["accuracy"]
    if adaptive:
        arrays["measured"] = rng.random(shape) < 0.25
        for grid in grids:
            grid |= {"measured": points, "error": {"rms": 0.0123, "max": 0.045, "points": 9}}
    record = {
        "settings": {
            "dims": dims, "directions": directions, "normalize": normalize,
            "biases": "keep" if normalize == "none" else "zero", "span": 1.0, "points": points,
            "repeats": repeats, "bn": "frozen", "precision": "fp32", "adaptive": adaptive,
            "curvature": True, "seed": 0,
        },
        "checkpoints": list(names), "split": split, "samples": None, "n_samples": 1437,
        "n_test_samples": 360 if split == "both" else None, "batchnorm": True,
        "model": None, "data": None, "loss": None, "dtype": "float32", "batch_size": None,
        "units": LandscapeSettings(
            dims=dims, directions=directions, normalize=normalize, span=1.0
        ).units,
        "grids": grids, "plan": {},
        "axes": {name: list(array.shape) for name, array in arrays.items()},
        "command": f"ssgd-analyze landscape {' '.join(names)} --dims {dims}",
        "fingerprint": "0", "versions": {"ssgd-analysis": "0.1.0"},
    }  # fmt: skip
    return record, arrays


def planes(names=("runs/a", "runs/b"), *, repeats=1, split="train", path=False):
    """Planes whose axes differ."""
    return landscape(
        "trajectory" if path else "random", dims=2, names=names, repeats=repeats, split=split,
        beta=np.linspace(-0.5, 1, 17),
    )  # fmt: skip


def lines(names=("runs/a", "runs/b"), *, repeats=1, split="train"):
    """Lines along random directions."""
    return landscape(names=names, repeats=repeats, split=split)


def _hill(alpha, beta=0.0):
    """Two minima with a barrier, on a line or in a plane."""
    return 0.1 + 16 * (alpha * (1 - alpha)) ** 2 + 4 * beta**2 * (1 - beta) ** 2


def _grid(directions, dims, names, index, draw, factor, scale, split):
    facts = {
        "checkpoint": names[index], "repeat": draw, "norms": [1.0, 1.0][:dims],
        "slopes": [factor * s for s in SLOPE[:dims]],
        "curvatures": [factor * c for c in CURVATURE[:dims]],
        "lambda_max": {"value": 400.0 * factor, "residual": 1e-3}, "share": 0.03,
        "share_note": None, "holes": 0, "measured": 0, "error": None,
        "marks": [{"label": "checkpoint", "alpha": 0.0, "loss": factor * CENTRE,
                   "accuracy": 0.97}],
    }  # fmt: skip
    if dims == 2:
        facts |= {"mixed": factor * MIXED, "cosine": 0.001}
        facts["marks"][0]["beta"] = 0.0
    else:
        facts |= {"mixed": None, "lambda_max": None, "share": None}
        facts["share_note"] = "reported for planes only"
    if directions == "between":
        corners = [(0.0, 0.0), (1.0, 0.0), (0.4, 0.9)][: len(names)]
        facts["marks"] = [
            {"label": name, "alpha": a, "loss": 0.1 * factor, "accuracy": 0.97}
            | ({"beta": b} if dims == 2 else {})
            for name, (a, b) in zip(names, corners, strict=True)
        ]
        facts["distance"] = 3.0
        if dims == 1:
            facts["asymmetry"] = ASYMMETRY
    if directions == "eigen":
        facts["eigenvalues"] = [{"value": factor * c, "residual": 1e-3} for c in CURVATURE[:dims]]
    if directions == "trajectory":
        steps = np.linspace(0, 1, 9)
        path = {"alpha": (-0.9 * (1 - steps) ** 2).tolist()}
        if dims == 2:
            path["beta"] = (0.6 * np.sin(3 * steps) * (1 - steps)).tolist()
        facts["marks"][0]["label"] = "end"
        facts["explained_variance"] = [0.831, 0.102][:dims]
        facts["path"] = {
            "steps": list(range(9)), **path, "outside": [0.01] * 9,
            "loss": (factor * (CENTRE + 5 * (1 - steps) ** 2)).tolist(),
        }  # fmt: skip
    if split == "both":
        for mark in facts["marks"]:
            mark |= {"test_loss": 1.3 * mark["loss"] + 0.1 * scale, "test_accuracy": 0.87}
    return facts
