import math

import nets
import pytest
import reference
import torch
from torch import nn

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.problem import Problem
from ssgd_analysis.problem.loss import accuracy


@pytest.fixture(params=nets.CASES)
def case(request) -> nets.Case:
    return nets.with_state(nets.CASES[request.param]())


def test_mean_is_over_examples(case):
    # one full batch and short last batches give one value, to rounding
    truth = reference.loss_at(case, reference.flat_weights(case.model))
    for size in (1, 4, 100):
        problem = Problem(case.model, case.loss, case.batches(size))
        assert problem.mean_loss() == pytest.approx(truth, rel=1e-13)
        assert problem.evaluate()[0] == pytest.approx(truth, rel=1e-13)
        assert problem.n_samples == nets.N
        assert math.fsum(problem.shares) == pytest.approx(1, rel=1e-15)


def test_gradient_is_the_gradient_of_the_mean(case):
    found = torch.cat([part.reshape(-1) for part in Problem(*case.problem).gradient()])
    torch.testing.assert_close(found, reference.gradient(case), rtol=1e-11, atol=1e-13)


def test_parameters_are_each_once_and_trainable(case):
    problem = Problem(*case.problem)
    assert list(problem.parameters) == list(reference.trainable(case.model))
    assert problem.n_parameters == len(reference.flat_weights(case.model))
    assert problem.dtype == torch.float64
    assert problem.device == torch.device("cpu")


@pytest.mark.parametrize("what", ["batch_losses", "mean_loss", "evaluate", "gradient", "check"])
def test_model_comes_back_untouched(case, what):
    before = nets.state(case.model)
    getattr(Problem(*case.problem), what)()
    assert nets.state(case.model) == before


@pytest.mark.parametrize("what", ["batch_losses", "evaluate", "gradient", "check"])
def test_model_comes_back_untouched_after_an_error(case, what):
    before = nets.state(case.model)
    failing = nets.RaisesAfter(case.loss, 0 if what == "check" else 2)
    with pytest.raises(KeyboardInterrupt):
        getattr(Problem(case.model, failing, case.batches()), what)()
    assert nets.state(case.model) == before


def test_gradient_works_where_gradients_are_off():
    case = nets.mlp()
    with torch.no_grad():
        found = Problem(*case.problem).gradient()
    assert any(part.any() for part in found)


def test_batches_are_read_once():
    case = nets.mlp()
    problem = Problem(case.model, case.loss, iter(case.batches()))
    assert problem.mean_loss() == problem.mean_loss()
    assert problem.n_samples == nets.N


def test_accuracy_counts_right_labels():
    case = nets.mlp()
    with torch.no_grad():
        right = nets.evaluated(case.model)(case.inputs).argmax(dim=1) == case.targets
    assert 0 < right.sum() < nets.N  # neither none nor all, or the test shows little
    assert Problem(*case.problem).evaluate()[1] == pytest.approx(int(right.sum()) / nets.N)


def test_accuracy_of_no_right_answer_is_zero():
    outputs = torch.tensor([[0.0, 1.0]])
    assert accuracy(outputs, torch.tensor([0])) == 0.0
    assert accuracy(outputs, torch.tensor([1])) == 1.0


def test_regression_has_no_accuracy():
    assert Problem(*nets.regression().problem).evaluate()[1] is None


def test_accuracy_of_positions_is_over_all_of_them():
    case = nets.positions()
    with torch.no_grad():
        right = nets.evaluated(case.model)(case.inputs).argmax(dim=1) == case.targets
    assert Problem(*case.problem).evaluate()[1] == pytest.approx(float(right.double().mean()))


@pytest.mark.parametrize("batches", [[], [(torch.zeros(0, 4), torch.zeros(0).long())]])
def test_empty_data_is_refused(batches):
    with pytest.raises(InputError, match="empty"):
        Problem(nets.mlp().model, nets.cross_entropy, batches)


@pytest.mark.parametrize("model", [nn.ReLU(), nn.Linear(2, 2).requires_grad_(False)])
def test_a_model_without_parameters_is_refused(model):
    with pytest.raises(InputError, match="no parameters that require gradients"):
        Problem(model, nets.cross_entropy, [(torch.zeros(1, 2), torch.zeros(1).long())])


def check(**changes) -> None:
    case = nets.mlp()
    parts = {"model": case.model, "loss": case.loss, "inputs": case.inputs, "targets": case.targets}
    nets_case = nets.Case(**{**parts, **changes})
    Problem(*nets_case.problem).check()


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("place", [0, nets.N - 1])
def test_labels_out_of_range_are_refused_in_any_batch(label, place):
    targets = nets.labels()
    targets[place] = label
    with pytest.raises(InputError, match=rf"label {label} is out of range"):
        check(targets=targets)


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"does not take inputs of shape \(4, 5\)"):
        check(inputs=nets.randn(nets.N, 5))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(4, 3).double()

    def forward(self, x: torch.Tensor) -> tuple:
        return self.read(x), x


def test_a_model_that_returns_no_tensor_is_refused():
    with pytest.raises(InputError, match="returns a tuple"):
        check(model=Twice())


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda outputs, targets: outputs, r"not scalar: its shape is \(4, 3\)"),
        (lambda outputs, targets: 1.0, "returns a float"),
        (lambda outputs: outputs.mean(), "does not take outputs"),
        (lambda outputs, targets: outputs @ outputs, "does not take outputs"),
    ],
)
def test_a_loss_that_is_no_loss_is_refused(loss, words):
    with pytest.raises(InputError, match=words):
        check(loss=loss)


def test_a_loss_of_one_entry_is_a_scalar():
    check(loss=lambda outputs, targets: nets.cross_entropy(outputs, targets)[None])


def test_a_loss_that_is_not_finite_is_a_failure_of_the_work():
    with pytest.raises(WorkError, match="nan"):
        check(loss=lambda outputs, targets: outputs.sum() * math.nan)


def test_running_out_of_memory_is_not_blamed_on_the_input():
    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        check(loss=loss)


def test_a_restricted_problem_is_the_same_loss_over_some_parameters():
    case = nets.mlp()
    whole = Problem(*case.problem)
    names = ["5.weight", "0.bias"]
    part = whole.restricted(names)
    assert list(part.parameters) == ["0.bias", "5.weight"]  # the model's order
    assert part.mean_loss() == whole.mean_loss()
    assert part.shares == whole.shares
    wanted = [g for n, g in zip(whole.parameters, whole.gradient(), strict=True) if n in names]
    for found, true in zip(part.gradient(), wanted, strict=True):
        torch.testing.assert_close(found, true, rtol=0, atol=0)
    assert whole.n_parameters == len(reference.flat_weights(case.model))  # the whole stays whole


def test_a_restricted_problem_takes_exact_names():
    model = nn.ModuleDict({"[a]": nn.Linear(4, 3)}).double()
    problem = Problem(
        model, lambda model, batch: model["[a]"](batch).square().mean(), [nets.randn(5, 4)]
    )
    assert list(problem.restricted(["[a].bias"]).parameters) == ["[a].bias"]
    with pytest.raises(InputError, match=r"did you mean '\[a\].bias'"):
        problem.restricted(["[a].bia"])
    with pytest.raises(InputError, match="the name of at least one"):
        problem.restricted([])
    with pytest.raises(InputError, match="unknown parameter"):
        problem.restricted(["[a].bias"]).restricted(["[a].weight"])


def test_nothing_that_belongs_to_other_batches_or_parameters_is_kept():
    model = nn.Linear(3, 2).double()
    x, y = nets.randn(8, 3), nets.randn(8, 2)
    problem = Problem(model, nn.MSELoss(), [(x, y)])
    problem.check()
    assert problem.divisible
    assert problem.cut(2) is not None
    assert problem.checked
    other = problem.with_batches([(x[:3], y[:3]), (x[3:5], y[3:5])])
    assert other.shares == [0.6, 0.4]
    assert [len(pieces) for pieces in other.cut(2)] == [2, 1]
    assert not other.checked
    part = problem.restricted(["bias"])
    assert part.readings is problem.readings
    assert not part.checked
    assert problem.cut(2) is not part.cut(2)


def test_a_problem_says_in_one_line_what_it_is():
    text = repr(Problem(*nets.mlp().problem))
    assert text == "Problem(Sequential, cross_entropy, P=83, N=11 in 3 batches)"
