"""What a study returns: its answer with all numbers, as a table, a picture and a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssgd_analysis.comparison import Group
from ssgd_analysis.files import jsonable, make_folder, write_json
from ssgd_analysis.records import Record
from ssgd_analysis.studies.spec import Study, group_name

RESULT = "result.json"


@dataclass(frozen=True, repr=False)
class StudyRecord(Record):
    """The answer of a study, with the numbers behind it.

    Args:
        study: what was run.
        document: the JSON object of the study (see ``docs/interface.md``) without its files.
        groups: the finished runs of every arm in every setting.
        landscapes: "group/1" and "group/2" → arrays of the lines and of the plane.
        sessions: the commands that ran it, with their time and machine.
        files: that :func:`run_study` wrote into the study's folder; the page comes first.

    Example:
        >>> from ssgd_analysis.studies import load_study
        >>> document = {"verdict": "No arm is shown to differ.", "groups": []}
        >>> StudyRecord(load_study("digits"), document, [], {}, []).verdict
        'No arm is shown to differ.'
    """

    study: Study
    document: dict[str, Any]
    groups: Sequence[Group]
    landscapes: Mapping[str, Mapping[str, np.ndarray]]
    sessions: Sequence[dict[str, Any]]
    files: tuple[Path, ...] = ()

    @property
    def verdict(self) -> str:
        """The answer to the study's question, in words."""
        return str(self.document["verdict"])

    def to_json(self) -> dict[str, Any]:
        """The document that ``ssgd-analyze study --json`` prints."""
        document: dict[str, Any] = jsonable(_with_files(self.document, self.files))
        return document

    def rows(self) -> list[dict[str, Any]]:
        """One row for every metric of an arm in a setting: its mean with the 95% interval."""
        metrics = {group["name"]: group["metrics"] for group in self.document["groups"]}
        return [
            {
                "setting": setting.name,
                "arm": arm.label,
                "metric": metric,
                "mean": found["mean"],
                "low": found["ci95"][0] if found["ci95"] else None,
                "high": found["ci95"][1] if found["ci95"] else None,
                "n": found["n"],
            }
            for setting in self.study.settings
            for arm in self.study.arms
            for metric, found in metrics.get(group_name(arm.label, setting.name), {}).items()
        ]

    def plot(self, ax: Any = None) -> Any:
        """Draw accuracy and sharpness of every arm, with intervals.

        Args:
            ax: axes to draw into, one for each pictured metric of each setting; ``None``: a new
                figure.

        Returns:
            The axes.
        """
        from ssgd_analysis.studies.report import study_intervals  # needs matplotlib

        figure = study_intervals(self.document, axes=ax)
        return figure.axes if ax is None else ax

    def save(self, folder: Path | str) -> list[Path]:
        """Write ``report.html``, ``report.md``, ``result.json``, the tables and the pictures.

        :func:`run_study` has done so for the study's own folder.
        """
        folder = make_folder(Path(folder))
        from ssgd_analysis.studies.report import write_study  # needs matplotlib; workers do not

        files = write_study(
            folder, self.study, self.document, self.groups, self.landscapes, self.sessions
        )
        write_json(folder / RESULT, _with_files(self.document, files))
        return [*files, folder / RESULT]


def _with_files(document: Mapping[str, Any], files: Sequence[Path]) -> dict[str, Any]:
    """The document with the paths of its pictures (PNG) and of its page."""
    pictures = [str(path) for path in files if path.suffix == ".png"]
    return {**document, "pictures": pictures, "report": str(files[0]) if files else None}
