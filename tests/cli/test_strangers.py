"""Models, data and losses that have no (input, target) pair, through the command line."""

import nets
import pytest
import reference
import torch
from safetensors.torch import save_model
from torch.func import functional_call

from ssgd_analysis import references
from ssgd_analysis.data import load_data

STRANGERS = '''
import torch
import torch.nn.functional as F
from torch import nn

def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

class VAE(nn.Module):
    """Items are dictionaries; the noise of the latent variables is part of the data."""
    def __init__(self, width):
        super().__init__()
        self.encode, self.decode = nn.Linear(width, 4), nn.Linear(2, width)
    def forward(self, x, noise):
        mean, log_variance = self.encode(x).chunk(2, dim=1)
        return self.decode(mean + noise * (log_variance / 2).exp()), mean, log_variance

def vae(input_shape):
    return VAE(input_shape[0])

def vae_data():
    items = [{"x": x, "noise": z} for x, z in zip(normal(21, 5), normal(21, 2, seed=1))]
    return items[:16], items[16:]

def vae_loss(model, batch):
    out, mean, log_variance = model(**batch)
    kl = (mean.square() + log_variance.exp() - log_variance - 1).sum(dim=1).mean() / 2
    return (out - batch["x"]).square().sum(dim=1).mean() + kl

def pinn():
    return nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))

def pinn_data():
    """Single tensors: points where u'' = -u should hold."""
    return normal(19, 1), normal(5, 1, seed=1)

def pinn_loss(model, batch):
    x = batch.clone().requires_grad_()
    u = model(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    return (bend + u).square().mean()

class Recurrent(nn.Module):
    """Returns a tuple: a class for every position, and the last state."""
    def __init__(self):
        super().__init__()
        self.gru, self.read = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 4)
    def forward(self, x):
        found, state = self.gru(x)
        return self.read(found), state

def recurrent():
    return Recurrent()

def recurrent_data():
    """Three tensors, one of them a mask that stays a mask."""
    def part(n):
        g = torch.Generator().manual_seed(n)
        mask = torch.ones(n, 5, dtype=torch.bool)
        mask[:, 4] = False
        return normal(n, 5, 2, seed=n), torch.randint(4, (n, 5), generator=g), mask
    return part(18), part(4)

def recurrent_loss(model, batch):
    x, tags, mask = batch
    assert mask.dtype == torch.bool
    found, state = model(x)
    losses = F.cross_entropy(found.flatten(0, 1), tags.flatten(), reduction="none")
    return (losses * mask.flatten()).sum() / mask.sum() + state.square().mean()

def transformer():
    from transformers import GPT2Config, GPT2LMHeadModel  # fused attention by default
    sizes = dict(vocab_size=7, n_positions=6, n_embd=4, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    with torch.no_grad():
        for parameter in model.parameters():  # away from a start where all is near zero
            parameter.add_(normal(*parameter.shape), alpha=0.3)
    return model

def transformer_data():
    def part(n):
        tokens = torch.randint(7, (n, 6), generator=torch.Generator().manual_seed(n))
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens}
    return part(19), part(5)

def transformer_loss(model, batch):
    return model(**batch).loss

def unmasked_loss(model, batch):
    return model(input_ids=batch["input_ids"], labels=batch["labels"]).loss

def nothing_sensible(model, batch):
    return model(batch["pixels"])

def ordinary(outputs, targets):
    return (outputs - targets).square().mean()
'''


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "strangers.py"
    path.write_text(STRANGERS)
    return path


@pytest.fixture
def arguments(file, tmp_path):
    """Weights of a stranger's model in a file, and how to name all that belongs to them."""

    def make(name: str, loss: str = "") -> list[str]:
        data = load_data(f"{file}:{name}_data")
        with nets.seeded():
            make = references.resolve("model", f"{file}:{name}")
            model = references.call("model", name, make, input_shape=data.input_shape)
        save_model(model, str(tmp_path / f"{name}.safetensors"))
        return [
            str(tmp_path / f"{name}.safetensors"),
            *("--model", f"{file}:{name}", "--data", f"{file}:{name}_data"),
            *("--loss", f"{file}:{loss or name + '_loss'}"),
        ]

    return make


def dense(file, name: str, arguments: list[str]) -> torch.Tensor:
    """Eigenvalues of the Hessian by autograd over one flat vector, all examples at once."""
    model = references.resolve("model", f"{file}:{name}")
    data = load_data(f"{file}:{name}_data").to("cpu", torch.float64)
    loss = references.resolve("loss", arguments[-1])
    with nets.seeded():
        model = references.call("model", name, model, input_shape=data.input_shape).double().eval()

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, batch):
            return loss(self.model, batch)

    whole, shapes = Loss(), reference.trainable(model)

    def at(flat):
        parts = flat.split([p.numel() for p in shapes.values()])
        named = {
            f"model.{n}": v.reshape(p.shape)
            for (n, p), v in zip(shapes.items(), parts, strict=True)
        }
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return functional_call(whole, named, (data.train.inputs,))

    flat = reference.flat_weights(model)
    return torch.linalg.eigvalsh(torch.autograd.functional.hessian(at, flat)).flip(0)


# transformers computes its loss in float32 whatever the model's dtype
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("vae", 1e-7), ("pinn", 1e-7), ("recurrent", 1e-7), ("transformer", 1e-4)],
)
def test_sharpness_without_targets(run, file, arguments, name, tolerance):
    given = arguments(name)
    truth = dense(file, name, given)
    more = ("--dtype", "float64", "--batch-size", 4, "--top", 3, "--probes", 4, "--tol", 1e-8)
    outcome = run("sharpness", *given, *more, "--json")
    assert outcome.status == 0, outcome.err
    (found,) = outcome.json["checkpoints"]
    assert found["accuracy"] is None
    assert found["n_parameters"] == len(truth)
    values = [pair["value"] for pair in found["eigenvalues"]]
    scale = float(truth.abs().max())
    assert values == pytest.approx(truth[:3].tolist(), abs=tolerance * scale)
    smallest = found["smallest_eigenvalue"]["value"]
    assert smallest == pytest.approx(float(truth[-1]), abs=tolerance * scale)


@pytest.mark.parametrize(("name", "loss"), [("vae", ""), ("transformer", "unmasked_loss")])
def test_every_way_to_multiply(run, arguments, name, loss):
    found = []
    for way in ("graph", "linear", "difference"):
        outcome = run(
            *("sharpness", *arguments(name, loss), "--product", way, "--micro-batch", 3),
            *("--top", 1, "--probes", 2, "--dtype", "float64", "--json"),
        )
        assert outcome.status == 0, outcome.err
        found.append(outcome.json["checkpoints"][0]["eigenvalues"][0]["value"])
    assert found == pytest.approx(found[:1] * 3, rel=1e-3)


def test_landscape_without_targets(run, arguments, tmp_path):
    outcome = run(
        *("landscape", *arguments("vae"), "--dims", 1, "--points", 3, "--out", tmp_path / "out"),
        "--json",
    )
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize(
    ("name", "loss", "more", "why"),
    [
        ("vae", "ordinary", (), "not a pair (inputs, targets): give a loss whose"),
        ("vae", "nothing_sensible", (), "does not take the model and a batch: 'pixels'"),
        ("vae", "", ("--operator", "ggn"), "or use --operator hessian"),
        ("vae", "", ("--operator", "fisher"), "or use --operator hessian"),
        ("recurrent", "ordinary", (), "not a pair (inputs, targets)"),
        ("pinn", "", ("--model", "mlp"), "model 'mlp' needs data of (input, target) pairs"),
        ("pinn", "", ("--model", "torchvision:alexnet"), "needs data of (input, target) pairs"),
    ],
)
def test_what_makes_no_sense_is_one_line(run, arguments, name, loss, more, why):
    outcome = run("sharpness", *arguments(name, loss), *more)
    assert outcome.status == 2
    assert why in outcome.error


def test_training_needs_targets_for_a_loss_of_pairs(run, arguments, tmp_path):
    _, *rest = arguments("vae")
    short = ("--epochs", 1, "--batch-size", 4)
    outcome = run("train", "--method", "sgd", *rest, *short, "--out", tmp_path / "run")
    assert outcome.status == 0, outcome.err
    rest[-2:] = ["--loss", "mse"]
    outcome = run("train", "--method", "sgd", *rest, *short, "--out", tmp_path / "pairs")
    assert outcome.status == 2
    assert "not a pair (inputs, targets)" in outcome.error
    assert not (tmp_path / "pairs").exists()


@pytest.mark.parametrize("name", ["vae", pytest.param("recurrent", marks=pytest.mark.slow)])
def test_all_metrics_but_those_that_a_problem_does_not_have(run, arguments, name):
    outcome = run("sharpness", *arguments(name), "--metric", "all", "--probes", 4, "--json")
    assert outcome.status == 0, outcome.err
    found = outcome.json["checkpoints"][0]["metrics"]
    missing = {metric for metric, entry in found.items() if entry["value"] is None}
    assert {"fisher_rao", "margin", "input_jacobian"} <= missing
    assert all(found[metric]["why"] for metric in missing)
    assert not missing & {"lambda_max", "trace", "expected", "adaptive_worst", "volume"}
    outcome = run("sharpness", *arguments(name), "--metric", "margin", "--json")
    assert outcome.status == 2
    assert "metric margin: " in outcome.error
