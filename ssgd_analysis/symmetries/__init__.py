"""What may be permuted, scaled or folded in a network without changing its function.

Metrics and connections ask here. Two kinds of answer need different evidence:

- Which units can be permuted together, on every axis of every tensor: :func:`permutable`. One
  pass is followed operation by operation (``axes``, ``rules``, ``watch``), so shortcuts,
  concatenations and attention heads are understood. Weight matching needs all axes at once.
- Which layers can be rescaled, permuted or folded: :data:`TRANSFORMATIONS`. No rule of an
  operation says whether an activation passes a factor on, so changes are tried on a copy of the
  model (``draft``, ``layer_edits``) and made where the outputs stay the same. Checks of
  invariance need such pairs of layers, and the model as it was before.

Both accept a change only if the outputs on real examples agree: :func:`relative_change`.
"""

from ssgd_analysis.symmetries.permutable import UnitGroup, permutable, permuted
from ssgd_analysis.symmetries.same_function import copied, relative_change, same, tolerance
from ssgd_analysis.symmetries.transformations import (
    CONFOUNDER,
    PRESERVING,
    TRANSFORMATIONS,
    Changed,
    Transformation,
    rescaled,
)

__all__ = [
    "CONFOUNDER",
    "PRESERVING",
    "TRANSFORMATIONS",
    "Changed",
    "Transformation",
    "UnitGroup",
    "copied",
    "permutable",
    "permuted",
    "relative_change",
    "rescaled",
    "same",
    "tolerance",
]
