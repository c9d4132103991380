"""Permutations planted by hand, architecture by architecture, are found again."""

import copy
import itertools

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssgd_analysis.connections import line, put, weight_matching
from ssgd_analysis.models import load_model
from ssgd_analysis.problem import Problem
from ssgd_analysis.symmetries import permutable
from ssgd_analysis.symmetries.axes import Space


def alive(model: nn.Module) -> nn.Module:
    """Evaluation mode, every tensor of its own value: statistics and scales that tell."""
    with torch.no_grad():
        for seed, tensor in enumerate([*model.parameters(), *model.buffers()]):
            if tensor.is_floating_point() and tensor.ndim == 1:
                values = nets.randn(*tensor.shape, seed=seed)
                tensor.copy_(0.5 + values.abs() if bool((tensor >= 0).all()) else values)
    return model.eval()


def problem(model: nn.Module, *shape: int, classes: int = 10) -> Problem:
    inputs = nets.randn(6, *shape).to(next(model.parameters()).dtype)
    targets = nets.labels(6, classes)
    return Problem(
        model, nets.cross_entropy, [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]
    )


class Plant:
    """Permutes named tensors of a copy of a model, each with a permutation of its own seed."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model)
        self.tensors = dict(self.model.state_dict())
        self.units = 0

    def order(self, size: int) -> torch.Tensor:
        self.units += 1
        return torch.randperm(size, generator=nets.generator(self.units))

    def permute(self, name: str, axis: int, order: torch.Tensor) -> None:
        tensor = self.tensors[name]
        tensor.copy_(tensor.index_select(axis, order))

    def outputs(self, layer: str, order: torch.Tensor) -> None:
        """A layer's own units: every tensor of it along its first axis."""
        for name, tensor in self.tensors.items():
            if name.rpartition(".")[0] == layer and tensor.ndim:
                self.permute(name, 0, order)

    def chain(self, *layers: str, repeats: int = 1) -> None:
        """What the first computes goes through the others into the last."""
        order = self.order(len(self.tensors[f"{layers[0]}.weight"]))
        for layer in layers[:-1]:
            self.outputs(layer, order)
        flat = (order[:, None] * repeats + torch.arange(repeats)).flatten()
        self.permute(f"{layers[-1]}.weight", 1, flat)


def mlp():
    model = load_model("mlp", (1, 4, 4), 10)
    plant = Plant(alive(model))
    plant.chain("1", "3")
    plant.chain("3", "5")
    return model, plant, (1, 4, 4)


def cnn():
    model = load_model("cnn", (1, 8, 8), 10)
    plant = Plant(alive(model))
    plant.chain("0", "1", "3")
    plant.chain("3", "4", "7")
    plant.chain("7", "8", "12")
    return model, plant, (1, 8, 8)


def vgg_like():
    """Pooling between, and a flattened image of four pixels before the linear layers."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.GroupNorm(1, 12), nn.GELU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 16), nn.PReLU(16), nn.Linear(16, 10),
    )  # fmt: skip
    plant = Plant(alive(model))
    plant.chain("0", "1", "4")
    plant.chain("4", "5", "10", repeats=4)
    plant.chain("10", "11", "12")
    return model, plant, (3, 8, 8)


def resnet20():
    """Shortcuts pad with zero channels: the old channels keep their places between the new."""
    model = load_model("resnet20", (3, 8, 8), 10)
    plant = Plant(alive(model))
    stream = plant.order(16)
    for layer in ("0", "1"):
        plant.outputs(layer, stream)
    for stage in range(3):
        for index in range(3):
            block = f"3.{3 * stage + index}"
            plant.permute(f"{block}.conv1.weight", 1, stream)
            if stage and not index:
                pad = len(stream) // 2
                low, high = plant.order(pad), plant.order(pad)
                stream = torch.cat([low, stream + pad, high + 3 * pad])
            plant.chain(f"{block}.conv1", f"{block}.bn1", f"{block}.conv2")
            plant.outputs(f"{block}.conv2", stream)
            plant.outputs(f"{block}.bn2", stream)
    plant.permute("6.weight", 1, stream)
    return model, plant, (3, 8, 8)


def projections(model, stages, stem, last):
    """Shortcuts with a convolution of their own start a new stream."""
    plant = Plant(alive(model))
    stream = plant.order(len(plant.tensors[f"{stem[0]}.weight"]))
    for layer in stem:
        plant.outputs(layer, stream)
    for block in stages:
        plant.permute(f"{block}.conv1.weight", 1, stream)
        if f"{block}.downsample.0.weight" in plant.tensors:
            plant.permute(f"{block}.downsample.0.weight", 1, stream)
            stream = plant.order(len(plant.tensors[f"{block}.downsample.0.weight"]))
            for layer in ("downsample.0", "downsample.1"):
                plant.outputs(f"{block}.{layer}", stream)
        plant.chain(f"{block}.conv1", f"{block}.bn1", f"{block}.conv2")
        for layer in ("conv2", "bn2"):
            plant.outputs(f"{block}.{layer}", stream)
    plant.permute(f"{last}.weight", 1, stream)
    return plant


def torchvision_resnet18():
    from torchvision.models import resnet18

    model = resnet18(num_classes=10)
    blocks = [f"layer{stage}.{index}" for stage in range(1, 5) for index in range(2)]
    return model, projections(model, blocks, ("conv1", "bn1"), "fc"), (3, 32, 32)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs)
        if inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        out += self.downsample(x) if hasattr(self, "downsample") else x
        return torch.relu_(out)


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        widths = [8] * 10 + [12] * 9 + [16] * 9
        self.blocks = nn.ModuleList(map(Block, widths[:-1], widths[1:]))
        self.read = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.read(x.mean((2, 3)))


def resnet56_like():
    """27 blocks, as ResNet-56 has, with projections where the width changes."""
    model = Deep()
    blocks = [f"blocks.{index}" for index in range(27)]
    return model, projections(model, blocks, ("stem",), "read"), (3, 4, 4)


PLANTED = [mlp, cnn, vgg_like, resnet20, resnet56_like]
PLANTED.append(pytest.param(torchvision_resnet18, marks=pytest.mark.slow))


@pytest.mark.parametrize("make", PLANTED)
def test_a_planted_permutation_is_found(make):
    with nets.seeded():
        model, plant, shape = make()
    whole = problem(model, *shape)
    assert any(not torch.equal(a, b) for a, b in zip(
        model.parameters(), plant.model.parameters(), strict=True))  # fmt: skip
    before = whole.outputs(whole.batches[0][0]).detach()
    other = plant.model(whole.batches[0][0]).detach()
    # the plant itself is a symmetry; rounding of float32 through up to 56 layers
    assert float((before - other).abs().max()) < 1e-3 * float(before.abs().max())
    state = nets.state(model), nets.state(plant.model)
    found = weight_matching(whole, plant.model)
    assert state == (nets.state(model), nets.state(plant.model))
    assert found.left == []
    assert len(found.groups) == plant.units
    assert found.share > 0.8
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.end[name], tensor), name


def test_the_assignment_is_the_best_of_all():
    """One hidden layer: all 120 permutations of its five units."""
    with nets.seeded():
        one, two = (nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)) for _ in range(2))
    found = weight_matching(problem(one, 3, classes=2), two)

    def distance(order):
        pairs = (
            (one[0].weight, two[0].weight[order]),
            (one[0].bias, two[0].bias[order]),
            (one[2].weight, two[2].weight[:, order]),
        )
        return sum(float((a - b).detach().square().sum()) for a, b in pairs)

    best = min(distance(list(order)) for order in itertools.permutations(range(5)))
    assert distance(found.permutations[0].tolist()) == pytest.approx(best)
    assert torch.equal(found.end["0.weight"], two[0].weight.detach()[found.permutations[0]])


class Joins(nn.Module):
    """Concatenated channels, grouped and depthwise convolutions, a channel shuffle, a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 6, 1)
        self.norm = nn.BatchNorm2d(10)
        self.depth = nn.Conv2d(10, 20, 3, padding=1, groups=10)
        self.mix = nn.Conv2d(20, 12, 1)
        self.group = nn.Conv2d(12, 12, 1, groups=4)
        self.gate = nn.Linear(12, 12)
        self.up = nn.ConvTranspose2d(12, 8, 2)
        self.read = nn.Linear(8, 3)

    def forward(self, x):
        x = self.norm(torch.cat([self.left(x), F.relu(self.right(x))], dim=1))
        x = F.relu(self.group(self.mix(F.silu(self.depth(x)))))
        x = x.unflatten(1, (4, 3)).transpose(1, 2).flatten(1, 2)
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        return self.read(F.adaptive_max_pool2d(self.up(x), 1).flatten(1))


def test_a_mixed_network_keeps_its_function():
    with nets.seeded():
        one, two = alive(Joins()), Joins().eval()  # scales and biases of their own
    whole = problem(one, 2, 4, 4, classes=3)
    found = weight_matching(whole, two)
    assert found.left == []
    assert found.check < 1e-12
    sizes = sorted(group.size for group in found.groups)
    assert {4, 6, 8} <= set(sizes)  # both branches, and what is read
    assert found.share > 0.3  # units did move, so that the check says something


@pytest.mark.parametrize("name", nets.CASES)
def test_any_network_keeps_its_function(name):
    case = nets.with_state(nets.CASES[name]())
    other = copy.deepcopy(case.model)
    with torch.no_grad():
        for seed, parameter in enumerate(other.parameters()):
            parameter.copy_(nets.randn(*parameter.shape, seed=seed + 50))
    before, chance = nets.state(case.model), torch.get_rng_state()
    found = weight_matching(Problem(*case.problem), other)
    assert nets.state(case.model) == before
    assert torch.equal(torch.get_rng_state(), chance)
    matched = nets.evaluated(other)
    put(matched, found.end)
    outputs = [m(case.inputs).detach() for m in (nets.evaluated(other), matched)]
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)
    if name == "recurrent":
        assert found.groups == []
        assert any("lstm" in reason for reason in found.left)
    elif name not in ("attention", "tied"):  # Tied's one layer reads its own outputs
        assert found.left == []
        assert found.groups
        # two units each in "volumes": they may stand right by chance
        assert (0 if name == "volumes" else 1e-9) <= found.share <= 1


def test_a_loss_of_model_and_batch_is_watched_as_a_whole():
    case = nets.mlp()

    def loss(model, batch):
        return F.cross_entropy(model(batch["x"]), batch["y"])

    batches = [{"x": x, "y": y} for x, y in case.batches()]
    plain = permutable(Problem(*case.problem))[0]
    found = permutable(Problem(case.model, loss, batches))[0]
    assert [g.size for g in found] == [g.size for g in plain] == [6, 5]


class Sorts(nn.Module):
    """A layer that looks at the places of its units."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mid, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.mid(torch.cumsum(self.first(x), dim=1))))


def test_what_is_not_understood_is_left_and_said():
    with nets.seeded():
        one, two = Sorts(), Sorts()
    found = weight_matching(problem(one, 4, classes=3), two)
    assert found.left == ["not permuted: first.weight, first.bias, mid.weight (cumsum)"]
    assert [group.size for group in found.groups] == [6]
    assert torch.equal(found.end["first.weight"], two.first.weight)
    assert not torch.equal(found.end["last.weight"], two.last.weight)


def test_a_wrong_rule_is_caught_by_the_outputs(monkeypatch):
    from ssgd_analysis.symmetries import rules

    monkeypatch.setitem(rules.RULES, "cumsum", lambda of, given, found: [of(given["self"])])
    with nets.seeded():
        one, two = Sorts(), Sorts()
    found = weight_matching(problem(one, 4, classes=3), two)
    assert found.left == ["not permuted: first.weight, first.bias, mid.weight (the outputs change)"]
    assert [group.size for group in found.groups] == [6]


def test_a_model_that_fails_in_float64_is_left_alone():
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x.float())

    with nets.seeded():
        one, two = Single(), Single()
    found = weight_matching(problem(one, 4, classes=3), two)
    assert found.groups == []
    assert "float64" in found.left[0]
    assert all(torch.equal(t, line(one, two).end[n]) for n, t in found.end.items())


def test_a_language_model_of_hugging_face():
    """Tied embeddings, a cache, heads, a loss that turns to float32 inside."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=8, vocab_size=30, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    with nets.seeded():
        one, two = (GPT2LMHeadModel(config).eval() for _ in range(2))
    tokens = torch.randint(30, (4, 8), generator=nets.generator())

    def loss(model, batch):
        return model(input_ids=batch["x"], labels=batch["x"]).loss

    found = weight_matching(Problem(one, loss, [{"x": tokens}]), two)
    assert found.left == []
    # the stream; in each block the heads, what queries and keys share, values, hidden units
    assert sorted(group.size for group in found.groups) == [2, 2, 4, 4, 4, 4, 8, 32, 32]
    matched = copy.deepcopy(two)
    put(matched, found.end)
    outputs = [model(tokens).logits.detach() for model in (two, matched)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)  # float32
    assert not torch.equal(two.transformer.wte.weight, found.end["transformer.wte.weight"])


def test_positions_in_a_flattened_and_a_concatenated_axis():
    a, b, pixels = Space(2), Space(3), Space(2)
    both = Space(5, total=[a, b])
    flat = Space(10, product=[both, pixels])
    assert flat.positions(a).tolist() == [[0, 1], [2, 3]]
    assert flat.positions(b).tolist() == [[4, 5], [6, 7], [8, 9]]
    assert flat.positions(pixels).tolist() == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    assert flat.positions(Space(2)) is None
