"""Models by name or by reference."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from ssgd_analysis import references
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.models.libraries import HF, library_model
from ssgd_analysis.models.resnet import resnet, wrn28_10
from ssgd_analysis.models.signals import cnn1d
from ssgd_analysis.models.simple import cnn, mlp
from ssgd_analysis.models.vgg import vgg16_bn


@dataclass(frozen=True)
class ModelEntry:
    """One line of the table: a factory ``(input_shape, num_outputs) -> nn.Module``."""

    make: Callable[[tuple[int, ...], int], nn.Module]
    summary: str


MODELS = {
    "mlp": ModelEntry(mlp, "two hidden layers of 128 ReLU units"),
    "cnn": ModelEntry(cnn, "three convolutions with BatchNorm, 15 k parameters"),
    "cnn1d": ModelEntry(cnn1d, "three convolutions along a signal, for mnist1d"),
    "resnet20": ModelEntry(partial(resnet, 20), "ResNet-20, CIFAR form, 0.27 M parameters"),
    "resnet32": ModelEntry(partial(resnet, 32), "ResNet-32, CIFAR form, 0.46 M parameters"),
    "resnet56": ModelEntry(partial(resnet, 56), "ResNet-56, CIFAR form, 0.85 M parameters"),
    "wrn28-10": ModelEntry(wrn28_10, "Wide ResNet 28-10, 36.5 M parameters"),
    "vgg16_bn": ModelEntry(vgg16_bn, "VGG-16 with BatchNorm, CIFAR form, 14.7 M parameters"),
}


def load_model(name: str, input_shape: tuple[int, ...], num_outputs: int | None) -> nn.Module:
    """A new model by registered name, by the name a library gives it, or by reference.

    Initial weights come from torch's global generator, as in ``torch.nn``.

    Args:
        name: of :data:`MODELS`, ``torchvision:NAME``, ``timm:NAME``, ``hf:FOLDER``, or a reference
            to a callable returning an ``nn.Module``, which is called with the keywords
            ``input_shape`` and ``num_outputs`` if it accepts them.
        input_shape: shape of one input, without the batch axis.
        num_outputs: classes, or values to regress; ``None``: the data has no targets, and
            a reference is called without it.

    Raises:
        InputError: an unknown name, a package that is not installed, a registered model for data
            without targets, a reference that fails, or no parameters to train.
    """
    if num_outputs is None and not (references.is_reference(name) or name.startswith(HF)):
        raise InputError(
            f"model '{name}' needs data of (input, target) pairs: name a model of your own as"
            " file.py:attribute"
        )
    if name in MODELS:
        assert num_outputs is not None
        return MODELS[name].make(input_shape, num_outputs)
    if name.startswith(references.LIBRARIES):
        return library_model(name, input_shape, num_outputs)
    if not references.is_reference(name):
        raise unknown("model", name, [*MODELS, "torchvision:NAME", "timm:NAME", "hf:FOLDER"])
    offered: dict[str, Any] = {"input_shape": input_shape, "num_outputs": num_outputs}
    made = references.call(
        "model",
        name,
        references.resolve("model", name),
        **{key: value for key, value in offered.items() if value is not None},
    )
    if not isinstance(made, nn.Module):
        raise InputError(f"model '{name}' returned a {type(made).__name__}, not an nn.Module")
    if not any(parameter.requires_grad for parameter in made.parameters()):
        raise InputError(f"model '{name}' has no parameters that require gradients")
    return made
