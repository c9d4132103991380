"""A Hugging Face language model with default fused attention against its dense Hessian."""

import nets
import pytest
import reference
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from ssgd_analysis.curvature import HessianOperator, Options, eigenpairs
from ssgd_analysis.problem import Problem


def loss_fn(model, batch):
    # not the model's own loss, which transformers computes in float32 whatever the dtype
    logits = model(input_ids=batch["input_ids"]).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())


class Whole(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return loss_fn(self.model, batch)


@pytest.fixture(scope="module")
def model():
    from transformers import GPT2Config, GPT2LMHeadModel

    with nets.seeded():
        sizes = {"vocab_size": 7, "n_positions": 6, "n_embd": 4, "n_layer": 1, "n_head": 2}
        made = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).double()
    with torch.no_grad():
        for seed, parameter in enumerate(made.parameters()):
            parameter.add_(nets.randn(*parameter.shape, seed=seed), alpha=0.3)
    return made


@pytest.fixture(scope="module")
def batch():
    tokens = torch.randint(7, (nets.N, 6), generator=nets.generator())
    return {"input_ids": tokens, "labels": tokens}


@pytest.fixture(scope="module")
def dense(model, batch):
    whole, shapes = Whole(nets.evaluated(model)), reference.trainable(model)

    def loss(flat):
        parts = flat.split([p.numel() for p in shapes.values()])
        named = zip(shapes.items(), parts, strict=True)
        with sdpa_kernel(SDPBackend.MATH):
            weights = {f"model.{n}": part.reshape(p.shape) for (n, p), part in named}
            return functional_call(whole, weights, (batch,))

    return torch.autograd.functional.hessian(loss, reference.flat_weights(model))


def batches(batch):
    parts = [batch["input_ids"].split(nets.BATCH), batch["labels"].split(nets.BATCH)]
    return [{"input_ids": x, "labels": y} for x, y in zip(*parts, strict=True)]


@pytest.mark.parametrize("way", ["graph", "linear", "difference"])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_products_equal_the_dense_matrix(model, batch, dense, way, micro_batch):
    before = nets.state(model)
    options = Options(strategy=way, micro_batch=micro_batch)
    operator = HessianOperator(Problem(model, loss_fn, batches(batch)), options=options)
    vectors = nets.randn(len(dense), 3)
    error = float((operator @ vectors - dense @ vectors).norm())
    assert error < (1e-5 if way == "difference" else 1e-10) * float((dense @ vectors).norm())
    assert nets.state(model) == before


def test_eigenpairs_are_the_dense_ones(model, batch, dense):
    operator = HessianOperator(Problem(model, loss_fn, batches(batch)))
    found = eigenpairs(operator, 4, tol=1e-9, generator=nets.generator())
    truth = torch.linalg.eigvalsh(dense)
    assert [pair.value for pair in found.largest] == pytest.approx(truth[-4:].flip(0).tolist())
    assert found.smallest.value == pytest.approx(float(truth[0]))
