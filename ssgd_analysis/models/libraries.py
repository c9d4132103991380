"""Models of torchvision, timm and transformers by name; nothing is ever downloaded."""

import difflib
import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError, first_line, unknown
from ssgd_analysis.models.simple import image_channels
from ssgd_analysis.references import LIBRARIES

TORCHVISION, TIMM, HF = LIBRARIES
_AUXILIARY = ("googlenet", "inception_v3")


class Logits(nn.Module):
    """A model of transformers that returns its logits alone, as losses of pairs need them.

    Args:
        model: called with one argument; returns an object with ``logits``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """The logits, of any shape."""
        return self.model(inputs).logits


def library_model(name: str, input_shape: tuple[int, ...], num_outputs: int | None) -> nn.Module:
    """A new model with random weights, fitted to the data where its library can do so.

    Args:
        name: ``torchvision:NAME``, ``timm:NAME``, or ``hf:FOLDER`` with a ``config.json``.
        input_shape: shape of one input, without the batch axis.
        num_outputs: classes; ``None``: the data has no targets, which only ``hf:`` allows.

    Raises:
        InputError: an unknown name, a missing package, or a model that cannot be made for
            such data.
    """
    if name.startswith(HF):
        return _transformers(Path(name.removeprefix(HF)), input_shape, num_outputs)
    assert num_outputs is not None
    if name.startswith(TIMM):
        return _timm(name.removeprefix(TIMM), input_shape, num_outputs)
    return _torchvision(name.removeprefix(TORCHVISION), input_shape, num_outputs)


def own_names(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file by the names that a model of transformers has for them.

    ``save_pretrained`` writes some architectures under older names than those of the modules.

    Returns:
        A state dict of the model; empty if nothing in it can translate all names.
    """
    parts = [
        (name, part)
        for name, part in model.named_modules()
        if hasattr(part, "config") and callable(getattr(part, "from_pretrained", None))
    ]
    if not parts:
        return {}
    name, part = parts[0]
    try:
        with torch.random.fork_rng(devices=[]):
            made, info = part.from_pretrained(
                None, config=part.config, state_dict=dict(tensors), output_loading_info=True
            )
    except Exception:  # a library may raise anything; the names as they are get the error
        return {}
    if any(info.get(kind) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        return {}
    start = f"{name}." if name else ""
    return {start + own: tensor for own, tensor in made.state_dict().items()}


def _package(name: str, model: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        remedy = f"pip install 'ssgd-analysis[{extra}]'"
        raise InputError(f"model '{model}' needs {name}: {remedy}") from None


def _made(name: str, make: Callable[..., nn.Module], **settings: Any) -> nn.Module:
    """Call a library's factory; what it says becomes an error of one line."""
    try:
        return make(**settings)
    except Exception as error:  # a library may raise anything
        given = ", ".join(f"{key}={value}" for key, value in settings.items())
        raise InputError(
            f"model '{name}' cannot be made with {given}: {first_line(error)}"
        ) from error


def _timm(name: str, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    timm = _package("timm", TIMM + name, "timm")
    if not timm.is_model(name):
        names = timm.list_models()
        raise unknown("timm model", name, difflib.get_close_matches(name, names, 5) or names[:5])
    settings: dict[str, Any] = {
        "in_chans": image_channels(TIMM + name, input_shape),
        "num_classes": num_outputs,
    }
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:  # such as a ViT, whose positions are weights
        settings["img_size"] = input_shape[1:]
    model = _made(TIMM + name, timm.create_model, model_name=name, pretrained=False, **settings)
    if getattr(getattr(model, "patch_embed", None), "num_patches", 1) == 0:
        size = " × ".join(map(str, input_shape[1:]))
        raise InputError(
            f"model '{TIMM}{name}' sees nothing of images of {size}: smaller than a patch"
        )
    return model


def _transformers(folder: Path, input_shape: tuple[int, ...], num_outputs: int | None) -> nn.Module:
    name = f"{HF}{folder}"
    file = folder / "config.json"
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        architecture = str(held["architectures"][0])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"model '{name}' needs {file} with 'architectures', as save_pretrained()"
            f" writes it ({type(error).__name__}: {first_line(error)})"
        ) from error
    transformers = _package("transformers", name, "hf")
    made = getattr(transformers, architecture, None)
    if not (isinstance(made, type) and issubclass(made, nn.Module)):
        raise InputError(f"model '{name}': transformers has no model {architecture}")
    changes: dict[str, Any] = {}
    if num_outputs is not None and architecture.endswith("Classification"):
        changes["num_labels"] = num_outputs
    if len(input_shape) == 3:  # an image
        channels, height, width = input_shape
        size = width if height == width else (height, width)
        fitted = {"num_channels": channels, "image_size": size}
        changes |= {key: value for key, value in fitted.items() if key in held}

    def make(**settings: Any) -> nn.Module:
        # a folder that is there, so no name of a model to look up; no code of the folder's own
        return made(
            transformers.AutoConfig.from_pretrained(
                folder.resolve(), local_files_only=True, trust_remote_code=False, **settings
            )
        )

    model = _made(name, make, **changes)
    return model if num_outputs is None else Logits(model)


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
