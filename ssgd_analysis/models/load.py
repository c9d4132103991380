"""Models by name or by reference."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from ssgd_analysis import references
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.models.resnet import resnet, wrn28_10
from ssgd_analysis.models.signals import cnn1d
from ssgd_analysis.models.simple import cnn, image_channels, mlp
from ssgd_analysis.models.vgg import vgg16_bn

TORCHVISION = "torchvision:"
_AUXILIARY = ("googlenet", "inception_v3")


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
    """A new model by registered name, ``torchvision:NAME`` or reference.

    Initial weights come from torch's global generator, as in ``torch.nn``.

    Args:
        name: see above; a reference is a callable returning an ``nn.Module``, called with the
            keywords ``input_shape`` and ``num_outputs`` if it accepts them.
        input_shape: shape of one input, without the batch axis.
        num_outputs: classes, or values to regress; ``None``: the data has no targets, and
            a reference is called without it.

    Raises:
        InputError: an unknown name, a registered model for data without targets, a reference
            that fails, or no parameters to train.
    """
    if num_outputs is None and not references.is_reference(name):
        raise InputError(
            f"model '{name}' needs data of (input, target) pairs: name a model of your own as"
            " file.py:attribute"
        )
    if name in MODELS:
        assert num_outputs is not None
        return MODELS[name].make(input_shape, num_outputs)
    if name.startswith(TORCHVISION):
        assert num_outputs is not None
        return _torchvision(name.removeprefix(TORCHVISION), input_shape, num_outputs)
    if not references.is_reference(name):
        raise unknown("model", name, [*MODELS, "torchvision:NAME"])
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


def _torchvision(name: str, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    from torchvision import models  # takes 1.5 s to import

    names = models.list_models(module=models)
    if name not in names:
        raise unknown("torchvision model", name, names)
    channels = image_channels(TORCHVISION + name, input_shape)
    # the two old networks with auxiliary outputs, which no plain loss takes
    plain = {"aux_logits": False, "init_weights": True} if name in _AUXILIARY else {}
    model = models.get_model(name, weights=None, num_classes=num_outputs, **plain)
    if channels != 3:
        _replace_first_convolution(model, channels)
    return model


def _replace_first_convolution(model: nn.Module, channels: int) -> None:
    """Give the first convolution another number of input channels."""
    for name, old in model.named_modules():
        if isinstance(old, nn.Conv2d):
            parent = model.get_submodule(name.rpartition(".")[0])
            new = nn.Conv2d(
                channels,
                old.out_channels,
                old.kernel_size,  # type: ignore[arg-type]
                old.stride,  # type: ignore[arg-type]
                old.padding,  # type: ignore[arg-type]
                bias=old.bias is not None,
            )
            setattr(parent, name.rpartition(".")[2], new)
            return
