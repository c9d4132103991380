"""No method moves what is no weight: padding rows of embeddings and frozen parameters."""

import nets
import pytest
import torch
from torch import Tensor, nn

from ssgd_analysis.methods import METHODS, SSGD, Passes
from ssgd_analysis.methods.when import When

PAD = 2
NOISY = {
    "s-sgd", "wni", "wni-2", "alternating", "nso", "smoothout", "anti-pgd", "lpf-sgd", "rwp",
    "arwp", "m-arwp", "entropy-sgd", "sgld",
}  # fmt: skip
TOKENS = torch.randint(0, 7, (40, 5), generator=nets.generator())
LABELS = nets.labels(40)


class Reads(nn.Module):
    """Embeddings with a padding row that is not zero, a frozen layer, and a head."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4, padding_idx=PAD)
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        with torch.no_grad():
            self.embed.weight[PAD] = 0.5
        self.body.requires_grad_(False)
        if tied:
            self.head = nn.Linear(4, 7)
            self.head.weight = self.embed.weight
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, tokens: Tensor) -> Tensor:
        weight = self.embed.weight.detach().clone()
        self.seen.append((weight[PAD], weight, self.body.weight.detach().clone()))
        return self.head(torch.tanh(self.body(self.embed(tokens).mean(dim=1))))


def trained(name: str, model: Reads, **chosen: object) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    passes = Passes(model, nets.cross_entropy, optimizer, batch_size=40)
    method = METHODS[name](passes, METHODS[name].Settings(**chosen))
    for step in range(3):
        method.step((TOKENS, LABELS), When(step=step, fraction_done=step / 3))


def made(**how: bool) -> Reads:
    with nets.seeded():
        return Reads(**how).double()


@pytest.mark.parametrize("name", METHODS)
def test_padding_rows_and_frozen_weights_stay(name):
    model = made()
    model(TOKENS)
    row, _, frozen = model.seen.pop()
    trained(name, model)
    model(TOKENS)  # where the steps ended
    assert model.seen
    for now, _, body in model.seen:
        assert torch.equal(now, row)
        assert torch.equal(body, frozen)
    rest = [weight[torch.arange(7) != PAD] for _, weight, _ in model.seen]
    assert not torch.equal(rest[0], rest[-1])  # something was trained
    if name in NOISY:  # and moved within the steps, too: more points than steps end at
        assert len({nets.bits(weight) for weight in rest}) == len(rest)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        *[("s-sgd", {"noise_law": law, "noise_relative_to": "none"})
          for law in ("binary", "gaussian", "sphere", "uniform", "laplace")],
        ("s-sgd", {"noise_per": "layer", "exclude": "none"}),
        ("smoothout", {"adapt_type": "filter"}),
        ("smoothout", {"adapt_type": "weight"}),
    ],
)  # fmt: skip
def test_with_other_settings_too(name, chosen):
    model = made()
    trained(name, model, **chosen)
    assert all(bool((row == 0.5).all()) for row, _, _ in model.seen)


def test_gradient_noise_leaves_constants_alone():
    model = made()
    trained("gradient-noise", model, eta=1.0)
    assert bool((model.embed.weight[PAD] == 0.5).all())
    assert not model.embed.weight.grad[PAD].any()


@pytest.mark.parametrize("name", sorted(NOISY - {"sgld", "entropy-sgd"}))
def test_a_row_that_a_head_shares_is_a_weight(name):
    model = made(tied=True)
    trained(name, model)
    rows = {nets.bits(row) for row, _, _ in model.seen}
    assert len(rows) >= 3


def ssgd(reads: Reads, **options: object) -> None:
    optimizer = SSGD(reads.parameters(), lr=0.1, noise_scale=0.3, **options)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nets.cross_entropy(reads(TOKENS), LABELS)
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)


def test_the_optimizer_knows_padding_rows_by_the_model():
    model = made()
    ssgd(model, model=model)
    assert all(bool((row == 0.5).all()) for row, _, _ in model.seen)
    assert len({nets.bits(body) for _, _, body in model.seen}) == 1  # frozen
    model = made()
    ssgd(model)  # as documented: it cannot know
    assert not all(bool((row == 0.5).all()) for row, _, _ in model.seen)


@pytest.mark.parametrize("name", ["s-sgd", "smoothout", "lpf-sgd", "rwp", "arwp"])
def test_noise_follows_the_output_units_of_a_transposed_convolution(name):
    """All units of one size but the last, which is zero: noise by input channels would hit it."""
    with nets.seeded():
        layer = nn.ConvTranspose1d(3, 4, 2, bias=False).double()
    with torch.no_grad():
        layer.weight[:, -1] = 0
    seen: list[Tensor] = []
    layer.register_forward_pre_hook(lambda *_: seen.append(layer.weight.detach().clone()))
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    passes = Passes(layer, lambda y, t: (y - t).square().mean(), optimizer, batch_size=4)
    chosen = {"adapt_type": "filter"} if name == "smoothout" else {}
    method = METHODS[name](passes, METHODS[name].Settings(**chosen))
    method.step((nets.randn(4, 3, 5), nets.randn(4, 4, 6)), When(fraction_done=0.5))
    noise = seen[-1] - before
    assert not noise[:, -1].any()
    assert bool((noise[:, :-1] != 0).all())
    if name == "s-sgd":
        sizes = before.square().mean(dim=(0, 2), keepdim=True).sqrt() * 0.1
        torch.testing.assert_close(noise.abs(), sizes.expand_as(noise), rtol=1e-12, atol=0)
    if name == "smoothout":  # ‖n_f‖ = a ‖w_f‖ exactly
        sizes = [part.norm(dim=(0, 2)) for part in (noise, 0.01 * before)]
        torch.testing.assert_close(*sizes, rtol=1e-12, atol=0)


def test_adaptive_noise_sums_squares_over_the_same_filters():
    with nets.seeded():
        layer = nn.ConvTranspose1d(3, 4, 2, bias=False).double()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    passes = Passes(layer, lambda y, t: (y - t).square().mean(), optimizer, batch_size=4)
    method = METHODS["arwp"](passes, METHODS["arwp"].Settings())
    method.step((nets.randn(4, 3, 5), nets.randn(4, 4, 6)), When(fraction_done=0.5))
    assert layer.weight.grad is not None
    wanted = layer.weight.grad.square().sum(dim=(0, 2), keepdim=True)
    torch.testing.assert_close(method.squares[0], wanted, rtol=1e-12, atol=0)
