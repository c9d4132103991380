"""Small networks of the kinds people use, each with a loss and data that go wrong easily."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

Batches = list[tuple[Any, Tensor]]
EXAMPLES, BATCH = 24, 8


class Pooled(nn.Module):
    """Layers over a sequence, the mean over its positions, and a linear read-out."""

    def __init__(self, embed: nn.Module, layers: nn.Module, width: int, masked: bool) -> None:
        super().__init__()
        self.embed, self.layers, self.read = embed, layers, nn.Linear(width, 3)
        self.masked = masked

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, 3) of tokens (B, T); token 0 is padding where it is masked."""
        x = self.embed(tokens)
        x = self.layers(x, src_key_padding_mask=tokens == 0) if self.masked else self.layers(x)
        return self.read(x.mean(dim=1))


class Recurrent(nn.Module):
    """The last state of a recurrent layer, read out."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.read = layer, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 3) of sequences (B, T, 3)."""
        return self.read(self.layer(x)[0][:, -1])


class TiedModel(nn.Module):
    """A language model whose embedding is its output matrix, too."""

    def __init__(self, words: int = 9, width: int = 5) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(words, width), nn.Linear(width, width)
        self.read = nn.Linear(width, words)
        self.read.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, words, T) of tokens (B, T)."""
        return self.read(torch.tanh(self.mix(self.embed(tokens).cumsum(dim=1)))).transpose(1, 2)


class Adapted(nn.Linear):
    """A frozen linear layer with a low-rank adapter B A (Hu et al. 2021, arXiv 2106.09685).

    With ``merges``, ``eval()`` adds the adapter to the frozen weight and ``train()`` takes it out.
    """

    def __init__(self, inputs: int, outputs: int, merges: bool, rank: int = 2) -> None:
        super().__init__(inputs, outputs)
        self.requires_grad_(False)
        self.a = nn.Parameter(0.5 * torch.randn(rank, inputs))
        self.b = nn.Parameter(0.5 * torch.randn(outputs, rank))
        self.merges, self.merged = merges, False

    def train(self, mode: bool = True) -> "Adapted":
        """Set the mode; take the adapter in or out."""
        super().train(mode)
        if self.merges and self.merged == mode:
            self.weight.data += (self.b @ self.a).detach() * (-1 if mode else 1)
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (B, outputs)."""
        y = super().forward(x)
        return y if self.merged else y + F.linear(F.linear(x, self.a), self.b)


class Bags(nn.Module):
    """Classes of ragged bags of tokens: one flat text with the offset of every bag."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.read = nn.EmbeddingBag(9, 4), nn.Linear(4, 3)

    def forward(self, bags: dict[str, Tensor]) -> Tensor:
        """Logits (B, 3)."""
        return self.read(torch.tanh(self.bag(bags["text"], bags["offsets"])))


class Swish(torch.autograd.Function):
    """x sigmoid(x), whose backward takes the saved sigmoid for a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Outputs of the inputs' shape."""
        ctx.save_for_backward(x)
        ctx.sigmoid = torch.sigmoid(x)
        return x * ctx.sigmoid

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        """Right; its own derivative is not."""
        (x,) = ctx.saved_tensors
        return slope * ctx.sigmoid * (1 + x * (1 - ctx.sigmoid))


class CustomActivation(nn.Module):
    """A :class:`Swish`."""

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the inputs' shape."""
        return Swish.apply(x)


class Residual(nn.Module):
    """The residual u'' + π² sin(πx) of u(x) = x (1 − x) net(x), which is 0 at 0 and 1.

    Reference:
        Lagaris, Likas and Fotiadis 1998; Raissi, Perdikaris and Karniadakis 2019.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Residuals (B, 1) at points (B, 1)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            u = x * (1 - x) * self.net(x)
            (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
            (second,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
        return second + torch.pi**2 * torch.sin(torch.pi * x)


@dataclass(frozen=True)
class Net:
    """A network, its loss and its data.

    Args:
        name: what is special about it.
        model: makes it; weights are drawn in float32, so that both dtypes hold the same ones.
        data: makes its inputs and targets, all in one batch.
        loss: its mean over all data in one batch is the loss that is meant.
        cut: sizes of batches.
        evaluates: whether ``eval()`` is called before tools get it, as their documents ask.
    """

    name: str
    model: Callable[[], nn.Module]
    data: Callable[[], tuple[Any, Tensor]]
    loss: Callable[[], nn.Module] = nn.CrossEntropyLoss
    cut: tuple[int, ...] = (BATCH,) * (EXAMPLES // BATCH)
    evaluates: bool = True

    def make(self, dtype: torch.dtype) -> tuple[nn.Module, nn.Module, Batches]:
        """Model, loss and all data in one batch, anew and the same every time."""
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the old weight norm is deprecated
            torch.manual_seed(0)
            inputs, targets = self.data()
            model = self.model()
            for norm in [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]:
                norm.momentum = None  # the plain mean: statistics of these data
                model(inputs)
        inputs, targets = (
            tensor.to(dtype)
            if isinstance(tensor, Tensor) and tensor.is_floating_point()
            else tensor
            for tensor in (inputs, targets)
        )
        model, loss = model.to(dtype), self.loss().to(dtype)
        return model.eval() if self.evaluates else model, loss, [(inputs, targets)]

    def batches(self, dtype: torch.dtype) -> Batches:
        """The data cut into batches."""
        ((inputs, targets),) = self.make(dtype)[2]
        if isinstance(inputs, Tensor):
            pieces = zip(inputs.split(self.cut), targets.split(self.cut), strict=True)
            return list(pieces)
        return list(zip(_cut_bags(inputs, self.cut), targets.split(self.cut), strict=True))


def _cut_bags(bags: dict[str, Tensor], sizes: tuple[int, ...]) -> list[dict[str, Tensor]]:
    ends = [*bags["offsets"].tolist(), len(bags["text"])]
    cut, first = [], 0
    for size in sizes:
        start, stop = ends[first], ends[first + size]
        offsets = bags["offsets"][first : first + size] - start
        cut.append({"text": bags["text"][start:stop], "offsets": offsets})
        first += size
    return cut


def count(inputs: Any) -> int:
    """Examples of a batch's inputs."""
    return len(inputs["offsets"] if isinstance(inputs, dict) else inputs)


def _labels(*shape: int) -> Tensor:
    return torch.randint(0, 3, shape or (EXAMPLES,))


def _vectors() -> tuple[Tensor, Tensor]:
    return torch.randn(EXAMPLES, 4), _labels()


def _images() -> tuple[Tensor, Tensor]:
    return torch.randn(EXAMPLES, 1, 6, 6), _labels()


def _series() -> tuple[Tensor, Tensor]:
    return torch.randn(EXAMPLES, 5, 3), _labels()


def _tokens() -> tuple[Tensor, Tensor]:
    return torch.randint(0, 9, (EXAMPLES, 5)), _labels()


def _padded() -> tuple[Tensor, Tensor]:
    """Sentences of 2 to 5 words."""
    tokens, lengths = torch.randint(1, 9, (EXAMPLES, 5)), torch.randint(2, 6, (EXAMPLES, 1))
    return tokens * (torch.arange(5) < lengths), _labels()


def _text() -> tuple[Tensor, Tensor]:
    tokens = torch.randint(0, 9, (EXAMPLES, 5))
    return tokens, (tokens.roll(1, 1) + 1) % 9


def _late_padding() -> tuple[Tensor, Tensor]:
    """Only after the first batch are there ignored labels."""
    tokens, words = _text()
    lengths = torch.where(torch.arange(EXAMPLES) < BATCH, 5, torch.arange(EXAMPLES) % 4 + 1)
    return tokens, words.masked_fill(torch.arange(5) >= lengths[:, None], -100)


def _sorted_classes() -> tuple[Tensor, Tensor]:
    labels = (torch.arange(EXAMPLES) >= EXAMPLES - 5).long()
    return torch.randn(EXAMPLES, 4) + labels[:, None], labels


def _ragged() -> tuple[dict[str, Tensor], Tensor]:
    lengths = torch.randint(1, 6, (EXAMPLES,))
    text = torch.randint(0, 9, (int(lengths.sum()),))
    return {"text": text, "offsets": lengths.cumsum(0) - lengths}, _labels()


def _pictures() -> tuple[Tensor, Tensor]:
    images = torch.rand(EXAMPLES, 1, 6, 6)
    return images, images


def _points() -> tuple[Tensor, Tensor]:
    return torch.rand(EXAMPLES, 1), torch.zeros(EXAMPLES, 1)


def _encoder(pre_norm: bool) -> nn.Module:
    return nn.TransformerEncoder(
        nn.TransformerEncoderLayer(
            4, 2, 8, dropout=0.0, activation="gelu", norm_first=pre_norm, batch_first=True
        ),
        1,
        nn.LayerNorm(4) if pre_norm else None,
        enable_nested_tensor=not pre_norm,
    )


def _mlp(*, outputs: int = 3, activation: Callable[[], nn.Module] = nn.Tanh) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, outputs))


def _convolutional(normalise: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), normalise(4), nn.GELU(), nn.Conv2d(4, 4, 3), normalise(4), nn.GELU(),
        nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def _weight_normed(normalise: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(normalise(nn.Linear(4, 6)), nn.Tanh(), normalise(nn.Linear(6, 3)))


def _autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.Softplus(), nn.ConvTranspose2d(4, 4, 3), nn.Softplus(),
        nn.ConvTranspose2d(4, 1, 3),
    )  # fmt: skip


def _weights() -> nn.Module:
    return nn.CrossEntropyLoss(weight=torch.tensor([1.0, 55.0]))


NETS = [
    Net(
        "transformer, pre-LayerNorm",
        lambda: Pooled(nn.Embedding(9, 4), _encoder(pre_norm=True), 4, masked=False),
        _tokens,
    ),
    Net(
        "nn.TransformerEncoder, padding mask",
        lambda: Pooled(nn.Embedding(9, 4), _encoder(pre_norm=False), 4, masked=True),
        _padded,
    ),
    Net("CNN, GroupNorm", lambda: _convolutional(lambda n: nn.GroupNorm(2, n)), _images),
    Net("CNN, BatchNorm in eval mode", lambda: _convolutional(nn.BatchNorm2d), _images),
    Net("GRU", lambda: Recurrent(nn.GRU(3, 4, batch_first=True)), _series),
    Net("LSTM", lambda: Recurrent(nn.LSTM(3, 4, batch_first=True)), _series),
    Net(
        "weight norm, parametrization", lambda: _weight_normed(parametrizations.weight_norm),
        _vectors,
    ),
    Net("weight norm, old hook", lambda: _weight_normed(nn.utils.weight_norm), _vectors),
    Net("language model, tied embedding", TiedModel, _text),
    Net(
        "LoRA adapter",
        lambda: nn.Sequential(Adapted(4, 6, merges=False), nn.Tanh(), nn.Linear(6, 3)),
        _vectors,
    ),
    Net(
        "LoRA adapter that merges in eval()",
        lambda: nn.Sequential(Adapted(4, 6, merges=True), nn.Tanh(), nn.Linear(6, 3)),
        _vectors,
        evaluates=False,
    ),
    Net("autoencoder, ConvTranspose2d", _autoencoder, _pictures, nn.MSELoss),
    Net("EmbeddingBag with offsets", Bags, _ragged),
    Net("MLP, short last batch", _mlp, _vectors, cut=(10, 10, 4)),
    Net("class weights, data sorted by class", lambda: _mlp(outputs=2), _sorted_classes, _weights),
    Net("ignore_index, padding in later batches", TiedModel, _late_padding),
    Net("physics-informed residual", lambda: Residual(nn.Sequential(
        nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1)
    )), _points, nn.MSELoss),
    Net("own activation, wrong second derivative", lambda: _mlp(activation=CustomActivation),
        _vectors),
]  # fmt: skip
