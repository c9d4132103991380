"""The record of one checkpoint: curvature and metrics, measured, stored, checked, compared."""

from ssgd_analysis.sharpness.checkpoints import (
    CheckpointProblem,
    measure,
    measure_checkpoints,
    predicted_plan,
)
from ssgd_analysis.sharpness.record import SharpnessRecord, SharpnessRecords
from ssgd_analysis.sharpness.settings import SharpnessSettings

__all__ = [
    "CheckpointProblem",
    "SharpnessRecord",
    "SharpnessRecords",
    "SharpnessSettings",
    "measure",
    "measure_checkpoints",
    "predicted_plan",
]
