"""The same eigenvalues by PyHessian, an independent implementation, side by side with ours."""

import copy
import time
import warnings
from typing import Any

import torch
from pyhessian import hessian as pyhessian
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.curvature.eigen.eigenpairs import certify, eigenpairs
from ssgd_analysis.curvature.operators.hessian import HessianOperator
from ssgd_analysis.errors import OutOfTimeError
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights import flattened


def cross_check_pyhessian(
    problem: Problem, top: int, *, seed: int = 0, deadline: float | None = None
) -> dict[str, Any]:
    """Top eigenvalues by us and by PyHessian's power iteration, each with its true residual.

    PyHessian works on a copy of the model; the residuals of its vectors are computed with our
    operator. Its power iteration finds the largest by magnitude, so a negative one may stand
    among them, and it stops when the value, not the vector, has settled.

    Args:
        problem: what to measure.
        top: how many eigenvalues.
        seed: of both starting vectors.
        deadline: of ``time.monotonic()``; PyHessian is ended by it, and then has no numbers.

    Returns:
        ``ours`` and ``pyhessian``: lists of value and residual; ``largest_difference``: over
        the common ranks, relative to our λ₁; ``right``: for each rank, whose residual is
        smaller; ``note``. PyHessian's list is ``None`` where it fails, and the note says how.
    """
    operator = HessianOperator(problem)
    generator = seeds.generator(seed, "lambda_max", device=operator.device)
    spectrum = eigenpairs(
        operator, top, tol=1e-6, smallest=False, generator=generator, deadline=deadline
    )
    ours = [{"value": p.value, "residual": p.residual} for p in spectrum.largest]

    def loss(*given: Any) -> Tensor:
        if deadline is not None and time.monotonic() > deadline:
            raise OutOfTimeError
        return problem.loss(*given)

    try:
        with torch.random.fork_rng(), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyHessian's backward(create_graph=True)
            torch.manual_seed(seed)
            model = copy.deepcopy(problem.model)
            for name, parameter in model.named_parameters():  # as --layers chose
                parameter.requires_grad_(name in problem.parameters)
            tool = pyhessian(
                model, loss, dataloader=problem.batches, cuda=operator.device.type == "cuda"
            )
            _, vectors = tool.eigenvalues(maxIter=500, tol=1e-6, top_n=len(ours))
    except Exception as error:  # it crashes on unused parameters and mixed precisions
        note = f"PyHessian failed: {type(error).__name__}: {error}"
        return {
            "ours": ours,
            "pyhessian": None,
            "largest_difference": None,
            "right": None,
            "note": note,
        }
    columns = [flattened(vector) for vector in vectors]
    pairs, _ = certify(operator, torch.stack(columns, dim=1).to(operator.dtype))
    from_pyhessian = sorted(
        ({"value": p.value, "residual": p.residual} for p in pairs), key=lambda p: -p["value"]
    )
    gaps = [abs(a["value"] - b["value"]) for a, b in zip(ours, from_pyhessian, strict=True)]
    return {
        "ours": ours,
        "pyhessian": from_pyhessian,
        "largest_difference": max(gaps) / (abs(ours[0]["value"]) or 1.0),
        "right": [
            "ours" if a["residual"] <= b["residual"] else "pyhessian"
            for a, b in zip(ours, from_pyhessian, strict=True)
        ],
        "note": "residuals of both by our operator: an eigenvalue lies within |value| × residual",
    }
