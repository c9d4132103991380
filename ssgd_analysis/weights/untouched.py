"""Modules that do more in a pass, or in a change of mode, than they should."""

import contextlib
from collections.abc import Iterator

from torch import nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.weights.borrowed import same_bits


def overrides_mode(module: nn.Module) -> bool:
    """Whether a module's class has a ``train`` or ``eval`` of its own."""
    kind = type(module)
    return kind.train is not nn.Module.train or kind.eval is not nn.Module.eval


def refuse_renormalised(model: nn.Module) -> None:
    """Refuse embeddings that renormalise their rows in every pass.

    Raises:
        InputError: there is one; the error names it.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            raise InputError(
                f"the model's '{name}' writes into its weights in every pass (max_norm="
                f"{module.max_norm:g}): renormalise its rows once, then set max_norm=None"
            )


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Refuse passes that write into parameters, or replace them; they come back as they were.

    Raises:
        InputError: one did; the error names the parameter.
    """
    slots = [(m, k, p) for m in model.modules() for k, p in m._parameters.items() if p is not None]
    held = {id(p): (p, p.detach(), p.detach().clone()) for _, _, p in slots}
    names = {id(p): name for name, p in model.named_parameters()}
    changed: list[str] = []
    try:
        yield
    finally:
        for module, key, parameter in slots:
            if module._parameters.get(key) is not parameter:
                changed.append(names.get(id(parameter), key))
                module._parameters[key] = parameter
        for parameter, memory, values in held.values():
            moved = parameter.data_ptr() != memory.data_ptr()
            if moved or not same_bits(parameter.detach(), values):
                changed.append(names.get(id(parameter), "a parameter"))
                parameter.data = memory
                memory.copy_(values)
    if changed:
        raise InputError(
            f"a forward pass writes into the parameter '{changed[0]}': it was put back; curvature"
            " needs a model that leaves its parameters alone in evaluation mode"
        )
