import nets
import pytest
import reference
import torch
from torch import nn

from ssgd_analysis.curvature import OPERATORS, HessianOperator, Options
from ssgd_analysis.curvature.products.plan import Plan, describe, recall, remember
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.problem import Problem


def block(case: nets.Case, columns: int = 2) -> torch.Tensor:
    return nets.randn(len(reference.flat_weights(case.model)), columns)


def huber(outputs, targets):
    """A loss whose backward has no forward-mode derivative."""
    return nn.functional.huber_loss(outputs, targets)


# a trace takes seconds: the Hessian on all networks, its relatives on the others when there is time
FEW = ("conv_batchnorm", "attention", "regression")
TRACED = [
    pytest.param(net, name, marks=[] if name == "hessian" or net in FEW else [pytest.mark.slow])
    for net in nets.CASES
    for name in reference.OPERATORS
]


@pytest.mark.parametrize(("net", "operator"), TRACED)
def test_linear_products_equal_the_dense_matrix(net, operator):
    case = nets.CASES[net]()
    vectors = block(case)
    truth = reference.OPERATORS[operator](case) @ vectors
    # micro-batches are traced again, at another size: two networks show it
    for micro_batch in (None, 3) if net in ("conv_batchnorm", "attention") else (None,):
        options = Options(strategy="linear", micro_batch=micro_batch)
        found = OPERATORS[operator](Problem(*case.problem), options=options)
        torch.testing.assert_close(
            found @ vectors, truth, rtol=1e-9, atol=1e-11 * float(truth.abs().max())
        )
        assert found.engine.plan.strategy == "linear"


def test_linear_products_are_refused_where_they_can_not_be_made():
    case = nets.regression()
    linear = HessianOperator(
        Problem(case.model, huber, case.batches()), options=Options(strategy="linear")
    )
    with pytest.raises(InputError, match="--product linear can't be used"):
        _ = linear @ block(case)
    with pytest.raises(InputError, match="--product linear can't be used"):
        linear.prepare(10)
    free = HessianOperator(Problem(case.model, huber, case.batches()))
    free.prepare(10_000)
    assert free.engine.plan.strategy == "graph"


def test_a_measured_plan_is_found_again_for_the_same_kind_only(tmp_path):
    plan = Plan("graph", 8, pieces=2, kept=1, memory=10, product=0.25)
    remember(tmp_path / "plans", "a net", plan)
    assert recall(tmp_path / "plans", "a net") == plan
    assert recall(tmp_path / "plans", "another net") is None
    (stored,) = (tmp_path / "plans").iterdir()
    stored.write_text("{")
    assert recall(tmp_path / "plans", "a net") is None
    (tmp_path / "file").write_text("")
    remember(tmp_path / "file", "a net", plan)  # costs the next measurement, and no more


@pytest.mark.parametrize("operator", ["hessian", "ggn", "fisher"])
@pytest.mark.parametrize("net", nets.CASES)
def test_micro_batches_and_little_memory_change_nothing(net, operator):
    case = nets.CASES[net]()
    vectors = block(case)
    truth = reference.OPERATORS[operator](case) @ vectors
    for options in (Options(micro_batch=1), Options(micro_batch=3), Options(memory=1)):
        found = OPERATORS[operator](Problem(*case.problem), options=options)
        for _ in range(2):
            torch.testing.assert_close(
                found @ vectors, truth, rtol=1e-9, atol=1e-11 * float(truth.abs().max())
            )
    assert found.engine.plan.kept == 0


@pytest.mark.parametrize("operator", ["hessian", "ggn", "fisher"])
@pytest.mark.parametrize("net", nets.CASES)
def test_differences_are_near(net, operator):
    case = nets.CASES[net]()
    vectors = block(case)
    truth = reference.OPERATORS[operator](case) @ vectors
    before = nets.state(case.model)
    found = (
        OPERATORS[operator](Problem(*case.problem), options=Options(strategy="difference"))
        @ vectors
    )
    # the step is 6e-6 of the weights' norm: error of order its square, 4e-11, and 1e-16 / step
    assert float((found - truth).norm()) < 1e-6 * float(truth.norm())
    assert nets.state(case.model) == before


class Branches(nn.Module):
    """Takes another branch for other inputs: a trace of one batch is wrong for another."""

    def __init__(self, looks: bool) -> None:
        super().__init__()
        self.a, self.b, self.looks = nn.Linear(4, 3).double(), nn.Linear(4, 3).double(), looks

    def forward(self, x):
        if not self.looks:  # a choice that no trace can see
            return (self.a if x.storage_offset() == 0 else self.b)(x).tanh()
        return (self.a if float(x[0, 0]) > 0 else self.b)(x).tanh()


@pytest.mark.parametrize("looks", [True, False])
def test_a_trace_that_does_not_hold_is_refused(looks):
    with nets.seeded():
        model = Branches(looks)
    inputs = nets.randn(nets.N, 4)
    inputs[0, 0], inputs[4, 0], inputs[8, 0] = 1.0, -1.0, 1.0
    case = nets.Case(model, nets.cross_entropy, inputs, nets.labels())
    batches = case.batches()
    truth = sum(
        len(x) / nets.N * (HessianOperator(Problem(model, case.loss, [(x, y)])) @ block(case))
        for x, y in batches
    )
    options = Options(strategy="linear")
    with pytest.raises(InputError, match="can't be used here"):
        _ = HessianOperator(Problem(model, case.loss, batches), options=options) @ block(case)
    operator = HessianOperator(Problem(model, case.loss, batches))
    operator.prepare(10_000)
    torch.testing.assert_close(operator @ block(case), truth, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("way", ["linear", "graph", "difference"])
def test_changed_weights_are_noticed(way):
    case = nets.conv_batchnorm()
    operator = HessianOperator(Problem(*case.problem), options=Options(strategy=way))
    _ = operator @ block(case)
    with torch.no_grad():
        for parameter in case.model.parameters():
            parameter.mul_(1.5)
    tolerance = 1e-6 if way == "difference" else 1e-9
    for change in (lambda: None, lambda: case.model[1].running_var.mul_(2)):
        change()
        truth = reference.hessian(case) @ block(case)
        assert float((operator @ block(case) - truth).norm()) < tolerance * float(truth.norm())


@pytest.mark.parametrize("net", ["mlp", "attention", "recurrent"])
def test_choosing_keeps_the_answer(net):
    case = nets.with_state(nets.CASES[net]())
    before = nets.state(case.model)
    operator = HessianOperator(Problem(*case.problem))
    operator.prepare(100)
    plan = operator.engine.plan
    assert plan.strategy in ("graph", "linear")
    assert plan.setup is not None
    assert plan.product is not None
    truth = reference.hessian(case) @ block(case)
    torch.testing.assert_close(operator @ block(case), truth, rtol=1e-9, atol=1e-10)
    assert nets.state(case.model) == before
    assert plan.strategy in describe(plan)
    assert "s a product" in describe(plan)


def test_a_fixed_choice_is_kept():
    case = nets.mlp()
    operator = HessianOperator(
        Problem(*case.problem), options=Options(strategy="graph", micro_batch=2)
    )
    operator.prepare(100)
    assert (operator.engine.plan.strategy, operator.engine.plan.micro_batch) == ("graph", 2)
    assert operator.engine.plan.pieces == 2 + 2 + 2  # batches of 4, 4 and 3


def test_batches_that_belong_together_are_not_cut():
    case = nets.mlp()

    def contrastive(outputs, targets):
        return (outputs - outputs.mean(dim=0)).square().mean()

    operator = HessianOperator(
        Problem(case.model, contrastive, [(nets.randn(100, 4), nets.labels(100))])
    )
    operator.prepare(100)
    assert operator.engine.plan.micro_batch == 100


def test_the_budget_limits_what_is_kept():
    case = nets.mlp()
    rich = HessianOperator(Problem(*case.problem))
    _ = rich @ block(case)
    piece = rich.engine.plan.piece
    assert rich.engine.plan.kept == 3
    poor = HessianOperator(Problem(*case.problem), options=Options(memory=6 * piece))
    torch.testing.assert_close(poor @ block(case), rich @ block(case))
    assert poor.engine.plan.kept == 1
    assert poor.engine.plan.peak <= poor.engine.plan.memory
    assert poor.basis_bytes == poor.engine.plan.memory // 4 < rich.basis_bytes


class Spy:
    """A loss that fails for lack of memory on batches above a size, and counts its calls."""

    def __init__(self, largest: int, error: Exception) -> None:
        self.largest, self.error = largest, error

    def __call__(self, outputs, targets):
        if len(outputs) > self.largest:
            raise self.error
        return nets.cross_entropy(outputs, targets)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    MemoryError(),
]


class Warnings:
    def __init__(self) -> None:
        self.said: list[str] = []

    def start(self, label, total=None):
        pass

    def advance(self, steps=1, note=""):
        pass

    def warn(self, message):
        self.said.append(message)


@pytest.mark.parametrize("error", ERRORS)
def test_out_of_memory_lowers_the_plan_and_goes_on(error):
    case = nets.mlp()
    loss = Spy(nets.N, error)
    operator = HessianOperator(Problem(case.model, loss, case.batches(nets.N)))
    operator.engine.progress = log = Warnings()
    loss.largest = 3
    truth = reference.hessian(case) @ block(case)
    torch.testing.assert_close(operator @ block(case), truth, rtol=1e-9, atol=1e-12)
    assert operator.engine.plan.micro_batch == 3
    assert log.said[0].startswith("out of memory: continuing with graph products")


def test_out_of_memory_at_the_end_is_one_line():
    case = nets.mlp()
    with pytest.raises(WorkError, match="out of memory with one example at a time: no room"):
        _ = HessianOperator(Problem(case.model, Spy(0, MemoryError("no room")), case.batches()))


class Once(torch.autograd.Function):
    """Its backward can't be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0] * slope


class Single(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(4, 3).double()

    def forward(self, x):
        return Once.apply(self.read(x))


def test_no_second_derivative_names_the_remedy():
    with nets.seeded():
        case = nets.Case(Single(), nets.cross_entropy, nets.randn(nets.N, 4), nets.labels())
    operator = HessianOperator(Problem(*case.problem))
    with pytest.raises(InputError, match=r"no second derivative .*--product difference"):
        _ = operator @ block(case)
    with pytest.raises(InputError, match="no second derivative"):
        operator.prepare(10)
    with nets.seeded():
        twice = nets.Case(Squared(), nets.cross_entropy, case.inputs, case.targets)
    for name in ("hessian", "ggn"):
        operator = OPERATORS[name](Problem(*case.problem), options=Options(strategy="difference"))
        operator.prepare(10)
        truth = reference.OPERATORS[name](twice) @ block(case)
        assert float((operator @ block(case) - truth).norm()) < 1e-6 * float(truth.norm())


class Squared(Single):
    def forward(self, x):
        return self.read(x).square()


@pytest.mark.parametrize("way", ["graph", "linear"])
def test_attention_kernels_are_given_back(way):
    case = nets.attention()
    before = (
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.backends.cuda.math_sdp_enabled(),
    )
    _ = HessianOperator(Problem(*case.problem), options=Options(strategy=way)) @ block(case)
    assert before == (
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.backends.cuda.math_sdp_enabled(),
    )


def test_plans_without_measurements_are_told():
    assert describe(Plan("graph", 4, 3, 3, 100)) == (
        "graph products, 4 examples at once, 3 of 3 pieces kept"
    )
    assert "kept" not in describe(Plan("difference", 4, 3, 0, 100))


@pytest.mark.parametrize("way", ["graph", "linear", "difference"])
def test_weight_normalisation_against_differences(way):
    # torch's kernel has a wrong second derivative on the CPU, so no autograd truth will do
    kind = nn.utils.parametrizations.weight_norm
    with nets.seeded():
        model = nn.Sequential(kind(nn.Linear(4, 5)), nn.Tanh(), kind(nn.Linear(5, 3))).double()
    case = nets.Case(model, nets.cross_entropy, nets.randn(nets.N, 4), nets.labels())
    flat, direction = reference.flat_weights(model), block(case, 1)[:, 0]
    step = 1e-5
    ahead = reference.gradient(case, flat + step * direction)
    truth = (ahead - reference.gradient(case, flat - step * direction)) / (2 * step)
    found = HessianOperator(Problem(*case.problem), options=Options(strategy=way)) @ direction
    assert float((found - truth).norm()) < 1e-7 * float(truth.norm())


@pytest.mark.slow  # the compiler takes some 20 s
def test_compiled_products_are_the_same():
    case = nets.mlp()
    compiled = HessianOperator(Problem(*case.problem), options=Options(strategy="compiled"))
    torch.testing.assert_close(
        compiled @ block(case), HessianOperator(Problem(*case.problem)) @ block(case)
    )
    assert compiled.engine.plan.strategy == "compiled"


def test_without_a_compiler_the_reason_is_told(monkeypatch):
    def fails(*args, **kwargs):
        def run(*tensors):
            raise RuntimeError("no C++ compiler")

        return run

    monkeypatch.setattr(torch, "compile", fails)
    case = nets.mlp()
    operator = HessianOperator(Problem(*case.problem), options=Options(strategy="compiled"))
    with pytest.raises(InputError, match="--product compiled can't be used here: no C\\+\\+ comp"):
        _ = operator @ block(case)
