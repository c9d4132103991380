"""Methods that are a base optimizer: SGD's plain gradient, and always the same optimizer."""

from ssgd_analysis.methods.sgd import SGD


def with_optimizer(optimizer: str, summary: str, *, source: str) -> type[SGD]:
    """A method that leaves the plain gradient to one base optimizer.

    Args:
        optimizer: name of the base optimizer; a run with another one is refused.
        summary: what the method does, in one line.
        source: where the equation comes from.

    Example:
        >>> method = with_optimizer("adam", "Adam: the plain gradient.", source="arXiv 1412.6980")
        >>> method.OPTIMIZER, method.summary()
        ('adam', 'Adam: the plain gradient')
    """
    attributes = {
        "__doc__": f"{summary}\n\n    {source}.\n    ",
        "__module__": __name__,
        "OPTIMIZER": optimizer,
    }
    return type(f"SGDWith{optimizer.capitalize()}", (SGD,), attributes)
