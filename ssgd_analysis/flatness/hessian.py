"""Metrics that are read off the Hessian: largest eigenvalue and trace."""

from collections.abc import Iterable

from torch import nn

from ssgd_analysis import seeds
from ssgd_analysis.curvature import HessianOperator, Spectrum, Trace, eigenpairs, trace
from ssgd_analysis.flatness.measurement import Measurement
from ssgd_analysis.problem import Batch, Loss


def lambda_max(
    model: nn.Module, loss: Loss, batches: Iterable[Batch], *, tol: float = 1e-3, seed: int = 0
) -> Measurement:
    """The largest eigenvalue (algebraic) of the Hessian of the mean loss.

    Not invariant to any rescaling of the weights: compare it between equal weight norms and
    train losses only (Dinh et al. 2017).

    Args:
        model: any ``nn.Module``.
        loss: ``(outputs, targets) -> scalar``, the mean over the batch.
        batches: ``(inputs, targets)`` pairs.
        tol: relative residual at which Lanczos stops.
        seed: of the starting vector.

    Returns:
        Nats per squared weight unit; the error is that of sampling the examples.
    """
    operator = HessianOperator(model, loss, batches)
    generator = seeds.generator(seed, "lambda_max", device=operator.device)
    spectrum = eigenpairs(operator, 1, tol=tol, smallest=False, generator=generator)
    return of_spectrum(spectrum, tol=tol, seed=seed)


def hessian_trace(
    model: nn.Module, loss: Loss, batches: Iterable[Batch], *, probes: int = 32, seed: int = 0
) -> Measurement:
    """The trace of the Hessian of the mean loss, by Hutchinson's estimator.

    Args:
        model: any ``nn.Module``.
        loss: ``(outputs, targets) -> scalar``, the mean over the batch.
        batches: ``(inputs, targets)`` pairs.
        probes: Rademacher probes.
        seed: of the probes, the same for every model (common random numbers).

    Returns:
        Nats per squared weight unit; the error is that of the probes.
    """
    operator = HessianOperator(model, loss, batches)
    generator = seeds.generator(seed, "trace", device=operator.device)
    return of_trace(trace(operator, probes=probes, generator=generator), seed=seed)


def of_spectrum(spectrum: Spectrum, *, tol: float, seed: int) -> Measurement:
    """``lambda_max`` out of a Hessian spectrum that was found with this tolerance and seed."""
    pair = spectrum.largest[0]
    settings = {"tol": tol, "residual": pair.residual, "seed": seed, "error": "examples"}
    return Measurement(pair.value, pair.stderr, settings)


def of_trace(found: Trace, *, deflated: int = 0, seed: int) -> Measurement:
    """``trace`` out of a Hessian trace, found with so many eigenvectors deflated."""
    settings = {"probes": found.probes, "deflated": deflated, "seed": seed, "error": "probes"}
    return Measurement(found.value, found.stderr, settings)
