"""Small networks for small data."""

import math

from torch import nn

from ssgd_analysis.errors import InputError

WIDTH = 128


def mlp(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Two hidden layers of 128 ReLU units, no normalisation."""
    inputs = math.prod(input_shape)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, num_outputs),
    )


def cnn(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Three 3×3 convolutions with BatchNorm, average pooling, one linear layer."""
    channels = image_channels("cnn", input_shape)
    return nn.Sequential(
        *_convolution(channels, 16),
        *_convolution(16, 32),
        nn.MaxPool2d(2, ceil_mode=True),
        *_convolution(32, 32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, num_outputs),
    )


def image_channels(name: str, input_shape: tuple[int, ...]) -> int:
    """The channels of an image-shaped input.

    Raises:
        InputError: the input is not (channels, height, width).
    """
    if len(input_shape) != 3:
        raise InputError(
            f"model '{name}' needs inputs of shape (channels, height, width), not {input_shape}"
        )
    return input_shape[0]


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
