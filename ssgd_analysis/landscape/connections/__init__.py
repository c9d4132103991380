"""Paths from one checkpoint to another, and the barriers on them."""

from ssgd_analysis.landscape.connections.connection import (
    PATHS,
    Connection,
    ConnectionSettings,
    connect,
    same_examples,
)
from ssgd_analysis.landscape.connections.curve import train_curve
from ssgd_analysis.landscape.connections.matching import Matching, permutable, weight_matching
from ssgd_analysis.landscape.connections.path import Path, line, put
from ssgd_analysis.landscape.connections.profile import Barrier, Profile, barrier, evaluate_path

__all__ = [
    "PATHS",
    "Barrier",
    "Connection",
    "ConnectionSettings",
    "Matching",
    "Path",
    "Profile",
    "barrier",
    "connect",
    "evaluate_path",
    "line",
    "permutable",
    "put",
    "same_examples",
    "train_curve",
    "weight_matching",
]
