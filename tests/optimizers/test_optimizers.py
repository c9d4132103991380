"""Base optimizers by name: options, defaults, and ours against torch's and pytorch-optimizer's."""

import copy

import pytest
import pytorch_optimizer
import torch
from torch import nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.optimizers.layerwise import LAMB, LARS
from ssgd_analysis.optimizers.muon import Muon, muon_groups, orthogonalised
from ssgd_analysis.optimizers.schedule import learning_rate
from ssgd_analysis.optimizers.table import (
    OPTIMIZERS,
    find_optimizer,
    load_state,
    make_optimizer,
    read_settings,
)
from ssgd_analysis.settings import read_assignments

STRANGERS = ["lion", "adabelief", "shampoo", "soap", "ranger"]


def _net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 2))
    return net.double()


def _make(name: str, net: nn.Module, **options) -> torch.optim.Optimizer:
    given = {"lr": 0.01, "momentum": 0.5, "nesterov": False, "weight_decay": 0.0, **options}
    return make_optimizer(name, net, **given)


def _steps(net: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> list[torch.Tensor]:
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        for parameter in net.parameters():
            slope = torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.empty_like(parameter).copy_(slope)
        optimizer.step()
    return [parameter.detach().clone() for parameter in net.parameters()]


def _same(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_options_reach_the_optimizer_that_has_them(name):
    entry = OPTIMIZERS[name]
    decays = "weight_decay" in entry.options
    optimizer = _make(name, _net(), weight_decay=0.1 if decays else 0.0)
    assert type(optimizer) is entry.make
    for group in optimizer.param_groups:
        assert group["lr"] == 0.01
        assert group.get("weight_decay") == (0.1 if decays else None)
        assert group.get("momentum") == (None if entry.momentum is None else 0.5)
        assert group.get("fused", None) is (True if entry.fused else group.get("fused"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults_are_the_classes_own(name):
    """But for SGD, whose torch default of lr 0.001 without momentum is no baseline, and RMSprop."""
    entry = OPTIMIZERS[name]
    if name not in ("sgd", "rmsprop"):
        assert entry.lr == pytest.approx(entry.options["lr"])
        assert entry.momentum == entry.options.get("momentum")
    before = [parameter.detach().clone() for parameter in _net().parameters()]
    net = _net()
    after = _steps(net, _make(name, net, lr=entry.lr, momentum=entry.momentum), range(1))
    assert not any(torch.equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_the_fused_implementation_is_the_plain_one_to_rounding(name):
    nets = [_net(), _net()]
    ends = [
        _steps(net, _make(name, net, weight_decay=0.1, settings={"fused": fused}), range(10))
        for net, fused in zip(nets, (True, False), strict=True)
    ]
    _same(*ends, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", [*OPTIMIZERS, *(f"pytorch-optimizer:{n}" for n in STRANGERS)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_goes_on_from_a_saved_state_with_the_same_bits(name, memory_format):
    """The state saved as a run folder saves it: contiguous."""
    net = _net().float().to(memory_format=memory_format)
    entry = find_optimizer(name)
    optimizer = _make(name, net, lr=entry.lr, momentum=entry.momentum)
    _steps(net, optimizer, range(2))
    weights = {k: v.contiguous().clone() for k, v in net.state_dict().items()}
    state = copy.deepcopy(optimizer.state_dict())
    for held in state["state"].values():
        for key, value in held.items():
            held[key] = value.contiguous() if isinstance(value, torch.Tensor) else value
    expected = _steps(net, optimizer, range(2, 4))
    other = _net(1).float().to(memory_format=memory_format)
    other.load_state_dict(weights)
    again = _make(name, other, lr=entry.lr, momentum=entry.momentum)
    load_state(again, state)
    assert all(map(torch.equal, _steps(other, again, range(2, 4)), expected))


def _after(optimizer_class, schedule: str, net: nn.Module, **options) -> list[torch.Tensor]:
    """The weights after sixty steps with random gradients."""
    optimizer, steps = optimizer_class(net.parameters(), **options), 60
    for number in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(options["lr"], schedule, number, steps, 0)
        weights = _steps(net, optimizer, range(number, number + 1))
    return weights


def _distance(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The largest difference, as a share of the largest weight."""
    largest = max(float(weight.abs().max()) for weight in expected)
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) / largest


@pytest.mark.parametrize(("schedule", "low", "high"), [("constant", 0, 1e-12), ("step", 0.1, 1)])
def test_lars_is_pytorch_optimizers_at_a_constant_rate(schedule, low, high):
    """The paper has the learning rate inside the velocity, the package outside of it."""
    options = {"lr": 0.7, "momentum": 0.9, "weight_decay": 0.05}
    found, expected = (
        _after(each, schedule, _net(), **options) for each in (LARS, pytorch_optimizer.LARS)
    )
    assert low <= _distance(found, expected) < high


@pytest.mark.parametrize("plain", [{}, {"weight_decouple": False}, {"adam_debias": True}])
def test_no_options_make_pytorch_optimizers_lamb_the_papers(plain):
    options = {"lr": 0.01, "weight_decay": 0.05}
    found = _after(LAMB, "constant", _net(), scale_1d=True, **options)
    expected = _after(pytorch_optimizer.Lamb, "constant", _net(), **plain, **options)
    assert _distance(found, expected) > 1e-3


def test_lamb_is_pytorch_optimizers(monkeypatch):
    """Without bias correction and the cut of weight norms at ten, which that one has.

    It scales biases too, and adds ε to ‖u‖: one part in a million here.
    """
    monkeypatch.setattr(pytorch_optimizer.Lamb, "clamp", float("inf"))
    nets, options = [_net(), _net()], {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.05}
    ours = LAMB(nets[0].parameters(), bias_correction=False, scale_1d=True, **options)
    plain = {"weight_decouple": False, "adam_debias": True}  # the rate itself, at every step
    theirs = pytorch_optimizer.Lamb(nets[1].parameters(), **plain, **options)
    ends = [_steps(n, o, range(60)) for n, o in zip(nets, (ours, theirs), strict=True)]
    _same(*ends, rtol=1e-5, atol=1e-6)


def test_lamb_without_layers_is_adam():
    """With φ(‖w‖)/‖u‖ = 1, on tensors of one axis: torch's Adam, bias correction included."""
    weight, other = (nn.Parameter(torch.ones(4, dtype=torch.float64)) for _ in range(2))
    ours, theirs = LAMB([weight], lr=0.01), torch.optim.Adam([other], lr=0.01, eps=1e-6)
    for number in range(5):
        slope = torch.randn(4, generator=torch.Generator().manual_seed(number)).double()
        weight.grad, other.grad = slope.clone(), slope.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(weight, other, rtol=1e-12, atol=0)


def test_torchs_muon_rounds_to_bfloat16_and_refuses_filters():
    """Why ours is kept; the next test shows that nothing else differs."""

    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 5, bias=False), nn.Linear(5, 9, bias=False)).double()

    options = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.05}
    found, expected = (
        _after(each, "constant", net(), **options) for each in (Muon, torch.optim.Muon)
    )
    assert 1e-4 < _distance(found, expected) < 1e-2
    with pytest.raises(ValueError, match="2D"):
        torch.optim.Muon(_net().parameters())


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_muon_is_torchs(monkeypatch, nesterov, shape):
    """Which iterates in bfloat16: put to the matrix's own type, the same to rounding."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda matrix: matrix.clone())
    weights = [nn.Parameter(torch.ones(shape, dtype=torch.float64)) for _ in range(2)]
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05, "nesterov": nesterov}
    optimizers = [Muon([weights[0]], **options), torch.optim.Muon([weights[1]], **options)]
    for number in range(60):
        slope = torch.randn(shape, generator=torch.Generator().manual_seed(number)).double()
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = slope.clone()
            optimizer.step()
    torch.testing.assert_close(*weights, rtol=1e-10, atol=1e-12)


def test_orthogonalised_has_singular_values_near_one():
    matrix = torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert 0.6 < values.min() <= values.max() < 1.3  # the source: about 0.7 to 1.2


def test_muons_other_weights_take_adamws_steps():
    """The last matrix and the biases; filters are matrices of (out, in · height · width)."""
    net, other = _net(), _net()
    groups = muon_groups(net)
    assert [[p.shape[0] for p in group["params"]] for group in groups] == [[3, 5], [3, 5, 2, 2]]
    ours = _steps(net, _make("muon", net, lr=0.02, weight_decay=0.1), range(4))
    options = {"lr": 0.02 * 0.015, "betas": (0.9, 0.95), "eps": 1e-10, "weight_decay": 0.1}
    theirs = _steps(other, torch.optim.AdamW(other.parameters(), **options), range(4))
    hidden = (0, 2)
    for place, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if place in hidden:
            assert (a - b).abs().max() > 1e-3
        else:
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_embeddings_are_no_hidden_weights():
    net = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    assert [p.shape for p in muon_groups(net)[0]["params"]] == [(4, 4)]


class _Language(nn.Module):
    """Tied or not: the head's weight is the embedding's, by its module or by the function."""

    def __init__(self, tie: str) -> None:
        super().__init__()
        self.embed, self.hidden, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7)
        self.tie = tie
        if tie == "module":
            self.head.weight = self.embed.weight
        elif tie == "function":
            self.head = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.hidden(self.embed(x)))
        return self.head(x) if self.head is not None else x @ self.embed.weight.T


class _HeadFirst(nn.Module):
    """Registered the other way round; the head's bias, a norm and a scale come after it."""

    def __init__(self, normed: bool = False) -> None:
        super().__init__()
        head = nn.Linear(5, 2)
        self.head = nn.utils.parametrizations.weight_norm(head) if normed else head
        self.scale = nn.Parameter(torch.ones(()))
        self.body = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.LayerNorm(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.head(self.body(x))


def _residual() -> nn.Module:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.block, self.stem = nn.Linear(5, 2), nn.Linear(5, 5), nn.Linear(4, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            return self.head(x + torch.relu(self.block(x)))

    return Residual()


def _convolutions() -> nn.Module:
    """The output layer is a convolution, pooled."""
    head = nn.Sequential(nn.Conv2d(5, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), head)


WORDS, VECTORS, IMAGES = torch.arange(6).reshape(2, 3), torch.ones(2, 4), torch.ones(2, 1, 5, 5)
HEADS = {
    "tied": (lambda: _Language("module"), WORDS, ["hidden.weight"]),
    "tied by the function": (lambda: _Language("function"), WORDS, ["hidden.weight"]),
    "untied": (lambda: _Language("no"), WORDS, ["hidden.weight"]),
    "head first": (_HeadFirst, VECTORS, ["body.0.weight", "body.2.weight"]),
    "normed head": (lambda: _HeadFirst(True), VECTORS, ["body.0.weight", "body.2.weight"]),
    "residual": (_residual, VECTORS, ["block.weight", "stem.weight"]),
    "convolutions": (_convolutions, IMAGES, ["0.weight"]),
    "one layer": (lambda: nn.Linear(4, 2), VECTORS, []),
}


def _hidden(model: nn.Module, inputs: torch.Tensor | None = None) -> list[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = muon_groups(model, inputs)
    grouped = sorted(names[id(p)] for group in groups for p in group["params"])
    assert grouped == sorted(n for n, p in model.named_parameters() if p.requires_grad)
    return [names[id(p)] for group in groups if group["use_muon"] for p in group["params"]]


@pytest.mark.parametrize("name", HEADS)
def test_muon_finds_the_output_layer(name):
    make, inputs, hidden = HEADS[name]
    model = make()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert _hidden(model, inputs) == hidden
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("tie", ["module", "no"])
def test_without_examples_the_last_place_is_the_output_layer(tie):
    assert _hidden(_Language(tie)) == ["hidden.weight"]


def test_a_frozen_head_leaves_the_others_hidden():
    model = _HeadFirst()
    model.head.requires_grad_(False)
    assert _hidden(model, VECTORS) == ["body.0.weight", "body.2.weight"]
    assert not model.head.weight.requires_grad


def test_examples_that_do_not_fit_are_no_error_here():
    assert _hidden(_HeadFirst(), IMAGES) == ["head.weight", "body.0.weight"]  # registration


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("adm", "did you mean 'adam'"),
        ("pytorch-optimizer:lyon", "did you mean 'lion'"),
        ("pytorch-optimizer:alig", "closure"),
        ("pytorch-optimizer:adahessian", "cannot be a base optimizer"),
        ("pytorch-optimizer:bsam", "num_data"),
        ("pytorch-optimizer:schedulefreesgd", "needs calls of train"),
        ("pytorch-optimizer:adashift", "a run cannot save"),
    ],
)
def test_what_does_not_fit_is_refused(name, words):
    with pytest.raises(InputError, match=words) as caught:
        find_optimizer(name)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pytorch_optimizer", None)
    find_optimizer.cache_clear()
    with pytest.raises(InputError, match=r"ssgd-analysis\[optimizers\]"):
        find_optimizer("pytorch-optimizer:lion")


def test_own_options_are_typed_by_the_constructor():
    given = read_assignments(
        "--optimizer-set", ["betas=0.8,0.9", "eps=1e-5", "amsgrad=true", "foreach=none"]
    )
    read = read_settings("adam", given)
    assert read == {"betas": [0.8, 0.9], "eps": 1e-5, "amsgrad": True, "foreach": None}
    assert read_settings("adam", read) == read
    (group,) = _make("adam", _net(), settings=read).param_groups
    assert (group["betas"], group["eps"], group["amsgrad"]) == ((0.8, 0.9), 1e-5, True)


def test_a_real_number_whose_default_is_whole():
    assert read_settings("sgd", {"dampening": "0.5"}) == {"dampening": 0.5}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("beta=1", "did you mean 'betas'"),
        ("betas=0.9", "tuple of 2"),
        ("eps=small", "eps=small"),
        ("amsgrad=1", "true or false"),
        ("lr=0.1", "--lr"),
        ("weight_decay=0.1", "--weight-decay"),
        ("eps", "NAME=VALUE"),
    ],
)
def test_own_options_that_do_not_fit_are_refused(assignment, words):
    with pytest.raises(InputError, match=words):
        read_settings("adam", read_assignments("--optimizer-set", [assignment]))


def test_a_value_that_the_class_refuses_is_one_line():
    with pytest.raises(InputError, match="optimizer 'adam': Invalid beta"):
        _make("adam", _net(), settings={"betas": [2.0, 0.9]})
