"""Slopes and curvatures along the directions of a slice, and their share of λ_max."""

from typing import Any

import torch

from ssgd_analysis import seeds
from ssgd_analysis.curvature import HessianOperator, eigenpairs
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.landscapes.directions import inner_product
from ssgd_analysis.landscapes.slice import LandscapeSlice
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.weights import flattened

NO_CURVATURE: dict[str, Any] = dict.fromkeys(
    ("slopes", "curvatures", "mixed", "lambda_max", "share", "share_note")
)
TOLERANCE = 0.01  # residual of λ_max over λ_max: the share is shown in two digits


class PlaneCurvature:
    """Curvatures of slices; λ_max is found once for each checkpoint.

    Args:
        seed: of the search.
        progress: receives its steps.
    """

    def __init__(self, seed: int, progress: Progress = SILENT) -> None:
        self.seed, self.progress = seed, progress
        self._largest: dict[int, dict[str, float]] = {}

    def facts(self, slice_: LandscapeSlice) -> dict[str, Any]:
        """Slopes and curvatures along the directions, and for a plane the share of λ_max.

        The share is the largest curvature uᵀHu / ‖u‖² among the directions u of the plane (or of
        the line), over the largest among all, λ_max.

        Args:
            slice_: the curvature is that of the main split's loss at its origin.

        Returns:
            Entries of the record; all ``None`` with a reason where the problem has no second
            derivative.
        """
        facts = dict(NO_CURVATURE)
        problem, directions = slice_.named.problem, slice_.directions
        try:
            operator = HessianOperator(problem)
            gradient = problem.gradient()
            moved = [problem.split(operator @ flattened(d)) for d in directions]
        except (InputError, WorkError) as error:
            return facts | {"share_note": str(error)}
        facts["slopes"] = [inner_product(gradient, d) for d in directions]
        hessian = torch.tensor(
            [[inner_product(a, m) for m in moved] for a in directions], dtype=torch.float64
        )
        hessian = (hessian + hessian.T) / 2
        facts["curvatures"] = hessian.diagonal().tolist()
        if len(directions) == 2:
            facts["mixed"] = float(hessian[0, 1])
        if len(directions) < 2:
            return facts | {"share_note": "reported for planes only"}
        top = self._lambda_max(slice_)
        facts["lambda_max"] = top
        if top["value"] <= 0:
            return facts | {"share_note": "the largest eigenvalue is not positive"}
        lengths = [[inner_product(a, b) for b in directions] for a in directions]
        root = torch.linalg.cholesky(torch.tensor(lengths, dtype=torch.float64))
        half = torch.linalg.solve_triangular(root, hessian, upper=False)
        unit = torch.linalg.solve_triangular(root, half.T, upper=False)
        largest = float(torch.linalg.eigvalsh(unit)[-1])
        # λ_max is found from below: an eigenvector's own plane may see a rounding more
        return facts | {"share": min(1.0, largest / top["value"])}

    def _lambda_max(self, slice_: LandscapeSlice) -> dict[str, float]:
        if slice_.eigenvalues:
            return slice_.eigenvalues[0]
        problem = slice_.named.problem
        if id(problem) not in self._largest:
            operator = HessianOperator(problem)
            (pair,) = eigenpairs(
                operator,
                1,
                tol=TOLERANCE,
                smallest=False,
                check=False,  # it looks for further copies, which do not change the largest value
                generator=seeds.generator(self.seed, "lambda max", device=operator.device),
                progress=self.progress,
            ).largest
            self._largest[id(problem)] = {"value": pair.value, "residual": pair.residual}
        return self._largest[id(problem)]
