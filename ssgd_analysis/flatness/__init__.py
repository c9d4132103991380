"""Flatness metrics: each is a function of a :class:`ssgd_analysis.Problem` with an error.

``flatness.expected(problem, seed=0, sigma=0.2)`` and so on for every name of :data:`METRICS`.
"""

from ssgd_analysis.flatness.context import Cost as Cost
from ssgd_analysis.flatness.curve import curve as curve
from ssgd_analysis.flatness.measurement import Measurement as Measurement
from ssgd_analysis.flatness.measurement import difference as difference
from ssgd_analysis.flatness.metric import Metric as Metric
from ssgd_analysis.flatness.metric import metric as metric
from ssgd_analysis.flatness.names import all_metrics as all_metrics
from ssgd_analysis.flatness.names import parse_metric as parse_metric
from ssgd_analysis.flatness.table import *  # noqa: F403 (every metric, for completion and mypy)
