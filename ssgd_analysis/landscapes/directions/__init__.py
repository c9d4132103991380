"""Directions in weight space, one file a kind: one tensor for each parameter."""

from ssgd_analysis.landscapes.directions.between import MoveRest, between_directions, same_model
from ssgd_analysis.landscapes.directions.direction import (
    Direction,
    inner_product,
    like,
    normalized_directions,
)
from ssgd_analysis.landscapes.directions.eigen import eigen_directions
from ssgd_analysis.landscapes.directions.gradient import gradient_directions
from ssgd_analysis.landscapes.directions.random import random_directions
from ssgd_analysis.landscapes.directions.trajectory import projected, trajectory_directions
from ssgd_analysis.landscapes.directions.vectors import Vector, given_directions

__all__ = [
    "Direction",
    "MoveRest",
    "Vector",
    "between_directions",
    "eigen_directions",
    "given_directions",
    "gradient_directions",
    "inner_product",
    "like",
    "normalized_directions",
    "projected",
    "random_directions",
    "same_model",
    "trajectory_directions",
]
