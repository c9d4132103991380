"""What a user may fix of the products, and how they are made."""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.store import KeyedStore, digest

# Pieces' worth of memory beside the states that stay: a product's own intermediate values, a piece
# that is built anew where not all stay, and what the allocator does not give back.
WORK = 3
LINEAR = ("linear", "compiled")  # the strategies that trace the linear map
BASIS_BYTES = 4_000_000_000  # of a basis of vectors, unless a budget says less
BASIS_VECTORS = 600  # beyond it the projected problem costs more than it saves


@dataclass(frozen=True)
class Options:
    """What a user may fix.

    Args:
        strategy: how to multiply (``--product``), a name of ``STRATEGIES`` in products.py;
            ``None``: by measurement in :meth:`Engine.choose`, before that ``graph``.
        micro_batch: examples multiplied at once; ``None``: by measurement, before that the
            whole batch.
        memory: bytes for states, the work on one, and the basis of a search (a quarter of
            them, 4 GB at most); ``None``: half of what is free.
    """

    strategy: str | None = None
    micro_batch: int | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Plan:
    """How products are made, and what is predicted of them.

    Args:
        strategy: a name of :data:`ssgd_analysis.curvature.products.products.STRATEGIES`.
        micro_batch: examples of a piece.
        pieces: how many there are.
        kept: how many pieces keep their state between products; the others are rebuilt.
        memory: budget in bytes.
        basis: bytes of it for a basis of vectors, at most.
        piece: bytes that one piece keeps, once known.
        setup: predicted seconds before the first product, once measured.
        product: predicted seconds of one product over all data, once measured.
    """

    strategy: str
    micro_batch: int
    pieces: int
    kept: int
    memory: int
    basis: int = 0
    piece: int | None = None
    setup: float | None = None
    product: float | None = None

    @property
    def peak(self) -> int | None:
        """Predicted use of memory in bytes: states, the work on a piece, and the basis."""
        if self.piece is None:
            return None
        return self.basis + self.piece * (min(self.kept, self.pieces) + WORK)

    def to_json(self) -> dict[str, Any]:
        """The plan as records hold it: there the strategy is called ``way``."""
        found = dataclasses.asdict(self)
        return {"way": found.pop("strategy"), **found, "peak": self.peak}


def keepable(strategy: str, pieces: int, piece: int, budget: int) -> int:
    """How many pieces of so many bytes are kept, beside the work on one; differences keep none."""
    if strategy == "difference":
        return 0
    return min(pieces, max(0, budget - WORK * piece) // max(piece, 1))


def describe(plan: Plan) -> str:
    """A plan in one line, for people."""
    text = f"{plan.strategy} products, {plan.micro_batch} examples at once"
    if plan.strategy != "difference":
        text += f", {plan.kept} of {plan.pieces} pieces kept"
    if plan.peak:
        text += f", about {plan.peak / 2**20:.0f} of {plan.memory / 2**20:.0f} MiB"
    if plan.product is not None:
        text += f", {plan.product:.3g} s a product"
    return text


def recall(folder: Path, kind: str) -> Plan | None:
    """The plan that was measured before for the same kind of problem, if there is one.

    Which strategy is faster is decided by the clock, and another one rounds otherwise: a stored
    choice makes a command repeat exactly.

    Args:
        folder: where plans are stored.
        kind: all that the choice depends on.
    """
    key = {"kind": kind}
    try:
        found = KeyedStore(folder).read(digest(key), key)
        return None if found is None else Plan(**found)
    except (InputError, TypeError):
        return None  # damaged, or of another version


def remember(folder: Path, kind: str, plan: Plan) -> None:
    """Store a plan; a folder that can't be written costs only the next measurement.

    Args:
        folder: where plans are stored.
        kind: all that the choice depends on.
        plan: as measured.
    """
    key = {"kind": kind}
    with contextlib.suppress(InputError, WorkError):
        KeyedStore(folder).write(digest(key), key, plan)
