"""What was measured of one checkpoint, and of several."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis.files import jsonable, make_folder, write_json
from ssgd_analysis.records import Record
from ssgd_analysis.settings.pictures import PictureSettings
from ssgd_analysis.sharpness.differences import metric_differences


@dataclass(frozen=True, repr=False)
class SharpnessRecord(Record):
    """Curvature and metrics of one checkpoint, with errors and cost.

    Args:
        name: of the checkpoint.
        split: whose examples were used, if that is known.
        document: the JSON object of the checkpoint (see ``docs/interface.md``), without these two.
        vectors: unit eigenvectors of its eigenvalues, shape (P, K); ``None``: read from disk.
        parameters: shape of each parameter in the order of the vectors.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, measure
        >>> x, y = torch.eye(3), torch.zeros(3, 1)
        >>> problem = Problem(torch.nn.Linear(3, 1, bias=False), torch.nn.MSELoss(), [(x, y)])
        >>> record = measure(problem, top=1, probes=2, name="net")
        >>> {row["quantity"]: round(row["value"], 3) for row in record.rows()[2:4]}
        {'λ1': 0.667, 'smallest λ': 0.667}
    """

    name: str
    split: str | None
    document: dict[str, Any]
    vectors: Tensor | None = None
    parameters: dict[str, torch.Size] | None = None

    def to_json(self) -> dict[str, Any]:
        """The checkpoint's object in the answer of ``sharpness --json``."""
        whole = {"checkpoint": self.name, "split": self.split, **self.document}
        found: dict[str, Any] = jsonable(whole)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """One row a quantity: loss, accuracy, eigenvalues, trace, metrics, with their errors."""
        found = self.document
        entries = {f"λ{i}": pair for i, pair in enumerate(found["eigenvalues"], start=1)}
        entries["smallest λ"] = found["smallest_eigenvalue"]
        entries[f"tr {found['operator']}"] = found["trace"]
        entries |= found["metrics"]
        return [
            *(
                {"quantity": name, "value": found[name], "stderr": None}
                for name in ("loss", "accuracy")
            ),
            *(
                {"quantity": name, "value": entry["value"], "stderr": entry["stderr"]}
                for name, entry in entries.items()
            ),
        ]

    def plot(self, ax: Any = None) -> Any:
        """The spectral density with the top eigenvalues; see :meth:`Record.plot`."""
        from ssgd_analysis.pictures.sharpness import densities

        figure = densities({"checkpoints": [self.to_json()]}, axes=ax)
        return figure.axes[0] if ax is None else ax

    def save(
        self,
        folder: Path | str,
        *,
        html: bool = False,
        pictures: PictureSettings | None = None,
    ) -> list[Path]:
        """Write what ``sharpness --out`` writes; see :meth:`SharpnessRecords.save`."""
        return SharpnessRecords((self,)).save(folder, html=html, pictures=pictures)


@dataclass(frozen=True, repr=False)
class SharpnessRecords(Record):
    """The records of several checkpoints, and how their metrics differ.

    Args:
        checkpoints: one record each; the others are compared with the first.

    Example:
        >>> value = {"value": 2.0, "stderr": None}
        >>> found = {
        ...     "loss": 0.1, "accuracy": None, "operator": "hessian", "eigenvalues": [value],
        ...     "smallest_eigenvalue": value, "trace": value, "metrics": {},
        ... }
        >>> both = [SharpnessRecord(name, "train", found) for name in ("a", "b")]
        >>> rows = SharpnessRecords(tuple(both)).rows()
        >>> [(row["checkpoint"], row["value"]) for row in rows if row["quantity"] == "λ1"]
        [('a', 2.0), ('b', 2.0)]
    """

    checkpoints: tuple[SharpnessRecord, ...]

    def to_json(self) -> dict[str, Any]:
        """The answer of ``sharpness --json``; ``differences`` where there are several."""
        found = [record.to_json() for record in self.checkpoints]
        answer: dict[str, Any] = {"checkpoints": found}
        if len(found) > 1:
            answer["differences"] = metric_differences(found)
        return answer

    def rows(self) -> list[dict[str, Any]]:
        """The rows of every checkpoint, with its name."""
        return [
            {"checkpoint": record.name, **row}
            for record in self.checkpoints
            for row in record.rows()
        ]

    def plot(self, ax: Any = None) -> Any:
        """The spectral densities of all checkpoints in one panel; see :meth:`Record.plot`.

        Each checkpoint has a colour; ticks of the same colour are its largest eigenvalues.
        :meth:`save` draws one panel for each checkpoint instead.
        """
        from ssgd_analysis.pictures.sharpness import overlaid_densities  # needs matplotlib

        figure = overlaid_densities(self.to_json(), axes=ax)
        return figure.axes[0] if ax is None else ax

    def save(
        self,
        folder: Path | str,
        *,
        html: bool = False,
        pictures: PictureSettings | None = None,
    ) -> list[Path]:
        """Write what ``sharpness --out`` writes: ``sharpness.json`` and pictures.

        Args:
            folder: is made if it is not there.
            html: also the page ``sharpness.html`` with all of it.
            pictures: how they look.

        Returns:
            The JSON file, then the pictures (densities and, if there are any, curves), the page.
        """
        from ssgd_analysis.pictures.sharpness import sharpness_pictures
        from ssgd_analysis.sharpness.page import write_sharpness_page

        folder, answer = make_folder(Path(folder)), self.to_json()
        drawn = sharpness_pictures(answer, folder, style=pictures)
        write_json(folder / "sharpness.json", answer)
        page = []
        if html:
            page = [write_sharpness_page(folder / "sharpness.html", answer, drawn[::2])]
        return [folder / "sharpness.json", *drawn, *page]
