"""Small float64 networks and data, each with something that goes wrong easily."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssgd_analysis.models import LOSSES

N = 11  # not divisible by BATCH: the last batch is short
BATCH = 4
cross_entropy, mse = LOSSES["cross_entropy"], LOSSES["mse"]


@dataclass(frozen=True)
class Case:
    """A model with a loss and N examples."""

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    targets: Tensor

    def batches(self, size: int = BATCH) -> list[tuple[Tensor, Tensor]]:
        """The examples in batches of ``size``, the last one shorter."""
        return list(zip(self.inputs.split(size), self.targets.split(size), strict=True))

    @property
    def problem(self) -> tuple:
        """The three arguments that everything that measures takes."""
        return self.model, self.loss, self.batches()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def labels(count: int = N, classes: int = 3, seed: int = 1) -> Tensor:
    return torch.randint(0, classes, (count,), generator=generator(seed))


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Initial weights from a seed, without touching the global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def mlp() -> Case:
    """Two hidden tanh layers; dropout, so that a product outside eval mode shows."""
    with seeded():
        model = nn.Sequential(
            nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)
        )
    return Case(model.double(), cross_entropy, randn(N, 4), labels())


def conv_batchnorm() -> Case:
    """Convolutions with BatchNorm whose running statistics are not the initial ones."""
    with seeded():
        model = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1, bias=False),
            nn.BatchNorm2d(3),
            nn.Tanh(),
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.Softplus(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 3),
        ).double()
    for seed in range(3):
        model(2 * randn(8, 1, 5, 5, seed=seed) + 1)
    model[2].eval()  # a mixed state of modes, to be given back module by module
    return Case(model, cross_entropy, randn(N, 1, 5, 5, seed=9), labels())


class Tied(nn.Module):
    """The same Parameter as encoder and as decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(5, 5)
        self.decode = nn.Linear(5, 5)
        self.decode.weight = self.encode.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(torch.tanh(self.encode(x)))


def tied() -> Case:
    with seeded():
        model = Tied().double()
    return Case(model, cross_entropy, randn(N, 5), labels(classes=5))


def frozen() -> Case:
    with seeded():
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    model[0].weight.requires_grad_(False)
    return Case(model, cross_entropy, randn(N, 4), labels())


def unused() -> Case:
    with seeded():
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    model.register_parameter("unused", nn.Parameter(randn(3)))
    return Case(model, cross_entropy, randn(N, 4), labels())


def regression() -> Case:
    """Several outputs, mse."""
    with seeded():
        model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    return Case(model, mse, randn(N, 3), randn(N, 2, seed=1))


class Bag(nn.Module):
    """Mean of embeddings; the inputs are integers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.read = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.read(torch.tanh(self.embedding(tokens).mean(dim=1)))


def embedding() -> Case:
    with seeded():
        model = Bag().double()
    tokens = torch.randint(0, 7, (N, 3), generator=generator())
    return Case(model, cross_entropy, tokens, labels())


def positions() -> Case:
    """Outputs (B, C, T): a label for each of several positions of an example."""
    with seeded():
        model = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv1d(4, 3, 1)).double()
    targets = torch.randint(0, 3, (N, 5), generator=generator(1))
    return Case(model, cross_entropy, randn(N, 2, 5), targets)


def normalised() -> Case:
    """LayerNorm and GELU."""
    with seeded():
        model = nn.Sequential(
            nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3, bias=False)
        ).double()
    return Case(model, cross_entropy, randn(N, 4), labels())


class Attends(nn.Module):
    """Fused attention over a short sequence; a class for the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 5, dropout=0.1, batch_first=True)
        self.read = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.read(self.layer(self.embed(tokens)).mean(dim=1))


def attention() -> Case:
    with seeded():
        model = Attends().double()
    tokens = torch.randint(0, 7, (N, 3), generator=generator())
    return Case(model, cross_entropy, tokens, labels())


class Recurs(nn.Module):
    """An LSTM whose last state is read."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 3, batch_first=True)
        self.read = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.lstm(x)[0][:, -1])


def recurrent() -> Case:
    with seeded():
        model = Recurs().double()
    return Case(model, cross_entropy, randn(N, 4, 2), labels())


def volumes() -> Case:
    """Three-dimensional convolutions."""
    with seeded():
        model = nn.Sequential(
            nn.Conv3d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(2 * 8, 3)
        ).double()
    return Case(model, cross_entropy, randn(N, 1, 4, 4, 4), labels())


CASES: dict[str, Callable[[], Case]] = {
    "mlp": mlp,
    "conv_batchnorm": conv_batchnorm,
    "tied": tied,
    "frozen": frozen,
    "unused": unused,
    "regression": regression,
    "embedding": embedding,
    "positions": positions,
    "normalised": normalised,
    "attention": attention,
    "recurrent": recurrent,
    "volumes": volumes,
}


def quadratic(outputs: int = 2) -> Case:
    """A linear model with mse: the loss is a quadratic of the weights."""
    with seeded():
        model = nn.Linear(4, outputs, bias=False).double()
    return Case(model, mse, randn(N, 4), randn(N, outputs, seed=1))


def relu(bias: bool = True) -> Case:
    """ReLU net with two hidden layers."""
    with seeded():
        model = nn.Sequential(
            nn.Linear(4, 6, bias=bias),
            nn.ReLU(),
            nn.Linear(6, 5, bias=bias),
            nn.ReLU(),
            nn.Linear(5, 3, bias=bias),
        ).double()
    return Case(model, cross_entropy, randn(N, 4), labels())


class RaisesAfter:
    """A loss that works ``calls`` times and then raises."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], calls: int) -> None:
        self.loss, self.left, self.count = loss, calls, 0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.count += 1
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.loss(outputs, targets)


def bits(tensor: Tensor) -> bytes:
    """The exact bits: unlike ``==`` it tells −0.0 from 0.0 and knows NaN."""
    return tensor.detach().contiguous().cpu().numpy().tobytes()


def with_state(case: Case) -> Case:
    """Give the model gradients and a negative zero, so that losing them shows."""
    for seed, parameter in enumerate(case.model.parameters()):
        with torch.no_grad():
            parameter.view(-1)[0] = -0.0
        if parameter.requires_grad:
            parameter.grad = randn(*parameter.shape, seed=seed).to(parameter.dtype)
    return case


def state(model: nn.Module) -> dict[str, object]:
    """All that must come back: bits, identities, modes, gradients."""
    found: dict[str, object] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        grad = tensor.grad
        found[name] = (
            id(tensor),
            bits(tensor),
            tensor.requires_grad,
            None if grad is None else (id(grad), bits(grad)),
        )
    for name, module in model.named_modules():
        found[f"mode of {name}"] = module.training
    return found


def evaluated(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, for references."""
    return copy.deepcopy(model).eval()


def per_module_modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def trained() -> Case:
    """A classifier that is right on most of 60 examples."""
    inputs = randn(60, 4)
    with seeded():
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    case = Case(model, cross_entropy, inputs, inputs[:, :3].argmax(dim=1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        case.loss(model(inputs), case.targets).backward()
        optimizer.step()
    return case
