"""One seed a command, and independent streams derived from it by name."""

import hashlib

import torch


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
