"""Is this one flatter than that one? Groups, intervals, paired tests, verdicts."""

from ssgd_analysis.compare.compare import compare
from ssgd_analysis.compare.groups import Group, find_runs, group_runs
from ssgd_analysis.compare.measurements import (
    HISTORY_METRICS,
    Measurements,
    MeasureSettings,
    measured,
)
from ssgd_analysis.compare.rule import Rule

__all__ = [
    "HISTORY_METRICS",
    "Group",
    "MeasureSettings",
    "Measurements",
    "Rule",
    "compare",
    "find_runs",
    "group_runs",
    "measured",
]
