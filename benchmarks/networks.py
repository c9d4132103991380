"""The networks of the curvature benchmark, after a few steps of training."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssgd_analysis.data import load_data
from ssgd_analysis.models import load_model

Batches = list[tuple[Tensor, Tensor]]


class Transformer(nn.Module):
    """A small language model: two layers of fused attention over 32 tokens."""

    def __init__(self, words: int = 50, width: int = 64, length: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.read = nn.Linear(width, words)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, words, T) for tokens (B, T)."""
        return self.read(self.layers(self.embed(tokens) + self.position)).transpose(1, 2)


@dataclass(frozen=True)
class Net:
    """A network, and the number of examples that it is measured on.

    Args:
        name: of a registered model, or ``transformer``.
        examples: N.
        rounds: timed rounds; the median counts.
        steps: SGD steps before.
    """

    name: str
    examples: int
    rounds: int
    steps: int = 30

    def make(self, device: str) -> tuple[nn.Module, Batches]:
        """The model after a few steps, and all examples as one batch."""
        torch.manual_seed(0)
        if self.name == "transformer":
            model: nn.Module = Transformer()
            inputs = torch.randint(50, (self.examples, 32))
            targets = (inputs.roll(1, 1) + 1) % 50
        elif self.name in ("mlp", "cnn"):
            ((inputs, targets),) = load_data("digits").train.batches(self.examples)[:1]
            model = load_model(self.name, tuple(inputs.shape[1:]), 10)
        else:
            model = load_model(self.name, (3, 32, 32), 10)
            targets = torch.randint(10, (self.examples,))
            means = torch.randn(10, 3, 32, 32)
            inputs = means[targets] + 2 * torch.randn(self.examples, 3, 32, 32)
        model, inputs, targets = model.to(device), inputs.to(device), targets.to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for step in range(self.steps):
            chosen = torch.arange(64, device=device).add(64 * step).remainder(len(inputs))
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[chosen]), targets[chosen]).backward()
            optimizer.step()
        optimizer.zero_grad()
        _recalibrate(model, inputs)
        return model.eval(), [(inputs, targets)]


def _recalibrate(model: nn.Module, inputs: Tensor) -> None:
    """BatchNorm statistics of these weights: a few steps leave others, and absurd curvature."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the passes that follow
    with torch.no_grad():
        for piece in inputs.split(64):
            model(piece)
    for norm in norms:
        norm.momentum = 0.1


NETS = [
    Net("mlp", 1024, 15),
    Net("cnn", 1024, 9),
    Net("transformer", 256, 7),
    Net("resnet20", 256, 5),
    Net("vgg16_bn", 64, 3, steps=10),
]
