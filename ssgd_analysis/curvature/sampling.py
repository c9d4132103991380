"""The error that comes from having measured on a sample of examples."""

import numpy as np


def weighted_stderr(weights: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    """Standard error of a weighted mean of independent batch values.

    Args:
        weights: each batch's share of the examples, shape (batches,), sum one.
        values: shape (batches, …).

    Returns:
        Shape (…), or ``None`` with fewer than two batches. For equal shares it is the usual
        s/√batches; for unequal ones the unbiased form, as the variance of a batch mean is
        inverse to its share.
    """
    count = len(weights)
    if count < 2:
        return None
    shares = weights.reshape(-1, *[1] * (values.ndim - 1))
    mean = (shares * values).sum(axis=0)
    return np.sqrt((shares * (values - mean) ** 2).sum(axis=0) / (count - 1))
