"""Training with a loss of (model, batch): the same bits as without, and batches of any kind."""

import json

import pytest
import torch
from torch import nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.runs.tensors import read_tensors
from ssgd_analysis.training import train

CODE = """
import torch
import torch.nn.functional as F
from torch import nn

def plain(outputs, targets):
    return F.cross_entropy(outputs, targets)

def whole(model, batch):
    inputs, targets = batch
    return F.cross_entropy(model(inputs), targets)

class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, input_ids, attention_mask):
        hidden = self.norm(self.embedding(input_ids).transpose(1, 2)).transpose(1, 2)
        return self.head(hidden), attention_mask

def texts():
    generator = torch.Generator().manual_seed(0)
    def split(count):
        tokens = torch.randint(0, 7, (count, 5), generator=generator)
        return {"input_ids": tokens, "attention_mask": torch.ones(count, 5)}
    return split(24), split(8)

def next_token(model, batch):
    logits, _ = model(**batch)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten())

def points():
    line = torch.linspace(0, 1, 24)[:, None]
    return (line,), (line[::3],)

def physics():
    return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))

def residual(model, batch):
    x = batch[0].clone().requires_grad_()
    y = model(x)
    slope, = torch.autograd.grad(y.sum(), x, create_graph=True)
    return (slope - y).square().mean() + (model(x[:1] * 0) - 1).square().mean()
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    path = tmp_path_factory.mktemp("code") / "mine.py"
    path.write_text(CODE)
    return path


def _trained(code, folder, method: str, loss: str, **options) -> dict[str, torch.Tensor]:
    options = {"data": "digits", "model": "mlp", "batch_size": 256, "train_samples": 600} | options
    config = TrainConfig(method=method, loss=f"{code}:{loss}", epochs=2, **options)
    train(config, folder)
    return read_tensors(folder / "final.safetensors")[0]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("s-sgd", {}),
        ("s-sgd", {"settings": {"minibatch": "halves"}, "accumulate": 3}),
        ("sam", {"settings": {"m": 100}}),
        ("rwp", {}),
        ("entropy-sgd", {"settings": {"inner_steps": 2}}),
    ],
)
def test_cross_entropy_of_model_and_batch_trains_to_the_same_bits(code, tmp_path, method, options):
    found, expected = (
        _trained(code, tmp_path / loss, method, loss, **options) for loss in ("whole", "plain")
    )
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


KINDS = {
    "language": {"data": "texts", "model": "Language", "loss": "next_token"},
    "physics": {"data": "points", "model": "physics", "loss": "residual"},
}


def _any(code, folder, method: str, kind: str, **options) -> None:
    own = dict(KINDS[kind])
    loss = own.pop("loss")
    named = {key: f"{code}:{value}" for key, value in own.items()}
    _trained(
        code, folder, method, loss, **{"batch_size": 8, "train_samples": 0, **named, **options}
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["s-sgd+swa", "sam", "lpf-sgd", "sgld", "arwp"])
def test_batches_of_any_kind_train(code, tmp_path, kind, method):
    _any(code, tmp_path / "run", method, kind)
    records = [
        json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().split("\n")[:-1]
    ]
    assert records[-1]["train_accuracy"] is None
    assert records[-1]["train_loss"] < 5


@pytest.mark.parametrize("method", ["label-noise-sgd", "esam", "esam+ema"])
def test_a_method_that_needs_targets_says_so(code, tmp_path, method):
    with pytest.raises(InputError, match="needs the targets of each example"):
        _any(code, tmp_path / "run", method, "language")
    assert not (tmp_path / "run").exists()


def test_clean_statistics_come_from_a_forward_pass_of_the_loss(code, tmp_path):
    _any(code, tmp_path / "run", "s-sgd", "language", settings={"bn_stats": "clean"})
    state = read_tensors(tmp_path / "run/final.safetensors")[0]
    assert state["norm.num_batches_tracked"] == 6


def test_micro_batches_weigh_by_the_count_that_the_loss_returns():
    """Two halves with one and three labels that count: the mean is over four."""
    from ssgd_analysis.methods import Passes

    def loss(model, batch):
        inputs, mask = batch
        return (model(inputs).squeeze(1) * mask).sum() / mask.sum(), mask.sum()

    batch = torch.arange(4.0)[:, None], torch.tensor([1.0, 0, 1, 1]).roll(1)
    slopes = []
    for count in (1, 2):
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        passes = Passes(model, loss, optimizer, batch_size=4, accumulate=count)
        passes.backward(batch)
        slopes.append(float(model.weight.grad))
    assert slopes[0] == pytest.approx(slopes[1])
