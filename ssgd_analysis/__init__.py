"""Did a training method really find a flatter minimum? Train, measure, compare, with errors.

The public names, each imported when it is first used, so that ``import ssgd_analysis`` is quick:

- training: ``SSGD`` (a ``torch.optim.Optimizer``), ``TrainConfig``, ``train``;
- a problem: ``Problem`` (model, loss, batches);
- curvature: ``HessianOperator``, ``GGNOperator``, ``FisherOperator``; ``eigenpairs``,
  ``trace``, ``spectral_density``;
- flatness: ``flatness.expected(problem)`` and so on, each metric a function of a problem;
- ``measure(problem, metrics=[…])``: curvature and metrics of a problem in one record.
"""

import importlib
from typing import Any

_PLACES = {
    "SSGD": "methods",
    "TrainConfig": "runs",
    "train": "training",
    "Problem": "problem",
    "HessianOperator": "curvature",
    "GGNOperator": "curvature",
    "FisherOperator": "curvature",
    "DenseOperator": "curvature",
    "eigenpairs": "curvature",
    "trace": "curvature",
    "spectral_density": "curvature",
    "Measurement": "flatness",
    "measure": "sharpness",
    "InputError": "errors",
    "WorkError": "errors",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    """Import a public name from its room."""
    if name == "flatness":
        return importlib.import_module("ssgd_analysis.flatness")
    if name not in _PLACES:
        raise AttributeError(f"module 'ssgd_analysis' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ssgd_analysis.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
