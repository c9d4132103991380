"""One seed a command, and independent streams derived from it by name."""

import hashlib

import torch

from ssgd_analysis.errors import InputError


def derive(seed: int, *names: object) -> int:
    """A seed for one named stream: the same on every machine, unrelated to its neighbours.

    torch's CPU generator uses the low 32 bits of a seed only, and neighbouring seeds are what
    a step counter gives; hence a hash and not a sum.

    Example:
        >>> derive(0, "batches") == derive(0, "batches") != derive(1, "batches")
        True
    """
    digest = hashlib.blake2b(repr((seed, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one named stream on one device."""
    return torch.Generator(device).manual_seed(derive(seed, *names))


def given_generator(
    given: torch.Generator | None, seed: int | None, *names: object, device: torch.device
) -> torch.Generator:
    """The generator that a caller gave, or one for a named stream of the seed, by default 0.

    Raises:
        InputError: both are given.
    """
    if given is None:
        return generator(seed or 0, *names, device=device)
    if seed is not None:
        raise InputError("give a seed or a generator, not both")
    return given
