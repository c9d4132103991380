"""What ``compare`` returns: tests and verdicts, as a table, a picture and a report."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssgd_analysis.comparison.answer import answer
from ssgd_analysis.comparison.flatness_tests import Rows
from ssgd_analysis.comparison.lines import lines_of
from ssgd_analysis.comparison.rule import rule_record
from ssgd_analysis.comparison.sentences import verdict_text
from ssgd_analysis.errors import InputError
from ssgd_analysis.files import jsonable, make_folder
from ssgd_analysis.metric_names import NAMES
from ssgd_analysis.records import Record, number
from ssgd_analysis.settings.comparison import VerdictRule
from ssgd_analysis.settings.pictures import PictureSettings

COLUMNS = (
    "group", "baseline", "metric", "difference", "relative", "p", "p_holm", "n", "verdict",
    "counts", "why",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(Record):
    """Groups of runs, each compared with its baseline.

    Args:
        groups: one dict a group: ``name``, ``method``, ``seeds``, ``runs``,
            ``trained_with``, ``metrics``.
        missing: one dict for each run that lacks a metric: ``group``, ``run``, ``metric``, ``why``.
        tests: one dict for each flatness metric of each pair of groups.
        overall: one dict for each pair of groups: its verdict out of all metrics that count.
        outcomes: as ``tests``, for accuracy, losses and the like.
        notes: metric → what to bear in mind about it.
        rule: by which flatness was judged.
        loss_tolerance: largest relative difference of train losses that was comparable.
        matched_by: how train losses were matched; ``None``: they were not.
        normalized_logits: whether the logits were normalised.
        compared: whether there were two groups to compare.
        added: flatness metrics that were measured although they were not asked for, because none
            of those that were counts.
        advice: how groups of different train losses can be compared, in sentences.
        values: group → metric → each seed's value.
        correlations: of ``rank_correlations``; ``None`` if they were not asked for.
        remarks: what was assumed about groups or is not known of them, one sentence each.

    Example:
        >>> accuracy = {
        ...     "group": "s-sgd",
        ...     "baseline": "sgd",
        ...     "metric": "test_accuracy",
        ...     "difference": 0.011,
        ...     "ci95": (0.004, 0.018),
        ...     "p_holm": 0.01,
        ...     "verdict": "higher",
        ... }
        >>> Comparison(
        ...     groups=[],
        ...     missing=[],
        ...     tests=[],
        ...     overall=[],
        ...     outcomes=[accuracy],
        ...     notes={},
        ...     rule=VerdictRule(),
        ...     loss_tolerance=0.1,
        ...     matched_by=None,
        ...     normalized_logits=False,
        ...     compared=True,
        ... )
        Comparison
        against sgd  metric         difference            p (Holm)  verdict
        s-sgd        test_accuracy  0.011 [0.004, 0.018]  0.01      higher
    """

    groups: Rows
    missing: Rows
    tests: Rows
    overall: Rows
    outcomes: Rows
    notes: dict[str, str]
    rule: VerdictRule
    loss_tolerance: float
    matched_by: str | None
    normalized_logits: bool
    compared: bool
    added: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    correlations: dict[str, Any] | None = None
    remarks: list[str] = field(default_factory=list)

    @property
    def answer(self) -> str:
        """Is each group flatter than its baseline? One line of at most 200 characters."""
        return answer(lines_of(self.tests, self.overall, self.outcomes))

    @property
    def table(self) -> Rows:
        """One row for each rival and setting, SGD first; differences are of one metric.

        ``rival`` (as in "s-sgd vs sgd"), ``setting``, ``flatness`` and ``accuracy`` in a word each,
        ``difference`` (group minus baseline) and ``ci95`` in ``metric``: the first that says the
        verdict, else the first that counts.
        """
        return [line.row() for line in lines_of(self.tests, self.overall, self.outcomes)]

    @property
    def verdict(self) -> str:
        """All verdicts in sentences, a line for each group."""
        return verdict_text(self.tests, self.overall, self.outcomes, self.rule) or self.answer

    def document(self) -> dict[str, Any]:
        """The JSON document with its numbers as they were computed, NaN and infinity included."""
        document = {
            "answer": self.answer,
            "table": self.table,
            "groups": self.groups,
            "missing": self.missing,
            "tests": self.tests,
            "overall": self.overall,
            "outcomes": self.outcomes,
            "notes": self.notes,
            "remarks": self.remarks,
            "rule": rule_record(self.rule),
            "loss_tolerance": self.loss_tolerance,
            "matched_loss": self.matched_by is not None,
            "matched_by": self.matched_by,
            "verdict": self.verdict,
            "added": list(self.added),
            "advice": list(self.advice),
            "normalized_logits": self.normalized_logits,
        }
        if self.correlations is not None:
            document["correlations"] = self.correlations
        return document

    def to_json(self) -> dict[str, Any]:
        """The document that ``ssgd-analyze compare --json`` prints."""
        document: dict[str, Any] = jsonable(self.document())
        return document

    def rows(self) -> Rows:
        """One row a test of flatness, with the ends of its 95% interval as ``low`` and ``high``."""
        rows = []
        for test in self.tests:
            low, high = test["ci95"] or (None, None)
            row = {name: test[name] for name in COLUMNS}
            rows.append({**row, "low": low, "high": high})
        return rows

    def overview(self) -> Rows:
        """Each difference with its 95% interval, corrected p and verdict; outcomes come last."""
        from ssgd_analysis.report.tables import p_cell, span

        found = [*self.tests, *self.outcomes]
        baselines = list(dict.fromkeys(test["baseline"] for test in found))
        rival = f"against {baselines[0]}" if len(baselines) == 1 else "rivals"
        return [
            {
                rival: test["group"]
                if len(baselines) == 1
                else f"{test['group']} against {test['baseline']}",
                "metric": test["metric"],
                "difference": f"{number(test['difference'], 3)} {span(test['ci95'])}",
                "p (Holm)": p_cell(test["p_holm"]),
                "verdict": test["verdict"],
            }
            for test in found
        ]

    def plot(self, ax: Any = None) -> Any:
        """Draw every difference with its interval, relative to the baseline's mean.

        Raises:
            InputError: there is no test to draw.
        """
        from ssgd_analysis.pictures.comparison import relative_effects
        from ssgd_analysis.plots import forest_figure

        effects = relative_effects(self.document(), NAMES)
        if not effects:
            raise InputError("there is no test of flatness to draw")
        baselines = {test["baseline"] for test in self.tests}
        baseline = baselines.pop() if len(baselines) == 1 else ""
        figure = forest_figure(effects, baseline=baseline, axes=ax)
        return figure.axes[0] if ax is None else ax

    def save(self, folder: Path | str, *, pictures: PictureSettings | None = None) -> list[Path]:
        """Write ``report.html``, ``compare.json``, the tables as CSV, and the pictures."""
        from ssgd_analysis.report.comparison import write_comparison

        return write_comparison(make_folder(Path(folder)), self.document(), self.values, pictures)
