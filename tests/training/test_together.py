"""Runs made together: the numbers, folders and failures of runs made one by one."""

import copy
import os
import random
import re
import signal
import time

import pytest
import torch
from readings import READINGS
from readings.base import minibatch
from safetensors.torch import load_file
from torch import nn

from ssgd_analysis import random_state
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.methods import METHODS, Task
from ssgd_analysis.models import load_loss
from ssgd_analysis.runs import Run, TrainConfig
from ssgd_analysis.runs.tensors import read_tree
from ssgd_analysis.training import loop, merged, stacked, train, train_together

HIDDEN = """
import torch
from torch import nn

def with_bn(input_shape, num_outputs):
    # A bias before BatchNorm has no gradient but rounding, which Adam makes whole steps of.
    return nn.Sequential(
        nn.Linear(2, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, num_outputs))

def with_dropout(input_shape, num_outputs):
    return nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.3), nn.Linear(16, num_outputs))

class Features(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.projection = torch.randn(2, 8)  # of this model alone, and no buffer
        self.read = nn.Linear(8, outputs)

    def forward(self, x):
        return self.read(torch.tanh(x @ self.projection))

def with_features(input_shape, num_outputs):
    return Features(num_outputs)

class Counted(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.read = nn.Linear(2, outputs)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1  # replaced, not changed in place
        return self.read(x) * (1 + self.calls / 10)

def with_calls(input_shape, num_outputs):
    return Counted(num_outputs)

def looking_loss(outputs, targets):
    loss = torch.nn.functional.cross_entropy(outputs, targets)
    return loss if float(loss.detach()) > 0.3 else 2 * loss
"""


class Told:
    """A progress that keeps warnings, and may stop everything after some steps."""

    def __init__(self, stop_at=None):
        self.warnings, self.steps, self.total, self.stop_at = [], 0, None, stop_at

    def start(self, label, total=None):
        self.total = total

    def advance(self, steps=1, note=""):
        self.steps += steps
        if self.stop_at is not None and self.steps >= self.stop_at:
            raise KeyboardInterrupt

    def warn(self, message):
        self.warnings.append(message)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "hidden.py"
    path.write_text(HIDDEN)
    return path


def config(**changes):
    fields = {"method": "sgd", "data": "two_moons", "model": "mlp", "epochs": 2, "batch_size": 100}
    return TrainConfig(**{**fields, **changes})


def both_ways(configs, folder, told=None):
    """The run folders of the same runs, together and one by one."""
    jobs = [(one, folder / "together" / str(n)) for n, one in enumerate(configs)]
    results = train_together(jobs, progress=told or Told())
    for result in results:
        if isinstance(result, Exception):
            raise result
    for number, one in enumerate(configs):
        alone = train(one, folder / "alone" / str(number))
        same = ("epoch", "step", "gradients", "lr")
        final = results[number]["final"]
        assert [final[key] for key in same] == [alone["final"][key] for key in same]
    return [(folder / "together" / str(n), folder / "alone" / str(n)) for n in range(len(configs))]


def assert_close(one, other, tolerance):
    """Final weights and buffers, largest deviation as a share of a tensor's largest entry."""
    expected, found = (load_file(folder / "final.safetensors") for folder in (other, one))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        size = float(tensor.double().abs().max())
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=tolerance * size, msg=name)


def assert_same_bits(one, other):
    for file in ("final.safetensors", "state.safetensors"):
        first, second = (load_file(folder / file) for folder in (one, other))
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            # the time taken is no part of the tensors
            assert torch.equal(tensor, second[name]), (file, name)


# The same numbers


def _tasks(count):
    tasks = []
    for seed in range(count):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
        model.double()
        model[3].bias.requires_grad_(False)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        tasks.append(Task(model, load_loss("cross_entropy"), optimizer, batch_size=6))
    return tasks


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [1, 2], [0, 2, 3]])
def test_a_stacked_pass_is_each_models_own_pass(rows):
    """All models, neighbours (views of the stack), and others (copies, given back)."""
    tasks, twins = _tasks(4), _tasks(4)
    stack = stacked.Stack(tasks)
    for number in range(3):
        data = [minibatch(10 * row + number) for row in rows]
        shares = [0.5 + row for row in rows]
        losses = stack.run(rows, [x for x, _ in data], [y for _, y in data], shares)
        for row, (x, y), share, loss in zip(rows, data, shares, losses, strict=True):
            expected = twins[row].pass_alone(x, y, share)
            assert loss == pytest.approx(expected, rel=1e-13)
            for task in (tasks[row], twins[row]):
                task.update()  # moves the stack through the views
    for task, twin in zip(tasks, twins, strict=True):
        state, other = task.model.state_dict(), twin.model.state_dict()
        for name, tensor in other.items():  # float64, three steps of a few dozen roundings
            torch.testing.assert_close(state[name], tensor, rtol=1e-12, atol=1e-13)
        for mine, its in zip(task.model.parameters(), twin.model.parameters(), strict=True):
            assert (mine.grad is None) == (its.grad is None)
            if mine.grad is not None:  # of three passes: nothing set it to zero
                torch.testing.assert_close(mine.grad, its.grad, rtol=1e-11, atol=1e-13)


def test_weights_and_buffers_that_were_replaced_are_copied_in_and_out():
    tasks = _tasks(2)
    stack = stacked.Stack(tasks)
    tasks[1].model[0].weight.data = torch.full((5, 4), 0.25, dtype=torch.float64)
    tasks[1].model[1].running_mean = torch.ones(5, dtype=torch.float64)
    twin = copy.deepcopy(tasks[1])
    x, y = minibatch(0)
    losses = stack.run([0, 1], [x, x], [y, y], [1.0, 1.0])
    assert losses[1] == pytest.approx(twin.pass_alone(x, y, 1.0), rel=1e-13)
    torch.testing.assert_close(tasks[1].model[1].running_mean, twin.model[1].running_mean)


QUICK = ("sgd", "s-sgd", "sam", "ema", "adam", "muon")  # of each kind one
SETTINGS = [
    pytest.param(name, {}, marks=() if name in QUICK else pytest.mark.slow) for name in METHODS
] + [
    ("s-sgd", {"noise_per": "sample"}),
    ("s-sgd", {"bn_stats": "frozen"}),
    ("sam", {"bn_stats": "both"}),
]


@pytest.mark.parametrize(("method", "settings"), SETTINGS)
def test_every_method_is_stacked_as_it_is(tmp_path, hidden, method, settings):
    size = 160 // READINGS[method].minibatches  # three steps of 500 examples
    model, told = f"{hidden}:with_bn", Told()
    configs = [
        config(method=method, settings=settings, model=model, epochs=1, batch_size=size, seed=seed)
        for seed in (3, 4, 5)
    ]
    for one, other in both_ways(configs, tmp_path, told):
        # float32: three steps of a few roundings of 6e-8 each, on sums of a few dozen
        assert_close(one, other, 1e-5)
    assert told.warnings == []
    assert told.steps == told.total == 9


def test_initial_weights_are_the_same_bits_and_seeds_differ(tmp_path):
    pairs = both_ways([config(seed=s, save_every=1) for s in range(3)], tmp_path)
    starts = []
    for one, other in pairs:
        first = [load_file(f / "checkpoints" / "step-00000000.safetensors") for f in (one, other)]
        assert all(torch.equal(first[0][name], first[1][name]) for name in first[0])
        starts.append(first[0]["1.weight"])
        assert_close(one, other, 1e-4)
    assert not torch.equal(starts[0], starts[1])


def test_runs_that_differ_keep_to_themselves(tmp_path):
    """Other methods, strengths, batch sizes, lengths, optimizers and data, all at once."""
    told = Told()
    configs = [
        config(seed=0, lr=0.05),
        config(seed=1, method="s-sgd", settings={"noise_scale": 0.2}, lr=0.02),
        config(seed=1, method="sam", batch_size=50, epochs=1),
        config(seed=2, optimizer="adam", label_noise=0.2, epochs=3),
        config(seed=3, val=0.2, schedule="cosine", weight_decay=1e-3),
        config(seed=4, precision="bf16"),
    ]
    for number, (one, other) in enumerate(both_ways(configs, tmp_path, told)):
        # adam divides by small second moments: rounding grows most there
        assert_close(one, other, 1e-3 if number == 3 else 1e-4)
    assert told.warnings == []


@pytest.mark.slow
def test_digits_end_at_the_same_accuracy(tmp_path):
    configs = [config(data="digits", epochs=5, batch_size=32, seed=s) for s in range(4)]
    for one, other in both_ways(configs, tmp_path):
        mine, its = Run(one).history()[-1], Run(other).history()[-1]
        assert mine["test_accuracy"] == pytest.approx(its["test_accuracy"], abs=0.006)  # 2 of 360
        assert mine["train_loss"] == pytest.approx(its["train_loss"], rel=0.02)


@pytest.mark.parametrize("name", [each.__name__ for each in merged.SEPARABLE])
def test_a_merged_step_is_each_optimizers_own_to_the_bit(name):
    """Alone, merged, alone: the state is each one's all along."""

    def made():
        torch.manual_seed(0)
        return [nn.Linear(7, 5) for _ in range(3)]

    kind, finals = getattr(torch.optim, name), []
    for together in (False, True):
        models = made()
        optimizers = [kind(model.parameters(), lr=0.01 + (name == "SGD")) for model in models]
        for group in (g for o in optimizers for g in o.param_groups):
            group.update({"momentum": 0.9} if "momentum" in group else {})
        union = None
        for step in range(5):
            for parameter in (p for model in models for p in model.parameters()):
                parameter.grad = torch.randn(parameter.shape)
            if together and step in (1, 2, 4):
                assert len({merged.likeness(each) for each in optimizers}) == 1
                union = union or merged.Merged(optimizers)
                assert union.holds
                union.step()
            else:
                for each in optimizers:
                    each.step()
        finals.append((models, [each.state_dict()["state"] for each in optimizers]))
        optimizers[1].load_state_dict(optimizers[1].state_dict())
        assert union is None or not union.holds
    for one, other in zip(*(models for models, _ in finals), strict=True):
        for mine, its in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(mine, its)
    assert str(finals[0][1]) == str(finals[1][1])


def test_optimizers_that_differ_are_not_merged():
    def like(kind=torch.optim.SGD, steps=0, **options):
        layer = nn.Linear(2, 2)
        optimizer = kind(layer.parameters(), **options)
        for _ in range(steps):
            layer(torch.ones(1, 2)).sum().backward()
            optimizer.step()
        return merged.likeness(optimizer)

    base = like(lr=0.1, momentum=0.9)
    assert base == like(lr=0.1, momentum=0.9)
    assert base != like(lr=0.2, momentum=0.9)
    assert base != like(lr=0.1)
    assert base != like(lr=0.1, momentum=0.9, steps=1)
    assert like(torch.optim.LBFGS) is None
    assert like(torch.optim.Adam) != like(torch.optim.AdamW)


# Never wrong numbers


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "with_dropout"}, "random"),
        ({"model": "with_features"}, "other numbers"),
        ({"model": "with_calls"}, "other numbers"),
        ({"loss": "looking_loss"}, "vmap|item"),
    ],
)
def test_what_cannot_be_stacked_is_run_one_by_one(tmp_path, hidden, changes, reason):
    told = Told()
    named = {key: f"{hidden}:{value}" for key, value in changes.items()}
    pairs = both_ways([config(seed=s, **named) for s in range(2)], tmp_path, told)
    for one, other in pairs:
        assert_same_bits(one, other)
    assert len(told.warnings) == 1
    assert told.warnings[0].startswith("passes are made one by one")
    assert len(told.warnings[0].splitlines()) == 1
    assert re.search(reason, told.warnings[0])


def test_hooks_and_another_loss_see_their_own_model():
    stack = stacked.Stack(_tasks(2))
    assert not stack.changed(1)
    handle = stack.tasks[1].model[0].register_forward_hook(lambda *_: None)
    assert stack.changed(1)
    assert not stack.changed(0)
    handle.remove()
    assert not stack.changed(1)
    stack.tasks[0].loss = lambda outputs, targets: outputs.sum()
    assert stack.changed(0)


def test_the_callers_generators_are_left_alone(tmp_path):
    torch.manual_seed(5)
    before = random_state.capture()
    train_together([(config(seed=s, epochs=1), tmp_path / str(s)) for s in range(2)])
    assert torch.equal(before["torch"], torch.get_rng_state())
    assert before["python"] == random_state.capture()["python"]


# Failures and resume


def test_one_runs_end_is_not_the_others(tmp_path):
    (tmp_path / "3").mkdir()
    train(config(epochs=1), tmp_path / "3")
    configs = [
        config(seed=0),
        config(seed=1, lr=1e30),  # diverges
        config(seed=2, batch_size=1000),  # more than there are
        config(seed=3),  # the folder holds a run
        config(seed=4),
    ]
    results = train_together([(one, tmp_path / str(n)) for n, one in enumerate(configs)])
    assert isinstance(results[1], WorkError)
    assert "diverged" in str(results[1])
    assert isinstance(results[2], InputError)
    assert isinstance(results[3], InputError)
    assert not (tmp_path / "2").exists()
    for number in (0, 4):
        assert results[number]["run"] == str(tmp_path / str(number))
        train(configs[number], tmp_path / f"alone-{number}")
        assert_close(tmp_path / str(number), tmp_path / f"alone-{number}", 1e-4)


MOMENTS = random.Random(7).sample(range(1, 75), 6)


@pytest.mark.parametrize(
    "moment", [MOMENTS[0], *(pytest.param(m, marks=pytest.mark.slow) for m in MOMENTS[1:])]
)
def test_an_interrupted_set_ends_as_an_undisturbed_one(tmp_path, monkeypatch, hidden, moment):
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)

    def jobs(folder):
        return [
            (config(seed=s, epochs=5, method="s-sgd", model=f"{hidden}:with_bn"), folder / str(s))
            for s in range(3)
        ]

    train_together(jobs(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train_together(jobs(tmp_path / "cut"), progress=Told(stop_at=moment))
    assert all(Run(folder).exists for _, folder in jobs(tmp_path / "cut"))
    results = train_together(jobs(tmp_path / "cut"), resume=True)
    assert all(isinstance(result, dict) for result in results)
    for seed in range(3):
        assert_same_bits(tmp_path / "cut" / str(seed), tmp_path / "whole" / str(seed))


def test_runs_of_unequal_progress_are_resumed(tmp_path, monkeypatch):
    """As after a kill between two runs' writes: they stand at different epochs, one is done."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    jobs = [(config(seed=s, epochs=3), tmp_path / "cut" / str(s)) for s in range(4)]
    train(*jobs[0])
    calls = []

    class Killed(Told):
        def advance(self, steps=1, note=""):
            calls.append(1)
            if len(calls) == 8:  # in the second epoch of five steps
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(*jobs[1], progress=Killed())
    assert read_tree(jobs[1][1] / "state.safetensors")["epoch"] == 1
    results = train_together(jobs, resume=True)
    assert [result["final"]["step"] for result in results] == [15] * 4
    for one, folder in jobs:
        train(one, tmp_path / "alone" / folder.name)
        assert_close(folder, tmp_path / "alone" / folder.name, 1e-4)
        assert len(Run(folder).history()) == 3


def test_large_sets_are_cut_and_convolutions_left_alone(tmp_path, monkeypatch):
    sizes, run = [], stacked.Stack.run

    def counted(self, rows, *data):
        sizes.append(len(rows))
        return run(self, rows, *data)

    monkeypatch.setattr(stacked.Stack, "run", counted)
    configs = [config(seed=s, epochs=1, batch_size=250) for s in range(6)]
    for one, other in both_ways(configs, tmp_path):
        assert_close(one, other, 1e-4)
    assert sizes == [4, 2] * 2  # of at most 1024 examples
    told = Told()
    images = [config(seed=s, epochs=1, data="digits", model="cnn") for s in range(2)]
    for one, other in both_ways(images, tmp_path / "images", told):
        assert_same_bits(one, other)
    assert len(told.warnings) == 1
    assert "convolutions" in told.warnings[0]


@pytest.mark.slow
def test_a_killed_set_ends_as_an_undisturbed_one(tmp_path, spawn, run):
    """SIGKILL, twice, at moments that nobody chose; then resumed."""
    options = ["--data", "digits", "--model", "mlp", "--method", "s-sgd", "--epochs", 60]
    options += ["--batch-size", 32, "--batch-seeds", 3, "--device", "cpu"]
    environment, moments = {**os.environ, "OMP_NUM_THREADS": "1"}, random.Random(3)
    assert run("train", *options, "--out", tmp_path / "whole").status == 0
    killed = tmp_path / "killed"
    for _ in range(2):
        process = spawn("train", *options, "--resume", "--out", killed, env=environment)
        before, deadline = _epochs(killed), time.monotonic() + 60
        while _epochs(killed) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 1))
        process.kill()
        _, errors = process.communicate()
        assert "Error" not in errors, errors
        assert process.returncode == -signal.SIGKILL, "the set was over before it could be killed"
    assert run("train", "--resume", *options, "--out", killed).status == 0
    found = sorted(path.relative_to(killed) for path in killed.glob("*/final.safetensors"))
    assert len(found) == 3
    for path in found:
        assert_close(killed / path.parent, tmp_path / "whole" / path.parent, 1e-3)
        records = [Run(root / path.parent).history() for root in (killed, tmp_path / "whole")]
        assert [record["epoch"] for record in records[0]] == list(range(1, 61))
        assert records[0][-1]["gradients"] == records[1][-1]["gradients"]


def _epochs(folder):
    return [len(path.read_text().splitlines()) for path in sorted(folder.glob("*/history.jsonl"))]
