"""Averages against torch's and another library's own; BatchNorm; the learning rate; the count."""

import copy

import pytest
import torch
from readings.base import make_method, make_step, minibatch, network
from torch import nn
from torch.optim import swa_utils

from ssgd_analysis.methods.when import When
from ssgd_analysis.runs import Run, TrainConfig
from ssgd_analysis.training import train

BASE = {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.05}
EPOCHS, STEPS = 4, 3


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()


BATCHES = [minibatch(number) for number in range(STEPS)]
WHOLE = [tuple(torch.cat(column) for column in zip(*BATCHES, strict=True))]  # one batch of all


def _ours(name: str, **settings) -> nn.Module:
    model = _model()
    method = make_method(name, model, **settings)
    for step in range(EPOCHS * STEPS):
        done, ends = step / (EPOCHS * STEPS), (step + 1) % STEPS == 0
        make_step(
            method, BATCHES[step % STEPS], When(step=step, fraction_done=done, ends_epoch=ends)
        )
    method.finish(BATCHES)
    return model


def _torch_loop(model: nn.Module, optimizer: torch.optim.Optimizer, after_step, before_epoch):
    for epoch in range(EPOCHS):
        before_epoch(epoch)
        for inputs, targets in BATCHES:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            after_step()


def _assert_same(found: nn.Module, expected: nn.Module) -> None:
    tensors = zip(found.state_dict().values(), expected.state_dict().values(), strict=True)
    for a, b in tensors:
        if a.is_floating_point():  # counters of batches differ by design
            # float64, a few dozen roundings
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("buffers", ["average", "recompute"])
def test_ema_is_that_of_torch(buffers):
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), **BASE)
    average = swa_utils.AveragedModel(
        model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=buffers == "average"
    )
    average.update_parameters(model)  # its first only copies: the initial weights
    _torch_loop(model, optimizer, lambda: average.update_parameters(model), lambda epoch: None)
    if buffers == "recompute":
        swa_utils.update_bn(WHOLE, average)
    found = _ours("ema", ema_decay=0.9, ema_debias=False, ema_buffers=buffers)
    _assert_same(found, average.module)


def test_swa_is_that_of_torch():
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), **BASE)
    average = swa_utils.AveragedModel(model)
    rates = []

    def before_epoch(epoch: int) -> None:
        if epoch == EPOCHS // 2:
            swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=0)  # at once, for good
            rates.append(optimizer.param_groups[0]["lr"])

    steps = []

    def after_step() -> None:
        steps.append(1)
        if len(steps) > EPOCHS * STEPS // 2 and len(steps) % STEPS == 0:
            average.update_parameters(model)

    _torch_loop(model, optimizer, after_step, before_epoch)
    swa_utils.update_bn(WHOLE, average)
    assert rates == [0.05]
    assert average.n_averaged == 2
    _assert_same(_ours("swa", swa_start=0.5), average.module)


@pytest.mark.parametrize("momentum", ["maintain", "reset"])
def test_lookahead_is_that_of_pytorch_optimizer(momentum):
    library = pytest.importorskip("pytorch_optimizer")
    model = _model()
    optimizer = library.Lookahead(
        torch.optim.SGD(model.parameters(), **BASE),
        k=5,
        alpha=0.5,
        pullback_momentum={"maintain": "none", "reset": "reset"}[momentum],
    )
    _torch_loop(model, optimizer, lambda: None, lambda epoch: None)
    optimizer.backup_and_load_cache()
    _assert_same(_ours("lookahead", lookahead_momentum=momentum), model)


def test_reset_forgets_adams_momentum_too():
    model = network()
    method = make_method(
        "lookahead",
        model,
        torch.optim.Adam(model.parameters()),
        lookahead_k=2,
        lookahead_momentum="reset",
    )
    for number, zero in ((0, False), (1, True)):
        method.step(minibatch(number), When(step=number))
        states = method.passes.optimizer.state.values()
        assert all((state["exp_avg"].abs().max() == 0) == zero for state in states)
        assert all(state["exp_avg_sq"].abs().max() > 0 for state in states)


def test_before_its_start_swa_gives_out_the_iterate():
    model = _model()
    method = make_method("swa", model)
    method.step(BATCHES[0], When(fraction_done=0.5, ends_epoch=True))
    before = copy.deepcopy(model.state_dict())
    method.finish(BATCHES)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "settings"), [("swa", {"swa_start": 0.0}), ("ema", {"ema_buffers": "recompute"})]
)
def test_recomputed_statistics_are_counted_as_forward_passes(name, settings):
    method = make_method(name, _model(), **settings)
    method.step(BATCHES[0], When(fraction_done=0.5, ends_epoch=True))
    method.finish(BATCHES)
    assert method.passes.gradients == 2  # one step, and three minibatches forward
    plain = make_method(name, network(), **settings)  # no statistics, no pass
    plain.step(BATCHES[0], When(fraction_done=0.5, ends_epoch=True))
    plain.finish(BATCHES)
    assert plain.passes.gradients == 1


def test_the_loop_tells_of_the_average_and_its_learning_rate(tmp_path):
    """In the history as at the end; a look at the average is no part of the count."""
    common = {"data": "two_moons", "model": "mlp", "epochs": 4, "batch_size": 50, "lr": 0.2}
    train(TrainConfig(method="sgd", **common), tmp_path / "sgd")
    train(TrainConfig(method="swa", **common), tmp_path / "swa")
    sgd, swa = (Run(tmp_path / name).history() for name in ("sgd", "swa"))
    assert [record["lr"] for record in swa] == [0.2, 0.2, 0.2, 0.05]
    same = [a["train_loss"] == b["train_loss"] for a, b in zip(sgd, swa, strict=True)]
    assert same == [True, True, True, False]
    assert [record["gradients"] for record in swa] == [10, 20, 30, 40]


def test_looking_at_an_average_does_not_change_the_training(tmp_path):
    """An average from the first epoch on: what is evaluated is not what is trained."""
    common = {"data": "two_moons", "model": "mlp", "batch_size": 50}
    settings = {"swa_start": 0.0, "swa_lr": 0.0}
    train(TrainConfig(method="swa", epochs=3, settings=settings, **common), tmp_path / "swa")
    train(TrainConfig(method="sgd", epochs=3, **common), tmp_path / "sgd")
    points = [Run(tmp_path / name).load_state() for name in ("swa", "sgd")]
    mean = points[0]["method"]["1"]["mean"]
    assert points[0]["method"]["1"]["taken"] == 3
    for value, final in zip(mean, points[0]["model"].values(), strict=True):
        assert torch.equal(value, final)  # the run's own weights are the mean at the end
    momentum = [point["optimizer"]["state"] for point in points]
    for key in momentum[0]:
        assert torch.equal(momentum[0][key]["momentum_buffer"], momentum[1][key]["momentum_buffer"])


class Counting(nn.Module):
    """Replaces a buffer at each pass, and makes another when it is first called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("late", None)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.seen = self.seen + len(inputs)
        self.late = inputs.mean(0)
        return self.layer(inputs)


@pytest.mark.parametrize("buffers", ["average", "recompute"])
def test_buffers_that_the_model_replaces_are_its_own_affair(buffers):
    model = Counting().double()
    method = make_method("ema", model, ema_buffers=buffers)
    for number in range(3):
        method.step(BATCHES[number], When(step=number))
    method.finish(BATCHES)
    assert model.seen.item() == 18
    assert torch.equal(model.late, BATCHES[2][0].mean(0))
