"""Slow, literal readings of every method's update equation; a file for each family."""

from readings import core, noise

READINGS = {**core.READINGS, **noise.READINGS}
