"""BatchNorm's statistics made anew, against torch's own of one batch of all examples."""

import copy

import nets
import pytest
import reference
import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes import LandscapeSettings, NamedProblem, landscape
from ssgd_analysis.landscapes.directions import normalized_directions, random_directions
from ssgd_analysis.problem import Problem
from ssgd_analysis.problem.recalibration import recalibration
from ssgd_analysis.weights import batchnorm
from ssgd_analysis.weights.batchnorm import recalibrate_batchnorm, recalibrated_layers

ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5}


def of_one_batch(model: nn.Module, inputs: Tensor) -> nn.Module:
    """A copy whose statistics are torch's, of one pass over all examples as one batch."""
    model = nets.evaluated(copy.deepcopy(model))
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
            module.training = True
    with torch.no_grad():
        model(inputs)
    return model


def assert_same_statistics(found: nn.Module, expected: nn.Module, rtol: float | None = None):
    buffers = dict(expected.named_buffers())
    assert buffers
    for name, buffer in found.named_buffers():
        if buffer.is_floating_point():
            close = ROUNDING[buffer.dtype] if rtol is None else rtol
            # means near zero carry the rounding of the spread around them
            torch.testing.assert_close(buffer, buffers[name], rtol=close, atol=close)


def split(inputs: Tensor, sizes: list[int] | int) -> list[tuple[Tensor, Tensor]]:
    return [(part, torch.zeros(len(part))) for part in inputs.split(sizes)]


def sorted_images(count: int = 48) -> Tensor:
    """Images in the order of their classes, whose means differ by many spreads."""
    return nets.randn(count, 1, 5, 5) + torch.arange(count).div(8, rounding_mode="floor").reshape(
        -1, 1, 1, 1
    )


CUTS = {
    "one": 48,
    "even": 8,
    "short last": 7,
    "one example": 1,
    "uneven": [1, 30, 2, 14, 1],
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
@pytest.mark.parametrize("dtype", ROUNDING)
def test_statistics_are_those_of_one_batch_of_all_examples(cut, order, dtype):
    model, inputs = nets.conv_batchnorm().model.to(dtype), sorted_images().to(dtype)
    truth = of_one_batch(model, inputs)
    if order == "shuffled":
        inputs = inputs[torch.randperm(48, generator=torch.Generator().manual_seed(0))]
    recalibrate_batchnorm(model, split(inputs, CUTS[cut]))
    assert_same_statistics(model, truth)


def test_the_variance_of_class_ordered_data_is_not_the_mean_of_the_batches():
    """The issue's case: what a plain mean over batches would say is a few percent of the truth."""
    inputs = torch.arange(8.0).repeat_interleave(16).reshape(-1, 1) + 0.1 * nets.randn(128, 1)
    model = nn.Sequential(nn.BatchNorm1d(1))
    recalibrate_batchnorm(model, split(inputs.float(), 16))
    within = torch.stack([part.var() for part in inputs.split(16)]).mean()
    assert within < 0.01 * inputs.var()
    assert float(model[0].running_var) == pytest.approx(float(inputs.var()), rel=1e-5)


class Vectors(nn.Module):
    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.second = norm(3), norm(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(input=torch.tanh(self.first(x).roll(1, dims=1)))


SHAPES = {
    nn.BatchNorm1d: (3, 6),
    nn.BatchNorm2d: (3, 4, 2),
    nn.BatchNorm3d: (3, 2, 2, 2),
    nn.SyncBatchNorm: (3, 6),
}


@pytest.mark.parametrize("norm", SHAPES)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_every_kind_of_layer(norm, momentum):
    with nets.seeded():
        model = Vectors(norm).double()
    model.first.momentum = momentum
    inputs = nets.randn(10, *SHAPES[norm]) + torch.arange(10.0).reshape(
        -1, *[1] * len(SHAPES[norm])
    )
    twin = copy.deepcopy(model)
    if norm is nn.SyncBatchNorm:  # torch's own training mode refuses a CPU
        twin.first, twin.second = nn.BatchNorm1d(3).double(), nn.BatchNorm1d(3).double()
    recalibrate_batchnorm(model, split(inputs, 3))
    assert_same_statistics(model, of_one_batch(twin, inputs))
    assert model.first.momentum == momentum
    assert model.first.num_batches_tracked == 4


def test_a_vector_layer_takes_batches_of_one():
    with nets.seeded():
        model = nn.Sequential(nn.BatchNorm1d(3), nn.Tanh(), nn.BatchNorm1d(3)).double()
    inputs = nets.randn(9, 3)
    truth = of_one_batch(model, inputs)
    recalibrate_batchnorm(model, split(inputs, [1] * 9))
    assert_same_statistics(model, truth)


def test_data_too_large_for_one_batch(monkeypatch):
    """Batches are cut anew, so what is large is mixed; the first layer stays exact."""
    with nets.seeded():
        model = nn.Sequential(
            nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 8), nn.BatchNorm1d(8)
        ).double()
    inputs = nets.randn(4096, 2) + torch.arange(4096.0).reshape(-1, 1) / 500
    truth = of_one_batch(model, inputs)
    monkeypatch.setattr(batchnorm, "AT_ONCE", 8 * 512)  # of the widest layer: 512 examples
    seen: list[Tensor] = []
    hook = model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    recalibrate_batchnorm(model, split(inputs, 100))
    hook.remove()
    large = [batch for batch in seen if len(batch) > 2]
    assert [len(batch) for batch in large] == [512] * 8
    assert torch.equal(torch.cat(large).sort(dim=0).values, inputs.sort(dim=0).values)
    assert_same_statistics(model[:2], truth[:2])
    # one over the batch size, 0.2%, is what normalising by batches costs; here up to five times
    assert_same_statistics(model, truth, rtol=1e-2)
    ordered = nets.evaluated(copy.deepcopy(model))
    recalibrate_batchnorm(ordered, split(inputs, 100), forward=lambda batch: ordered(batch[0]))
    off = (ordered[4].running_var / truth[4].running_var - 1).abs().max()
    assert off > 0.1  # as given, batches of neighbours are no sample: the test can fail


class Recurrent(nn.Module):
    """Time first, as recurrent nets have it: an axis that no batches are joined along."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.norm = nn.RNN(2, 3), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.cells(x)[0].transpose(1, 2))  # (T, 3, B)


def test_batches_whose_first_axis_is_not_examples_are_not_joined():
    with nets.seeded():
        model = Recurrent().double()
    batches = [(nets.randn(5, 4, 2, seed=seed), torch.zeros(4)) for seed in (0, 1)]
    with torch.no_grad():
        states = torch.cat([model.cells(given)[0] for given, _ in batches]).flatten(0, 1)
    recalibrate_batchnorm(model, batches)
    torch.testing.assert_close(model.norm.running_mean, states.mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(model.norm.running_var, states.var(0), rtol=1e-12, atol=1e-14)


def test_inputs_of_several_shapes_are_pooled():
    with nets.seeded():
        model = nn.Sequential(nn.BatchNorm2d(1)).double()
    images = [nets.randn(4, 1, 5, 5), 3 + nets.randn(2, 1, 7, 7)]
    recalibrate_batchnorm(model, [(given, torch.zeros(len(given))) for given in images])
    values = torch.cat([given.flatten() for given in images])
    assert float(model[0].running_mean) == pytest.approx(float(values.mean()), rel=1e-12)
    assert float(model[0].running_var) == pytest.approx(float(values.var()), rel=1e-12)


class Twice(nn.Module):
    """One layer that is called twice: in evaluation mode both calls have its one mean."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + self.norm(5 * x + 7)


def test_a_layer_called_twice_pools_all_that_it_sees():
    model, inputs = Twice().double(), nets.randn(12, 2)
    recalibrate_batchnorm(model, split(inputs, 5))
    values = torch.cat([inputs, 5 * inputs + 7])
    torch.testing.assert_close(model.norm.running_mean, values.mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(model.norm.running_var, values.var(0), rtol=1e-12, atol=1e-14)


def test_layers_that_their_owner_froze_stay():
    case = nets.conv_batchnorm()
    model = nn.Sequential(*case.model, nn.BatchNorm1d(3, track_running_stats=False)).double()
    model[1].eval()
    unused = nn.BatchNorm1d(3)
    model.add_module("unused", nn.ModuleList([unused]))
    model.forward = lambda x: nn.Sequential(*list(model.children())[:-1])(x)
    before = model[1].running_var.clone(), unused.running_mean.clone()
    assert recalibrated_layers(model) == [model[4], unused]
    truth = copy.deepcopy(case.model)
    truth[4].momentum = None
    truth[4].reset_running_stats()
    for module in truth:
        module.training = module is truth[4]
    truth(case.inputs)
    recalibrate_batchnorm(model, case.batches())
    assert torch.equal(model[1].running_var, before[0])
    assert torch.equal(unused.running_mean, before[1])
    torch.testing.assert_close(model[4].running_var, truth[4].running_var, rtol=1e-12, atol=1e-14)
    model[4].track_running_stats = False
    assert recalibrated_layers(model) == [unused]
    model.eval()  # says nothing of one layer: with the whole model in it, none counts as frozen
    model[4].track_running_stats = True
    assert recalibrated_layers(model) == [model[1], model[4], unused]


def test_frozen_layers_stay_along_a_landscape():
    """Which is evaluated in evaluation mode, where all flags are down."""
    case = nets.conv_batchnorm()
    case.model[1].eval()
    case.model[4].eval()
    problem = Problem(*case.problem)
    chosen = {
        bn: LandscapeSettings(points=3, bn=bn, curvature=False) for bn in ("frozen", "recalibrate")
    }
    found = {
        bn: landscape([NamedProblem("one", problem, case.batches())], settings).arrays["loss"]
        for bn, settings in chosen.items()
    }
    torch.testing.assert_close(*map(torch.from_numpy, found.values()), rtol=1e-12, atol=0)


def test_a_lazy_layer_is_named():
    model = nn.Sequential(nn.Linear(3, 4), nn.LazyBatchNorm1d())
    batches = split(torch.randn(6, 3), 2)
    with pytest.raises(InputError, match=r"'1' does not know its channels.*pass a batch"):
        recalibrate_batchnorm(model, batches)
    model(batches[0][0])
    recalibrate_batchnorm(model, batches)
    whole = model[0](torch.cat([given for given, _ in batches]))
    torch.testing.assert_close(model[1].running_var, whole.var(0), rtol=1e-5, atol=1e-6)


def test_a_single_value_has_no_variance():
    model = nn.Sequential(nn.BatchNorm1d(3)).double()
    before = nets.state(model)
    with pytest.raises(InputError, match="'0' sees a single value"):
        recalibrate_batchnorm(model, split(nets.randn(1, 3), 1))
    assert nets.state(model) == before


def test_a_compiled_model_is_seen():
    with nets.seeded():
        inner = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    model = torch.compile(inner, backend="eager")
    inputs = nets.randn(20, 3)
    for shift in (0.0, 5.0):  # again, when the graph without hooks is there
        model.eval()(inputs + shift)
        recalibrate_batchnorm(model, split(inputs + shift, 8))
        assert_same_statistics(inner, of_one_batch(inner, inputs + shift))


def test_recalibration_forgets_what_was_there():
    first, second = nets.conv_batchnorm(), nets.conv_batchnorm()
    second.model[1].running_mean.add_(100)
    second.model[4].num_batches_tracked.add_(1000)
    for case in (first, second):
        recalibrate_batchnorm(case.model, case.batches())
    assert torch.equal(first.model[1].running_mean, second.model[1].running_mean)
    assert torch.equal(first.model[4].running_var, second.model[4].running_var)


@pytest.mark.parametrize("fails", [False, True])
def test_recalibration_changes_nothing_else(fails):
    model = nets.conv_batchnorm().model
    model[1].momentum, model[4].momentum = 0.3, None
    modes = nets.per_module_modes(model)
    weights = [nets.bits(parameter) for parameter in model.parameters()]
    state = nets.state(model)
    batches = nets.conv_batchnorm().batches()
    if fails:
        batches.append((nets.randn(2, 7), torch.zeros(2)))
        with pytest.raises(RuntimeError):
            recalibrate_batchnorm(model, batches)
        assert nets.state(model) == state
    else:
        recalibrate_batchnorm(model, batches)
    assert (model[1].momentum, model[4].momentum) == (0.3, None)
    assert nets.per_module_modes(model) == modes
    assert [nets.bits(parameter) for parameter in model.parameters()] == weights
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_recalibration_drops_nothing_out():
    # as everything is measured: dropout off, whatever mode the model was lent in
    case = nets.conv_batchnorm()
    truth = of_one_batch(case.model, case.inputs)
    model = nn.Sequential(nn.Dropout(0.5), case.model)
    model.train()
    recalibrate_batchnorm(model, case.batches())
    assert_same_statistics(case.model, truth)


def test_recalibration_of_a_model_without_batchnorm_does_nothing():
    case = nets.with_state(nets.mlp())
    before = nets.state(case.model)
    recalibrate_batchnorm(case.model, case.batches())
    assert nets.state(case.model) == before


@pytest.mark.parametrize("how", ["filter", "none"])
def test_recalibrated_points_use_the_statistics_there(how):
    case = nets.conv_batchnorm()
    problem = Problem(*case.problem)
    subject = NamedProblem("one", problem, case.batches())
    found = {}
    for bn in ("recalibrate", "frozen"):
        chosen = LandscapeSettings(points=4, normalize=how, bn=bn, curvature=False)
        found[bn] = landscape([subject], chosen).arrays
    losses = found["recalibrate"]["loss"]
    assert (losses != found["frozen"]["loss"]).all()
    (direction,) = normalized_directions(problem, random_directions(problem, 1, seed=0), how)
    for alpha, loss in zip(found["frozen"]["alpha"], losses, strict=True):
        assert loss == pytest.approx(recalibrated_loss(case, alpha, direction), rel=1e-12)


def recalibrated_loss(case: nets.Case, alpha: float, direction: list[Tensor]) -> float:
    moved = nets.Case(copy.deepcopy(case.model), case.loss, case.inputs, case.targets)
    with torch.no_grad():
        for parameter, part in zip(moved.model.parameters(), direction, strict=True):
            parameter.add_(alpha * part)
    moved.model.load_state_dict(of_one_batch(moved.model, case.inputs).state_dict())
    return reference.loss_at(moved, reference.flat_weights(moved.model))


def test_without_other_batches_the_problems_own_are_taken():
    case = nets.conv_batchnorm()
    truth = of_one_batch(case.model, case.inputs)
    problem = Problem(*case.problem)
    given, own = (NamedProblem("one", problem, batches) for batches in (case.batches(), ()))
    assert given.values(recalibrate=True) == own.values(recalibrate=True) != own.values()
    recalibration(problem, ())()
    assert_same_statistics(case.model, truth)


def test_batches_that_are_no_pairs_need_a_way_through_the_model():
    case = nets.conv_batchnorm()
    batches = [{"images": given, "labels": labels} for given, labels in case.batches()]
    with pytest.raises(InputError, match="--bn frozen"):
        recalibrate_batchnorm(case.model, batches)
    recalibrate_batchnorm(nets.mlp().model, batches)  # nothing to do

    def loss(model, batch):
        return case.loss(model(batch["images"]), batch["labels"])

    whole = [{"images": case.inputs, "labels": case.targets}]
    truth = of_one_batch(case.model, case.inputs)
    recalibration(Problem(case.model, loss, batches), whole)()
    assert_same_statistics(case.model, truth)
    assert not any(buffer.requires_grad for buffer in case.model.buffers())
    recalibration(Problem(case.model, loss, batches), batches)()
    assert_same_statistics(case.model[:2], truth[:2])
