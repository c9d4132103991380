"""Models that are unusual: they work, or one error says what to do."""

import nets
import pytest
import reference
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ssgd_analysis.curvature import HessianOperator, Options
from ssgd_analysis.curvature.products.products import STRATEGIES
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem

X, Y = nets.randn(nets.N, 4), nets.labels()
SEQUENCES, IMAGES = nets.randn(nets.N, 3, 4), nets.randn(nets.N, 1, 2, 2)
TOKENS = torch.randint(7, (nets.N, 3), generator=nets.generator())


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


class Calls(nn.Module):
    """A model and how its forward uses it."""

    def __init__(self, inner: nn.Module, forward) -> None:
        super().__init__()
        self.inner, self.call = inner, forward

    def forward(self, *inputs, **more):
        return self.call(self.inner, *inputs, **more)


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend, self.read = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.read(self.attend(x, x, x)[0].mean(dim=1))


class Recurs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.read = nn.GRU(4, 3, batch_first=True, bidirectional=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.read(self.gru(x)[0][:, -1])


class Scalar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read, self.heat = nn.Linear(4, 3), nn.Parameter(torch.tensor(0.7))
        self.empty = nn.Parameter(torch.zeros(0))

    def forward(self, x):
        return self.read(x) * self.heat.exp() + self.empty.sum()


class Counts(nn.Module):
    """Buffers that change in every forward pass, in place and by assignment."""

    def __init__(self, matter: bool = False) -> None:
        super().__init__()
        self.inner, self.matter = plain(), matter
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("average", torch.zeros(4))

    def forward(self, x):
        self.calls += 1
        self.average = 0.9 * self.average + 0.1 * x.mean(dim=0)
        return self.inner(x) * (1 + 0.1 * self.calls * self.matter)


def twice() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(4, 3))


def watched() -> nn.Module:
    model = plain()
    model[0].register_forward_hook(lambda module, inputs, outputs: 2 * outputs)
    model[2].register_forward_pre_hook(lambda module, inputs: None)
    return model


parametrizations = nn.utils.parametrizations
WORK = {
    "spectral_norm": (
        lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 5)), nn.Tanh()),
        X,
    ),
    "orthogonal": (
        lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(4, 4)), nn.Tanh()),
        X,
    ),
    "attention": (Attends, SEQUENCES),
    "gru": (Recurs, SEQUENCES),
    "group_norm": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.GroupNorm(2, 6), nn.Tanh(), nn.Linear(6, 3)),
        X,
    ),
    "convolution_transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(1, 2, 2), nn.Tanh(), nn.Flatten()),
        IMAGES,
    ),
    "scalar_and_empty_parameters": (Scalar, X),
    "module_used_twice": (twice, X),
    "hooks_of_modules": (watched, X),
    "forward_with_keywords": (lambda: Calls(plain(), lambda m, *x, **more: m(*x)), X),
    "relu_in_place": (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)),
        X,
    ),
    "buffers_change": (Counts, X),
    "activation_checkpoints": (
        lambda: Calls(plain(), lambda m, x: checkpoint(m, x, use_reentrant=False)),
        X,
    ),
    "parameter_is_a_view": (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)),
        X,
    ),
}


def case(name: str) -> nets.Case:
    make, inputs = WORK[name]
    with nets.seeded():
        model = make().double()
    if name == "parameter_is_a_view":
        model[0].weight = nn.Parameter(nets.randn(4, 5).T)
    return nets.Case(model, nets.cross_entropy, inputs, Y)


# models that torch.func can't trace
UNTRACED = {"buffers_change", "activation_checkpoints"}
# not "compiled": the same maps as "linear", 20 s of compiling each; test_products.py, slow, has it
NOT_COMPILED = [name for name in STRATEGIES if name != "compiled"]


@pytest.mark.parametrize("way", NOT_COMPILED)
@pytest.mark.parametrize("name", WORK)
def test_unusual_models_work(name, way):
    made = case(name)
    before = nets.state(made.model)
    Problem(*made.problem).check()
    operator = HessianOperator(Problem(*made.problem), options=Options(strategy=way))
    vector = nets.randn(operator.shape[0])
    if way == "linear" and name in UNTRACED:
        with pytest.raises(InputError, match="--product linear can't be used"):
            _ = operator @ vector
    else:
        truth = reference.hessian(made) @ vector
        tolerance = 1e-6 if way == "difference" else 1e-10
        assert float((operator @ vector - truth).norm()) < tolerance * float(truth.norm())
    assert nets.state(made.model) == before


def differences(made: nets.Case, vector: torch.Tensor, step: float = 1e-5) -> torch.Tensor:
    """The slope of the gradient, where no dense Hessian can be had."""
    parameters, slopes = list(made.model.parameters()), []
    clean = [parameter.detach().clone() for parameter in parameters]
    parts = vector.split([parameter.numel() for parameter in parameters])
    for sign in (1, -1):
        with torch.no_grad():
            for p, w, part in zip(parameters, clean, parts, strict=True):
                p.copy_(w + sign * step * part.reshape(p.shape))
        grads = Problem(made.model, made.loss, [(made.inputs, made.targets)]).gradient()
        slopes.append(torch.cat([grad.reshape(-1).double() for grad in grads]))
    with torch.no_grad():
        for p, w in zip(parameters, clean, strict=True):
            p.copy_(w)
    return (slopes[0] - slopes[1]) / (2 * step)


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5).double(), nn.Linear(5, 3)

    def forward(self, x):
        return self.second(self.first(x).tanh().float()).double()


WITHOUT_REFERENCE = {
    # the dense double backward of torch.autograd.functional is wrong here, by 20%
    "weight_norm": lambda: nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)
    ).double(),
    "compiled": lambda: torch.compile(plain().double(), backend="aot_eager"),
    "data_parallel": lambda: nn.DataParallel(plain().double()),
}


@pytest.mark.parametrize("way", ["graph", "difference"])
@pytest.mark.parametrize("name", WITHOUT_REFERENCE)
def test_wrapped_models_work(name, way):
    with nets.seeded():
        made = nets.Case(WITHOUT_REFERENCE[name](), nets.cross_entropy, X, Y)
    operator = HessianOperator(Problem(*made.problem), options=Options(strategy=way))
    vector = nets.randn(operator.shape[0])
    truth = differences(made, vector)
    assert float((operator @ vector - truth).norm()) < 1e-6 * float(truth.norm())


@pytest.mark.parametrize("way", ["graph", "linear"])
def test_parameters_of_several_precisions(way):
    with nets.seeded():
        made = nets.Case(Mixed(), nets.cross_entropy, X, Y)
        exact = Calls(made.model, lambda m, x: m.second(m.first(x).tanh()))
    operator = HessianOperator(Problem(*made.problem), options=Options(strategy=way))
    vector = nets.randn(operator.shape[0])
    found = operator @ vector
    made.model.second.double()
    truth = reference.hessian(nets.Case(exact, made.loss, X, Y)) @ vector
    assert float((found - truth).norm()) < 1e-5 * float(truth.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    with nets.seeded():
        model = plain().to(dtype)
    operator = HessianOperator(Problem(model, nets.cross_entropy, [(X.to(dtype), Y)]))
    vector = nets.randn(operator.shape[0])
    found = (operator @ vector.to(dtype)).double()
    truth = reference.hessian(nets.Case(model.double(), nets.cross_entropy, X, Y)) @ vector
    # eight bits of mantissa, a few dozen terms
    assert float((found - truth).norm()) < 0.03 * float(truth.norm())


LOSSES = {
    "lambda": lambda outputs, targets: F.cross_entropy(outputs, targets),
    "one entry": lambda outputs, targets: F.cross_entropy(outputs, targets)[None],
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_inputs(name):
    with nets.seeded():
        made = nets.Case(plain().double(), nets.cross_entropy, X, Y)
    inputs = X.clone().requires_grad_()
    operator = HessianOperator(Problem(made.model, LOSSES[name], [(inputs, Y)]))
    vector = nets.randn(operator.shape[0])
    torch.testing.assert_close(operator @ vector, reference.hessian(made) @ vector)
    assert inputs.grad is None


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 4, dtype=torch.complex128))

    def forward(self, x):
        return (x.to(self.weight.dtype) @ self.weight.T).abs()


def hooked() -> nn.Module:
    model = plain().double()
    model[0].weight.register_hook(lambda grad: 2 * grad)
    return model


REFUSED = {
    "complex": (Complex, X, "parameter 'weight' is complex"),
    "gradient hook": (hooked, X, "parameter '0.weight' has a gradient hook"),
    "sparse": (
        lambda: nn.Sequential(nn.Embedding(7, 4, sparse=True), nn.Flatten(), nn.Linear(12, 3)),
        TOKENS,
        "module '0' has sparse gradients: make it with sparse=False",
    ),
    "meta": (lambda: plain().to("meta"), X, "'0.weight' is on the meta device"),
    "partly meta": (lambda: nn.Sequential(plain(), plain().to("meta")), X, "'1.0.weight' is on"),
    "detached": (
        lambda: Calls(plain().double(), lambda m, x: m(x).detach()),
        X,
        "something in the model or the loss is detached",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_is_one_error(name):
    make, inputs, why = REFUSED[name]

    def multiply():
        operator = HessianOperator(Problem(make(), nets.cross_entropy, [(inputs, Y)]))
        return operator @ torch.ones(operator.shape[0], dtype=operator.dtype)

    with pytest.raises(InputError, match=why):
        multiply()


UNFIT = {
    "dropout": (
        lambda: Calls(plain().double(), lambda m, x: m(F.dropout(x, 0.5, training=True))),
        nets.cross_entropy,
        "the loss differs between two evaluations",
    ),
    "buffers that matter": (
        lambda: Counts(matter=True).double(),
        nets.cross_entropy,
        "the loss differs between two evaluations",
    ),
    "sum": (
        lambda: plain().double(),
        lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="sum"),
        "the loss is a sum over the batch",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_the_check_refuses(name):
    make, loss, why = UNFIT[name]
    with torch.random.fork_rng(), pytest.raises(InputError, match=why):
        Problem(make(), loss, [(X, Y)]).check()
