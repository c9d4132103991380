"""The record of one checkpoint: curvature and metrics, measured, stored, checked, compared."""
