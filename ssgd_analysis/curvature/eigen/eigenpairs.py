"""Eigenpairs of an operator, each certified by a product of its own."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssgd_analysis import seeds
from ssgd_analysis.curvature.eigen.krylov import KrylovBasis, capacity
from ssgd_analysis.curvature.eigen.lanczos import Check, Goal, Search, lockstep
from ssgd_analysis.curvature.operators.operator import Operator
from ssgd_analysis.curvature.operators.sampling import Quotients, quotients
from ssgd_analysis.errors import InputError
from ssgd_analysis.progress import SILENT, Progress


@dataclass(frozen=True)
class Eigenpair:
    """An eigenvalue with its residual and standard error.

    Args:
        value: Rayleigh quotient of the unit vector found.
        residual: ‖Hv − λv‖₂ / |λ|, by a product of its own; infinite for λ = 0 unless exact.
        residual_norm: ‖Hv − λv‖₂: some true eigenvalue lies within it of ``value``.
        stderr: sampling error over examples, from the batches' quotients of the same vector;
            ``None`` with a single batch. Of a top eigenvalue it does not hold the upward
            selection bias of a small sample (see ``cross_fit``).
    """

    value: float
    residual: float
    residual_norm: float
    stderr: float | None


@dataclass(frozen=True)
class Spectrum:
    """Both ends of a spectrum.

    Args:
        largest: the K largest eigenvalues, descending; by magnitude where asked.
        smallest: the smallest one, algebraic.
        vectors: unit vectors of ``largest``, shape (P, K).
        products: operator columns spent, those of check and certificates among them.
        stop: ``"residual"``: every wanted pair met the tolerance; ``"exact"``: the basis
            spans the whole space; ``"products"``, ``"time"``: the budget or the time ran out
            first, see the residuals.
        smallest_vector: unit vector of ``smallest``, shape (P,).
        check: what was done against missed copies; ``None`` where it was not asked for.
        quotients: the batches' own quotients of ``largest`` and, last, of ``smallest``.
    """

    largest: list[Eigenpair]
    smallest: Eigenpair
    vectors: Tensor
    products: int
    stop: str
    smallest_vector: Tensor
    check: Check | None
    quotients: Quotients


def eigenpairs(
    operator: Operator,
    k: int,
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    tol: float = 1e-4,
    max_products: int = 1000,
    smallest: bool = True,
    by: str = "value",
    start: Tensor | None = None,
    check: bool = True,
    deadline: float | None = None,
    progress: Progress = SILENT,
) -> Spectrum:
    """The k largest eigenvalues and the smallest one, with residuals.

    Stops when every wanted pair has ‖Hv − λv‖ ≤ tol·|λ|, or ≤ 10 machine epsilons of the
    largest |λ|, below which the operator's own rounding speaks. Then a second Lanczos run, from
    a random start orthogonal to all that is held, looks for eigenvalues that the first did not
    show (a Krylov space holds one vector of each eigenspace); a found one joins, and the check
    is repeated. Eigenvalues within tol·|λ_k| of the k-th may still change places with it.

    Args:
        operator: symmetric, shape (P, P).
        k: how many of the largest; at most P are returned.
        seed: of the random vectors, by default 0; it picks the stream ``"lambda_max"``.
        generator: instead of a seed, on the operator's device, for callers that share streams.
        tol: relative residual to reach.
        max_products: budget of operator products for search and check; k + 1 more certify.
        smallest: wait for the smallest one too; else it is as good as it happens to be.
        by: ``"value"``: the algebraically largest; ``"magnitude"``: the largest |λ|.
        start: vectors to begin with, (P,) or (P, m), say of the checkpoint before: any are
            allowed. What guards against bad ones is the check, so leave it on.
        check: look for missed copies.
        deadline: of ``time.monotonic()``; the search stops early enough to certify.
        progress: reports every product.

    Raises:
        InputError: a k below 1, a tolerance that is not positive, an unknown ``by``, or a start
            of another length; or both a seed and a generator.
        WorkError: a product is not finite.

    Example:
        >>> from ssgd_analysis.curvature import DenseOperator, eigenpairs
        >>> spectrum = eigenpairs(DenseOperator(torch.diag(torch.arange(50.0))), 2, seed=0)
        >>> [round(pair.value, 2) for pair in spectrum.largest], round(spectrum.smallest.value, 2)
        ([49.0, 48.0], 0.0)

    Reference:
        Wu and Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems",
        SIAM J. Matrix Anal. Appl. 22 (2000).
    """
    (spectrum,) = block_eigenpairs(
        operator,
        [slice(0, operator.shape[0])],
        k,
        seed=seed,
        generator=generator,
        tol=tol,
        max_products=max_products,
        smallest=smallest,
        by=by,
        start=start,
        check=check,
        deadline=deadline,
        progress=progress,
    )
    return spectrum


def block_eigenpairs(
    operator: Operator,
    blocks: Sequence[slice],
    k: int,
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    tol: float = 1e-4,
    max_products: int = 1000,
    smallest: bool = True,
    by: str = "value",
    start: Tensor | None = None,
    check: bool = True,
    deadline: float | None = None,
    progress: Progress = SILENT,
) -> list[Spectrum]:
    """Eigenpairs of each block of a block-diagonal operator, all in the same sweeps.

    Every block runs its own search; one product a round serves all of them, so the cost is
    that of the slowest block. The arguments are those of :func:`eigenpairs`, the budget being
    each block's.

    Args:
        operator: block diagonal over ``blocks``, shape (P, P).
        blocks: disjoint slices of the P entries.
        k: how many of the largest of each block.
        seed: see :func:`eigenpairs`.
        generator: see :func:`eigenpairs`.
        tol: see :func:`eigenpairs`.
        max_products: see :func:`eigenpairs`.
        smallest: see :func:`eigenpairs`.
        by: see :func:`eigenpairs`.
        start: shape (P,) or (P, m), every block's part in its slice.
        check: see :func:`eigenpairs`.
        deadline: see :func:`eigenpairs`.
        progress: see :func:`eigenpairs`.

    Returns:
        One spectrum for each block, its vectors as long as the block. ``products`` are the
        columns which that block alone would have paid for.

    Example:
        >>> from ssgd_analysis.curvature import DenseOperator, block_eigenpairs
        >>> H = DenseOperator(torch.diag(torch.tensor([3.0, 1.0, 2.0, 5.0])))
        >>> [round(s.largest[0].value, 4) for s in block_eigenpairs(H, [slice(2), slice(2, 4)], 1)]
        [3.0, 5.0]

    Raises:
        InputError: see :func:`eigenpairs`.
        WorkError: see :func:`eigenpairs`.
    """
    generator = seeds.given_generator(generator, seed, "lambda_max", device=operator.device)
    if k < 1:
        raise InputError(f"the number of eigenvalues {k} should be at least 1")
    if not tol > 0 or not math.isfinite(tol):
        raise InputError(f"the tolerance {tol} should be positive")
    if by not in ("value", "magnitude"):
        raise InputError(f"by={by!r} should be 'value' or 'magnitude'")
    n = operator.shape[0]
    if start is not None:
        start = (start[:, None] if start.ndim == 1 else start).to(operator.device, operator.dtype)
        if len(start) != n:
            raise InputError(f"start vectors of length {len(start)} should have length {n}")
    size = max(2 * k + 20, capacity(operator))
    searches = []
    for block in blocks:
        length = len(range(*block.indices(n)))
        basis = KrylovBasis(length, size, dtype=operator.dtype, device=operator.device)
        goal = Goal(
            k=min(k, length),
            tol=tol,
            by=by,
            smallest=smallest,
            check=check,
            guard=start is not None,
            max_products=max_products,
            deadline=deadline,
        )
        searches.append(Search(basis, goal, generator))
    progress.start("eigenvalues", max_products)
    runs = [
        search.run(None if start is None else start[block])
        for search, block in zip(searches, blocks, strict=True)
    ]
    lockstep(runs, _by_slices(operator, blocks, searches, progress))
    return _certified(operator, blocks, searches)


def _by_slices(
    operator: Operator, blocks: Sequence[slice], searches: list[Search], progress: Progress
) -> Callable[[dict[int, Tensor]], dict[int, Tensor]]:
    """One product for all searches, each in its own slice."""

    def multiply(requests: dict[int, Tensor]) -> dict[int, Tensor]:
        width = max(block.shape[1] for block in requests.values())
        joint = torch.zeros(operator.shape[0], width, dtype=operator.dtype, device=operator.device)
        for index, block in requests.items():
            joint[blocks[index], : block.shape[1]] = block
        images = operator @ joint
        note = searches[next(iter(requests))].note
        if len(blocks) > 1:
            note = f"{len(blocks) - len(requests)} of {len(blocks)} blocks done, {note}"
        progress.advance(width, note)
        return {i: images[blocks[i], : block.shape[1]] for i, block in requests.items()}

    return multiply


def _certified(
    operator: Operator, blocks: Sequence[slice], searches: list[Search]
) -> list[Spectrum]:
    found = []
    for search in searches:
        found.append(search.vectors())
        del search.basis  # gigabytes, no longer needed
    certificates = certify_blocks(operator, blocks, found)
    spectra = []
    for search, (pairs, vectors, sampled) in zip(searches, certificates, strict=True):
        k = len(pairs) - 1
        key = abs if search.goal.by == "magnitude" else float
        order = sorted(range(k), key=lambda i: -key(pairs[i].value))
        spectra.append(
            Spectrum(
                largest=[pairs[i] for i in order],
                smallest=pairs[-1],
                vectors=vectors[:, order],
                products=search.spent + len(pairs),
                stop=search.stop,
                smallest_vector=vectors[:, -1],
                check=search.check,
                quotients=sampled[[*order, k]],
            )
        )
    return spectra


def certify(operator: Operator, vectors: Tensor) -> tuple[list[Eigenpair], Tensor]:
    """Rayleigh quotient, true residual and sampling error of given vectors, one product each.

    Args:
        operator: shape (P, P).
        vectors: shape (P, K), not zero.

    Returns:
        One pair for each vector, and the vectors scaled to length one.
    """
    ((pairs, unit, _),) = certify_blocks(operator, [slice(0, operator.shape[0])], [vectors])
    return pairs, unit


def certify_blocks(
    operator: Operator, blocks: Sequence[slice], vectors: list[Tensor]
) -> list[tuple[list[Eigenpair], Tensor, Quotients]]:
    """Certificates of vectors of the blocks of a block-diagonal operator, in one sweep.

    Args:
        operator: block diagonal over ``blocks``, shape (P, P).
        blocks: disjoint slices of the P entries.
        vectors: for each block, shape (block's length, K), not zero.

    Returns:
        For each block its pairs, its unit vectors and the batches' quotients.
    """
    vectors = [block / block.norm(dim=0) for block in vectors]
    width = max(block.shape[1] for block in vectors)
    joint = torch.zeros(operator.shape[0], width, dtype=operator.dtype, device=operator.device)
    for rows, block in zip(blocks, vectors, strict=True):
        joint[rows, : block.shape[1]] = block
    total, sampled = quotients(operator, joint, blocks)
    certificates = []
    for rows, unit, own in zip(blocks, vectors, sampled, strict=True):
        k = unit.shape[1]
        image, own = total[rows, :k], own[list(range(k))]
        values = (unit * image).sum(dim=0)
        norms = (image - unit * values).norm(dim=0).tolist()
        errors = own.stderr()
        pairs = []
        for index, (value, norm) in enumerate(zip(values.tolist(), norms, strict=True)):
            relative = norm / abs(value) if value else (math.inf if norm else 0.0)
            error = None if errors is None else float(errors[index])
            pairs.append(Eigenpair(value, relative, norm, error))
        certificates.append((pairs, unit, own))
    return certificates
