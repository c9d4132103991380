"""What a line or plane can show of the curvature: slopes, curvatures, and their share of λ_max."""

from typing import Any

import torch

from ssgd_analysis import seeds
from ssgd_analysis.curvature import HessianOperator, eigenpairs
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.landscape.directions import inner
from ssgd_analysis.landscape.slice import LandscapeSlice
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.weights import flattened

UNSEEN: dict[str, Any] = dict.fromkeys(
    ("slopes", "curvatures", "mixed", "lambda_max", "share", "share_note")
)
TOLERANCE = 0.01  # residual of λ_max over λ_max: the share is told in two digits


class PlaneCurvature:
    """Finds λ_max once for each checkpoint.

    Args:
        seed: of the search.
        progress: told of it.
    """

    def __init__(self, seed: int, progress: Progress = SILENT) -> None:
        self.seed, self.progress = seed, progress
        self._found: dict[int, dict[str, float]] = {}

    def facts(self, frame: LandscapeSlice) -> dict[str, Any]:
        """Slopes and curvatures along the directions, and for a plane the share of λ_max.

        The share is the largest curvature uᵀHu / ‖u‖² among the directions u of the plane (or of
        the line), over the largest among all, λ_max.

        Args:
            frame: at whose origin; the loss is the main split's.

        Returns:
            As they stand in the record; all ``None`` with a reason where the problem has no second
            derivative.
        """
        facts = dict(UNSEEN)
        problem = frame.subject.problem
        try:
            operator = HessianOperator(problem)
            gradient = problem.gradient()
            moved = [problem.split(operator @ flattened(d)) for d in frame.directions]
        except (InputError, WorkError) as error:
            return facts | {"share_note": str(error)}
        directions = frame.directions
        facts["slopes"] = [inner(gradient, d) for d in directions]
        seen = torch.tensor([[inner(a, m) for m in moved] for a in directions], dtype=torch.float64)
        seen = (seen + seen.T) / 2
        facts["curvatures"] = seen.diagonal().tolist()
        if len(directions) == 2:
            facts["mixed"] = float(seen[0, 1])
        if len(directions) < 2:
            return facts | {"share_note": "told for planes only"}
        top = self._lambda_max(frame)
        facts["lambda_max"] = top
        if top["value"] <= 0:
            return facts | {"share_note": "the largest eigenvalue is not positive"}
        lengths = [[inner(a, b) for b in directions] for a in directions]
        root = torch.linalg.cholesky(torch.tensor(lengths, dtype=torch.float64))
        half = torch.linalg.solve_triangular(root, seen, upper=False)
        unit = torch.linalg.solve_triangular(root, half.T, upper=False)
        seen_most = float(torch.linalg.eigvalsh(unit)[-1])
        # λ_max is found from below: an eigenvector's own plane may see a rounding more
        return facts | {"share": min(1.0, seen_most / top["value"])}

    def _lambda_max(self, frame: LandscapeSlice) -> dict[str, float]:
        if frame.eigenvalues:
            return frame.eigenvalues[0]
        problem = frame.subject.problem
        if id(problem) not in self._found:
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
            self._found[id(problem)] = {"value": pair.value, "residual": pair.residual}
        return self._found[id(problem)]
