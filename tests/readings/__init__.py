"""Slow, literal readings of every method's update equation; a file for each family."""

from readings import averages, core, noise, optimizers, random_steps, sam

READINGS = {
    **core.READINGS,
    **averages.READINGS,
    **noise.READINGS,
    **optimizers.READINGS,
    **random_steps.READINGS,
    **sam.READINGS,
}
