"""Muon for hidden weight matrices, AdamW for all other parameters.

``torch.optim.Muon`` makes the same steps, but orthogonalises in bfloat16 whatever the type of the
weights, and refuses convolution filters; after 60 steps in float64 the weights differ by 0.3%
(``tests/optimizers``). So this one is ours.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from ssgd_analysis.weights import evaluation_mode

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration
STEPS = 5
EPS = 1e-7


def orthogonalised(matrix: Tensor) -> Tensor:
    """Newton–Schulz: nearly U Vᵀ of the singular value decomposition U S Vᵀ.

    The coefficients are the source's; singular values above a hundredth of the norm end between
    0.68 and 1.14, not at one. The source computes in bfloat16, for speed on GPUs; here it is the
    matrix's own type.

    Args:
        matrix: shape (M, N).

    Returns:
        Shape (M, N).
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp_min(EPS)
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def muon_groups(model: nn.Module, inputs: Any = None) -> list[dict[str, Any]]:
    """Hidden weights, and the others: embeddings, output layers, and tensors of one axis.

    An output layer's weight is the matrix that is nearest to the outputs in the graph of a pass,
    wherever it is registered; of a head tied to the embedding it is the embedding. Without such a
    graph it is the matrix that is registered last, tied ones counted.

    Args:
        model: whose parameters that require gradients are grouped; it is restored.
        inputs: a small batch of the model's inputs.
    """
    not_hidden = {
        id(p)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for p in module.parameters()
    }
    not_hidden |= {id(p) for p in _output_weights(model, inputs)}
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for weight in model.parameters():
        if weight.requires_grad:
            groups[weight.ndim > 1 and id(weight) not in not_hidden].append(weight)
    return [{"params": group, "use_muon": muon} for muon, group in groups.items() if group]


def _output_weights(model: nn.Module, inputs: Any) -> list[Tensor]:
    matrices: list[Tensor] = [
        p for _, p in model.named_parameters(remove_duplicate=False) if p.ndim > 1
    ]
    frozen = [p for p in matrices if p.is_floating_point() and not p.requires_grad]
    found: list[Tensor] = []
    if inputs is not None:
        try:
            with evaluation_mode(model), torch.enable_grad():
                for weight in frozen:  # a frozen head is still the output layer
                    weight.requires_grad_(True)
                found = _nearest(model(inputs), matrices)
        except Exception:  # any model may fail here; the checks that follow say why
            pass
        finally:
            for weight in frozen:
                weight.requires_grad_(False)
    return found or matrices[-1:]


def _nearest(output: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Those of the weights that the fewest operations lie between and the output."""
    wanted = {id(weight) for weight in weights}
    level: list[Any] = [output.grad_fn]
    visited = set(level)
    while level:
        leaves = [node.variable for node in level if hasattr(node, "variable")]
        if found := [leaf for leaf in leaves if id(leaf) in wanted]:
            return found
        after = dict.fromkeys(n for node in level for n, _ in node.next_functions if n is not None)
        level = [node for node in after if node not in visited]
        visited.update(level)
    return []


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; for groups with ``use_muon``. The others get AdamW.

    Muon: m ← β m + (1 − β) g; u = (1 − β) g + β m (Nesterov); w ← (1 − γ λ) w −
    γ √max(1, M/N) O(u), with O of :func:`orthogonalised`; convolution filters are matrices of
    shape (M, N) = (out, in · height · width); the source's code takes the root's M and N from the
    kernel's sides, which makes it one. AdamW: at ``adam_ratio`` · γ.

    Args:
        params: groups as of :func:`muon_groups`; without ``use_muon`` a group's is true.
        lr: γ.
        momentum: β.
        nesterov: else u = m.
        weight_decay: λ, decoupled, in both.
        adam_ratio: AdamW's learning rate as a share of γ; the source's are 3e-4 and 0.02.
        betas: AdamW's.
        eps: AdamW's.

    Reference:
        Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
        kellerjordan.github.io/posts/muon, and its repository's defaults.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        adam_ratio: float = 0.015,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-10,
    ) -> None:
        own = {"momentum": momentum, "nesterov": nesterov, "adam_ratio": adam_ratio}
        more = {"betas": betas, "eps": eps, "use_muon": True}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **own, **more})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update with what is in ``.grad``."""
        for group in self.param_groups:
            update = self._muon if group["use_muon"] else self._adamw
            for weight in group["params"]:
                if weight.grad is not None:
                    update(weight, weight.grad, group)

    def _muon(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, beta, rate = self.state[weight], group["momentum"], group["lr"]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(grad, 1 - beta)
        update = grad.lerp(state["momentum"], beta) if group["nesterov"] else state["momentum"]
        matrix = update.flatten(1)
        scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        weight.mul_(1 - rate * group["weight_decay"])
        weight.sub_(orthogonalised(matrix).reshape(weight.shape), alpha=rate * scale)

    def _adamw(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, rate = self.state[weight], group["lr"] * group["adam_ratio"]
        if not state:
            state.update(step=0, first=torch.zeros_like(weight), second=torch.zeros_like(weight))
        state["step"] += 1
        first, second = group["betas"]
        state["first"].lerp_(grad, 1 - first)
        state["second"].mul_(second).addcmul_(grad, grad, value=1 - second)
        weight.mul_(1 - rate * group["weight_decay"])
        spread = (state["second"] / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
        weight.addcdiv_(state["first"], spread, value=-rate / (1 - first ** state["step"]))
