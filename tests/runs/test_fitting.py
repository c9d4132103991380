"""A model's weights are found in whatever dictionaries a file holds, or refused in one line."""

import copy
import itertools

import nets
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ssgd_analysis.errors import InputError
from ssgd_analysis.runs.fitting import load_weights


def net(seed: int = 0) -> nn.Sequential:
    with nets.seeded(seed):
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        model[1].running_mean.normal_()
    return model


class Wrapped(nn.Module):
    """A model that holds another one under a name."""

    def __init__(self, model: nn.Module, name: str = "net", **more: nn.Module) -> None:
        super().__init__()
        for key, part in {name: model, **more}.items():
            self.add_module(key, part)


class Tied(nn.Module):
    """An embedding that is also the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 5, bias=False)
        self.out.weight = self.embed.weight


def prefixed(prefix: str, state: dict) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


def equal(model: nn.Module, other: nn.Module) -> bool:
    pairs = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(one, two) for one, two in pairs)


def loaded(content, **options) -> tuple[nn.Module, list[str]]:
    """A fresh model with what the content holds, and the notes."""
    model = net(9)
    return model, load_weights(model, content, "w.pt", **options)


def refusal(content, model: nn.Module | None = None, **options) -> str:
    """The error, in one line, of a model that is not changed."""
    model = model or net(9)
    before = copy.deepcopy(model)
    with pytest.raises(InputError) as caught:
        load_weights(model, content, "w.pt", **options)
    assert equal(model, before)
    assert "w.pt" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


SOURCE = net().state_dict()


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "_module.", "model.", "net.", "module._orig_mod.", "a.b.model."],
)
def test_a_prefix_of_all_names_is_stripped(prefix):
    model, notes = loaded(prefixed(prefix, SOURCE))
    assert equal(model, net())
    assert notes == []


def test_wrappers_inside_names_are_stripped_on_both_sides():
    inner = {name.replace("0.", "0._orig_mod.module."): tensor for name, tensor in SOURCE.items()}
    assert equal(loaded(inner)[0], net())
    model = nn.Sequential(nn.DataParallel(net(9)[0]), *net(9)[1:])
    load_weights(model, SOURCE, "w.pt")
    assert equal(model, net())


def test_modules_that_are_called_like_a_wrapper_keep_their_names():
    model, other = (Wrapped(nn.Linear(2, 2), "module", weight=nn.Linear(2, 2)) for _ in "ab")
    model.register_parameter("bias", nn.Parameter(torch.zeros(2)))  # and there is module.bias
    other.register_parameter("bias", nn.Parameter(torch.ones(2)))
    load_weights(model, {"state": prefixed("x.", other.state_dict())}, "w.pt")
    assert equal(model, other)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_prefix_that_only_the_model_has(depth):
    model = net(9)
    for _ in range(depth):
        model = Wrapped(model)
    load_weights(model, {"model": prefixed("module.", SOURCE)}, "w.pt")
    assert equal(model, net())


class Lightning:
    """What a trainer saves: counters, optimizers with tensors of their own, nested settings."""

    content = {
        "epoch": 3,
        "state_dict": prefixed("model.", SOURCE),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(4, 3)}}, "param_groups": [{}]}],
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(1.0)}},
        "hyper_parameters": {"lr": 0.1, "weight": torch.ones(2)},
    }


@pytest.mark.parametrize(
    "content",
    [
        {"net": SOURCE},
        {"model": SOURCE, "optimizer": {"state": {0: {"momentum_buffer": SOURCE["0.weight"]}}}},
        {"epoch": 3, "nested": {"deep": {"model_state_dict": prefixed("module.", SOURCE)}}},
        {"models": [prefixed("module.", SOURCE)]},
        Lightning.content,
    ],
)
def test_any_dictionary_that_fits_is_found(content):
    model, notes = loaded(content)
    assert equal(model, net())
    assert notes == []


def test_parts_of_a_model_in_dictionaries_of_their_own():
    parts = {"0": net()[0].state_dict(), "1": net()[1].state_dict(), "2": net()[2].state_dict()}
    assert equal(loaded({**parts, "epoch": 3})[0], net())


def test_averaged_models_carry_a_counter():
    model, notes = loaded(AveragedModel(net()).state_dict())
    assert equal(model, net())
    assert notes == ["w.pt: tensors that are no weights are ignored: 'n_averaged'"]


def test_batch_counters_may_be_missing():
    old = {n: t for n, t in SOURCE.items() if not n.endswith("num_batches_tracked")}
    assert equal(loaded(old)[0], net())


@pytest.mark.parametrize("kept", ["embed.weight", "out.weight"])
def test_tied_weights_saved_once(kept):
    model = Tied()
    load_weights(model, {f"net.{kept}": torch.ones(5, 3)}, "w.pt")
    assert model.embed.weight is model.out.weight
    assert torch.equal(model.out.weight, torch.ones(5, 3))


def test_weights_that_only_the_file_unties_are_refused():
    two = {"embed.weight": torch.ones(5, 3), "out.weight": torch.zeros(5, 3)}
    assert "'embed.weight' and 'out.weight' differ, but are one" in refusal(two, Tied())


def test_weights_that_only_the_file_ties_are_refused():
    model = Tied()
    model.out.weight = nn.Parameter(model.embed.weight.detach().clone())
    found = refusal({"embed.weight": torch.ones(5, 3)}, model)
    assert "'out.weight' is missing" in found


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("0.position_ids", torch.arange(4)),
        ("0.mask", torch.ones(2, dtype=torch.bool)),
        ("0.total_ops", torch.zeros(1)),
        ("1.table", torch.ones(3)),
        ("0.obsolete", torch.ones(3)),
    ],
)
def test_tensors_that_are_no_weights_are_ignored_with_a_note(name, tensor):
    model = net(9)
    model[1].register_buffer("table", torch.ones(3), persistent=False)
    model._keys_to_ignore_on_load_unexpected = [r"obsolete$"]
    notes = load_weights(model, {**SOURCE, name: tensor}, "w.pt")
    assert equal(model, net())
    assert name in notes[0]


def test_a_constant_that_differs_is_not_ignored():
    model = net(9)
    model[1].register_buffer("table", torch.ones(3), persistent=False)
    assert "no tensor '1.table'" in refusal({**SOURCE, "1.table": torch.zeros(3)}, model)


EMA = net(1).state_dict()


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"state_dict": SOURCE, "state_dict_ema": EMA}, "state_dict_ema"),
        ({"ema": prefixed("module.", EMA), "model": SOURCE}, "ema.module"),
        ({**SOURCE, **prefixed("ema_model.", EMA)}, "ema_model"),
        ({"callbacks": {"EMA": {"shadow": EMA}}, "state_dict": SOURCE}, "callbacks.EMA.shadow"),
        (
            {"state_dict": prefixed("net.", SOURCE) | AveragedModel(net(1)).state_dict()},
            "state_dict.module",
        ),
    ],
)
def test_plain_weights_before_an_average_which_is_named_and_can_be_chosen(content, key):
    if key == "state_dict.module":  # no word says that it is an average
        assert "--weights state_dict.module" in refusal(content)
    else:
        model, notes = loaded(content)
        assert equal(model, net())
        assert f"not those under '{key}' (--weights {key})" in notes[0]
    model, _ = loaded(content, weights=key)
    assert equal(model, net(1))


def test_an_average_alone_is_taken_and_said():
    model, notes = loaded({"ema": EMA, "epoch": 3})
    assert equal(model, net(1))
    assert notes == ["w.pt: the weights are those under 'ema'"]


def test_an_average_is_not_mentioned_where_it_is_equal():
    assert loaded({"model": SOURCE, "ema": SOURCE})[1] == []


def test_two_sets_that_fit_are_refused_unless_equal_or_chosen():
    content = {"generator": SOURCE, "discriminator": EMA}
    found = refusal(content)
    assert "under 'generator', 'discriminator': choose with --weights discriminator" in found
    assert equal(loaded(content, weights="discriminator")[0], net(1))
    assert equal(loaded({"a": SOURCE, "b": dict(SOURCE)})[0], net())


def test_other_weights_in_the_same_dictionary_are_refused_with_the_key_to_take():
    content = {"state_dict": prefixed("model.", SOURCE) | {"loss.weight": torch.ones(2)}}
    found = refusal(content)
    assert "no tensor 'state_dict.loss.weight'" in found
    assert "--weights state_dict.model takes the part that fits" in found
    assert equal(loaded(content, weights="state_dict.model")[0], net())


def test_an_unknown_key_is_refused_with_those_there_are():
    assert "no weights under 'emma': its keys are 'model', 'ema'" in refusal(
        {"model": SOURCE, "ema": EMA}, weights="emma"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("2.weight"), "tensor 'net.2.weight' is missing"),
        (lambda t: t.pop("1.running_var"), "tensor 'net.1.running_var' is missing"),
        (lambda t: t.update({"3.weight": torch.ones(1)}), "no tensor 'net.3.weight'"),
        (
            lambda t: t.update({"2.weight": torch.ones(2, 5)}),
            "'net.2.weight' has shape (2, 5), the model's has (2, 4)",
        ),
        (lambda t: t.update({"2.bias": torch.ones(2, 1)}), "'net.2.bias' has shape (2, 1)"),
        (
            lambda t: t.update({"2.bias": torch.ones(2, dtype=torch.int8)}),
            "'net.2.bias' holds torch.int8, the model's torch.float32",
        ),
        (
            lambda t: t.update({"2.bias": torch.ones(2, dtype=torch.cfloat)}),
            "'net.2.bias' holds torch.complex64",
        ),
    ],
)
def test_the_tensor_that_does_not_fit_is_named_with_the_files_keys(change, words):
    tensors = dict(SOURCE)
    change(tensors)
    found = refusal({"net": tensors, "epoch": 3})
    assert words in found
    assert "its keys are 'net', 'epoch'" in found
    assert "--model" in found


def test_many_faults_are_counted():
    found = refusal({f"layers.{i}.w": torch.ones(1) for i in range(9)})
    assert "no tensor 'layers.0.w'; the model has no tensor 'layers.1.w'" in found
    assert "'0.weight' is missing; tensor '0.bias' is missing and 13 more" in found  # of 9 and 8
    assert "'layers.4.w' and 4 more" in found  # of the keys


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "does not hold tensors by name (it holds a list)"),
        ({}, "does not hold tensors by name (it is empty)"),
        ({"epoch": 3, "lr\nrate": 0.1}, "its keys are 'epoch', 'lr?rate'"),
        (torch.ones(3), "no tensor ''"),
        ({"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}, "two tensors named 'a.b'"),
        ({"x" * 500: torch.ones(1)}, "x…'"),
    ],
)
def test_what_holds_no_weights(content, words):
    assert words in refusal(content)


def test_dictionaries_that_contain_themselves():
    content: dict = {"model": SOURCE}
    content["self"] = content
    assert equal(loaded(content)[0], net())


def test_dictionaries_that_multiply_are_given_up(monkeypatch):
    monkeypatch.setattr("ssgd_analysis.runs.named_tensors._NODES", 1000)
    content: dict = {}
    for _, key in zip(range(20), itertools.cycle("ab"), strict=False):
        content = {f"{key}1": content, f"{key}2": content}
    assert "too many nested entries" in refusal(content)
