"""The metrics, one a file; each stands in :data:`ssgd_analysis.flatness.METRICS`."""
