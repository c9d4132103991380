"""Many points of a landscape, at less than a forward pass each."""

from ssgd_analysis.landscape.evaluation.evaluator import Evaluator
from ssgd_analysis.landscape.evaluation.measure import measured_plan
from ssgd_analysis.landscape.evaluation.plan import EvaluationPlan, Plans

__all__ = ["EvaluationPlan", "Evaluator", "Plans", "measured_plan"]
