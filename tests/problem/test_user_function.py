"""The function that is measured is the user's, and the model comes back untouched."""

import nets
import pytest
import torch
import torch.nn.functional as F
from differences import hessian
from torch import Tensor, nn

from ssgd_analysis.curvature import HessianOperator
from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness import METRICS
from ssgd_analysis.problem import Problem


class Adapter(nn.Module):
    """A low-rank adapter that adds itself to a frozen weight in eval(), and leaves in train()."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs), requires_grad=False)
        self.a = nn.Parameter(torch.randn(2, inputs) * 0.5)
        self.b = nn.Parameter(torch.randn(outputs, 2) * 0.5)
        self.merged = False

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (self.b @ self.a) * (-1 if mode else 1)
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        own = F.linear(x, self.weight)
        return own if self.merged else own + F.linear(F.linear(x, self.a), self.b)


def adapter() -> tuple[nn.Module, Tensor, Tensor]:
    with nets.seeded():
        model = nn.Sequential(Adapter(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return model, nets.randn(32, 6), nets.labels(32)


def test_an_adapter_that_merges_itself_is_measured_unmerged():
    model, x, y = adapter()
    truth, _ = hessian(model, lambda m: F.cross_entropy(m(x), y))
    before = nets.state(model)
    problem = Problem(model, F.cross_entropy, [(x, y)])
    problem.check()
    dense = HessianOperator(problem) @ torch.eye(problem.n_parameters, dtype=torch.float64)
    torch.testing.assert_close(dense, truth, rtol=1e-6, atol=1e-8)
    assert float(truth.diagonal()[:12].abs().min()) > 0  # the adapter has derivatives
    for name in ("lambda_max", "expected", "worst_case"):
        METRICS[name](Problem(model, F.cross_entropy, [(x, y)]))
    assert nets.state(model) == before
    assert not problem.notes


def test_parameters_without_a_gradient_are_named():
    model, x, y = adapter()
    model[0].train(False)  # merged by the user
    problem = Problem(model, F.cross_entropy, [(x, y)])
    problem.check()
    assert "no gradient reaches 0.a, 0.b" in problem.notes[0]


class Doubling(nn.Linear):
    """eval() is another function, which its flag alone does not tell."""

    factor = 1.0

    def train(self, mode: bool = True) -> nn.Module:
        self.factor = 1.0 if mode else 2.0
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * super().forward(x)


def test_an_evaluation_mode_that_is_more_than_a_flag_is_refused_by_name():
    model = nn.Sequential(nn.Identity(), Doubling(4, 3).double())
    with pytest.raises(InputError, match=r"eval\(\) of the model's '1' does more than set flags"):
        Problem(model, F.cross_entropy, [(nets.randn(8, 4), nets.labels(8))]).check()


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder, self.out = nn.TransformerEncoder(layer, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.encoder(self.embed(x), src_key_padding_mask=x == 0)
        return self.out(hidden.mean(1))  # over padding, too, where the fused path puts zeros


@pytest.mark.filterwarnings("ignore:.*nested tensors.*")
def test_losses_and_derivatives_of_masked_attention_take_one_path():
    with nets.seeded():
        model = Masked().eval()
    x = torch.randint(1, 9, (24, 7), generator=nets.generator(1))
    x[torch.arange(7)[None] >= torch.randint(2, 8, (24, 1), generator=nets.generator(2))] = 0
    y = nets.labels(24)
    with torch.enable_grad():
        truth = float(F.cross_entropy(model(x), y).detach())
    problem = Problem(model, F.cross_entropy, [(x, y)])
    assert problem.mean_loss() == pytest.approx(truth, rel=1e-6)
    problem.check()
    assert torch.backends.mha.get_fastpath_enabled()
    # along a random direction, losses bend as the Hessian says
    operator = HessianOperator(problem)
    v = nets.randn(problem.n_parameters).float()
    v *= 0.05 / v.norm()
    gradient = torch.cat([part.reshape(-1) for part in problem.gradient()])
    parts, losses = problem.split(v), []
    for sign in (1, -2, 1):
        with torch.no_grad():
            for parameter, part in zip(problem.parameters.values(), parts, strict=True):
                parameter.add_(sign * part)
        losses.append(problem.mean_loss())
    bend = (losses[0] + losses[1] - 2 * losses[2]) / 2
    assert float(gradient @ v) == pytest.approx((losses[0] - losses[1]) / 2, rel=1e-2, abs=1e-5)
    assert bend == pytest.approx(float(v @ (operator @ v)) / 2, rel=0.1, abs=1e-5)


class OtherPath(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out if torch.is_grad_enabled() else 1.1 * out


def test_another_path_without_gradients_is_refused():
    batch = (nets.randn(8, 4), nets.labels(8))
    with pytest.raises(InputError, match=r"compute the same under torch.no_grad"):
        Problem(OtherPath(4, 3).double(), F.cross_entropy, [batch]).check()


def test_another_path_in_a_later_batch_is_refused_too():
    class Late(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            return 1.1 * out if len(x) < 8 and not torch.is_grad_enabled() else out

    batches = [(nets.randn(8, 4), nets.labels(8)), (nets.randn(5, 4), nets.labels(5))]
    with pytest.raises(InputError, match=r"compute the same under torch.no_grad"):
        Problem(Late(4, 3).double(), F.cross_entropy, batches).check()


def embedding(**given) -> tuple[nn.Module, list]:
    with nets.seeded():
        model = nn.Sequential(nn.Embedding(9, 3, **given), nn.Flatten(), nn.Linear(12, 3)).double()
    x = torch.randint(9, (10, 4), generator=nets.generator())
    return model, [(x, nets.labels(10))]


def test_rows_that_are_renormalised_in_each_pass_are_refused_untouched():
    model, batches = embedding(max_norm=1.0)
    before = nets.state(model)
    with pytest.raises(InputError, match=r"'0' writes into its weights .* set max_norm=None"):
        Problem(model, F.cross_entropy, batches).mean_loss()
    assert nets.state(model) == before


class Writing(nn.Module):
    """Writes into its weights, or takes other memory for them, in a late batch."""

    def __init__(self, how: str) -> None:
        super().__init__()
        with nets.seeded():
            self.layer = nn.Linear(4, 3).double()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 5 and self.how == "in place":
            self.layer.weight.data.clamp_(-0.1, 0.1)
        if len(x) == 5 and self.how == "memory":
            self.layer.weight.data = self.layer.weight.data.clone()
        if len(x) == 5 and self.how == "another":
            self.layer.weight = nn.Parameter(self.layer.weight.detach().clone())
        return self.layer(x)


@pytest.mark.parametrize("how", ["in place", "memory", "another"])
@pytest.mark.parametrize("what", ["mean_loss", "gradient", "check"])
def test_a_pass_that_writes_into_parameters_is_refused_and_undone(how, what):
    model = Writing(how)
    weight, memory, before = model.layer.weight, model.layer.weight.data_ptr(), nets.state(model)
    batches = [(nets.randn(n, 4), nets.labels(n)) for n in (8, 5)]
    with pytest.raises(InputError, match=r"writes into the parameter 'layer.weight'"):
        getattr(Problem(model, F.cross_entropy, batches), what)()
    assert model.layer.weight is weight
    assert weight.data_ptr() == memory
    assert nets.state(model) == before


def test_sparse_gradients_are_added_up_or_refused_in_words():
    model, batches = embedding(sparse=True)
    dense, _ = embedding()
    problem, plain = (Problem(m, F.cross_entropy, batches) for m in (model, dense))
    for one, other in zip(problem.gradient(), plain.gradient(), strict=True):
        torch.testing.assert_close(one, other)
    problem.check()
    with pytest.raises(InputError, match="sparse=False"):
        HessianOperator(problem)
