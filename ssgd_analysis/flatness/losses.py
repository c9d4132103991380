"""Whether two losses are near enough for flatness to be compared."""


def loss_gap(a: float, b: float) -> float:
    """|a − b| relative to the larger one."""
    return abs(a - b) / max(abs(a), abs(b), 1e-300)


def losses_apart(a: float, b: float, tolerance: float, *, split: str = "train") -> str:
    """Why two losses are too different, in words.

    Args:
        a: loss of the first, nats per example.
        b: loss of the second.
        tolerance: largest gap that is allowed, relative to the larger loss.
        split: whose examples the losses are of.

    Example:
        >>> losses_apart(0.3, 0.2, 0.1).partition(":")[0]
        'train losses 0.3 and 0.2 differ by 33%, and at most 10% is allowed'
    """
    return (
        f"{split} losses {a:.4g} and {b:.4g} differ by {loss_gap(a, b):.0%}, and at most"
        f" {tolerance:.0%} is allowed: at different {split} losses, flatness says nothing about the"
        " methods"
    )
