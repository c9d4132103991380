"""Paths from one checkpoint to another, and the barriers on them."""

from ssgd_analysis.connections.compute import connect
from ssgd_analysis.connections.connection import (
    OTHER_EXAMPLES,
    PATHS,
    Connection,
    find_connection,
    same_examples,
)
from ssgd_analysis.connections.curve import train_curve
from ssgd_analysis.connections.matching import Matching, weight_matching
from ssgd_analysis.connections.path import WeightPath, line, put
from ssgd_analysis.connections.profile import Barrier, Profile, barrier, evaluate_path
from ssgd_analysis.connections.record import ConnectionRecord
from ssgd_analysis.settings.connection import ConnectionSettings

__all__ = [
    "OTHER_EXAMPLES",
    "PATHS",
    "Barrier",
    "Connection",
    "ConnectionRecord",
    "ConnectionSettings",
    "Matching",
    "Profile",
    "WeightPath",
    "barrier",
    "connect",
    "evaluate_path",
    "find_connection",
    "line",
    "put",
    "same_examples",
    "train_curve",
    "weight_matching",
]
