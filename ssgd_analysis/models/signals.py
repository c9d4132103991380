"""A small network for signals: inputs of one axis."""

from torch import nn

from ssgd_analysis.errors import InputError

CHANNELS = 25


def cnn1d(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Three strided convolutions of 25 channels along the signal, ReLU, one linear layer.

    Args:
        input_shape: (length,).
        num_outputs: classes.

    Raises:
        InputError: inputs with more axes than one, or shorter than 8.
    """
    if len(input_shape) != 1 or input_shape[0] < 8:
        raise InputError(
            f"model 'cnn1d' needs inputs of shape (length,), length ≥ 8, not {input_shape}"
        )
    length, layers = input_shape[0], []
    for before, width in ((1, 5), (CHANNELS, 3), (CHANNELS, 3)):
        layers += [nn.Conv1d(before, CHANNELS, width, stride=2, padding=1), nn.ReLU()]
        length = (length + 2 - width) // 2 + 1
    return nn.Sequential(
        nn.Unflatten(1, (1, input_shape[0])),
        *layers,
        nn.Flatten(),
        nn.Linear(CHANNELS * length, num_outputs),
    )
