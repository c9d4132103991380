"""Augmentation of whole minibatches on the device, random numbers from a passed generator."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Augment = Callable[[Tensor, torch.Generator], Tensor]


def crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pad by 4, crop at random, mirror half: the standard of CIFAR (He et al. 2016, 4.2).

    Args:
        images: shape (B, channels, height, width).
        generator: on the CPU.
    """
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    mirrored = mirrored.to(images.device)[:, None, None, None]
    return crop(torch.where(mirrored, images.flip(-1), images), generator)


def crop(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Pad with zeros and cut the original size out at a random position of each image.

    Args:
        images: shape (B, channels, height, width).
        generator: on the CPU.
        padding: pixels at each side.
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    offset = torch.randint(2 * padding + 1, (2, count), generator=generator).to(images.device)
    rows = offset[0, :, None] + torch.arange(height, device=images.device)  # (B, height)
    columns = offset[1, :, None] + torch.arange(width, device=images.device)  # (B, width)
    sample = torch.arange(count, device=images.device)[:, None, None]
    # Advanced indices around a slice put the sliced axis (channels) last.
    cut = padded[sample, :, rows[:, :, None], columns[:, None, :]]  # (B, height, width, channels)
    return cut.permute(0, 3, 1, 2).contiguous()
