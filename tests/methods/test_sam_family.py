"""SAM and its kin: what ties them to each other, to other libraries, to a stranger's loss."""

import math
from types import SimpleNamespace

import pytest
import torch
from readings.base import Still, bits, make_method, minibatch, network, run_steps
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.esam import each_loss
from ssgd_analysis.methods.when import START, When
from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.training import train

BASE = {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.05}


def _trained(name: str, steps: int = 5, **settings) -> list[Tensor]:
    model = network()
    run_steps(make_method(name, model, **settings), steps)
    return [parameter.detach() for parameter in model.parameters()]


def _assert_same(found, expected, tolerance: float = 1e-11) -> None:
    """By default to float64 and five steps of a few dozen roundings each."""
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=tolerance, atol=tolerance / 100)


# Ties


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sam", {"m": 6}),
        ("gsam", {"alpha": 0.0}),
        ("looksam", {"k": 1}),
        ("gradient-penalty", {"alpha": 1.0}),
        ("esam", {"beta": 1.0, "gamma": 1.0}),
        ("asam", {"eta": 1e9, "scaled": "all"}),
    ],
)
def test_at_its_limit_each_is_sam(name, settings):
    rho = 0.3 / 1e9 if name == "asam" else 0.3  # ε = ρ T g/‖g‖ where T is the same for all
    tolerance = 1e-7 if name == "asam" else 1e-11  # |w| / η is left
    _assert_same(_trained(name, rho=rho, **settings), _trained("sam", rho=0.3), tolerance)


def test_asam_does_not_notice_that_two_layers_are_rescaled():
    """The paper's theorem: with T = |w| the perturbed loss is the same for equal functions."""

    def top_loss(factor: float) -> float:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False))
        model = model.double()
        with torch.no_grad():
            model[0].weight.mul_(factor)
            model[2].weight.div_(factor)
        seen = []
        method = make_method("asam", model, Still(model.parameters()), eta=0.0)
        loss = method.passes.loss

        def watched(outputs, targets):
            seen.append(loss(outputs, targets).item())
            return loss(outputs, targets)

        method.passes.loss = watched
        run_steps(method, 1)
        return seen[1]

    assert top_loss(1.0) == pytest.approx(top_loss(16.0), rel=1e-12)
    assert top_loss(1.0) > 0


def test_gsam_does_not_change_the_perturbed_loss_to_first_order():
    """⟨g_p − step, g_p⟩ = 0: what is taken off is perpendicular to g_p."""

    def gradient(**settings) -> Tensor:
        model = network()
        run_steps(make_method("gsam", model, Still(model.parameters()), **settings), 1)
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    above, step = gradient(alpha=0.0, rho=0.5), gradient(alpha=0.7, rho=0.5)
    taken = above - step
    assert taken.norm() > 1e-3
    assert abs(float(taken @ above)) < 1e-12 * float(taken.norm() * above.norm())


def test_gsam_radius_follows_the_learning_rate():
    method = make_method("gsam", network(), rho=0.4, rho_min=0.1, rho_schedule="lr")
    radii = [method.radius(When(lr_share=share)) for share in (1.0, 0.5, 0.0, 0.25)]
    assert radii == pytest.approx([0.4, 0.25, 0.1, 0.175], rel=1e-12)


def test_the_gradient_penalty_is_that_of_the_gradients_norm():
    """∇(L + λ‖∇L‖) by automatic differentiation, approached as r shrinks."""
    inputs, targets = minibatch(0)
    lam = 0.3

    def exact() -> Tensor:
        model = network()
        parameters = list(model.parameters())
        loss = nn.functional.cross_entropy(model(inputs), targets)
        slopes = torch.autograd.grad(loss, parameters, create_graph=True)
        norm = torch.sqrt(sum(slope.square().sum() for slope in slopes))
        return torch.cat(
            [part.flatten() for part in torch.autograd.grad(loss + lam * norm, parameters)]
        )

    def ours(rho: float) -> Tensor:
        model = network()
        method = make_method(
            "gradient-penalty", model, Still(model.parameters()), rho=rho, alpha=lam / rho
        )
        run_steps(method, 1)
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    errors = [float((ours(rho) - exact()).norm() / exact().norm()) for rho in (1e-1, 1e-2, 1e-3)]
    assert errors[2] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.3)  # of first order in r
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.3)


# Other libraries

FLOAT32 = 1e-5  # pytorch_optimizer takes its norms in float32


def _library_steps(wrapped: type, steps: int, **options) -> list[Tensor]:
    """Steps of a two-step optimizer of pytorch_optimizer on the same minibatches."""
    model = options.pop("model", None) or network()
    optimizer = wrapped(model.parameters(), torch.optim.SGD, **BASE, **options)
    for number in range(steps):
        inputs, targets = minibatch(number)

        def closure(inputs=inputs, targets=targets):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            return loss

        closure()
        optimizer.step(closure)
    return [parameter.detach() for parameter in model.parameters()]


def test_sam_and_asam_are_those_of_pytorch_optimizer():
    library = pytest.importorskip("pytorch_optimizer")
    _assert_same(_trained("sam", rho=0.3), _library_steps(library.SAM, 5, rho=0.3), FLOAT32)
    adaptive = _library_steps(library.SAM, 5, rho=0.3, adaptive=True)  # T = |w| for all
    _assert_same(_trained("asam", rho=0.3, eta=0.0, scaled="all"), adaptive, FLOAT32)


def test_gsam_is_that_of_pytorch_optimizer():
    library = pytest.importorskip("pytorch_optimizer")
    model = network()
    base = torch.optim.SGD(model.parameters(), **BASE)
    radius = SimpleNamespace(step=lambda: 0.3)
    optimizer = library.GSAM(model.parameters(), base, model, radius, alpha=0.6)
    for number in range(5):
        optimizer.set_closure(nn.functional.cross_entropy, *minibatch(number))
        optimizer.step()
    _assert_same(_trained("gsam", rho=0.3, alpha=0.6), model.parameters(), FLOAT32)


def test_looksam_is_that_of_pytorch_optimizer_where_there_is_one_tensor():
    """It takes norms tensor by tensor: with one there is no difference."""
    library = pytest.importorskip("pytorch_optimizer")

    def single() -> nn.Module:
        torch.manual_seed(0)
        return nn.Linear(4, 3, bias=False).double()

    model = single()
    method = make_method("looksam", model, rho=0.3, k=2)
    run_steps(method, 5)
    expected = _library_steps(library.LookSAM, 5, model=single(), rho=0.3, k=2, alpha=0.7)
    _assert_same(model.parameters(), expected, FLOAT32)


# ESAM's choice of examples


def _not_vectorisable(outputs: Tensor, targets: Tensor) -> Tensor:
    total = outputs.new_zeros(())
    for output, target in zip(outputs, targets.tolist(), strict=True):
        total = total - output.log_softmax(0)[target]
    return total / len(outputs)


@pytest.mark.parametrize("loss", [nn.functional.cross_entropy, _not_vectorisable])
def test_the_loss_of_each_example(loss):
    inputs, targets = minibatch(0)
    outputs = network()(inputs).detach()
    expected = nn.functional.cross_entropy(outputs, targets, reduction="none")
    torch.testing.assert_close(each_loss(loss, outputs, targets), expected, rtol=1e-12, atol=0)


def test_the_loss_of_each_example_with_targets_at_every_position():
    outputs = torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = outputs.argmax(dim=1).roll(1, 1)
    expected = nn.functional.cross_entropy(outputs, targets, reduction="none").mean(dim=1)
    found = each_loss(nn.functional.cross_entropy, outputs, targets)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_esam_with_a_loss_that_cannot_be_vectorised():
    model, other = network(), network()
    method = make_method("esam", model, rho=0.5)
    method.passes.loss = _not_vectorisable
    run_steps(method, 3)
    run_steps(make_method("esam", other, rho=0.5), 3)
    _assert_same(model.parameters(), other.parameters())
    assert method.passes.loss is _not_vectorisable


def test_esam_in_micro_batches_chooses_the_same_examples():
    model, other = network(), network()
    method = make_method("esam", model, rho=0.5)
    method.passes.accumulate = 2
    run_steps(method, 3)
    run_steps(make_method("esam", other, rho=0.5), 3)
    _assert_same(model.parameters(), other.parameters())
    assert method.passes.gradients == pytest.approx(3 * (1 + 1 / 3 + 1 / 2), rel=1e-5)


def test_esam_moves_the_stated_share_of_the_weights():
    """ε is (ρ/β) g/‖g‖ there, and nothing elsewhere: on average SAM's."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 300), nn.Tanh(), nn.Linear(300, 3)).double()
    clean = torch.cat([p.detach().flatten() for p in model.parameters()])
    places = []

    def look(*_: object) -> None:
        places.append(torch.cat([p.detach().flatten() for p in model.parameters()]) - clean)

    model.register_forward_pre_hook(look)
    run_steps(make_method("esam", model, Still(model.parameters()), beta=0.25, rho=0.1), 1)
    run_steps(make_method("sam", model, Still(model.parameters()), rho=0.1), 1)
    moved, whole = places[1], places[-1]
    share = float((moved != 0).double().mean())
    assert share == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / len(clean)))  # 4 sigma
    chosen = moved != 0
    torch.testing.assert_close(moved[chosen], 4 * whole[chosen], rtol=1e-9, atol=1e-14)


# m-sharpness


def test_sam_by_single_examples_is_the_mean_over_examples():
    model = network()
    run_steps(make_method("sam", model, Still(model.parameters()), m=1, rho=0.5), 1)
    inputs, targets = minibatch(0)
    total = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for number in range(6):
        one = network()
        method = make_method("sam", one, Still(one.parameters()), rho=0.5)
        method.step((inputs[number : number + 1], targets[number : number + 1]), START)
        for sum_, parameter in zip(total, one.parameters(), strict=True):
            sum_.add_(parameter.grad / 6)
    _assert_same([parameter.grad for parameter in model.parameters()], total)


def test_parts_of_one_example_are_refused_where_batchnorm_cannot_have_them(tmp_path, strangers):
    options = {"data": "digits", "model": f"{strangers}:batchnorm", "batch_size": 32, "epochs": 1}
    with pytest.raises(InputError, match="change m=1, which makes 32 parts"):
        train(TrainConfig(method="sam", settings={"m": 1}, **options), tmp_path / "r")


@pytest.mark.parametrize("name", ["sam", "asam", "gsam", "esam", "looksam", "gradient-penalty"])
def test_a_parameter_that_the_loss_does_not_reach_is_left_alone(name):
    model = network()
    model.register_parameter("unused", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    method = make_method(name, model)
    run_steps(method, 3)
    assert model.unused.grad is None
    assert torch.equal(model.unused, torch.ones(3))


def test_the_remembered_ascent_is_part_of_the_state():
    model, other = network(), network(seed=3)
    first = make_method("looksam", model)
    run_steps(first, 3)
    other.load_state_dict(model.state_dict())
    second = make_method("looksam", other, torch.optim.SGD(other.parameters(), **BASE))
    first.passes.optimizer = torch.optim.SGD(model.parameters(), **BASE)
    second.load_state_dict(first.state_dict())
    for method in (first, second):
        method.step(minibatch(3), When(step=3, fraction_done=0.3))
    assert bits(model) == bits(other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_looksam_does_not_blow_up_rounding(dtype):
    """Without a climb both gradients are the same: there is no part to remember."""
    ends = []
    for name, settings in (("sgd", {}), ("looksam", {"rho": 0.0})):
        model = network().to(dtype)
        run_steps(make_method(name, model, **settings), 8)
        ends.append(bits(model))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", ["sam", "asam", "gsam", "esam", "looksam", "gradient-penalty"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_gradient_of_zero_climbs_nowhere(name, dtype):
    model = network().to(dtype)
    method = make_method(name, model, Still(model.parameters()))
    method.passes.loss = lambda outputs, targets: 0.0 * outputs.float().square().mean()
    inputs, targets = minibatch(0)
    for number in range(2):
        assert method.step((inputs.to(dtype), targets), When(step=number)) == 0.0
        assert not any(parameter.grad.any() for parameter in model.parameters())  # NaN is "any"
