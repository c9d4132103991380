"""Moving weights: noise laws, filter and layer groups, and giving weights back bit for bit.

Both halves of the package stand on this room: methods perturb weights to train, metrics and
landscapes perturb them to measure.
"""

from ssgd_analysis.weights.borrowed import (
    borrowed_buffers,
    borrowed_modes,
    borrowed_state,
    borrowed_weights,
    evaluation_mode,
    same_bits,
    set_training,
)
from ssgd_analysis.weights.filters import PLAIN, Filters, filters_of
from ssgd_analysis.weights.groups import (
    SCOPES,
    flattened,
    global_norm,
    grouped,
    included,
    matching,
    rms,
    ungrouped,
)
from ssgd_analysis.weights.noise import LAWS, SCALES, Noise

__all__ = [
    "LAWS",
    "PLAIN",
    "SCALES",
    "SCOPES",
    "Filters",
    "Noise",
    "borrowed_buffers",
    "borrowed_modes",
    "borrowed_state",
    "borrowed_weights",
    "evaluation_mode",
    "filters_of",
    "flattened",
    "global_norm",
    "grouped",
    "included",
    "matching",
    "rms",
    "same_bits",
    "set_training",
    "ungrouped",
]
