"""Changes of the same function: what is found in which network, and that it is the same."""

import nets
import pytest
import reference
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from transformers.pytorch_utils import Conv1D

from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem
from ssgd_analysis.symmetries.transformations import (
    CONFOUNDER,
    PRESERVING,
    TRANSFORMATIONS,
    Changed,
    rescaled,
)

KEPT = [name for name, entry in TRANSFORMATIONS.items() if entry.kind == PRESERVING]


class Residual(nn.Module):
    """Convolutions with BatchNorm around a shortcut, twice, the second with a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4, affine=False)
        self.conv3, self.bn3 = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv4, self.bn4 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.short = nn.Conv2d(4, 6, 1)
        self.read = nn.Linear(6 * 25, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.stem(x)))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        x = F.relu(self.short(x) + self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x))))))
        return self.read(x.flatten(1))


class Twice(nn.Module):
    """The middle layer runs twice: times a and by a again would be no change at all."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)
        self.middle = nn.Linear(5, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.middle(F.relu(self.first(x))))
        return self.last(F.relu(self.middle(x)))


class Branches(nn.Module):
    """The hidden features go into two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.other = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first(x))
        return self.one(hidden) * self.other(hidden)


class Attends(nn.Module):
    """One head: the values go through an average and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(4, 4) for _ in range(4))
        self.read = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.read(torch.tanh(self.out(F.scaled_dot_product_attention(q, k, v))).mean(1))


def mlp(act: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), act, nn.Linear(6, 5), act, nn.Linear(5, 3))


def tied_linear() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    model[2].weight = model[0].weight  # times a and by a: nothing would change at all
    return model


def image(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


V, IMAGES, S = (nets.N, 4), (nets.N, 1, 5, 5), (nets.N, 3, 4)  # vectors, images, sequences
TOKENS = (nets.N, 3)
WHOLE = {"embedding", "bag"}  # networks whose inputs are integers
# network, shape of its inputs, and how many changes of each kind there are to be found
NETS = {
    "relu": (lambda: mlp(nn.ReLU()), V, {"layer": 1, "neuron": 2, "permutation": 2, "logit": 1}),
    # any two layers could take each other's factor, but each has only one
    "no biases": (
        lambda: nn.Sequential(
            nn.Linear(4, 5, bias=False),
            nn.ReLU(),
            nn.Linear(5, 5, bias=False),
            nn.ReLU(),
            nn.Linear(5, 3, bias=False),
        ),
        V,
        {"layer": 1, "neuron": 2, "permutation": 2, "logit": 1},
    ),
    "leaky": (
        lambda: mlp(nn.PReLU()),  # one module used twice: it has a parameter and stays out
        V,
        {"layer": 1, "neuron": 2, "permutation": 2, "logit": 1},
    ),
    "linear": (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)),
        V,
        {"layer": 1, "neuron": 1, "permutation": 1, "logit": 1},
    ),
    "gelu": (lambda: mlp(nn.GELU()), V, {"permutation": 2, "logit": 1}),
    "relu6": (lambda: mlp(nn.Hardtanh(0, 0.1)), V, {"permutation": 2, "logit": 1}),
    "softmax": (
        lambda: nn.Sequential(mlp(nn.ReLU()), nn.LogSoftmax(1)),
        V,
        {"layer": 1, "neuron": 2, "permutation": 2},
    ),
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3)),
        V,
        {"permutation": 1, "logit": 1},
    ),
    "weight norm": (
        lambda: nn.Sequential(weight_norm(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 3)),
        V,
        {"logit": 1},
    ),
    "tied": (tied_linear, V, {}),
    # through the middle layer, which has no bias, the factor of the first reaches the last
    "twice": (Twice, V, {"layer": 1, "logit": 1}),
    "branches": (Branches, V, {"logit": 1}),  # outputs are a product: either branch scales them
    # values are averaged and read by the next layer; queries and keys are left alone
    "attention": (Attends, S, {"layer": 1, "neuron": 1, "permutation": 2, "logit": 1}),
    # fused by torch in evaluation mode unless a hook watches: then no layer of it runs by itself
    "encoder": (
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(4, 2, 5, batch_first=True), nn.Flatten(), nn.Linear(12, 3)
        ),
        S,
        {"layer": 1, "neuron": 1, "permutation": 1, "logit": 1},
    ),
    "sequence": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)),
        S,
        {"layer": 1, "neuron": 1, "permutation": 1, "logit": 1},
    ),
    "flattened": (
        lambda: image(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3)),
        IMAGES,
        {"layer": 1, "neuron": 1, "permutation": 1, "logit": 1},
    ),
    # the order of channels goes through the depthwise convolution
    "depthwise": (
        lambda: image(
            nn.Conv2d(1, 4, 3),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, groups=4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 1),
            nn.Flatten(),
            nn.Linear(4, 3),
        ),
        IMAGES,
        {"layer": 2, "neuron": 3, "permutation": 2, "logit": 1},
    ),
    "groups": (
        lambda: image(
            nn.Conv2d(1, 4, 3),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, groups=2),
            nn.Flatten(),
            nn.Linear(4, 3),
        ),
        IMAGES,
        {"layer": 1, "neuron": 2, "logit": 1},
    ),
    "batchnorm": (
        lambda: image(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 3, 3, bias=False),
            nn.BatchNorm2d(3, affine=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(3, 3),
        ),
        IMAGES,
        {"layer": 1, "neuron": 1, "batchnorm": 2, "permutation": 2, "folding": 2, "logit": 1},
    ),
    "transposed": (
        lambda: image(
            nn.ConvTranspose2d(1, 4, 3),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 3, 2, bias=False),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Conv2d(3, 2, 8),
            nn.Flatten(),
            nn.Linear(2, 3),
        ),
        IMAGES,
        {"layer": 2, "neuron": 3, "batchnorm": 1, "permutation": 3, "folding": 1, "logit": 1},
    ),
    # a factor for each unit; the order tried for the first one's happens to swap within groups
    "transposed groups": (
        lambda: image(
            nn.Conv2d(1, 4, 3),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 6, 2, groups=2, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 3, 4),
            nn.Flatten(),
        ),
        IMAGES,
        {"layer": 2, "neuron": 2, "batchnorm": 1, "permutation": 1, "folding": 1, "logit": 1},
    ),
    "hugging face": (
        lambda: nn.Sequential(
            Conv1D(6, 4), nn.ReLU(), Conv1D(5, 6), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)
        ),
        V,
        {"layer": 2, "neuron": 2, "batchnorm": 1, "permutation": 2, "folding": 1, "logit": 1},
    ),
    "embedding": (
        lambda: nn.Sequential(
            nn.Embedding(7, 4, padding_idx=2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)
        ),
        TOKENS,
        {"layer": 1, "neuron": 1, "permutation": 1, "logit": 1},
    ),
    "bag": (
        lambda: nn.Sequential(nn.EmbeddingBag(7, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)),
        TOKENS,
        {"layer": 1, "neuron": 1, "batchnorm": 1, "permutation": 1, "logit": 1},
    ),
    "batch statistics": (
        lambda: image(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4, track_running_stats=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 3),
        ),
        IMAGES,
        {"layer": 1, "neuron": 1, "permutation": 1, "logit": 1},
    ),
    # layer: BatchNorm of each block and the convolution after it; the shortcuts stay whole
    "residual": (
        Residual,
        IMAGES,
        {"layer": 2, "neuron": 2, "batchnorm": 5, "permutation": 2, "folding": 5, "logit": 1},
    ),
}


def problem(net: str, *, double: bool = True) -> Problem:
    make, shape, _ = NETS[net]
    with nets.seeded():
        model = make().double()
    outputs = 4 if net == "tied" else 3
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
            size = len(module.running_mean)
            module.running_mean.copy_(nets.randn(size, seed=1))
            module.running_var.copy_(0.3 + nets.randn(size, seed=2).square())
            if module.affine:
                module.weight.data.copy_(nets.randn(size, seed=3))
                module.bias.data.copy_(nets.randn(size, seed=4))
    inputs = nets.randn(*shape, seed=5)
    if net in WHOLE:
        inputs = torch.randint(0, 7, shape, generator=nets.generator(5))
    if not double:
        model, inputs = model.float(), inputs.float()
    case = nets.Case(model, nets.cross_entropy, inputs, nets.labels(classes=outputs))
    return Problem(*case.problem)


def outputs(model: nn.Module, found: Problem) -> Tensor:
    model = nets.evaluated(model)
    with torch.no_grad():
        return torch.cat([model(x) for x, _ in found.batches])


def weights(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


@pytest.mark.parametrize("name", TRANSFORMATIONS)
@pytest.mark.parametrize("net", NETS)
def test_finds_what_there_is(net, name):
    found = TRANSFORMATIONS[name](problem(net))
    expected = 1 if name == "decay" else NETS[net][2].get(name, 0)
    assert len(found.done) == expected, found.done


@pytest.mark.parametrize("factor", [5.0, 0.2])
@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("net", NETS)
def test_the_function_stays_and_the_weights_do_not(net, name, factor):
    before = problem(net)
    found = TRANSFORMATIONS[name](before, factor)
    one, two = outputs(before.model, before), outputs(found.problem.model, before)
    # rounding of a few layers in float64
    torch.testing.assert_close(two, one, rtol=0, atol=1e-13 * float(one.abs().max()))
    assert found.output_change <= 1e-13
    changed = weights(found.problem.model)
    moved = len(changed) != len(weights(before.model)) or any(
        not torch.equal(a, b) for a, b in zip(weights(before.model), changed, strict=True)
    )
    assert moved == bool(found.done)


@pytest.mark.parametrize("net", ["relu", "residual", "attention"])
@pytest.mark.parametrize("name", KEPT)
def test_found_in_single_precision_too(net, name):
    found = TRANSFORMATIONS[name](problem(net, double=False))
    assert len(found.done) == NETS[net][2].get(name, 0)
    assert found.output_change < 1e-5  # a few hundred roundings of 6e-8


@pytest.mark.parametrize("name", TRANSFORMATIONS)
@pytest.mark.parametrize("net", ["residual", "twice", "weight norm"])
def test_the_model_is_left_alone(net, name):
    before = problem(net)
    nets.with_state(nets.Case(before.model, before.loss, *before.batches[0]))
    before.model.train()
    state = nets.state(before.model)
    torch.manual_seed(7)
    random = torch.random.get_rng_state()
    found = TRANSFORMATIONS[name](before)
    assert nets.state(before.model) == state
    assert torch.equal(torch.random.get_rng_state(), random)
    assert found.problem.model is not before.model
    assert nets.per_module_modes(found.problem.model).count(False) == 0
    hooks = [len(module._forward_hooks) for module in before.model.modules()]
    assert sum(hooks) == 0


# --- what each change is, against its formula ---


def test_layer_is_what_it_says():
    model = problem("relu").model
    found = TRANSFORMATIONS["layer"](problem("relu"), 5.0)
    assert found.done == ("0 × 5, 2 ÷ 5",)
    changed = found.problem.model
    torch.testing.assert_close(changed[0].weight, 5 * model[0].weight)
    torch.testing.assert_close(changed[0].bias, 5 * model[0].bias)
    torch.testing.assert_close(changed[2].weight, model[2].weight / 5)
    assert torch.equal(changed[2].bias, model[2].bias)
    assert torch.equal(changed[4].weight, model[4].weight)
    assert torch.equal(rescaled(model, problem("relu").batches[0][0])[0].weight, changed[0].weight)


def test_neuron_factors_lie_between():
    model = problem("relu").model
    changed = TRANSFORMATIONS["neuron"](problem("relu"), 5.0).problem.model
    factors = (changed[0].bias / model[0].bias).detach()
    assert len(set(factors.tolist())) == 6
    assert 0.2 <= float(factors.min()) < 1 < float(factors.max()) <= 5
    torch.testing.assert_close(changed[0].weight, factors[:, None] * model[0].weight)
    undone = changed[2].weight * factors  # rows times the factors of the second pair
    ratio = undone / model[2].weight
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))


def test_batchnorm_counts_epsilon():
    model = problem("batchnorm").model
    changed = TRANSFORMATIONS["batchnorm"](problem("batchnorm"), 0.001).problem.model
    eps = model[1].eps
    torch.testing.assert_close(changed[0].weight, 0.001 * model[0].weight)
    torch.testing.assert_close(changed[1].running_mean, 0.001 * model[1].running_mean)
    torch.testing.assert_close(changed[1].running_var + eps, 1e-6 * (model[1].running_var + eps))
    # ε alone is more than the variance here: had it been left out, the outputs would move
    assert float(changed[1].running_var.max()) < 0
    assert torch.equal(changed[1].weight, model[1].weight)


def test_folding_leaves_no_batchnorm():
    before = problem("residual")
    found = TRANSFORMATIONS["folding"](before)
    model = found.problem.model
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    norm = before.model.bn1
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(
        model.conv1.weight, gain[:, None, None, None] * before.model.conv1.weight
    )
    bias = gain * (before.model.conv1.bias - norm.running_mean) + norm.bias
    torch.testing.assert_close(model.conv1.bias, bias)
    assert "stem.bias" in found.problem.parameters  # new, and learned as BatchNorm's was


def test_logit_scales_the_outputs():
    before = problem("residual")
    found = TRANSFORMATIONS["logit"](before, 3.0)
    torch.testing.assert_close(
        outputs(found.problem.model, before), 3 * outputs(before.model, before)
    )
    assert found.output_change == pytest.approx(2)  # max |3 f − f| / max |f|


def dense(found: Problem) -> Tensor:
    """The Hessian of the mean over all batches, by autograd on the flat weights."""
    flat = torch.cat([p.detach().reshape(-1) for p in found.parameters.values()])

    def loss(vector: Tensor) -> Tensor:
        parts = [found.loss_at(found.split(vector), batch) for batch in found.batches]
        return sum(share * part for share, part in zip(found.shares, parts, strict=True))

    return torch.autograd.functional.hessian(loss, flat)


@pytest.mark.parametrize("takes_model", [False, True])
def test_decay_moves_the_hessian_by_lambda(takes_model):
    case = nets.mlp()
    case.model.eval()

    def of_model(model, batch):
        return case.loss(model(batch[0]), batch[1])

    loss = of_model if takes_model else case.loss
    found = TRANSFORMATIONS["decay"](Problem(case.model, loss, case.batches()), 0.3)
    identity = torch.eye(found.problem.n_parameters, dtype=torch.float64)
    torch.testing.assert_close(dense(found.problem), reference.hessian(case) + 0.3 * identity)
    flat = reference.flat_weights(case.model)
    expected = reference.loss_at(case, flat) + 0.15 * float(flat.square().sum())
    assert found.problem.mean_loss() == pytest.approx(expected, rel=1e-12)


# --- strangers ---


def test_only_chosen_parameters_count_after_too():
    case = problem("batchnorm")
    chosen = Problem(case.model, case.loss, case.batches, layers=["7"])
    for name in KEPT:
        assert set(TRANSFORMATIONS[name](chosen).problem.parameters) == {"7.weight", "7.bias"}


def test_a_loss_of_model_and_batch():
    case = problem("relu")

    def parts(model, batch):  # never calls the model as a whole: the loss itself must stay
        hidden = model[1](model[0](batch[0]))
        return nets.cross_entropy(model[4](model[3](model[2](hidden))), batch[1])

    found = TRANSFORMATIONS["layer"](Problem(case.model, parts, case.batches))
    assert found.done == ("0 × 5, 2 ÷ 5",)
    torch.testing.assert_close(outputs(found.problem.model, case), outputs(case.model, case))


class Asks(nn.Module):
    """Looks at the BatchNorm's weight, which a folded one no longer has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.norm(self.first(x)))) + 0 * self.norm.weight.sum()


def test_a_change_that_breaks_the_model_is_not_made():
    case = nets.Case(Asks().double(), nets.cross_entropy, nets.randn(*V), nets.labels())
    found = TRANSFORMATIONS["folding"](Problem(*case.problem))
    assert found.done == ()
    assert isinstance(found.problem.model.norm, nn.BatchNorm1d)


class Ignored(nn.Module):
    """The second branch counts nothing: its scale can't be told by the outputs alone."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 5), nn.Linear(5, 3)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.read(x) + self.gate * self.two(F.gelu(self.one(x)))


def test_what_the_outputs_ignore_is_not_called_invariant():
    case = nets.Case(Ignored().double(), nets.cross_entropy, nets.randn(*V), nets.labels())
    for name in ("layer", "neuron"):
        assert TRANSFORMATIONS[name](Problem(*case.problem)).done == ()
    assert len(TRANSFORMATIONS["permutation"](Problem(*case.problem)).done) == 1


def test_an_untrained_batchnorm_is_not_folded_elsewhere():
    # at its start BatchNorm divides by √(1 + 1e-5): hardly a change, whatever stands in between
    with nets.seeded():
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.BatchNorm1d(5), nn.Linear(5, 3))
    case = nets.Case(model, nets.cross_entropy, nets.randn(*V).float(), nets.labels())
    assert TRANSFORMATIONS["folding"](Problem(*case.problem)).done == ()
    model = nn.Sequential(model[0], model[2], nn.Tanh(), model[3])
    found = Problem(model, case.loss, case.batches())
    assert TRANSFORMATIONS["folding"](found).done == ("1 into 0",)


def test_all_batches_are_asked():
    # the first batch does not reach where the activation is cut off, the last one does
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU6(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[0].bias.zero_()
    inputs = nets.randn(*V).abs() * torch.tensor([[0.1]] * 8 + [[5.0]] * 3)
    before = Problem(*nets.Case(model, nets.cross_entropy, inputs, nets.labels()).problem)
    first = Problem(model, nets.cross_entropy, before.batches[:1])
    assert TRANSFORMATIONS["layer"](first).done == ("0 × 5, 2 ÷ 5",)
    assert TRANSFORMATIONS["layer"](before).done == ()


def test_another_generator_is_another_change():
    def changed(seed: int) -> Changed:
        return TRANSFORMATIONS["neuron"](problem("relu"), 5.0, nets.generator(seed))

    first, again, other = (changed(seed).problem.model[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("factor", [0.0, -2.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_factors_that_are_none_are_refused(name, factor):
    with pytest.raises(InputError, match="factor"):
        TRANSFORMATIONS[name](problem("relu"), factor)


def test_a_model_that_cannot_be_copied_is_refused():
    class Stuck(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("holds a socket")

    case = nets.Case(Stuck(4, 3).double(), nets.cross_entropy, nets.randn(*V), nets.labels())
    for name in TRANSFORMATIONS:
        with pytest.raises(InputError, match=r"can't be copied .*socket"):
            TRANSFORMATIONS[name](Problem(*case.problem))


def test_nothing_to_rescale_is_told():
    with pytest.raises(InputError, match="no two layers"):
        rescaled(problem("gelu").model, problem("gelu").batches[0][0])


def test_kinds():
    assert [n for n, entry in TRANSFORMATIONS.items() if entry.kind == CONFOUNDER] == [
        "logit", "decay"
    ]  # fmt: skip
    assert {entry.kind for entry in TRANSFORMATIONS.values()} == {PRESERVING, CONFOUNDER}
