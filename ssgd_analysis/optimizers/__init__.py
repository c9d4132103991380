"""Base optimizers by name, and learning-rate schedules."""
